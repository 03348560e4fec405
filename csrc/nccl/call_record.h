// One call of NCCL, as the profiler plugin and the interposer record it and Python reads it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace graphguard::nccl {

enum class Source : std::uint8_t { kPlugin = 1, kInterposer = 2 };

enum class Captured : std::uint8_t {
    kNo = 0,
    kYes = 1,
    kUntold = 2,  // NCCL before 2.28 does not say
};

// Plain data: Python reads an array of them through ctypes, with the layout that is asserted below.
// A change of it is a new kAbiVersion.
struct CallRecord {
    std::uint64_t order = 0;              // number of the call in this library and process
    std::uint64_t capture_id = 0;         // of the stream's capture; 0 where unknown
    std::uint64_t communicator = 0;       // this process's handle of it
    std::uint64_t communicator_hash = 0;  // equal on all its ranks; 0 where unknown
    std::uint64_t count = 0;              // elements, as the caller gave them
    std::uint64_t send_buffer = 0;
    std::uint64_t recv_buffer = 0;
    std::uint64_t stream = 0;
    std::uint64_t group = 0;     // number of the outermost ncclGroupStart; 0 outside of any
    std::uint64_t user_tag = 0;  // ncclCollConfig_t.userProfilerTag, NCCL 2.31 and newer
    std::uint64_t thread = 0;    // pthread_self, which is Python's threading.get_ident
    std::int32_t rank = -1;
    std::int32_t num_ranks = 0;
    std::int32_t root = -1;
    std::int32_t peer = -1;
    char operation[24] = {};  // graphguard's words: all_reduce, all_gather, send
    char dtype[16] = {};      // torch's words: bfloat16, float32
    char reduction[16] = {};  // sum, max …; empty where nothing is reduced or nobody told
    Source source = Source::kPlugin;
    Captured captured = Captured::kUntold;
    std::uint8_t reserved[6] = {};
};

static_assert(sizeof(CallRecord) == 168 && alignof(CallRecord) == 8);
static_assert(offsetof(CallRecord, rank) == 88 && offsetof(CallRecord, operation) == 104);
static_assert(offsetof(CallRecord, source) == 160 && offsetof(CallRecord, captured) == 161);
static_assert(std::is_trivially_copyable_v<CallRecord> && std::is_standard_layout_v<CallRecord>);

// Cut off where it is too long, and always terminated.
template <std::size_t kSize>
void set_word(char (&field)[kSize], const char* word) noexcept {
    std::size_t length = 0;
    while (word != nullptr && length + 1 < kSize && word[length] != '\0') {
        field[length] = word[length];
        ++length;
    }
    field[length] = '\0';
}

}  // namespace graphguard::nccl
