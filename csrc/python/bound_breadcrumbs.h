// Breadcrumbs as Python sees them.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/breadcrumb_reader.h"
#include "core/breadcrumbs.h"
#include "core/mapping.h"
#include "cuda/breadcrumbs.h"
#include "cuda/kernel_order.h"
#include "python/bound_ring.h"

namespace graphguard {

namespace nb = nanobind;

struct MappedCrumbs {
    MappedCrumbs(int descriptor, const CrumbIdentity& identity)
        : mapping(descriptor, CrumbWriter::bytes()), writer(mapping.memory(), identity) {}
    Mapping mapping;
    CrumbWriter writer;
};

// Texts of a sequence, for as long as the sequence lives.
inline std::vector<std::string_view> views_of(const nb::sequence& texts) {
    std::vector<std::string_view> views;
    for (const nb::handle text : texts) views.push_back(nb::cast<std::string_view>(text));
    return views;
}

// The marks of one graph.
class BoundMarks {
  public:
    BoundMarks(std::shared_ptr<MappedCrumbs> crumbs, std::uint32_t graph)
        : crumbs_(std::move(crumbs)), graph_(graph) {}

    void launch() noexcept { crumbs_->writer.launch(graph_); }
    void withdraw() noexcept { crumbs_->writer.withdraw(graph_); }
    void pass(std::uint32_t mark) noexcept { crumbs_->writer.pass(graph_, mark); }
    void settle() noexcept { crumbs_->writer.settle(graph_); }
    void retire() { crumbs_->writer.retire(graph_); }
    void abandon() { crumbs_->writer.abandon(graph_); }
    void describe(std::string_view name, std::uint64_t digest, const nb::sequence& texts) {
        crumbs_->writer.describe(graph_, name, digest, views_of(texts));
    }
    [[nodiscard]] std::uint32_t size() const { return crumbs_->writer.marks(graph_); }
    [[nodiscard]] crumbs::Word* numbers() const { return crumbs_->writer.numbers(graph_); }

  private:
    std::shared_ptr<MappedCrumbs> crumbs_;
    std::uint32_t graph_;
};

class BoundCrumbs {
  public:
    BoundCrumbs(int descriptor, std::uint32_t rank, std::uint32_t world_size, std::uint64_t pid,
                std::string host)
        : crumbs_(std::make_shared<MappedCrumbs>(
              descriptor, CrumbIdentity{rank, world_size, pid, std::move(host)})) {}

    [[nodiscard]] nb::object add(const nb::sequence& texts, std::uint8_t kind,
                                 std::uint32_t missing) {
        if (kind > static_cast<std::uint8_t>(CrumbKind::kEmulated)) {
            throw std::invalid_argument("no such kind of mark");
        }
        const auto graph =
            crumbs_->writer.add(views_of(texts), static_cast<CrumbKind>(kind), missing);
        return graph ? nb::cast(BoundMarks(crumbs_, *graph)) : nb::none();
    }

    void disown() { crumbs_->writer.disown(); }

    [[nodiscard]] std::shared_ptr<MappedCrumbs> crumbs() const { return crumbs_; }

  private:
    std::shared_ptr<MappedCrumbs> crumbs_;
};

// What adds marks to graphs of the driver, of which a test may name another one.
class BoundMarker {
  public:
    BoundMarker(const BoundCrumbs& crumbs, const std::string& library)
        : crumbs_(crumbs.crumbs()),
          named_(library.empty() ? nullptr : std::make_unique<cuda::Driver>(library.c_str())),
          driver_(named_ ? *named_ : cuda::Driver::instance()),
          marker_(driver_, crumbs_->writer.device_memory()) {}

    [[nodiscard]] nb::object prepare() {
        std::string problem;
        {
            // The driver may wait for a thread that runs Python in a callback.
            const nb::gil_scoped_release released;
            problem = marker_.prepare();
        }
        return text_of(problem);
    }

    [[nodiscard]] nb::tuple kernels(std::uintptr_t graph) const {
        cuda::KernelOrder order;
        {
            const nb::gil_scoped_release released;
            order = kernels_in_order(driver_, reinterpret_cast<cuda::Handle>(graph));
        }
        nb::list names;
        for (const std::string& name : order.names) names.append(text_of(name));
        nb::list kernels;
        for (const cuda::OrderedKernel& kernel : order.kernels) {
            kernels.append(
                nb::make_tuple(reinterpret_cast<std::uintptr_t>(kernel.node), kernel.name));
        }
        return nb::make_tuple(names, kernels, text_of(order.error));
    }

    [[nodiscard]] nb::object mark(std::uintptr_t graph, const nb::sequence& nodes,
                                  const BoundMarks& marks, std::uint8_t kind) {
        std::vector<cuda::Handle> handles;
        for (const nb::handle node : nodes) {
            handles.push_back(reinterpret_cast<cuda::Handle>(nb::cast<std::uintptr_t>(node)));
        }
        if (handles.size() != marks.size()) {
            throw std::invalid_argument("a graph has as many marks as nodes that are followed");
        }
        std::string problem;
        {
            const nb::gil_scoped_release released;
            problem = marker_.mark(reinterpret_cast<cuda::Handle>(graph), handles, marks.numbers(),
                                   static_cast<CrumbKind>(kind));
        }
        return text_of(problem);
    }

  private:
    std::shared_ptr<MappedCrumbs> crumbs_;
    std::unique_ptr<cuda::Driver> named_;
    const cuda::Driver& driver_;
    cuda::GraphMarker marker_;
};

inline nb::tuple crumb_regions_of(nb::handle header, std::uint64_t bytes) {
    const CrumbRegions found = crumb_regions(LentBytes(header).span(), bytes);
    nb::list regions;
    for (const CrumbRegion& region : found.regions) {
        regions.append(nb::make_tuple(region.offset, region.bytes));
    }
    return nb::make_tuple(text_of(found.error), regions);
}

inline nb::tuple crumb_graph_tuple(const CrumbGraph& graph) {
    return nb::make_tuple(text_of(graph.name), graph.digest, graph.launched, graph.finished,
                          graph.reached, graph.marks, text_of(graph.next),
                          static_cast<std::uint8_t>(graph.kind), graph.missing, graph.captured_ns);
}

inline nb::tuple read_crumbs_of(nb::handle header, nb::handle graphs, nb::handle texts,
                                nb::handle texts_of_marks, nb::handle numbers, bool in_flight) {
    const LentBytes first(header);
    const LentBytes a(graphs);
    const LentBytes b(texts);
    const LentBytes c(texts_of_marks);
    const LentBytes d(numbers);
    const CrumbContents contents =
        read_crumbs(first.span(), {a.span(), b.span(), c.span(), d.span()},
                    in_flight ? CrumbsTold::kInFlight : CrumbsTold::kAll);
    nb::list found;
    for (const CrumbGraph& graph : contents.graphs) found.append(crumb_graph_tuple(graph));
    const CrumbIdentity& identity = contents.identity;
    return nb::make_tuple(
        text_of(contents.error),
        nb::make_tuple(identity.rank, identity.world_size, identity.pid, text_of(identity.host)),
        found, contents.refused, contents.damaged);
}

inline void bind_breadcrumbs(nb::module_& m) {
    m.attr("BREADCRUMB_BYTES") = CrumbWriter::bytes();
    m.attr("BREADCRUMB_HEADER_BYTES") = std::size_t{crumbs::kHeaderBytes};
    m.def("breadcrumb_regions", &crumb_regions_of, nb::arg(), nb::arg());
    m.def("read_breadcrumbs", &read_crumbs_of, nb::arg(), nb::arg(), nb::arg(), nb::arg(),
          nb::arg(), nb::arg() = false);

    nb::class_<BoundMarks>(m, "GraphMarks")
        .def("launch", &BoundMarks::launch)
        .def("withdraw", &BoundMarks::withdraw)
        .def("passed", &BoundMarks::pass)
        .def("settle", &BoundMarks::settle)
        .def("describe", &BoundMarks::describe)
        .def("retire", &BoundMarks::retire)
        .def("abandon", &BoundMarks::abandon)
        .def("__len__", &BoundMarks::size);
    nb::class_<BoundCrumbs>(m, "Breadcrumbs")
        .def(nb::init<int, std::uint32_t, std::uint32_t, std::uint64_t, std::string>())
        .def("add", &BoundCrumbs::add)
        .def("disown", &BoundCrumbs::disown);
    nb::class_<BoundMarker>(m, "GraphMarker")
        .def(nb::init<const BoundCrumbs&, const std::string&>())
        .def("prepare", &BoundMarker::prepare)
        .def("kernels", &BoundMarker::kernels)
        .def("mark", &BoundMarker::mark);
}

}  // namespace graphguard
