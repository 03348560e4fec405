// The pulse's writer, and its reader.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "core/clock.h"
#include "core/pulse_format.h"
#include "core/ring_format.h"

namespace graphguard {

using pulse::ActivityKind;

// The id of the calling thread. The kernel is asked for it once in each thread.
std::uint64_t thread_id() noexcept;

// No lock, no allocation; and no system call but in the first activity of a thread that has not
// opened the ring.
class PulseWriter {
  public:
    PulseWriter() = default;
    // `memory` is that of a ring, whose header is there.
    explicit PulseWriter(std::span<std::byte> memory) noexcept;

    void begin(ActivityKind kind, std::uint64_t ticks, const RecordFields& fields) noexcept;
    void end(ActivityKind kind, std::uint16_t name) noexcept;

    // A record that begins or ends a launch does so here too.
    void follow(const RecordFields& fields, std::uint64_t ticks) noexcept {
        switch (fields.event) {
            case Event::kReplayBegin:
                return begin(ActivityKind::kReplay, ticks, fields);
            case Event::kEagerBegin:
                return begin(ActivityKind::kEager, ticks, fields);
            case Event::kReplayEnd:
                return end(ActivityKind::kReplay, fields.role);
            case Event::kEagerEnd:
                return end(ActivityKind::kEager, fields.role);
            default:
                return;
        }
    }

    // What is under way until then is slow, and not stuck.
    void extend(std::uint64_t until_ns, std::uint16_t why) noexcept;
    void set_stacks(std::uint32_t signal, std::uint16_t file) noexcept;

    [[nodiscard]] pulse::Page& page() noexcept { return *page_; }

  private:
    pulse::Page* page_ = nullptr;
};

struct ActivityRead {
    ActivityKind kind = ActivityKind::kNone;
    std::uint16_t name = kNoName;
    std::uint16_t group = kNoName;
    std::uint64_t step = 0;
    std::uint64_t digest = 0;
    std::uint32_t num_reqs = 0;
    std::uint32_t query_len = 0;
    std::uint32_t num_tokens = 0;
    std::uint8_t phase = kNotSet;
    std::uint64_t thread = 0;
    std::uint64_t age_ns = 0;
    std::uint64_t watched_ns = 0;
};

struct PulseRead {
    bool there = false;
    bool beats = false;
    std::uint64_t beat_age_ns = 0;
    std::uint64_t stall_ns = 0;
    std::uint64_t startup_ns = 0;
    std::uint64_t stalls = 0;
    std::uint64_t missed_ns = 0;
    std::uint64_t extended_ns = 0;  // what is left of it
    std::uint16_t extended_why = kNoName;
    std::uint32_t stack_signal = 0;
    std::uint16_t stacks_file = kNoName;
    std::uint64_t ended = 0;
    std::vector<ActivityRead> activities;
};

// From two copies of the beginning of a ring's file, taken one after the other while it may have
// been written: what is not the same in both has begun or ended meanwhile. Neither is trusted, nor
// read beyond its end. `now` is left out for a file that no process of this machine writes any
// more: then times are told as of the last beat.
[[nodiscard]] PulseRead read_pulse(std::span<const std::byte> copy,
                                   std::span<const std::byte> copy_after,
                                   const std::optional<ClockSample>& now);

}  // namespace graphguard
