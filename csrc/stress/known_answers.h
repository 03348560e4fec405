// Answers worked out by hand. The naive table shares fit() and Batch::uniform() with the table
// under test, so an error in those would not show as a difference between the two.
#pragma once

#include <array>
#include <cstdint>
#include <limits>

#include "core/signature_table.h"
#include "core/size_index.h"

namespace graphguard::stress {

struct KnownAnswer {
    Batch batch;
    Reason reason = Reason::kNoGraph;
    std::uint32_t graph = kNoGraphId;
};

inline constexpr std::uint32_t kDirect = SizeIndex::kDirectSizes;
inline constexpr std::uint32_t kMost = std::numeric_limits<std::uint32_t>::max();

inline constexpr std::array<Batch, 5> kKnownGraphs = {{
    {kDirect - 1, 1, kDirect - 1, Phase::kDecode},
    {kDirect + 1, 1, kDirect + 1, Phase::kDecode},
    {kMost, 1, kMost, Phase::kDecode},
    {1, kDirect, kDirect, Phase::kDecode},
    {16, 2, 32, Phase::kDecode},
}};

inline constexpr std::array<KnownAnswer, 12> kKnownAnswers = {{
    {{kDirect - 2, 1, kDirect - 2, Phase::kDecode}, Reason::kPadded, 0},
    {{kDirect - 1, 1, kDirect - 1, Phase::kDecode}, Reason::kExact, 0},
    {{kDirect, 1, kDirect, Phase::kDecode}, Reason::kPadded, 1},
    {{kDirect + 1, 1, kDirect + 1, Phase::kDecode}, Reason::kExact, 1},
    {{kDirect + 2, 1, kDirect + 2, Phase::kDecode}, Reason::kPadded, 2},
    {{kMost, 1, kMost, Phase::kDecode}, Reason::kExact, 2},
    {{kMost, 1, kMost, Phase::kPrefill}, Reason::kWrongPhase, kNoGraphId},
    // (2^16 + 1) * 2^16 leaves 2^16 in 32 bits: no uniform batch has that many tokens.
    {{kDirect + 1, kDirect, kDirect, Phase::kDecode}, Reason::kNotUniform, kNoGraphId},
    {{kDirect, kDirect, 0, Phase::kDecode}, Reason::kNotUniform, kNoGraphId},
    {{15, 2, 30, Phase::kDecode}, Reason::kPadded, 4},
    {{17, 2, 34, Phase::kDecode}, Reason::kTooManyRequests, kNoGraphId},
    {{1, 3, 3, Phase::kDecode}, Reason::kQueryLength, kNoGraphId},
}};

// How many of the known answers the table gets wrong.
inline std::uint64_t wrong_known_answers() {
    SignatureTable table;
    const std::uint32_t family = table.add_family(Mode::kFull);
    for (const Batch& graph : kKnownGraphs) table.insert(family, graph, {});
    std::uint64_t wrong = 0;
    for (const KnownAnswer& known : kKnownAnswers) {
        const Verdict got = table.check(family, known.batch);
        wrong += got.reason == known.reason && got.graph == known.graph ? 0 : 1;
    }
    return wrong;
}

}  // namespace graphguard::stress
