// The signature table as Python sees it.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/stl/pair.h>

#include <array>
#include <cstdint>
#include <stdexcept>
#include <utility>
#include <vector>

#include "core/signature_table.h"

namespace graphguard {

namespace nb = nanobind;

inline constexpr std::size_t kMaxInputs = 64;
inline constexpr std::size_t kMaxRank = 16;

inline Batch make_batch(std::uint32_t num_reqs, std::uint32_t query_len, std::uint32_t num_tokens,
                        std::uint8_t phase) {
    if (phase >= kPhaseCount) throw std::invalid_argument("no such phase");
    return {num_reqs, query_len, num_tokens, static_cast<Phase>(phase)};
}

inline Reason make_reason(std::uint8_t reason) {
    if (reason >= kReasonCount) throw std::invalid_argument("no such reason");
    return static_cast<Reason>(reason);
}

inline Action make_action(std::uint8_t action) {
    if (action >= kActionCount) throw std::invalid_argument("no such action");
    return static_cast<Action>(action);
}

// Tuples of (dtype, device, address, shape), unpacked onto the stack.
class InputViews {
  public:
    explicit InputViews(const nb::sequence& inputs) {
        for (const nb::handle item : inputs) {
            if (size_ == kMaxInputs) throw std::length_error("more than 64 static tensors");
            views_[size_] = unpack(nb::cast<nb::tuple>(item), shapes_[size_]);
            ++size_;
        }
    }

    [[nodiscard]] std::span<const InputView> span() const { return {views_.data(), size_}; }

  private:
    using Shape = std::array<std::int64_t, kMaxRank>;

    static InputView unpack(const nb::tuple& fields, Shape& shape) {
        if (nb::len(fields) != 4) {
            throw std::invalid_argument("an input is (dtype, device, address, shape)");
        }
        const nb::sequence sizes = nb::cast<nb::sequence>(fields[3]);
        std::size_t rank = 0;
        for (const nb::handle size : sizes) {
            if (rank == kMaxRank) throw std::length_error("a tensor of more than 16 dimensions");
            shape[rank++] = nb::cast<std::int64_t>(size);
        }
        return {nb::cast<std::uint32_t>(fields[0]), nb::cast<std::uint32_t>(fields[1]),
                nb::cast<std::uint64_t>(fields[2]), std::span(shape.data(), rank)};
    }

    std::array<InputView, kMaxInputs> views_;
    std::array<Shape, kMaxInputs> shapes_;
    std::size_t size_ = 0;
};

// The table as Python sees it. Every verdict that a check can give is made when a graph is
// inserted, so that a check creates no Python object: it hands out a reference and counts.
class BoundTable {
  public:
    explicit BoundTable(nb::callable make_verdict) : make_verdict_(std::move(make_verdict)) {
        misses_.resize(kReasonCount);
        for (std::uint8_t reason = 0; reason < kReasonCount; ++reason) {
            misses_[reason].verdict = verdict(Action::kEager, static_cast<Reason>(reason));
        }
    }

    std::uint32_t add_family(bool piecewise) {
        return table_.add_family(piecewise ? Mode::kPiecewise : Mode::kFull);
    }

    std::uint32_t insert(std::uint32_t family, std::uint32_t num_reqs, std::uint32_t query_len,
                         std::uint32_t num_tokens, std::uint8_t phase, const nb::sequence& inputs) {
        const Batch batch = make_batch(num_reqs, query_len, num_tokens, phase);
        const std::uint32_t graph = table_.insert(family, batch, InputViews(inputs).span());
        hits_.push_back({verdict(Action::kReplay, Reason::kExact, graph), 0});
        hits_.push_back({verdict(Action::kPad, Reason::kPadded, graph), 0});
        return graph;
    }

    void replace_inputs(std::uint32_t graph, const nb::sequence& inputs) {
        table_.replace_inputs(graph, InputViews(inputs).span());
    }

    void set_fallback(std::uint8_t reason, std::uint8_t action) {
        table_.set_fallback(make_reason(reason), make_action(action));
        misses_[reason].verdict = verdict(make_action(action), make_reason(reason));
    }

    nb::object check(std::uint32_t family, std::uint32_t num_reqs, std::uint32_t query_len,
                     std::uint32_t num_tokens, std::uint8_t phase) {
        if (family >= table_.num_families()) throw nb::index_error("no such family of graphs");
        return counted(table_.check(family, make_batch(num_reqs, query_len, num_tokens, phase)));
    }

    nb::object check_graph(std::uint32_t graph, std::uint32_t num_reqs, std::uint32_t query_len,
                           std::uint32_t num_tokens, std::uint8_t phase) {
        return check_known(graph, make_batch(num_reqs, query_len, num_tokens, phase)).second;
    }

    // The same, with what the verdict says.
    std::pair<Verdict, nb::object> check_known(std::uint32_t graph, const Batch& batch) {
        require(graph);
        const Verdict verdict = table_.check_graph(graph, batch);
        return {verdict, counted(verdict)};
    }

    std::pair<std::uint8_t, std::uint32_t> check_inputs(std::uint32_t graph,
                                                        const nb::sequence& inputs,
                                                        bool addresses) const {
        require(graph);
        const InputVerdict found = table_.check_inputs(graph, InputViews(inputs).span(), addresses);
        return {static_cast<std::uint8_t>(found.reason), found.input};
    }

    // Every verdict given so far, with how often.
    [[nodiscard]] nb::list counts() const {
        nb::list result;
        for (const auto* outcomes : {&hits_, &misses_}) {
            for (const Outcome& outcome : *outcomes) {
                if (outcome.count > 0) {
                    result.append(nb::make_tuple(outcome.verdict, outcome.count));
                }
            }
        }
        return result;
    }

    [[nodiscard]] std::size_t size() const { return table_.num_graphs(); }

  private:
    struct Outcome {
        nb::object verdict;
        std::uint64_t count = 0;
    };

    [[nodiscard]] nb::object verdict(Action action, Reason reason) const {
        return make_verdict_(static_cast<int>(action), static_cast<int>(reason), nb::none());
    }
    [[nodiscard]] nb::object verdict(Action action, Reason reason, std::uint32_t graph) const {
        return make_verdict_(static_cast<int>(action), static_cast<int>(reason), graph);
    }

    nb::object counted(const Verdict& verdict) {
        Outcome& outcome =
            verdict.graph == kNoGraphId
                ? misses_[static_cast<std::size_t>(verdict.reason)]
                : hits_[2 * std::size_t{verdict.graph} + (verdict.action == Action::kPad ? 1 : 0)];
        ++outcome.count;
        return outcome.verdict;
    }

    void require(std::uint32_t graph) const {
        if (graph >= table_.num_graphs()) throw nb::index_error("no such graph");
    }

    SignatureTable table_;
    nb::callable make_verdict_;
    std::vector<Outcome> hits_;    // two a graph: replayed, padded
    std::vector<Outcome> misses_;  // one a reason
};

// The table's part of the module.
inline void bind_table(nb::module_& m) {
    m.attr("PHASE_COUNT") = kPhaseCount;
    m.attr("ACTION_COUNT") = kActionCount;
    m.attr("REASON_COUNT") = kReasonCount;
    m.attr("MAX_INPUTS") = kMaxInputs;
    m.attr("MAX_RANK") = kMaxRank;

    // Arguments carry no names where a call is on the replay path: nanobind takes its short way
    // for purely positional functions.
    nb::class_<BoundTable>(m, "SignatureTable")
        .def(nb::init<nb::callable>())
        .def("add_family", &BoundTable::add_family)
        .def("insert", &BoundTable::insert)
        .def("replace_inputs", &BoundTable::replace_inputs)
        .def("set_fallback", &BoundTable::set_fallback)
        .def("check", &BoundTable::check)
        .def("check_graph", &BoundTable::check_graph)
        .def("check_inputs", &BoundTable::check_inputs)
        .def("counts", &BoundTable::counts)
        .def("__len__", &BoundTable::size);
}

}  // namespace graphguard
