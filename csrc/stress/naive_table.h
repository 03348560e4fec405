// The table as one would write it without a thought for speed: every answer is a scan over all
// graphs with the rules of core/rules.h. What SignatureTable says must be what this says.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "core/rules.h"
#include "core/signature_table.h"

namespace graphguard::stress {

struct NaiveInput {
    std::uint32_t dtype = 0;
    std::uint32_t device = 0;
    std::uint64_t address = 0;
    std::vector<std::int64_t> shape;

    [[nodiscard]] InputView view() const { return {dtype, device, address, shape}; }
};

struct NaiveGraph {
    std::uint32_t family = 0;
    Batch batch;
    std::vector<NaiveInput> inputs;
};

class NaiveTable {
  public:
    std::vector<Mode> families;
    std::vector<NaiveGraph> graphs;
    std::vector<Action> fallbacks = std::vector<Action>(kReasonCount, Action::kEager);

    [[nodiscard]] Verdict check(std::uint32_t family, const Batch& batch) const {
        Reason best = Reason::kNoGraph;
        std::uint32_t chosen = kNoGraphId;
        for (std::uint32_t id = 0; id < graphs.size(); ++id) {
            if (graphs[id].family != family) continue;
            const Reason reason = fit(families[family], graphs[id].batch, batch);
            const bool better = reason < best;
            const bool tighter =
                reason == Reason::kPadded && best == reason && slots(id) < slots(chosen);
            if (better || tighter) chosen = id;
            if (better) best = reason;
        }
        return verdict(best, chosen);
    }

    [[nodiscard]] Verdict check_graph(std::uint32_t graph, const Batch& batch) const {
        return verdict(fit(families[graphs[graph].family], graphs[graph].batch, batch), graph);
    }

    [[nodiscard]] InputVerdict check_inputs(std::uint32_t graph,
                                            const std::vector<NaiveInput>& inputs,
                                            bool addresses) const {
        const std::vector<NaiveInput>& recorded = graphs[graph].inputs;
        if (recorded.size() != inputs.size()) return {Reason::kInputCount, 0};
        for (std::uint32_t i = 0; i < inputs.size(); ++i) {
            if (recorded[i].dtype != inputs[i].dtype) return {Reason::kInputDtype, i};
            if (recorded[i].shape != inputs[i].shape) return {Reason::kInputShape, i};
            if (recorded[i].device != inputs[i].device) return {Reason::kInputDevice, i};
            const bool moved = recorded[i].address != inputs[i].address;
            if (addresses && moved) return {Reason::kInputAddress, i};
        }
        return {Reason::kExact, 0};
    }

  private:
    // What a piecewise graph pads is tokens, what a full graph pads is requests.
    [[nodiscard]] std::uint32_t slots(std::uint32_t graph) const {
        const NaiveGraph& recorded = graphs[graph];
        return families[recorded.family] == Mode::kPiecewise ? recorded.batch.num_tokens
                                                             : recorded.batch.num_reqs;
    }

    [[nodiscard]] Verdict verdict(Reason reason, std::uint32_t graph) const {
        if (reason == Reason::kExact) return {Action::kReplay, reason, graph};
        if (reason == Reason::kPadded) return {Action::kPad, reason, graph};
        return {fallbacks[static_cast<std::size_t>(reason)], reason, kNoGraphId};
    }
};

}  // namespace graphguard::stress
