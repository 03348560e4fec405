// The rules: does a batch fit one recorded graph, and if not, why. This is the one place that
// defines them; SignatureTable only finds the graph quickly and is tested against this function.
#pragma once

#include "core/verdict.h"

namespace graphguard {

//  mode       batch against graph                                             reason
//  ---------  --------------------------------------------------------------  ------------------
//  piecewise  same number of tokens                                           exact
//             fewer tokens                                                    padded
//             more tokens                                                     too_many_tokens
//  full       same requests, query length and tokens, same phase              exact
//             same requests, query length and tokens, other phase             wrong_phase
//             either is not uniform (and the shapes differ)                   not_uniform
//             another query length                                            query_length
//             more requests                                                   too_many_requests
//             fewer requests, other phase                                     wrong_phase
//             fewer requests, same phase, but not a decode                    not_decode
//             fewer requests, both decode                                     padded
constexpr Reason fit(Mode mode, const Batch& graph, const Batch& batch) {
    if (mode == Mode::kPiecewise) {
        if (batch.num_tokens == graph.num_tokens) return Reason::kExact;
        return batch.num_tokens < graph.num_tokens ? Reason::kPadded : Reason::kTooManyTokens;
    }
    if (batch.same_shape(graph)) {
        return batch.phase == graph.phase ? Reason::kExact : Reason::kWrongPhase;
    }
    if (!batch.uniform() || !graph.uniform()) return Reason::kNotUniform;
    if (batch.query_len != graph.query_len) return Reason::kQueryLength;
    if (batch.num_reqs > graph.num_reqs) return Reason::kTooManyRequests;
    if (batch.phase != graph.phase) return Reason::kWrongPhase;
    return batch.phase == Phase::kDecode ? Reason::kPadded : Reason::kNotDecode;
}

}  // namespace graphguard
