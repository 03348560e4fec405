// What Python asks of the interposer alone, beside what call_abi.h has for both recorders.
#include "nccl/call_abi.h"
#include "nccl/real_library.h"

extern "C" {

// The path of the real library, which is loaded if it is not yet; empty where there is none.
GRAPHGUARD_EXPORT const char* graphguard_nccl_real_path() noexcept {
    return graphguard::nccl::real_library().path;
}

// Why there is no real library; empty where there is one.
GRAPHGUARD_EXPORT const char* graphguard_nccl_real_absence() noexcept {
    return graphguard::nccl::real_library().absence;
}
}
