// The phase of a batch, from how far its requests are.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "core/verdict.h"

namespace graphguard {

// What the last token of a prompt counts as that is computed alone, over computed ones.
enum class LastToken : std::uint8_t { kPrefill, kDecode };

// A request is past its prompt when as many tokens are computed as its prompt has.
inline Phase phase_of(std::span<const std::int32_t> computed, std::span<const std::int32_t> prompts,
                      LastToken last = LastToken::kPrefill) {
    const std::int32_t decodes = last == LastToken::kDecode ? 1 : 0;
    std::size_t in_prompt = 0;
    for (std::size_t request = 0; request < computed.size(); ++request) {
        const std::int32_t from = computed[request] > 0 ? decodes : 0;
        in_prompt += computed[request] < prompts[request] - from ? 1 : 0;
    }
    if (in_prompt == 0) return Phase::kDecode;
    return in_prompt == computed.size() ? Phase::kPrefill : Phase::kMixed;
}

}  // namespace graphguard
