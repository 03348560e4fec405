// How breadcrumbs lie in their file: what says how far the replays of a process's graphs have got.
// Little endian; offsets in bytes.
//
//     0       the header's fields (HeaderFields), with their checksum at 136
//     256     u64 graphs, u64 texts, u64 marks: how many of each were ever in use
//     280     u64 how many graphs there was no room for
//     4096    8192 graphs of 64 bytes: 0 u64 generation (even: whole), 8 u64 digest,
//             16 u64 launched, 24 u32 first mark, 28 u32 marks, 32 u16 text of its name,
//             34 u8 state, 35 u8 kind, 36 u32 marks that are missing, 40 u64 captured at
//             (CLOCK_MONOTONIC), 48 u64 zero, 56 u64 checksum of all but `launched`
//     528384  2048 texts of 128 bytes, as the names of a black box
//     790528  65536 u16: which text says what call a mark is of
//     983040  65536 u64: how many replays have passed a mark
//
// A mark is passed once by every replay, and its number counted up by whoever runs the graph: a
// device, to which the numbers and nothing else are mapped, or the replay of an emulated graph. So
// replay r has passed a mark if and only if its number is at least r, whatever the order of marks
// on several streams, and however many launches are queued.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "core/ring_format.h"

namespace graphguard {

// What counts a mark up.
enum class CrumbKind : std::uint8_t {
    kKernel,  // a kernel of one thread
    kMemset,  // a node that writes a constant: 1 once the replay in flight has passed
    kMemop,   // the same, by the stream's memory operations
    kHost,    // a function on the host
    kEmulated,
};

// Whether a mark tells which replay has passed it.
constexpr bool counts_replays(CrumbKind kind) {
    return kind != CrumbKind::kMemset && kind != CrumbKind::kMemop;
}

enum class CrumbState : std::uint8_t { kUnused, kLive, kGone };

namespace crumbs {

using ring::HeaderFields;
using ring::HeaderWords;
using ring::NameSlot;
using ring::NameWords;
using ring::Word;

inline constexpr std::uint64_t kMagic = 0x424D555243474747ULL;  // "GGGCRUMB" as bytes
inline constexpr std::uint32_t kVersion = 1;
inline constexpr std::uint32_t kHeaderBytes = 4096;
inline constexpr std::uint32_t kGraphBytes = 64;
inline constexpr std::uint32_t kGraphs = 8192;
inline constexpr std::uint32_t kTexts = 2048;
inline constexpr std::uint32_t kMarks = 65536;
inline constexpr std::uint16_t kNoText = 0xFFFF;

// The largest page of a machine with CUDA: only whole pages are mapped to a device.
inline constexpr std::size_t kDevicePage = 65536;

struct GraphSlot {
    std::array<Word, kGraphBytes / 8> words;
};
using GraphWords = std::array<std::uint64_t, kGraphBytes / 8>;
inline constexpr std::size_t kGeneration = 0;
inline constexpr std::size_t kLaunched = 2;
inline constexpr std::size_t kChecksum = 7;

constexpr std::uint64_t graph_checksum(GraphWords words) {
    words[kLaunched] = 0;
    words[kChecksum] = 0;
    return ring::checksum(words);
}

// What is written of a graph when it is captured or described.
struct GraphFields {
    std::uint64_t digest = 0;
    std::uint32_t first = 0;
    std::uint32_t marks = 0;
    std::uint16_t name = kNoText;
    CrumbState state = CrumbState::kUnused;
    CrumbKind kind = CrumbKind::kKernel;
    std::uint32_t missing = 0;
    std::uint64_t captured_ns = 0;
};

inline GraphWords pack(std::uint64_t generation, const GraphFields& fields) {
    const auto wide = [](auto value) { return static_cast<std::uint64_t>(value); };
    GraphWords words = {
        generation,
        fields.digest,
        0,
        wide(fields.first) | wide(fields.marks) << 32U,
        wide(fields.name) | wide(fields.state) << 16U | wide(fields.kind) << 24U |
            wide(fields.missing) << 32U,
        fields.captured_ns,
        0,
        0,
    };
    words[kChecksum] = graph_checksum(words);
    return words;
}

inline GraphFields unpack(const GraphWords& words) {
    return {
        .digest = words[1],
        .first = static_cast<std::uint32_t>(words[3]),
        .marks = static_cast<std::uint32_t>(words[3] >> 32U),
        .name = static_cast<std::uint16_t>(words[4]),
        .state = static_cast<CrumbState>(words[4] >> 16U),
        .kind = static_cast<CrumbKind>(words[4] >> 24U),
        .missing = static_cast<std::uint32_t>(words[4] >> 32U),
        .captured_ns = words[5],
    };
}

using TextOfMark = std::atomic<std::uint16_t>;
static_assert(TextOfMark::is_always_lock_free && sizeof(TextOfMark) == 2);

struct File {
    std::array<Word, sizeof(HeaderFields) / 8> header;
    std::array<std::byte, 256 - sizeof(HeaderFields)> before_used;
    Word used_graphs;
    Word used_texts;
    Word used_marks;
    Word refused;
    std::array<std::byte, kHeaderBytes - 256 - 4 * sizeof(Word)> after_used;
    std::array<GraphSlot, kGraphs> graphs;
    std::array<NameSlot, kTexts> texts;
    std::array<TextOfMark, kMarks> text_of_mark;
    std::array<std::byte, 61440> before_numbers;
    std::array<Word, kMarks> numbers;
};
static_assert(offsetof(File, used_graphs) == 256 && offsetof(File, refused) == 280);
static_assert(offsetof(File, graphs) == kHeaderBytes && sizeof(GraphSlot) == kGraphBytes);
static_assert(offsetof(File, texts) == 528384 && offsetof(File, text_of_mark) == 790528);
static_assert(offsetof(File, numbers) == 983040 && offsetof(File, numbers) % kDevicePage == 0);
static_assert(sizeof(File) == 983040 + std::size_t{kMarks} * 8);

}  // namespace crumbs

}  // namespace graphguard
