// What NCCL looks for in a profiler plugin; it takes the newest version that it knows.
#pragma once

#include "nccl/call_abi.h"
#include "nccl/profiler_v4.h"
#include "nccl/profiler_v5.h"
#include "nccl/profiler_v6.h"
#include "nccl/profiler_v7.h"

extern "C" {
GRAPHGUARD_EXPORT extern const graphguard::nccl::ProfilerV4 ncclProfiler_v4;
GRAPHGUARD_EXPORT extern const graphguard::nccl::ProfilerV5 ncclProfiler_v5;
GRAPHGUARD_EXPORT extern const graphguard::nccl::ProfilerV6 ncclProfiler_v6;
GRAPHGUARD_EXPORT extern const graphguard::nccl::ProfilerV7 ncclProfiler_v7;

// What Python asks of the plugin alone: communicators that it was told of since it was loaded and
// those that are still there, the version of NCCL's interface that was last used (0 for none), and
// what became of the next plugin. The text is terminated and cut off at `capacity`; the result is
// its whole length.
GRAPHGUARD_EXPORT std::uint64_t graphguard_nccl_plugin_communicators(std::uint64_t* live) noexcept;
GRAPHGUARD_EXPORT std::int32_t graphguard_nccl_plugin_interface() noexcept;
GRAPHGUARD_EXPORT std::size_t graphguard_nccl_plugin_next(char* text,
                                                          std::size_t capacity) noexcept;
}
