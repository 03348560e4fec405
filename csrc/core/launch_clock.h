// When launches begin, and how long they take to return.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/clock.h"

namespace graphguard {

// Durations are counted in buckets of powers of two: the first holds those under 2^shift ns, the
// last all that are longer than the one before it.
class LaunchClock {
  public:
    LaunchClock(unsigned shift, std::size_t buckets) : shift_(shift), counts_(buckets) {}

    void begin() {
        began_ns_ = nanoseconds_of(CLOCK_MONOTONIC);
        in_flight_ = true;
    }

    // An end without a beginning is none.
    void end() {
        if (!in_flight_) return;
        in_flight_ = false;
        const std::uint64_t taken = nanoseconds_of(CLOCK_MONOTONIC) - began_ns_;
        const auto bucket = static_cast<std::size_t>(std::bit_width(taken >> shift_));
        ++counts_[std::min(bucket, counts_.size() - 1)];
        total_ns_ += taken;
    }

    [[nodiscard]] bool in_flight() const { return in_flight_; }
    [[nodiscard]] std::uint64_t began_ns() const { return began_ns_; }
    [[nodiscard]] std::uint64_t total_ns() const { return total_ns_; }
    [[nodiscard]] const std::vector<std::uint64_t>& counts() const { return counts_; }

  private:
    unsigned shift_;
    bool in_flight_ = false;
    std::uint64_t began_ns_ = 0;
    std::uint64_t total_ns_ = 0;
    std::vector<std::uint64_t> counts_;
};

}  // namespace graphguard
