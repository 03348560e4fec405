// The signature table: what was recorded, and the check of a batch against it.
//
// Inserting allocates; checking never does. There is no lock: whoever inserts while another thread
// checks must order the two (in Python, the GIL does).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "core/flat_map.h"
#include "core/size_index.h"
#include "core/verdict.h"

namespace graphguard {

// A static tensor as the check sees it. `dtype` and `device` are ids that the caller assigns, equal
// for equal things. `shape` is borrowed for the duration of the call.
struct InputView {
    std::uint32_t dtype = 0;
    std::uint32_t device = 0;
    std::uint64_t address = 0;
    std::span<const std::int64_t> shape;
};

struct InputVerdict {
    Reason reason = Reason::kExact;
    std::uint32_t input = 0;  // which one differs, in the order of insertion
};

class SignatureTable {
  public:
    SignatureTable();

    // A family holds the graphs of one graph key. Returns its id.
    std::uint32_t add_family(Mode mode);

    // Returns the id of the graph: 0 for the first, counting up. Throws std::out_of_range for an
    // unknown family.
    std::uint32_t insert(std::uint32_t family, const Batch& batch,
                         std::span<const InputView> inputs);

    // For a graph that was captured again: its static tensors may have moved.
    void replace_inputs(std::uint32_t graph, std::span<const InputView> inputs);

    // What the policy does about a reason. Throws std::invalid_argument for kExact and kPadded,
    // which always replay and pad.
    void set_fallback(Reason reason, Action action);

    // Which graph to use for a batch, by the rules in rules.h. Among several that fit, the one with
    // the fewest padded slots; among equals, the one inserted first. `family` must be known.
    [[nodiscard]] Verdict check(std::uint32_t family, const Batch& batch) const;

    // The same question about one graph that somebody else chose. `graph` must be known.
    [[nodiscard]] Verdict check_graph(std::uint32_t graph, const Batch& batch) const;

    // Static tensors against those recorded for `graph`; addresses only when asked. `graph` must
    // be known.
    [[nodiscard]] InputVerdict check_inputs(std::uint32_t graph, std::span<const InputView> inputs,
                                            bool addresses) const;

    [[nodiscard]] std::size_t num_families() const { return families_.size(); }
    [[nodiscard]] std::size_t num_graphs() const { return graphs_.size(); }

  private:
    using BySize = std::array<SizeIndex, kPhaseCount>;

    struct Family {
        Mode mode = Mode::kFull;
        bool has_graphs = false;
        bool has_uniform = false;
        SizeIndex by_tokens;                                          // piecewise
        std::vector<std::uint32_t> short_queries;                     // query length -> by_size_
        FlatMap<std::uint32_t> long_queries;                          // the same
        std::array<FlatMap<std::uint32_t>, kPhaseCount> irregular{};  // shape -> graph
    };

    struct Input {
        std::uint32_t dtype = 0;
        std::uint32_t device = 0;
        std::uint64_t address = 0;
        std::vector<std::int64_t> shape;
    };

    struct Graph {
        std::uint32_t family = 0;
        Batch batch;
        std::vector<Input> inputs;
    };

    // Decodes have short queries, and a load is cheaper than a probe that the processor
    // mispredicts.
    static constexpr std::uint32_t kShortQueries = 256;

    static std::uint32_t& position_to_set(Family& family, std::uint32_t query_len);
    // Positions in by_size_ are kept shifted by one: 0 says that there is none.
    [[nodiscard]] static std::uint32_t position_of(const Family& family, std::uint32_t query_len) {
        if (query_len < family.short_queries.size()) return family.short_queries[query_len];
        if (query_len < kShortQueries) return 0;
        const std::uint32_t* position = family.long_queries.find({query_len, 0});
        return position == nullptr ? 0 : *position;
    }

    void index(Family& family, const Batch& batch, std::uint32_t graph);
    [[nodiscard]] Verdict check_uniform(const Family& family, const Batch& batch) const;
    [[nodiscard]] Verdict check_irregular(const Family& family, const Batch& batch) const;
    [[nodiscard]] Verdict miss(Reason reason) const {
        return {fallbacks_[static_cast<std::size_t>(reason)], reason, kNoGraphId};
    }

    std::vector<Family> families_;
    std::vector<Graph> graphs_;
    std::vector<BySize> by_size_;
    std::array<Action, kReasonCount> fallbacks_{};
};

}  // namespace graphguard
