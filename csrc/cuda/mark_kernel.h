// The kernel of a mark, as text that the driver compiles for its device: one thread adds one to a
// 64-bit word that nobody else writes, where the whole system can see it.
#pragma once

namespace graphguard::cuda {

inline constexpr const char* kMarkKernelName = "graphguard_mark";

// PTX 6.3, for every device since Volta. No atomic addition: over a bus that has none, the word
// would not be one of the host's. The word has one writer, and replays of a graph do not overlap.
inline constexpr const char* kMarkKernel = R"(
.version 6.3
.target sm_70
.address_size 64
.visible .entry graphguard_mark(.param .u64 number)
{
    .reg .b64 %address;
    .reg .b64 %count;
    ld.param.u64 %address, [number];
    cvta.to.global.u64 %address, %address;
    ld.relaxed.sys.global.u64 %count, [%address];
    add.u64 %count, %count, 1;
    st.release.sys.global.u64 [%address], %count;
    ret;
}
)";

}  // namespace graphguard::cuda
