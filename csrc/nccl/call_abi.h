// What Python calls, by ctypes, in each of the libraries that record calls of NCCL.
#pragma once

#include <cstddef>
#include <cstdint>

#include "nccl/call_record.h"

namespace graphguard::nccl {

inline constexpr std::uint32_t kAbiVersion = 1;

}  // namespace graphguard::nccl

#define GRAPHGUARD_EXPORT __attribute__((visibility("default")))

extern "C" {

GRAPHGUARD_EXPORT std::uint32_t graphguard_nccl_abi() noexcept;
GRAPHGUARD_EXPORT std::size_t graphguard_nccl_record_size() noexcept;

// begin and end return a CallLog::Status as a number; 0 is done. See CallLog for what they do.
GRAPHGUARD_EXPORT std::int32_t graphguard_nccl_begin(std::uint64_t capture_id) noexcept;
GRAPHGUARD_EXPORT std::int32_t graphguard_nccl_end(std::uint64_t capture_id) noexcept;
GRAPHGUARD_EXPORT std::size_t graphguard_nccl_take(std::uint64_t capture_id,
                                                   graphguard::nccl::CallRecord* calls,
                                                   std::size_t capacity,
                                                   std::uint64_t* dropped) noexcept;
}
