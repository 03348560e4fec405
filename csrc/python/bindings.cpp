// The Python module. This folder is the only place that knows both C++ and Python.
#include <nanobind/nanobind.h>

#include <cstdint>

#include "python/bound_breadcrumbs.h"
#include "python/bound_graph_nodes.h"
#include "python/bound_launches.h"
#include "python/bound_ledger.h"
#include "python/bound_phase.h"
#include "python/bound_ring.h"
#include "python/bound_table.h"
#include "python/bound_watchdog.h"
#include "python/system_errors.h"

namespace nb = nanobind;

NB_MODULE(_core, m) {
    // A table that a program keeps until it exits is no leak worth a page on stderr.
    nb::set_leak_warnings(false);
    m.doc() =
        "The native half of graphguard: the signature table, the ledger, the black box, the "
        "watchdog and the nodes of CUDA graphs.";

    // The baseline of the benchmarks: what the binding costs when nothing is checked.
    m.def("noop", [](std::uint32_t, std::uint32_t, std::uint32_t, std::uint32_t, std::uint8_t) {});

    graphguard::translate_system_errors();
    graphguard::bind_table(m);
    graphguard::bind_ring(m);
    graphguard::bind_ledger(m);
    graphguard::bind_launches(m);
    graphguard::bind_phase(m);
    graphguard::bind_watchdog(m);
    graphguard::bind_graph_nodes(m);
    graphguard::bind_breadcrumbs(m);
}
