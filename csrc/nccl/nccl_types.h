// What the interposer needs of nccl.h, declared here so that no NCCL is needed to build. Names and
// layouts are those of nccl.h, NCCL 2.27 to 2.31: https://github.com/NVIDIA/nccl, src/nccl.h.in.
#pragma once

#include <climits>
#include <cstddef>
#include <cstdint>

namespace graphguard::nccl {

using Result = int;  // ncclResult_t
inline constexpr Result kSuccess = 0;
inline constexpr Result kSystemError = 2;
inline constexpr Result kInvalidUsage = 5;
inline constexpr Result kInProgress = 7;  // of a communicator that does not block: it goes on

using Communicator = void*;   // ncclComm_t
using Stream = void*;         // cudaStream_t
using Window = void*;         // ncclWindow_t
using Config = void;          // ncclConfig_t, passed on unseen
using SimulationInfo = void;  // ncclSimInfo_t, passed on unseen

inline constexpr int kSplitNoColor = -1;

struct UniqueId {
    char internal[128];
};
static_assert(sizeof(UniqueId) == 128);

// ncclCollConfig_t as of 2.31, which only grows at its end.
struct CollectiveConfig {
    std::size_t size;
    unsigned int magic;
    unsigned int version;
    void* extension;
    int min_ctas, max_ctas, nvls_ctas, cga_cluster_size;
    const char* algorithm_selection;
    int force_algorithm_selection;
    int cta_policy;
    std::uint64_t user_profiler_tag;
};
static_assert(offsetof(CollectiveConfig, user_profiler_tag) == 56);
static_assert(sizeof(CollectiveConfig) == 64);

// ncclWaitSignalDesc_t
struct WaitSignalDescriptor {
    int operations;
    int peer;
    int signal;
    int context;
};
static_assert(sizeof(WaitSignalDescriptor) == 16);

}  // namespace graphguard::nccl
