// The kernels of a graph in an order in which it may run them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cuda/driver.h"

namespace graphguard::cuda {

struct OrderedKernel {
    Handle node = nullptr;
    std::uint32_t name = 0;  // which of the names
};

struct KernelOrder {
    std::vector<std::string> names;  // each once
    std::vector<OrderedKernel> kernels;
    std::string error;  // why they are not here; empty if they are
};

// Asks for the kernels of a graph, not those of the graphs that it holds. Each comes after those
// that it depends on; where that leaves a choice, in the order in which the driver lists nodes. The
// graph may still be captured into, by the calling thread. Never throws but for memory.
[[nodiscard]] KernelOrder kernels_in_order(const Driver& driver, Handle graph);

}  // namespace graphguard::cuda
