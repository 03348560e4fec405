// What a CUDA graph holds: its nodes, those that are alike counted, children and bodies included.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "cuda/driver.h"

namespace graphguard::cuda {

// More nodes than any graph that is known has; what is beyond is not looked at.
inline constexpr std::size_t kMaxGraphNodes = std::size_t{1} << 20U;

// Graphs within graphs that are followed. CUDA itself sets no bound.
inline constexpr int kMaxGraphDepth = 16;

// What numbers are cut to, so that every reader of a manifest can hold them.
inline constexpr std::uint64_t kLargestNumber = (std::uint64_t{1} << 63U) - 1;

using Extent = std::array<std::uint32_t, 3>;

// In the place of a name that the driver did not give.
inline constexpr const char* kUnreadable = "unreadable";

// A node, or several that are alike. The words are those of graphguard/nodes.py.
struct GraphNode {
    std::string kind{};
    std::string name{};
    std::optional<Extent> grid{};
    std::optional<Extent> block{};
    std::uint64_t shared_bytes = 0;
    std::vector<std::uint64_t> parameter_bytes{};
    std::uint64_t count = 1;
};

struct GraphContents {
    // In no order that means anything. Alike nodes can be here more than once.
    std::vector<GraphNode> nodes;
    // Nodes of which the driver did not say all that is asked of their type.
    std::uint64_t unreadable = 0;
    // Why not every node is here; empty if every one is.
    std::string error;
};

// Looks at every node of a graph. The graph may still be captured into, by the calling thread: the
// driver permits everything but destroying and removing then (cuStreamGetCaptureInfo). Never
// throws but for memory; what the driver does not say is left out and counted.
[[nodiscard]] GraphContents walk_graph(const Driver& driver, Handle graph);

}  // namespace graphguard::cuda
