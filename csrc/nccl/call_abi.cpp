#include "nccl/call_abi.h"

#include "nccl/call_log.h"

using graphguard::nccl::call_log;

std::uint32_t graphguard_nccl_abi() noexcept {
    return graphguard::nccl::kAbiVersion;
}

std::size_t graphguard_nccl_record_size() noexcept {
    return sizeof(graphguard::nccl::CallRecord);
}

std::int32_t graphguard_nccl_begin(std::uint64_t capture_id) noexcept {
    return static_cast<std::int32_t>(call_log().begin(capture_id));
}

std::int32_t graphguard_nccl_end(std::uint64_t capture_id) noexcept {
    return static_cast<std::int32_t>(call_log().end(capture_id));
}

std::size_t graphguard_nccl_take(std::uint64_t capture_id, graphguard::nccl::CallRecord* calls,
                                 std::size_t capacity, std::uint64_t* dropped) noexcept {
    return call_log().take(capture_id, calls, capacity, dropped);
}
