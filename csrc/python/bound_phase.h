// The phase of a batch as Python asks for it, of an engine's own arrays.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstddef>
#include <cstdint>
#include <span>

#include "core/phase.h"

namespace graphguard {

namespace nb = nanobind;

using TokenCounts = nb::ndarray<const std::int32_t, nb::shape<-1>, nb::c_contig, nb::device::cpu>;

inline std::uint8_t bound_phase_of(const TokenCounts& computed, const TokenCounts& prompts,
                                   std::size_t num_reqs) {
    if (num_reqs > computed.size() || num_reqs > prompts.size()) {
        throw nb::index_error("more requests than the arrays have");
    }
    return static_cast<std::uint8_t>(
        phase_of(std::span(computed.data(), num_reqs), std::span(prompts.data(), num_reqs)));
}

inline void bind_phase(nb::module_& m) {
    m.def("phase_of", &bound_phase_of, nb::arg().noconvert(), nb::arg().noconvert(), nb::arg());
}

}  // namespace graphguard
