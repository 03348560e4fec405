// Reads a black box, from a file that is damaged, hostile or being written.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/ring.h"

namespace graphguard {

struct RingRecord {
    std::uint64_t number = 0;   // 1 for the first that the process wrote
    std::uint64_t time_ns = 0;  // since the epoch; 0 where the rate of the ticks is not known
    RecordFields fields;
};

struct RingContents {
    std::string error;  // why nothing could be read; empty if something could
    RingIdentity identity;
    std::uint64_t started_ns = 0;  // since the epoch
    std::uint64_t written = 0;     // records begun, those that were overwritten included
    std::vector<std::optional<std::string>> names;  // by index; the last one is there
    std::vector<RingRecord> records;                // in the order of their numbers
    // Slots of records and names that hold neither what was written whole nor only zeros. Where a
    // process was killed, or is writing just now, the slot it was writing is one of them.
    std::uint64_t damaged = 0;
};

// Never reads outside `data`, and needs no more memory than its size. Never throws but
// std::bad_alloc. `data` may change while it is read.
[[nodiscard]] RingContents read_ring(std::span<const std::byte> data);

// The names alone, of the beginning of a black box: none if that is not one, or is too short.
[[nodiscard]] std::vector<std::optional<std::string>> read_ring_names(
    std::span<const std::byte> beginning);

}  // namespace graphguard
