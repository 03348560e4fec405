#include "core/signature_table.h"

#include <algorithm>
#include <stdexcept>

#include "core/rules.h"

namespace graphguard {

namespace {

constexpr std::size_t at(Phase phase) {
    return static_cast<std::size_t>(phase);
}
constexpr std::size_t at(Reason reason) {
    return static_cast<std::size_t>(reason);
}
constexpr std::size_t at(Action action) {
    return static_cast<std::size_t>(action);
}

constexpr ShapeKey shape_key(const Batch& batch) {
    return {std::uint64_t{batch.num_reqs} << 32U | batch.query_len, batch.num_tokens};
}

// `found` is the smallest graph that is large enough; what is left to say is whether it is exact.
// That is computed and not branched on: a mispredicted branch costs as much as the whole check.
constexpr Verdict replay_or_pad(const SizedGraph& found, std::uint32_t size) {
    static_assert(at(Action::kReplay) == 0 && at(Action::kPad) == 1);
    static_assert(at(Reason::kExact) == 0 && at(Reason::kPadded) == 1);
    const bool pads = found.size != size;
    return {static_cast<Action>(pads), static_cast<Reason>(pads), found.graph};
}

}  // namespace

SignatureTable::SignatureTable() {
    fallbacks_.fill(Action::kEager);
    fallbacks_[at(Reason::kExact)] = Action::kReplay;
    fallbacks_[at(Reason::kPadded)] = Action::kPad;
}

std::uint32_t SignatureTable::add_family(Mode mode) {
    families_.emplace_back().mode = mode;
    return static_cast<std::uint32_t>(families_.size() - 1);
}

std::uint32_t SignatureTable::insert(std::uint32_t family, const Batch& batch,
                                     std::span<const InputView> inputs) {
    if (family >= families_.size()) throw std::out_of_range("no such family of graphs");
    const auto graph = static_cast<std::uint32_t>(graphs_.size());
    graphs_.push_back(Graph{family, batch, {}});
    replace_inputs(graph, inputs);
    index(families_[family], batch, graph);
    return graph;
}

void SignatureTable::replace_inputs(std::uint32_t graph, std::span<const InputView> inputs) {
    if (graph >= graphs_.size()) throw std::out_of_range("no such graph");
    std::vector<Input>& recorded = graphs_[graph].inputs;
    recorded.clear();
    for (const InputView& input : inputs) {
        recorded.push_back(Input{
            input.dtype, input.device, input.address, {input.shape.begin(), input.shape.end()}});
    }
}

void SignatureTable::set_fallback(Reason reason, Action action) {
    if (reason == Reason::kExact || reason == Reason::kPadded) {
        throw std::invalid_argument("a batch that fits has no fallback");
    }
    fallbacks_[at(reason)] = action;
}

std::uint32_t& SignatureTable::position_to_set(Family& family, std::uint32_t query_len) {
    if (query_len >= kShortQueries) return family.long_queries.at_or_insert({query_len, 0});
    if (query_len >= family.short_queries.size()) family.short_queries.resize(query_len + 1);
    return family.short_queries[query_len];
}

void SignatureTable::index(Family& family, const Batch& batch, std::uint32_t graph) {
    family.has_graphs = true;
    if (family.mode == Mode::kPiecewise) {
        family.by_tokens.insert(batch.num_tokens, graph);
        return;
    }
    if (!batch.uniform()) {
        std::uint32_t& first = family.irregular[at(batch.phase)].at_or_insert(shape_key(batch));
        // 0 is what a new slot holds, so the ids are kept shifted by one.
        if (first == 0) first = graph + 1;
        return;
    }
    family.has_uniform = true;
    std::uint32_t& position = position_to_set(family, batch.query_len);
    if (position == 0) {
        by_size_.emplace_back();
        position = static_cast<std::uint32_t>(by_size_.size());
    }
    by_size_[position - 1][at(batch.phase)].insert(batch.num_reqs, graph);
}

Verdict SignatureTable::check(std::uint32_t family_id, const Batch& batch) const {
    const Family& family = families_[family_id];
    if (family.mode == Mode::kPiecewise) {
        if (!family.has_graphs) return miss(Reason::kNoGraph);
        const SizedGraph found = family.by_tokens.at_least(batch.num_tokens);
        return found ? replay_or_pad(found, batch.num_tokens) : miss(Reason::kTooManyTokens);
    }
    return batch.uniform() ? check_uniform(family, batch) : check_irregular(family, batch);
}

Verdict SignatureTable::check_uniform(const Family& family, const Batch& batch) const {
    const std::uint32_t position = position_of(family, batch.query_len);
    if (position == 0) {
        if (family.has_uniform) return miss(Reason::kQueryLength);
        return miss(family.has_graphs ? Reason::kNotUniform : Reason::kNoGraph);
    }
    const BySize& by_size = by_size_[position - 1];
    const SizeIndex& same_phase = by_size[at(batch.phase)];
    const bool holds = same_phase.holds(batch.num_reqs);
    if (holds) {
        const SizedGraph found = same_phase.at_least(batch.num_reqs);
        if (found.size == batch.num_reqs || batch.phase == Phase::kDecode) {
            return replay_or_pad(found, batch.num_reqs);
        }
    }
    bool other_phase = false;
    for (std::size_t phase = 0; phase < kPhaseCount; ++phase) {
        other_phase |= phase != at(batch.phase) && by_size[phase].holds(batch.num_reqs);
    }
    if (other_phase) return miss(Reason::kWrongPhase);
    return miss(holds ? Reason::kNotDecode : Reason::kTooManyRequests);
}

Verdict SignatureTable::check_irregular(const Family& family, const Batch& batch) const {
    if (!family.has_graphs) return miss(Reason::kNoGraph);
    const ShapeKey key = shape_key(batch);
    if (const std::uint32_t* graph = family.irregular[at(batch.phase)].find(key)) {
        return {Action::kReplay, Reason::kExact, *graph - 1};
    }
    const bool other_phase = std::any_of(family.irregular.begin(), family.irregular.end(),
                                         [&](const auto& map) { return map.find(key) != nullptr; });
    return miss(other_phase ? Reason::kWrongPhase : Reason::kNotUniform);
}

Verdict SignatureTable::check_graph(std::uint32_t graph, const Batch& batch) const {
    const Graph& recorded = graphs_[graph];
    const Reason reason = fit(families_[recorded.family].mode, recorded.batch, batch);
    if (reason == Reason::kExact) return {Action::kReplay, reason, graph};
    if (reason == Reason::kPadded) return {Action::kPad, reason, graph};
    return miss(reason);
}

InputVerdict SignatureTable::check_inputs(std::uint32_t graph, std::span<const InputView> inputs,
                                          bool addresses) const {
    const std::vector<Input>& recorded = graphs_[graph].inputs;
    if (recorded.size() != inputs.size()) return {Reason::kInputCount, 0};
    for (std::uint32_t i = 0; i < recorded.size(); ++i) {
        const Input& was = recorded[i];
        const InputView& is = inputs[i];
        if (was.dtype != is.dtype) return {Reason::kInputDtype, i};
        if (!std::equal(was.shape.begin(), was.shape.end(), is.shape.begin(), is.shape.end())) {
            return {Reason::kInputShape, i};
        }
        if (was.device != is.device) return {Reason::kInputDevice, i};
        if (addresses && was.address != is.address) return {Reason::kInputAddress, i};
    }
    return {};
}

}  // namespace graphguard
