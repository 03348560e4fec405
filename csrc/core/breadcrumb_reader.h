// Reads breadcrumbs, from a file that is damaged, hostile or being written.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/breadcrumb_format.h"
#include "core/breadcrumbs.h"

namespace graphguard {

struct CrumbGraph {
    std::string name{};
    std::uint64_t digest = 0;
    std::uint64_t launched = 0;
    std::uint64_t finished = 0;  // replays that have passed every mark
    std::uint32_t reached = 0;   // marks that the replay in flight has passed
    std::uint32_t marks = 0;
    std::string next{};  // what the first mark is of that it has not passed; empty if none is
    CrumbKind kind = CrumbKind::kKernel;
    std::uint32_t missing = 0;
    std::uint64_t captured_ns = 0;
};

struct CrumbContents {
    std::string error;  // why nothing could be read; empty if something could
    CrumbIdentity identity;
    std::vector<CrumbGraph> graphs;  // those that may still be launched, in the order of capture
    std::uint64_t refused = 0;       // graphs that there was no room for
    std::uint64_t damaged = 0;       // graphs of which no whole record is there
};

// A part of the file: where, and how many bytes.
struct CrumbRegion {
    std::size_t offset = 0;
    std::size_t bytes = 0;
};

// Graphs, texts, texts of marks, numbers of marks.
inline constexpr std::size_t kCrumbRegions = 4;

struct CrumbRegions {
    std::string error;
    std::array<CrumbRegion, kCrumbRegions> regions{};
};

// Which parts of a file of `bytes` bytes are in use, by its first crumbs::kHeaderBytes bytes. What
// they say is bounded: no part is longer than the format has room for.
[[nodiscard]] CrumbRegions crumb_regions(std::span<const std::byte> header, std::uint64_t bytes);

// Which graphs are told of: all, or those with a replay in flight.
enum class CrumbsTold : std::uint8_t { kAll, kInFlight };

// Reads a copy of the header and of those parts, taken in this order. Never reads outside of them.
// Never throws but std::bad_alloc.
[[nodiscard]] CrumbContents read_crumbs(
    std::span<const std::byte> header,
    const std::array<std::span<const std::byte>, kCrumbRegions>& parts,
    CrumbsTold told = CrumbsTold::kAll);

}  // namespace graphguard
