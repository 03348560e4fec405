// The watchdog as Python sees it.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "core/watchdog.h"
#include "python/bound_ring.h"

namespace graphguard {

// The thread never asks for the interpreter's lock, so that nobody waits here for what waits there.
class BoundWatchdog {
  public:
    BoundWatchdog(const BoundRing& ring, double stall_seconds, double startup_seconds,
                  double tick_seconds, std::vector<std::string> command,
                  std::vector<std::string> environment, std::string directory, std::string job)
        : watchdog_(
              ring.shared_writer(),
              {nanoseconds(stall_seconds), nanoseconds(startup_seconds), nanoseconds(tick_seconds),
               std::move(command), std::move(environment), std::move(directory), std::move(job)}) {}

    void add_ledger(int descriptor, std::size_t bytes, std::string name,
                    std::vector<std::uint32_t> ranks, std::string job) {
        watchdog_.add({descriptor, bytes, std::move(name), std::move(ranks), std::move(job)});
    }

    void remove_ledger(const std::string& job) { watchdog_.remove(job); }
    void start() { watchdog_.start(); }
    void stop() { watchdog_.stop(); }
    [[nodiscard]] std::uint64_t started() const { return watchdog_.started(); }

  private:
    static constexpr double kLongest = 1e6;

    static std::uint64_t nanoseconds(double seconds) {
        if (!(seconds > 0 && seconds <= kLongest)) {
            throw std::invalid_argument("a watchdog's times are above 0 and up to 1,000,000 s");
        }
        return static_cast<std::uint64_t>(seconds * 1e9);
    }

    Watchdog watchdog_;
};

// The part of the module that looks at stalls.
inline void bind_watchdog(nb::module_& m) {
    nb::class_<BoundWatchdog>(m, "Watchdog")
        .def(nb::init<const BoundRing&, double, double, double, std::vector<std::string>,
                      std::vector<std::string>, std::string, std::string>())
        .def("add_ledger", &BoundWatchdog::add_ledger)
        .def("remove_ledger", &BoundWatchdog::remove_ledger)
        .def("start", &BoundWatchdog::start)
        .def("stop", &BoundWatchdog::stop)
        .def_prop_ro("started", &BoundWatchdog::started);
}

}  // namespace graphguard
