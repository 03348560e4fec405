// The launches of an engine that launches by itself, as Python sees them.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/vector.h>

#include <cstdint>
#include <stdexcept>
#include <utility>
#include <vector>

#include "core/launch_clock.h"
#include "python/bound_ledger.h"
#include "python/bound_ring.h"
#include "python/bound_table.h"

namespace graphguard {

// Marks where a launch begins and ends. What kind of launch it is was decided before it.
class BoundLaunches {
  public:
    static constexpr unsigned kMaxShift = 40;
    static constexpr std::size_t kMaxBuckets = 64;

    BoundLaunches(unsigned shift, std::size_t buckets) : clock_(shift, buckets) {
        if (shift > kMaxShift || buckets == 0 || buckets > kMaxBuckets) {
            throw std::invalid_argument("at most 64 buckets from 2^40 ns on");
        }
    }

    void write_to(nb::object ring) {
        ring_ = ring.is_none() ? nullptr : nb::cast<BoundRing*>(ring);
        kept_alive_ = std::move(ring);
    }

    void begin() {
        clock_.begin();
        begun_ = replays ? Event::kReplayBegin : Event::kEagerBegin;
        if (ring_ != nullptr) ring_->mark(static_cast<std::uint8_t>(begun_));
    }

    void end() {
        clock_.end();
        // An end has the number after its beginning.
        if (ring_ != nullptr) ring_->mark(static_cast<std::uint8_t>(begun_) + 1);
    }

    [[nodiscard]] const LaunchClock& clock() const { return clock_; }

    bool replays = false;

  private:
    LaunchClock clock_;
    Event begun_ = Event::kEagerBegin;
    BoundRing* ring_ = nullptr;
    nb::object kept_alive_ = nb::none();
};

// The check of a step and its publication in one call, for the one case that nearly all steps are:
// the batch fits the graph that was chosen, and the ranks do the same.
class BoundSteps {
  public:
    BoundSteps(nb::object table, nb::object ledger, nb::object launches)
        : table_(&nb::cast<BoundTable&>(table)),
          ledger_(&nb::cast<BoundLedger&>(ledger)),
          launches_(&nb::cast<BoundLaunches&>(launches)),
          kept_alive_{std::move(table), std::move(ledger), std::move(launches)} {}

    // What the ledger calls the replay of a graph; graphs come in the order of their ids, and again
    // when they were captured again.
    void set_replay(std::uint32_t graph, std::uint32_t launch) {
        if (graph > replays_.size()) throw nb::index_error("a graph before it is missing");
        if (graph == replays_.size()) {
            replays_.push_back(launch);
        } else {
            replays_[graph] = launch;
        }
    }

    // The verdict, if the step was published and is to be launched; else None, and see last().
    nb::object take(std::uint32_t graph, std::uint32_t num_reqs, std::uint32_t query_len,
                    std::uint32_t num_tokens, std::uint8_t phase) {
        if (graph >= replays_.size()) throw nb::index_error("no such graph");
        const auto [verdict, given] =
            table_->check_known(graph, make_batch(num_reqs, query_len, num_tokens, phase));
        status_ = -1;
        if (verdict.action > Action::kPad) return kept(given);
        status_ = static_cast<int>(ledger_->propose(replays_[graph],
                                                    static_cast<std::uint8_t>(verdict.reason),
                                                    num_reqs, query_len, num_tokens, phase));
        if (status_ != 0) return kept(given);
        launches_->replays = true;
        return given;
    }

    // The verdict of the last step that take() did not finish, and what the ledger answered: -1
    // where the step was not published.
    [[nodiscard]] std::pair<nb::object, int> last() const { return {verdict_, status_}; }

  private:
    nb::object kept(nb::object verdict) {
        verdict_ = std::move(verdict);
        return nb::none();
    }

    BoundTable* table_;
    BoundLedger* ledger_;
    BoundLaunches* launches_;
    nb::object kept_alive_[3];
    std::vector<std::uint32_t> replays_;
    nb::object verdict_ = nb::none();
    int status_ = -1;
};

// The part of the module that engines' own launches go through.
inline void bind_launches(nb::module_& m) {
    nb::class_<BoundLaunches>(m, "Launches")
        .def(nb::init<unsigned, std::size_t>())
        .def("write_to", &BoundLaunches::write_to, nb::arg().none())
        .def("begin", &BoundLaunches::begin)
        .def("end", &BoundLaunches::end)
        .def_rw("replays", &BoundLaunches::replays)
        .def_prop_ro("in_flight", [](const BoundLaunches& l) { return l.clock().in_flight(); })
        .def_prop_ro("began", [](const BoundLaunches& l) { return l.clock().began_ns(); })
        .def_prop_ro("nanoseconds", [](const BoundLaunches& l) { return l.clock().total_ns(); })
        .def_prop_ro("counts", [](const BoundLaunches& l) { return l.clock().counts(); });

    nb::class_<BoundSteps>(m, "Steps")
        .def(nb::init<nb::object, nb::object, nb::object>())
        .def("set_replay", &BoundSteps::set_replay)
        .def("take", &BoundSteps::take)
        .def("last", &BoundSteps::last);
}

}  // namespace graphguard
