// A black box in few bytes, for the fuzzer: what it changes should matter, and nearly all of a box
// is zeros.
//
// The bytes are: repairs (1), number of names (1), the header's fields, `next`, the names, the
// records. What is missing is zero. Repairs mend what random changes break, each for itself, so
// that the reader is tried behind its checks as well as at them.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "core/ring_format.h"

namespace graphguard::fuzz {

inline constexpr std::uint8_t kRaw = 1;  // the rest is a file as it is; the other bits do not count
inline constexpr std::uint8_t kRepairHeader = 2;
inline constexpr std::uint8_t kRepairNames = 4;
inline constexpr std::uint8_t kRepairRecords = 8;
inline constexpr std::uint8_t kRepairNumbers = 16;
inline constexpr std::uint8_t kRepairSize = 32;

// A larger box would only make the fuzzer slow.
inline constexpr std::uint32_t kMostRecords = 64;

class Bytes {
  public:
    explicit Bytes(std::span<const std::uint8_t> rest) : rest_(rest) {}

    template <typename Value>
    Value take() {
        Value value{};
        const std::size_t size = std::min(sizeof(Value), rest_.size());
        if (size > 0) std::memcpy(&value, rest_.data(), size);
        rest_ = rest_.subspan(size);
        return value;
    }
    [[nodiscard]] std::span<const std::uint8_t> rest() const { return rest_; }

  private:
    std::span<const std::uint8_t> rest_;
};

template <typename Value>
void put(std::vector<std::uint8_t>& file, std::size_t offset, const Value& value) {
    if (file.size() < offset + sizeof(Value)) file.resize(offset + sizeof(Value));
    std::memcpy(file.data() + offset, &value, sizeof(Value));
}

inline ring::HeaderWords header_of(Bytes& bytes, bool repair) {
    auto header = std::bit_cast<ring::HeaderFields>(bytes.take<ring::HeaderWords>());
    if (repair) {
        const ring::HeaderFields sound;
        header.magic = sound.magic;
        header.version = sound.version;
        header.header_bytes = sound.header_bytes;
        header.record_bytes = sound.record_bytes;
        header.name_slots = sound.name_slots;
        header.name_slot_bytes = sound.name_slot_bytes;
        header.capacity = std::bit_floor(header.capacity % (2 * kMostRecords) | 1U);
        header.checksum = ring::header_checksum(std::bit_cast<ring::HeaderWords>(header));
    }
    return std::bit_cast<ring::HeaderWords>(header);
}

inline ring::NameWords name_of(Bytes& bytes, bool repair) {
    auto words = bytes.take<ring::NameWords>();
    if (repair) {
        words[0] &= 0xFFFFFFFFULL;
        words[0] |= std::uint64_t{ring::name_checksum(words)} << 32U;
    }
    return words;
}

inline ring::RecordWords record_of(Bytes& bytes, std::uint8_t repairs, std::uint64_t slot,
                                   std::uint64_t capacity) {
    auto words = bytes.take<ring::RecordWords>();
    if ((repairs & kRepairNumbers) != 0 && capacity > 0) {
        words[0] = words[0] / capacity * capacity + slot + 1;
    }
    if ((repairs & kRepairRecords) != 0) {
        words[7] &= 0xFFFFFFFFULL;
        words[7] |= std::uint64_t{ring::record_checksum(words)} << 32U;
    }
    return words;
}

// The file that the bytes stand for.
inline std::vector<std::uint8_t> expand(std::span<const std::uint8_t> input) {
    Bytes bytes(input);
    const auto repairs = bytes.take<std::uint8_t>();
    if ((repairs & kRaw) != 0) return {bytes.rest().begin(), bytes.rest().end()};

    const std::size_t names = bytes.take<std::uint8_t>() % (ring::kNameSlots + 1);
    const ring::HeaderWords header = header_of(bytes, (repairs & kRepairHeader) != 0);
    const std::uint32_t capacity = std::bit_cast<ring::HeaderFields>(header).capacity;

    std::vector<std::uint8_t> file(sizeof(ring::FixedPart));
    put(file, 0, header);
    put(file, offsetof(ring::FixedPart, next), bytes.take<std::uint64_t>());
    for (std::size_t i = 0; i < names; ++i) {
        put(file, ring::kHeaderBytes + i * ring::kNameSlotBytes,
            name_of(bytes, (repairs & kRepairNames) != 0));
    }
    for (std::uint64_t slot = 0; !bytes.rest().empty() && slot < kMostRecords; ++slot) {
        put(file, file.size(), record_of(bytes, repairs, slot, capacity));
    }
    if ((repairs & kRepairSize) != 0 && capacity <= kMostRecords) {
        file.resize(ring::bytes_for(capacity));
    }
    return file;
}

// The bytes that stand for a file.
inline std::vector<std::uint8_t> compress(std::span<const std::byte> file, std::uint8_t repairs,
                                          std::uint8_t names) {
    std::vector<std::uint8_t> input = {repairs, names};
    const auto append = [&](std::size_t offset, std::size_t size) {
        for (const std::byte byte : file.subspan(offset, size)) {
            input.push_back(std::to_integer<std::uint8_t>(byte));
        }
    };
    append(0, sizeof(ring::HeaderFields));
    append(offsetof(ring::FixedPart, next), sizeof(std::uint64_t));
    append(ring::kHeaderBytes, std::size_t{names} * ring::kNameSlotBytes);
    append(sizeof(ring::FixedPart), file.size() - sizeof(ring::FixedPart));
    while (!input.empty() && input.back() == 0) input.pop_back();
    return input;
}

}  // namespace graphguard::fuzz
