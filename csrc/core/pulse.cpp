#include "core/pulse.h"

#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

namespace graphguard {

namespace {

using pulse::Lane;
using pulse::Page;
using pulse::Word;

constexpr auto kRelaxed = std::memory_order_relaxed;

// A lane's words as they were at one moment.
using LaneWords = std::array<std::uint64_t, sizeof(Lane) / sizeof(Word)>;

thread_local std::uint64_t known_thread = 0;

std::uint64_t asked() noexcept {
    return static_cast<std::uint64_t>(syscall(SYS_gettid));
}

std::uint64_t wide(auto value) {
    return static_cast<std::uint64_t>(value);
}

std::uint64_t word_at(std::span<const std::byte> data, std::size_t offset) {
    std::uint64_t word = 0;
    std::memcpy(&word, data.data() + offset, sizeof word);
    return word;
}

LaneWords lane_at(std::span<const std::byte> data, std::size_t lane) {
    LaneWords words{};
    std::memcpy(words.data(),
                data.data() + pulse::kOffset + sizeof(pulse::Head) + lane * sizeof(Lane),
                sizeof words);
    return words;
}

std::uint64_t head_at(std::span<const std::byte> data, std::size_t offset) {
    return word_at(data, pulse::kOffset + offset);
}

// How ticks of the file relate to nanoseconds, from the sample at its beginning and a later one.
class Rate {
  public:
    Rate(const ClockSample& first, const ClockSample& now) : now_(now) {
        if (now.ticks <= first.ticks || now.monotonic_ns <= first.monotonic_ns) return;
        ns_per_tick_ = static_cast<double>(now.monotonic_ns - first.monotonic_ns) /
                       static_cast<double>(now.ticks - first.ticks);
    }

    [[nodiscard]] std::uint64_t age(std::uint64_t ticks) const {
        if (ticks >= now_.ticks) return 0;
        const double age = static_cast<double>(now_.ticks - ticks) * ns_per_tick_;
        return age < 1e18 ? wide(age) : 0;
    }

  private:
    ClockSample now_;
    double ns_per_tick_ = 1.0;
};

ActivityRead activity_of(const LaneWords& words, const Rate& rate) {
    return {
        .kind = static_cast<ActivityKind>(words[1] & 0xFFU),
        .name = static_cast<std::uint16_t>(words[1] >> 16U),
        .group = static_cast<std::uint16_t>(words[1] >> 32U),
        .step = words[2],
        .digest = words[3],
        .num_reqs = static_cast<std::uint32_t>(words[4]),
        .query_len = static_cast<std::uint32_t>(words[4] >> 32U),
        .num_tokens = static_cast<std::uint32_t>(words[5]),
        .phase = static_cast<std::uint8_t>(words[5] >> 32U),
        .thread = words[6],
        .age_ns = rate.age(words[0]),
        .watched_ns = words[7],
    };
}

}  // namespace

std::uint64_t thread_id() noexcept {
    // The one thread that a forked child has is not called as it was in its parent.
    static const int renamed = pthread_atfork(nullptr, nullptr, [] { known_thread = asked(); });
    if (known_thread == 0 || renamed != 0) known_thread = asked();
    return known_thread;
}

PulseWriter::PulseWriter(std::span<std::byte> memory) noexcept
    : page_(reinterpret_cast<Page*>(memory.data() + pulse::kOffset)) {
    // Asked now, so that the thread that opens a ring needs not ask in its first launch.
    thread_id();
    page_->head.extended_why.store(kNoName, kRelaxed);
    page_->head.magic.store(pulse::kMagic, std::memory_order_release);
}

void PulseWriter::begin(ActivityKind kind, std::uint64_t ticks,
                        const RecordFields& fields) noexcept {
    Lane& lane = page_->lanes[pulse::lane_of(kind, fields.role)];
    // An activity that is begun in another one's lane takes its place: the older one was left by an
    // error, or shows again in the process's other lanes.
    lane.began.store(0, kRelaxed);
    // Each is released, so that whoever sees one of them no longer sees what began before.
    constexpr auto kAfter = std::memory_order_release;
    lane.what.store(wide(kind) | wide(fields.role) << 16U | wide(fields.group) << 32U, kAfter);
    lane.step.store(fields.step, kAfter);
    lane.digest.store(fields.digest, kAfter);
    lane.batch.store(wide(fields.num_reqs) | wide(fields.query_len) << 32U, kAfter);
    lane.rest.store(wide(fields.num_tokens) | wide(fields.phase) << 32U, kAfter);
    lane.thread.store(thread_id(), kAfter);
    lane.watched.store(0, kAfter);
    lane.began.store(ticks == 0 ? 1 : ticks, std::memory_order_release);
}

void PulseWriter::end(ActivityKind kind, std::uint16_t name) noexcept {
    Lane& lane = page_->lanes[pulse::lane_of(kind, name)];
    if (((lane.what.load(kRelaxed) >> 16U) & 0xFFFFU) != name) return;
    lane.began.store(0, std::memory_order_release);
    // A count to see progress by: where two threads end at once, one may go uncounted.
    Word& ended = page_->head.ended;
    ended.store(ended.load(kRelaxed) + 1, kRelaxed);
}

void PulseWriter::extend(std::uint64_t until_ns, std::uint16_t why) noexcept {
    page_->head.extended_why.store(why, kRelaxed);
    page_->head.extended_until_ns.store(until_ns, std::memory_order_release);
}

void PulseWriter::set_stacks(std::uint32_t signal, std::uint16_t file) noexcept {
    page_->head.stacks.store(wide(signal) | wide(file) << 32U, std::memory_order_release);
}

PulseRead read_pulse(std::span<const std::byte> copy, std::span<const std::byte> copy_after,
                     const std::optional<ClockSample>& now) {
    PulseRead read;
    if (std::min(copy.size(), copy_after.size()) < ring::kHeaderBytes ||
        head_at(copy, offsetof(pulse::Head, magic)) != pulse::kMagic) {
        return read;
    }
    read.there = true;
    const auto head = [&](std::size_t offset) { return head_at(copy, offset); };
    const ClockSample first{word_at(copy, offsetof(ring::HeaderFields, ticks)),
                            word_at(copy, offsetof(ring::HeaderFields, monotonic_ns)), 0};
    const ClockSample beat{head(offsetof(pulse::Head, beat_ticks)),
                           head(offsetof(pulse::Head, beat_ns)), 0};
    const ClockSample at = now.value_or(beat);
    const Rate rate(first, at);
    read.beats = beat.monotonic_ns != 0;
    read.beat_age_ns =
        at.monotonic_ns > beat.monotonic_ns ? at.monotonic_ns - beat.monotonic_ns : 0;
    read.stall_ns = head(offsetof(pulse::Head, stall_ns));
    read.startup_ns = head(offsetof(pulse::Head, startup_ns));
    read.stalls = head(offsetof(pulse::Head, stalls));
    read.missed_ns = head(offsetof(pulse::Head, missed_ns));
    const std::uint64_t until = head(offsetof(pulse::Head, extended_until_ns));
    // Of a ring that is not written any more and had no watchdog, nobody knows when it ended.
    const bool dated = at.monotonic_ns != 0;
    read.extended_ns = dated && until > at.monotonic_ns ? until - at.monotonic_ns : 0;
    read.extended_why = static_cast<std::uint16_t>(head(offsetof(pulse::Head, extended_why)));
    const std::uint64_t stacks = head(offsetof(pulse::Head, stacks));
    read.stack_signal = static_cast<std::uint32_t>(stacks);
    read.stacks_file = read.stack_signal == 0 ? kNoName : static_cast<std::uint16_t>(stacks >> 32U);
    read.ended = head(offsetof(pulse::Head, ended));
    for (std::size_t i = 0; i < pulse::kLanes; ++i) {
        const LaneWords words = lane_at(copy, i);
        if (words[0] != 0 && words[0] == lane_at(copy_after, i)[0])
            read.activities.push_back(activity_of(words, rate));
    }
    std::ranges::stable_sort(read.activities, std::ranges::greater{}, &ActivityRead::age_ns);
    return read;
}

}  // namespace graphguard
