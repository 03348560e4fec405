// The CUDA driver's view of captures and graphs as Python sees it. Handles are plain numbers, as
// torch and cupy give them.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>

#include <cstdint>
#include <optional>
#include <string>

#include "cuda/driver.h"
#include "cuda/graph_walk.h"
#include "python/bound_ring.h"

namespace graphguard {

namespace nb = nanobind;

inline nb::object extent_of(const std::optional<cuda::Extent>& extent) {
    if (!extent) return nb::none();
    return nb::make_tuple((*extent)[0], (*extent)[1], (*extent)[2]);
}

inline nb::tuple node_tuple(const cuda::GraphNode& node) {
    nb::list bytes;
    for (const std::uint64_t size : node.parameter_bytes) bytes.append(size);
    return nb::make_tuple(text_of(node.kind), text_of(node.name), extent_of(node.grid),
                          extent_of(node.block), node.shared_bytes, nb::tuple(bytes), node.count);
}

inline nb::tuple walk_of(const cuda::Driver& driver, std::uintptr_t graph) {
    cuda::GraphContents contents;
    {
        // The driver may wait for a thread that runs Python in a callback.
        const nb::gil_scoped_release released;
        contents = walk_graph(driver, reinterpret_cast<cuda::Handle>(graph));
    }
    nb::list nodes;
    for (const cuda::GraphNode& node : contents.nodes) nodes.append(node_tuple(node));
    return nb::make_tuple(nodes, contents.unreadable, text_of(contents.error));
}

inline nb::object capture_tuple(const cuda::Driver& driver, std::uintptr_t stream) {
    const auto info = driver.capture_of(reinterpret_cast<cuda::Handle>(stream));
    if (!info) return nb::none();
    return nb::make_tuple(info->id, reinterpret_cast<std::uintptr_t>(info->graph),
                          static_cast<int>(info->status));
}

inline std::uint64_t capture_id(std::uintptr_t stream) {
    const auto info = cuda::capture_of(reinterpret_cast<cuda::Handle>(stream));
    return info ? info->id : 0;
}

// A driver that is named, so that a program that has none can be tested with a stand-in.
class BoundCudaDriver {
  public:
    explicit BoundCudaDriver(const std::string& library) : driver_(library.c_str()) {}

    [[nodiscard]] nb::object absence() const { return text_of(driver_.absence()); }
    [[nodiscard]] nb::tuple walk_graph(std::uintptr_t graph) const {
        return walk_of(driver_, graph);
    }
    [[nodiscard]] nb::object capture_of(std::uintptr_t stream) const {
        return capture_tuple(driver_, stream);
    }

  private:
    cuda::Driver driver_;
};

inline void bind_graph_nodes(nb::module_& m) {
    m.def("capture_id", &capture_id, nb::arg());
    m.def(
        "capture_of",
        [](std::uintptr_t stream) { return capture_tuple(cuda::Driver::instance(), stream); },
        nb::arg());
    m.def(
        "walk_graph", [](std::uintptr_t graph) { return walk_of(cuda::Driver::instance(), graph); },
        nb::arg());
    m.def("cuda_driver_absence", [] { return text_of(cuda::Driver::instance().absence()); });
    nb::class_<BoundCudaDriver>(m, "CudaDriver")
        .def(nb::init<const std::string&>(), nb::arg())
        .def_prop_ro("absence", &BoundCudaDriver::absence)
        .def("capture_of", &BoundCudaDriver::capture_of, nb::arg())
        .def("walk_graph", &BoundCudaDriver::walk_graph, nb::arg());
}

}  // namespace graphguard
