// The words of the check: what a batch is, and what is decided about it.
// The order of the enumerators is part of the interface: graphguard/verdict.py mirrors it.
#pragma once

#include <cstddef>
#include <cstdint>

namespace graphguard {

enum class Phase : std::uint8_t { kDecode, kPrefill, kMixed };
inline constexpr std::size_t kPhaseCount = 3;

enum class Mode : std::uint8_t { kFull, kPiecewise };

enum class Action : std::uint8_t { kReplay, kPad, kRecapture, kEager, kAbort };
inline constexpr std::size_t kActionCount = 5;

// Ordered from the best fit to the farthest miss: the reason given for a family of graphs is the
// smallest one that any of its graphs gives.
enum class Reason : std::uint8_t {
    kExact,
    kPadded,
    kWrongPhase,
    kNotDecode,
    kTooManyRequests,
    kQueryLength,
    kNotUniform,
    kTooManyTokens,
    kNoGraph,
    // What check_inputs finds. A batch descriptor never leads to these.
    kInputCount,
    kInputDtype,
    kInputShape,
    kInputDevice,
    kInputAddress,
    // What the ranks of a group have agreed on. The table never gives these.
    kQuarantined,
    kAdopted,
};
inline constexpr std::size_t kReasonCount = 16;

inline constexpr std::uint32_t kNoGraphId = UINT32_MAX;

struct Batch {
    std::uint32_t num_reqs = 0;
    std::uint32_t query_len = 0;
    std::uint32_t num_tokens = 0;
    Phase phase = Phase::kDecode;

    // query_len is the largest of the batch, so the product is reached only if all are equal.
    [[nodiscard]] constexpr bool uniform() const {
        return std::uint64_t{num_reqs} * query_len == num_tokens;
    }
    [[nodiscard]] constexpr bool same_shape(const Batch& other) const {
        return num_reqs == other.num_reqs && query_len == other.query_len &&
               num_tokens == other.num_tokens;
    }
};

struct Verdict {
    Action action = Action::kEager;
    Reason reason = Reason::kNoGraph;
    std::uint32_t graph = kNoGraphId;
};

}  // namespace graphguard
