// How the ledger lies in shared memory. Every word is an atomic with one writer, but for the
// decision cells, `trouble` and the words of notices, which ranks change by compare-and-swap.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace graphguard::ledger {

inline constexpr std::uint64_t kMagic = 0x3152474C44454747ULL;  // "GGEDLGR1" as bytes
inline constexpr std::uint32_t kVersion = 1;
inline constexpr std::uint32_t kMaxRanks = 512;
inline constexpr std::uint32_t kSlots = 1024;
inline constexpr std::uint32_t kNotices = 256;

// Beside the process id of a rank that has said that it ends.
inline constexpr std::uint64_t kLeft = 1ULL << 63U;

using Word = std::atomic<std::uint64_t>;
static_assert(Word::is_always_lock_free, "shared memory needs atomics without a lock");

// Written once by whoever makes the segment, before its name is told to anybody.
struct alignas(64) Header {
    std::uint64_t magic;
    std::uint32_t version;
    std::uint32_t num_ranks;
    std::uint32_t slots;
    std::uint32_t notices;
    std::uint64_t bytes;
    std::uint64_t token;
};

struct alignas(64) Line {
    Word word;
};

// Two lines a rank: the one that peers read at every step, and the one that says who it is.
struct RankLines {
    alignas(64) Word passed;  // the highest step it has published
    alignas(64) Word pid;     // 0 until it has joined
};

struct alignas(64) Slot {
    Word stamp;  // the step that the slot holds; 0 while it is written
    Word digest_high;
    Word digest_low;
    Word key;
    Word requests;  // num_reqs, query_len
    Word rest;      // num_tokens, phase, kind, reason
    Word outcome;
    Word checksum;
};
static_assert(sizeof(Slot) == 64);

struct alignas(64) Notice {
    Word word;  // its state, and the step from which it holds
    Word what;
    Word subject_high;
    Word subject_low;
    Word key;
    Word from;
};

struct Shared {
    Header header;
    Line trouble;
    Line notice_count;
    Notice notices[kNotices];
    Line cells[kSlots];
    // Then num_ranks RankLines, then num_ranks * kSlots Slots.
};

constexpr std::size_t bytes_for(std::uint32_t num_ranks) {
    return sizeof(Shared) + num_ranks * (sizeof(RankLines) + kSlots * sizeof(Slot));
}

}  // namespace graphguard::ledger
