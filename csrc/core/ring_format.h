// How a black box lies in its file. Little endian; offsets in bytes.
//
//     0      the header's fields (HeaderFields), with their checksum at 136
//     256    how many records were begun
//     512    what the process is doing right now (pulse_format.h)
//     4096   128 slots for names: u16 length, u16 zero, u32 checksum, up to 120 bytes of UTF-8
//     20480  the records, 64 bytes each; record n is in slot (n - 1) % capacity:
//            0 u64 number, 8 u64 ticks, 16 u64 step, 24 u64 digest, 32 u32 num_reqs,
//            36 u32 query_len, 40 u32 num_tokens, 44 u16 role, 46 u16 group, 48 u8 event,
//            49 u8 action, 50 u8 reason, 51 u8 phase, 52 u16 peer, 54 u16 flags, 56 u32 detail,
//            60 u32 checksum
//
// Everything is made of 64-bit words that are written and read as atomics, so that a process may
// read the file while another one writes it. A checksum tells what was written whole from what was
// not.
#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>

#include "core/fold.h"

namespace graphguard {

enum class Event : std::uint8_t {
    kNone,
    kClock,
    kCapture,
    kCheck,
    kReplayBegin,
    kReplayEnd,
    kEagerBegin,
    kEagerEnd,
    kDivergence,
    kVote,
    kNote,
    kSealed,
    kClosed,
};

inline constexpr std::uint16_t kNoName = 0xFFFF;
inline constexpr std::uint16_t kNoPeer = 0xFFFF;
inline constexpr std::uint8_t kNotSet = 0xFF;

inline constexpr std::uint16_t kFlagAdopted = 1;  // the launch is another rank's decision
inline constexpr std::uint16_t kFlagEnforce = 2;
inline constexpr std::uint16_t kFlagVoted = 4;

// What a record says, besides its number and its time. A clock record has CLOCK_MONOTONIC in `step`
// and CLOCK_REALTIME in `digest`, both in nanoseconds.
struct RecordFields {
    std::uint64_t step = 0;
    std::uint64_t digest = 0;
    std::uint32_t num_reqs = 0;
    std::uint32_t query_len = 0;
    std::uint32_t num_tokens = 0;
    std::uint16_t role = kNoName;
    std::uint16_t group = kNoName;
    Event event = Event::kNone;
    std::uint8_t action = kNotSet;
    std::uint8_t reason = kNotSet;
    std::uint8_t phase = kNotSet;
    std::uint16_t peer = kNoPeer;
    std::uint16_t flags = 0;
    std::uint32_t detail = 0;
};

namespace ring {

static_assert(std::endian::native == std::endian::little, "the file is little endian");

inline constexpr std::uint64_t kMagic = 0x584F424B4C424747ULL;  // "GGBLKBOX" as bytes
inline constexpr std::uint32_t kVersion = 1;
inline constexpr std::uint32_t kHeaderBytes = 4096;
inline constexpr std::uint32_t kRecordBytes = 64;
inline constexpr std::uint32_t kNameSlots = 128;
inline constexpr std::uint32_t kNameSlotBytes = 128;
inline constexpr std::uint32_t kNameBytes = 120;
inline constexpr std::uint32_t kHostBytes = 64;
inline constexpr std::uint32_t kMostRecords = 1U << 24U;

constexpr bool possible_capacity(std::uint32_t capacity) {
    return std::has_single_bit(capacity) && capacity <= kMostRecords;
}

// Pairs of words are folded, and the folds are joined in an order of their own, so that words in
// each other's place do not go unseen. The folds do not wait for each other: a record is summed in
// the time of one multiplication and a few shifts. An accident goes unseen once in 2^32.
template <std::size_t kWords>
constexpr std::uint32_t checksum(const std::array<std::uint64_t, kWords>& words) {
    std::uint64_t sum = kWords;
    for (std::size_t i = 0; i < kWords; i += 2) {
        const std::uint64_t second = i + 1 < kWords ? words[i + 1] : 0;
        sum += std::rotl(fold(words[i], second), static_cast<int>(i * 11 % 64));
    }
    return static_cast<std::uint32_t>(sum ^ (sum >> 32U));
}

using Word = std::atomic<std::uint64_t>;
static_assert(Word::is_always_lock_free && sizeof(Word) == 8);

// The header's fields; written once, the first word last.
struct HeaderFields {
    std::uint64_t magic = kMagic;
    std::uint32_t version = kVersion;
    std::uint32_t header_bytes = kHeaderBytes;
    std::uint32_t record_bytes = kRecordBytes;
    std::uint32_t capacity = 0;
    std::uint32_t name_slots = kNameSlots;
    std::uint32_t name_slot_bytes = kNameSlotBytes;
    std::uint32_t rank = 0;
    std::uint32_t world_size = 0;
    std::uint64_t pid = 0;
    std::uint64_t ticks = 0;
    std::uint64_t monotonic_ns = 0;
    std::uint64_t realtime_ns = 0;
    std::array<char, kHostBytes> host{};
    std::uint32_t checksum = 0;
    std::uint32_t zero = 0;
};
static_assert(sizeof(HeaderFields) == 144 && offsetof(HeaderFields, pid) == 40 &&
              offsetof(HeaderFields, host) == 72 && offsetof(HeaderFields, checksum) == 136);

using HeaderWords = std::array<std::uint64_t, sizeof(HeaderFields) / 8>;

constexpr std::uint32_t header_checksum(const HeaderWords& words) {
    std::array<std::uint64_t, offsetof(HeaderFields, checksum) / 8> summed{};
    for (std::size_t i = 0; i < summed.size(); ++i) summed[i] = words[i];
    return checksum(summed);
}

// Length and checksum are the first word, which is written last.
struct NameSlot {
    std::array<Word, kNameSlotBytes / 8> words;
};
using NameWords = std::array<std::uint64_t, kNameSlotBytes / 8>;

// `words[0]` with the checksum left out is the length.
constexpr std::uint32_t name_checksum(NameWords words) {
    words[0] &= 0xFFFFFFFFULL;
    return checksum(words);
}

// The checksum is in the last word, which is written last.
struct Slot {
    std::array<Word, kRecordBytes / 8> words;
};
using RecordWords = std::array<std::uint64_t, kRecordBytes / 8>;

constexpr std::uint32_t record_checksum(RecordWords words) {
    words[7] &= 0xFFFFFFFFULL;
    return checksum(words);
}

// What lies before the records. `next`, which every write changes, has a cache line to itself.
struct FixedPart {
    std::array<Word, sizeof(HeaderFields) / 8> header;
    std::array<std::byte, 256 - sizeof(HeaderFields)> before_next;
    Word next;
    std::array<std::byte, kHeaderBytes - 256 - sizeof(Word)> after_next;
    std::array<NameSlot, kNameSlots> names;
};
static_assert(offsetof(FixedPart, next) == 256 && offsetof(FixedPart, names) == kHeaderBytes);
static_assert(sizeof(FixedPart) == kHeaderBytes + std::size_t{kNameSlots} * kNameSlotBytes);
static_assert(sizeof(Slot) == kRecordBytes && sizeof(NameSlot) == kNameSlotBytes);

constexpr std::size_t bytes_for(std::uint32_t capacity) {
    return sizeof(FixedPart) + std::size_t{capacity} * kRecordBytes;
}

// Shifts and not copies of memory: a field that was just stored alone is loaded alone, which the
// processor can answer from its store buffer.
inline RecordWords pack(std::uint64_t number, std::uint64_t ticks, const RecordFields& fields) {
    const auto wide = [](auto value) { return static_cast<std::uint64_t>(value); };
    RecordWords words = {
        number,
        ticks,
        fields.step,
        fields.digest,
        wide(fields.num_reqs) | wide(fields.query_len) << 32U,
        wide(fields.num_tokens) | wide(fields.role) << 32U | wide(fields.group) << 48U,
        wide(fields.event) | wide(fields.action) << 8U | wide(fields.reason) << 16U |
            wide(fields.phase) << 24U | wide(fields.peer) << 32U | wide(fields.flags) << 48U,
        wide(fields.detail),
    };
    words[7] |= wide(checksum(words)) << 32U;
    return words;
}

inline RecordFields unpack(const RecordWords& words) {
    return {
        .step = words[2],
        .digest = words[3],
        .num_reqs = static_cast<std::uint32_t>(words[4]),
        .query_len = static_cast<std::uint32_t>(words[4] >> 32U),
        .num_tokens = static_cast<std::uint32_t>(words[5]),
        .role = static_cast<std::uint16_t>(words[5] >> 32U),
        .group = static_cast<std::uint16_t>(words[5] >> 48U),
        .event = static_cast<Event>(words[6]),
        .action = static_cast<std::uint8_t>(words[6] >> 8U),
        .reason = static_cast<std::uint8_t>(words[6] >> 16U),
        .phase = static_cast<std::uint8_t>(words[6] >> 24U),
        .peer = static_cast<std::uint16_t>(words[6] >> 32U),
        .flags = static_cast<std::uint16_t>(words[6] >> 48U),
        .detail = static_cast<std::uint32_t>(words[7]),
    };
}

}  // namespace ring

}  // namespace graphguard
