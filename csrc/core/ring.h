// The black box's writer: records of 64 bytes in a ring of memory that outlives the process.
//
// write() takes no lock, makes no system call (Linux lets the clocks be read without one; a thread
// asks for its own id when it begins its first launch) and allocates nothing; any thread may call
// it. A process that is killed in the middle of it leaves one record whose checksum does not match;
// so does a thread that stands still in the middle of it while the others go once round the ring.
//
// Once a second, and once in 1024 records, write() also writes a clock record, from which the
// reader knows the rate of the ticks.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>

#include "core/clock.h"
#include "core/pulse.h"
#include "core/ring_format.h"

namespace graphguard {

struct RingIdentity {
    std::uint32_t rank = 0;
    std::uint32_t world_size = 1;
    std::uint64_t pid = 0;
    std::string host;
    std::uint32_t capacity = 0;  // records kept; a power of two
};

class RingWriter {
  public:
    [[nodiscard]] static std::size_t bytes_for(std::uint32_t capacity) {
        return ring::bytes_for(capacity);
    }

    // `memory` is borrowed, must be zero and of exactly bytes_for(capacity) bytes. Takes about
    // 0.2 ms, to measure the rate of the ticks. Throws std::invalid_argument for another size, a
    // capacity that is impossible, or memory that holds a ring already.
    RingWriter(std::span<std::byte> memory, const RingIdentity& identity);

    // The index of a name, the same for the same text; kNoName when there is no room for more.
    // Takes a lock: names are known before the hot path begins.
    std::uint16_t name(std::string_view text);

    void write(const RecordFields& fields) noexcept;

    // What is under way besides launches, which records tell of.
    void begin_activity(ActivityKind kind, std::uint16_t name, std::uint64_t step) noexcept {
        if (disowned_.load(std::memory_order_relaxed)) return;
        RecordFields fields;
        fields.role = name;
        fields.step = step;
        pulse_.begin(kind, clock_.now(), fields);
    }
    void end_activity(ActivityKind kind, std::uint16_t name) noexcept {
        if (!disowned_.load(std::memory_order_relaxed)) pulse_.end(kind, name);
    }
    [[nodiscard]] PulseWriter& pulse() noexcept { return pulse_; }
    [[nodiscard]] const TickClock& clock() const noexcept { return clock_; }
    [[nodiscard]] bool disowned() const noexcept {
        return disowned_.load(std::memory_order_relaxed);
    }

    // How many records were begun, those that have been overwritten and clock records included.
    [[nodiscard]] std::uint64_t written() const {
        return fixed_->next.load(std::memory_order_relaxed);
    }

    // For the child after a fork: the memory is its parent's. Every later call does nothing.
    void disown() noexcept { disowned_.store(true, std::memory_order_relaxed); }

  private:
    void write_header(const RingIdentity& identity, const ClockSample& sample);
    void measure_rate(const ClockSample& first);
    void write_clock(std::uint64_t number) noexcept;

    [[nodiscard]] std::uint64_t claim() noexcept {
        return fixed_->next.fetch_add(1, std::memory_order_relaxed) + 1;
    }
    void commit(std::uint64_t number, std::uint64_t ticks, const RecordFields& fields) noexcept {
        const ring::RecordWords words = ring::pack(number, ticks, fields);
        ring::Slot& slot = slots_[(number - 1) & mask_];
        for (std::size_t i = 0; i + 1 < words.size(); ++i) {
            slot.words[i].store(words[i], std::memory_order_relaxed);
        }
        slot.words.back().store(words.back(), std::memory_order_release);
    }

    ring::FixedPart* fixed_;
    ring::Slot* slots_;
    PulseWriter pulse_;
    std::uint64_t mask_;
    std::uint64_t clock_mask_;  // a number with none of these bits is a clock record's
    std::uint64_t clock_interval_ = 0;
    std::atomic<std::uint64_t> clock_due_{0};  // in ticks
    std::atomic<bool> disowned_{false};
    TickClock clock_;

    std::mutex names_lock_;
    std::unordered_map<std::string, std::uint16_t> names_;
};

}  // namespace graphguard
