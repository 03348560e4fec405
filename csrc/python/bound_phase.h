// The phase of a batch as Python asks for it, of an engine's own arrays.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

#include "core/phase.h"

namespace graphguard {

namespace nb = nanobind;

using TokenCounts = nb::ndarray<const std::int32_t, nb::shape<-1>, nb::c_contig, nb::device::cpu>;

inline std::uint8_t phase_of_first(const TokenCounts& computed, const TokenCounts& prompts,
                                   std::size_t num_reqs, LastToken last) {
    if (num_reqs > computed.size() || num_reqs > prompts.size()) {
        throw nb::index_error("more requests than the arrays have");
    }
    return static_cast<std::uint8_t>(
        phase_of(std::span(computed.data(), num_reqs), std::span(prompts.data(), num_reqs), last));
}

inline std::uint8_t bound_phase_of(const TokenCounts& computed, const TokenCounts& prompts,
                                   std::size_t num_reqs) {
    return phase_of_first(computed, prompts, num_reqs, LastToken::kPrefill);
}

// The arrays of an engine that are asked of in every step, taken once.
class BoundPhases {
  public:
    BoundPhases(TokenCounts computed, TokenCounts prompts, bool last_token_decodes)
        : computed_(std::move(computed)),
          prompts_(std::move(prompts)),
          last_(last_token_decodes ? LastToken::kDecode : LastToken::kPrefill) {}

    [[nodiscard]] std::uint8_t of(std::size_t num_reqs) const {
        return phase_of_first(computed_, prompts_, num_reqs, last_);
    }

  private:
    TokenCounts computed_;
    TokenCounts prompts_;
    LastToken last_;
};

inline void bind_phase(nb::module_& m) {
    nb::class_<BoundPhases>(m, "Phases")
        .def(nb::init<TokenCounts, TokenCounts, bool>(), nb::arg().noconvert(),
             nb::arg().noconvert(), nb::arg())
        .def("of", &BoundPhases::of);
    m.def("phase_of", &bound_phase_of, nb::arg().noconvert(), nb::arg().noconvert(), nb::arg());
}

}  // namespace graphguard
