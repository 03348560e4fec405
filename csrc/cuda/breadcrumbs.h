// Adding breadcrumbs to a graph of the CUDA driver: one leaf for each node that is to be followed,
// which counts up a word in memory of the host when that node is over.
//
// Everything here is called by the thread that captures, before or at the end of its capture, and
// by no other. Nothing is ever taken back: nodes of a graph that is being captured cannot be
// removed, and the memory is mapped for as long as the process lives.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <unordered_map>

#include "core/breadcrumb_format.h"
#include "cuda/driver.h"

namespace graphguard::cuda {

class GraphMarker {
  public:
    // `memory` is borrowed: what the device may write to, in whole pages.
    GraphMarker(const Driver& driver, std::span<std::byte> memory)
        : driver_(driver), functions_(driver.functions()), memory_(memory) {}

    // Maps the memory and loads the kernel for the context of the calling thread, once. Says why
    // that cannot be done; nothing if it is. Best called before a capture begins.
    std::string prepare();

    // Adds a leaf behind each of these nodes, of which the first counts up the first of `numbers`.
    // Says why it stopped; nothing if every node has its leaf. Where a kind writes constants, one
    // node more sets them back.
    std::string mark(Handle graph, std::span<const Handle> nodes, crumbs::Word* numbers,
                     CrumbKind kind);

  private:
    struct Place {
        Handle function = nullptr;
        DevicePointer memory = 0;
    };

    std::string prepare_context(Handle& context);
    std::string load(Place& place) const;
    Result add_leaf(Handle graph, std::span<const Handle> after, crumbs::Word* number,
                    CrumbKind kind, Handle context, const Place& place) const;
    Result add_kernel(Handle graph, std::span<const Handle> after, DevicePointer number,
                      Handle function) const;
    Result add_memset(Handle& node, Handle graph, std::span<const Handle> after,
                      DevicePointer first, unsigned int value, std::size_t words,
                      Handle context) const;
    Result add_write(Handle graph, std::span<const Handle> after, DevicePointer number,
                     Handle context) const;
    Result add_host(Handle graph, std::span<const Handle> after, crumbs::Word* number) const;
    [[nodiscard]] DevicePointer pointer(const Place& place, const crumbs::Word* number) const;

    const Driver& driver_;
    const Functions& functions_;
    std::span<std::byte> memory_;
    bool registered_ = false;
    std::unordered_map<Handle, Place> places_;  // by context
};

}  // namespace graphguard::cuda
