// Records whose every field follows from who wrote them and when, so that a reader can tell whether
// a record is one that was written.
#pragma once

#include <cstdint>

#include "core/fold.h"
#include "core/ring_format.h"

namespace graphguard::stress {

inline RecordFields known_record(std::uint16_t writer, std::uint64_t step) {
    const std::uint64_t mixed = fold(step, writer);
    const auto part = [&](unsigned shift) { return static_cast<std::uint32_t>(mixed >> shift); };
    RecordFields fields;
    fields.step = step;
    fields.digest = fold(mixed, step);
    fields.num_reqs = part(32);
    fields.query_len = part(16);
    fields.num_tokens = part(0);
    fields.role = writer;
    fields.group = static_cast<std::uint16_t>(part(8));
    // Neither "none" nor "clock", which the ring writes itself.
    fields.event = static_cast<Event>(2 + part(24) % 11);
    fields.action = static_cast<std::uint8_t>(part(3));
    fields.reason = static_cast<std::uint8_t>(part(5));
    fields.phase = static_cast<std::uint8_t>(part(7));
    fields.peer = static_cast<std::uint16_t>(part(11));
    fields.flags = static_cast<std::uint16_t>(part(13));
    fields.detail = part(29);
    return fields;
}

inline bool is_known(const RecordFields& fields) {
    const auto words = [](const RecordFields& each) { return ring::pack(1, 1, each); };
    return words(fields) == words(known_record(fields.role, fields.step));
}

}  // namespace graphguard::stress
