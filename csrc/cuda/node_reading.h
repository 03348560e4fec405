// What the driver says of one node.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "cuda/driver.h"
#include "cuda/graph_walk.h"

namespace graphguard::cuda {

// A kernel's name and the sizes of its parameters.
struct KernelDescription {
    std::string name;
    std::vector<std::uint64_t> parameter_bytes;
};

// Remembers what the driver said of kernels, which a graph launches again and again. To be used
// for one walk only: handles of kernels are used again once a module is unloaded.
class NodeReader {
  public:
    explicit NodeReader(const Driver& driver) : functions_(driver.functions()) {}

    // The parameters of a kernel node; false if the driver does not say.
    bool kernel_params(Handle node, KernelNodeParams& params) const;
    // What a kernel is; its name is `unreadable` if the driver does not say.
    const KernelDescription& kernel(const KernelNodeParams& params);

    // Fills in a node that is neither a kernel nor holds graphs; false if the driver does not say.
    bool describe(Handle node, NodeType type, GraphNode& described) const;

    // The graphs that a node holds: one of a child node, the bodies of a conditional one; false if
    // the driver does not say. `what` becomes the word for the node: empty, `if`, `while`.
    bool held_graphs(Handle node, NodeType type, std::vector<Handle>& graphs,
                     std::string& what) const;

  private:
    KernelDescription describe_kernel(Handle function, Handle kernel) const;
    bool describe_memcpy(Handle node, GraphNode& described) const;
    bool describe_memset(Handle node, GraphNode& described) const;
    bool describe_host(Handle node, GraphNode& described) const;
    bool describe_batch(Handle node, GraphNode& described) const;

    const Functions& functions_;
    std::unordered_map<Handle, KernelDescription> kernels_;
};

// The word for a type of node.
[[nodiscard]] std::string kind_of(NodeType type);

}  // namespace graphguard::cuda
