// A hash map for the check's path: open addressing, power-of-two capacity, no removal. find() is
// two multiplications and, with the load kept under one half, seldom more than two probes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace graphguard {

struct ShapeKey {
    std::uint64_t high = 0;
    std::uint64_t low = 0;
    friend constexpr bool operator==(const ShapeKey&, const ShapeKey&) = default;
};

template <typename Value>
class FlatMap {
  public:
    [[nodiscard]] const Value* find(const ShapeKey& key) const {
        if (slots_.empty()) return nullptr;
        for (std::size_t i = home(key);; i = (i + 1) & mask()) {
            if (!slots_[i].used) return nullptr;
            if (slots_[i].key == key) return &slots_[i].value;
        }
    }

    // The value at `key`, made from nothing if the key is new.
    Value& at_or_insert(const ShapeKey& key) {
        if (2 * (size_ + 1) > slots_.size()) grow();
        std::size_t i = home(key);
        while (slots_[i].used && slots_[i].key != key) i = (i + 1) & mask();
        if (!slots_[i].used) {
            slots_[i].used = true;
            slots_[i].key = key;
            ++size_;
        }
        return slots_[i].value;
    }

  private:
    struct Slot {
        ShapeKey key;
        Value value{};
        bool used = false;
    };

    [[nodiscard]] std::size_t mask() const { return slots_.size() - 1; }
    // Fibonacci hashing: the high half of a product depends on every bit of its key.
    [[nodiscard]] std::size_t home(const ShapeKey& key) const {
        const std::uint64_t mixed =
            key.high * 0x9E3779B97F4A7C15ULL + key.low * 0xC2B2AE3D27D4EB4FULL;
        return static_cast<std::size_t>(mixed >> 32U) & mask();
    }

    void grow() {
        std::vector<Slot> old = std::exchange(slots_, {});
        slots_.resize(old.empty() ? 8 : 2 * old.size());
        size_ = 0;
        for (Slot& slot : old) {
            if (slot.used) at_or_insert(slot.key) = std::move(slot.value);
        }
    }

    std::vector<Slot> slots_;
    std::size_t size_ = 0;
};

}  // namespace graphguard
