#include "core/ring.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <stdexcept>

#include "core/name_slot.h"

namespace graphguard {

namespace {

constexpr std::uint64_t kCalibrationNs = 200'000;
constexpr std::uint64_t kClockIntervalNs = 1'000'000'000;
constexpr std::uint32_t kClockEvery = 1024;

// A ring that is shorter still holds a clock record at any time.
std::uint64_t clock_mask(std::uint32_t capacity) {
    return std::clamp(capacity / 2, 2U, kClockEvery) - 1;
}

}  // namespace

RingWriter::RingWriter(std::span<std::byte> memory, const RingIdentity& identity)
    : fixed_(reinterpret_cast<ring::FixedPart*>(memory.data())),
      slots_(reinterpret_cast<ring::Slot*>(memory.data() + sizeof(ring::FixedPart))),
      mask_(std::uint64_t{identity.capacity} - 1),
      clock_mask_(clock_mask(identity.capacity)) {
    if (!ring::possible_capacity(identity.capacity)) {
        throw std::invalid_argument("a ring holds a power of two of records, at most 2^24");
    }
    if (memory.size() != bytes_for(identity.capacity)) {
        throw std::invalid_argument("the memory has not the size of a ring of this capacity");
    }
    if (std::bit_cast<std::uintptr_t>(memory.data()) % alignof(ring::FixedPart) != 0) {
        throw std::invalid_argument("the memory of a ring must be aligned to its words");
    }
    if (fixed_->header[0].load(std::memory_order_acquire) != 0) {
        throw std::invalid_argument("the memory holds a ring already");
    }
    const ClockSample first = sample_clocks(clock_);
    write_header(identity, first);
    pulse_ = PulseWriter(memory);
    measure_rate(first);
    write_clock(claim());
}

std::uint16_t RingWriter::name(std::string_view text) {
    if (disowned_.load(std::memory_order_relaxed)) return kNoName;
    const std::lock_guard guard(names_lock_);
    std::string key(text);
    if (const auto known = names_.find(key); known != names_.end()) return known->second;
    if (names_.size() == ring::kNameSlots) return kNoName;
    const auto index = static_cast<std::uint16_t>(names_.size());
    names_.emplace(std::move(key), index);
    ring::write_name(fixed_->names[index], text);
    return index;
}

void RingWriter::write(const RecordFields& fields) noexcept {
    if (disowned_.load(std::memory_order_relaxed)) return;
    const std::uint64_t ticks = clock_.now();
    if (ticks >= clock_due_.load(std::memory_order_relaxed)) [[unlikely]]
        write_clock(claim());
    std::uint64_t number = claim();
    if ((number & clock_mask_) == 0) [[unlikely]] {
        write_clock(number);
        number = claim();
    }
    commit(number, ticks, fields);
    pulse_.follow(fields, ticks);
}

void RingWriter::write_header(const RingIdentity& identity, const ClockSample& sample) {
    ring::HeaderFields fields{
        .capacity = identity.capacity,
        .rank = identity.rank,
        .world_size = identity.world_size,
        .pid = identity.pid,
        .ticks = sample.ticks,
        .monotonic_ns = sample.monotonic_ns,
        .realtime_ns = sample.realtime_ns,
    };
    const std::string_view host = ring::cut(identity.host, fields.host.size());
    std::copy(host.begin(), host.end(), fields.host.begin());
    fields.checksum = ring::header_checksum(std::bit_cast<ring::HeaderWords>(fields));

    const auto words = std::bit_cast<ring::HeaderWords>(fields);
    for (std::size_t i = 1; i < words.size(); ++i) {
        fixed_->header[i].store(words[i], std::memory_order_relaxed);
    }
    fixed_->header[0].store(words[0], std::memory_order_release);
}

void RingWriter::measure_rate(const ClockSample& first) {
    ClockSample now = sample_clocks(clock_);
    while (now.monotonic_ns - first.monotonic_ns < kCalibrationNs) now = sample_clocks(clock_);
    const double ticks_per_ns = static_cast<double>(now.ticks - first.ticks) /
                                static_cast<double>(now.monotonic_ns - first.monotonic_ns);
    clock_interval_ = static_cast<std::uint64_t>(ticks_per_ns * kClockIntervalNs);
}

void RingWriter::write_clock(std::uint64_t number) noexcept {
    const ClockSample sample = sample_clocks(clock_);
    clock_due_.store(sample.ticks + clock_interval_, std::memory_order_relaxed);
    RecordFields fields;
    fields.step = sample.monotonic_ns;
    fields.digest = sample.realtime_ns;
    fields.event = Event::kClock;
    commit(number, sample.ticks, fields);
}

}  // namespace graphguard
