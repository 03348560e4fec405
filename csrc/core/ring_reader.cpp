#include "core/ring_reader.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

namespace graphguard {

namespace {

// How often a slot that changes under the reader's eyes is read again.
constexpr int kLooks = 8;

enum class Found : std::uint8_t { kNothing, kWhole, kDamaged };

// A word that its writer stores last is loaded first: whoever sees it sees the words before it too.
template <std::size_t kWords>
std::array<std::uint64_t, kWords> load(const std::array<ring::Word, kWords>& words,
                                       std::size_t first) {
    std::array<std::uint64_t, kWords> loaded{};
    loaded[first] = words[first].load(std::memory_order_acquire);
    for (std::size_t i = 0; i < kWords; ++i) {
        if (i != first) loaded[i] = words[i].load(std::memory_order_relaxed);
    }
    return loaded;
}

// Leaves in `into` what was loaded last.
template <std::size_t kWords, typename Whole>
Found look(const std::array<ring::Word, kWords>& words, std::size_t first,
           std::array<std::uint64_t, kWords>& into, const Whole& whole) {
    std::array<std::uint64_t, kWords> before{};
    for (int looks = 0; looks < kLooks; ++looks) {
        into = load(words, first);
        if (whole(into)) return Found::kWhole;
        if (looks > 0 && into == before) break;
        before = into;
    }
    const bool empty = std::ranges::all_of(into, [](std::uint64_t word) { return word == 0; });
    return empty ? Found::kNothing : Found::kDamaged;
}

std::string usable(const ring::HeaderFields& header, const ring::HeaderWords& words,
                   std::size_t bytes) {
    const auto text = [](auto number) { return std::to_string(number); };
    if (header.magic != ring::kMagic) return "it does not begin as a black box does";
    if (header.version != ring::kVersion) {
        return "it has version " + text(header.version) + " of the format, and only version " +
               text(ring::kVersion) + " can be read";
    }
    if (header.checksum != ring::header_checksum(words)) {
        return "its header is damaged: the checksum does not match";
    }
    if (header.header_bytes != ring::kHeaderBytes || header.record_bytes != ring::kRecordBytes ||
        header.name_slots != ring::kNameSlots || header.name_slot_bytes != ring::kNameSlotBytes) {
        return "its header gives sizes that version " + text(ring::kVersion) + " does not have";
    }
    if (!ring::possible_capacity(header.capacity)) {
        return "its header says that it holds " + text(header.capacity) +
               " records, which is no power of two up to 2^24";
    }
    if (bytes != ring::bytes_for(header.capacity)) {
        return "it has " + text(bytes) + " bytes, and a box of " + text(header.capacity) +
               " records has " + text(ring::bytes_for(header.capacity));
    }
    return {};
}

using Names = std::vector<std::optional<std::string>>;

// Returns how many are damaged.
std::uint64_t read_names(const ring::FixedPart& fixed, Names& names) {
    std::uint64_t damaged = 0;
    const auto whole = [](const ring::NameWords& words) {
        return (words[0] & 0xFFFFFFFFULL) <= ring::kNameBytes &&
               words[0] >> 32U == ring::name_checksum(words);
    };
    names.resize(ring::kNameSlots);
    std::size_t count = 0;
    for (std::size_t i = 0; i < ring::kNameSlots; ++i) {
        ring::NameWords words{};
        const Found found = look(fixed.names[i].words, 0, words, whole);
        if (found == Found::kDamaged) ++damaged;
        if (found != Found::kWhole) continue;
        const auto length = static_cast<std::size_t>(words[0] & 0xFFFFFFFFULL);
        names[i].emplace(reinterpret_cast<const char*>(&words[1]), length);
        count = i + 1;
    }
    names.resize(count);
    return damaged;
}

// Leaves the ticks where the time will be: the newest clock record is not known yet.
void read_records(std::span<const ring::Slot> slots, RingContents& contents) {
    for (std::size_t i = 0; i < slots.size(); ++i) {
        const auto whole = [&](const ring::RecordWords& words) {
            return words[0] != 0 && (words[0] - 1) % slots.size() == i &&
                   words[7] >> 32U == ring::record_checksum(words);
        };
        ring::RecordWords words{};
        const Found found = look(slots[i].words, 7, words, whole);
        if (found == Found::kDamaged) ++contents.damaged;
        if (found != Found::kWhole) continue;
        contents.records.push_back({words[0], words[1], ring::unpack(words)});
    }
    std::ranges::sort(contents.records, {}, &RingRecord::number);
}

// The line through the header's sample and the newest clock record. The rate comes from the clock
// that nobody sets, the place on the epoch from the newest record of the one that is set.
class Epoch {
  public:
    Epoch(const ClockSample& first, const ClockSample& newest) : newest_(newest) {
        if (newest.ticks <= first.ticks || newest.monotonic_ns <= first.monotonic_ns) return;
        ns_per_tick_ = static_cast<double>(newest.monotonic_ns - first.monotonic_ns) /
                       static_cast<double>(newest.ticks - first.ticks);
    }

    // 0 also for what lies before 1970 or beyond 2262: however it came about, it is no time.
    [[nodiscard]] std::uint64_t ns(std::uint64_t ticks) const {
        constexpr auto kEnd = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
        if (ns_per_tick_ == 0 || newest_.realtime_ns >= kEnd) return 0;
        const bool later = ticks >= newest_.ticks;
        const double distance =
            static_cast<double>(later ? ticks - newest_.ticks : newest_.ticks - ticks) *
            ns_per_tick_;
        if (distance >= static_cast<double>(kEnd)) return 0;
        const auto whole = static_cast<std::uint64_t>(std::llround(distance));
        const std::uint64_t room = later ? kEnd - newest_.realtime_ns : newest_.realtime_ns;
        if (whole > room) return 0;
        return later ? newest_.realtime_ns + whole : newest_.realtime_ns - whole;
    }

  private:
    ClockSample newest_;
    double ns_per_tick_ = 0;
};

void tell_times(const ClockSample& first, std::vector<RingRecord>& records) {
    ClockSample newest;
    for (const RingRecord& record : records) {
        if (record.fields.event != Event::kClock) continue;
        newest = {record.time_ns, record.fields.step, record.fields.digest};
    }
    const Epoch epoch(first, newest);
    for (RingRecord& record : records) record.time_ns = epoch.ns(record.time_ns);
}

RingContents read_aligned(std::span<const std::byte> data) {
    RingContents contents;
    const auto& fixed = *reinterpret_cast<const ring::FixedPart*>(data.data());
    const ring::HeaderWords words = load(fixed.header, 0);
    const auto header = std::bit_cast<ring::HeaderFields>(words);
    contents.error = usable(header, words, data.size());
    if (!contents.error.empty()) return contents;

    const auto host_end = std::ranges::find(header.host, '\0');
    contents.identity = {header.rank, header.world_size, header.pid,
                         std::string(header.host.begin(), host_end), header.capacity};
    contents.started_ns = header.realtime_ns;
    contents.written = fixed.next.load(std::memory_order_relaxed);
    contents.damaged += read_names(fixed, contents.names);
    const auto* slots = reinterpret_cast<const ring::Slot*>(data.data() + sizeof(ring::FixedPart));
    read_records({slots, header.capacity}, contents);
    tell_times({header.ticks, header.monotonic_ns, header.realtime_ns}, contents.records);
    return contents;
}

// A copy of what no word of a ring fits into, where it lies; nobody writes to such memory.
std::vector<std::uint64_t> aligned_copy(std::span<const std::byte> data) {
    std::vector<std::uint64_t> copy(data.size() / sizeof(std::uint64_t) + 1);
    std::memcpy(copy.data(), data.data(), data.size());
    return copy;
}

bool is_aligned(std::span<const std::byte> data) {
    return std::bit_cast<std::uintptr_t>(data.data()) % alignof(ring::FixedPart) == 0;
}

}  // namespace

RingContents read_ring(std::span<const std::byte> data) {
    if (data.size() < sizeof(ring::FixedPart)) {
        RingContents contents;
        contents.error = "it has " + std::to_string(data.size()) +
                         " bytes, fewer than the header of a black box";
        return contents;
    }
    if (is_aligned(data)) return read_aligned(data);
    const std::vector<std::uint64_t> copy = aligned_copy(data);
    return read_aligned(std::as_bytes(std::span(copy)).first(data.size()));
}

std::vector<std::optional<std::string>> read_ring_names(std::span<const std::byte> beginning) {
    if (beginning.size() < sizeof(ring::FixedPart)) return {};
    const std::vector<std::uint64_t> copy = aligned_copy(beginning);
    const auto& fixed = *reinterpret_cast<const ring::FixedPart*>(copy.data());
    const ring::HeaderWords words = load(fixed.header, 0);
    if (std::bit_cast<ring::HeaderFields>(words).checksum != ring::header_checksum(words))
        return {};
    Names names;
    read_names(fixed, names);
    return names;
}

}  // namespace graphguard
