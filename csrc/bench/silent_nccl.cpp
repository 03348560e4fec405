// An NCCL whose functions return at once: what a call costs beyond NCCL is seen against it.
#include <cstddef>

#include "nccl/nccl_types.h"

using graphguard::nccl::Communicator;
using graphguard::nccl::kSuccess;
using graphguard::nccl::Result;
using graphguard::nccl::UniqueId;

#define SILENT_EXPORT extern "C" __attribute__((visibility("default")))

SILENT_EXPORT Result ncclCommInitRank(Communicator* place, int, UniqueId, int) {
    static int communicator = 0;
    *place = &communicator;
    return kSuccess;
}

SILENT_EXPORT Result ncclAllReduce(const void*, void*, std::size_t, int, int, void*, void*) {
    return kSuccess;
}

SILENT_EXPORT Result ncclGetVersion(int* version) {
    *version = 0;
    return kSuccess;
}
