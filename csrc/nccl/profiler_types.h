// What all versions of NCCL's profiler interface share: src/include/plugin/nccl_profiler.h and
// src/include/nccl_common.h of NCCL.
#pragma once

namespace graphguard::nccl {

using Result = int;  // ncclResult_t
inline constexpr Result kSuccess = 0;
inline constexpr Result kSystemError = 2;

// ncclDebugLogger_t, and the numbers that it is called with here.
using Logger = void (*)(int level, unsigned long flags, const char* file, int line,
                        const char* format, ...);
inline constexpr int kLogWarning = 2;
inline constexpr int kLogInfo = 3;
inline constexpr unsigned long kLogInit = 1;

// The bits of an activation mask, and the types of events.
enum EventType : int {
    kGroup = 1 << 0,
    kCollective = 1 << 1,
    kPointToPoint = 1 << 2,
    kProxyOperation = 1 << 3,
    kProxyStep = 1 << 4,
    kProxyControl = 1 << 5,
    kKernelChannel = 1 << 6,
    kNetPlugin = 1 << 7,
    kGroupApi = 1 << 8,
    kCollectiveApi = 1 << 9,
    kPointToPointApi = 1 << 10,
    kKernelLaunch = 1 << 11,
    kCopyEngineCollective = 1 << 12,
    kCopyEngineSync = 1 << 13,
    kCopyEngineBatch = 1 << 14,
    kKernelPhase = 1 << 15,
};

}  // namespace graphguard::nccl
