// Time for records: a tick counter that costs nanoseconds, and samples that tie it to the clocks.
#pragma once

#include <cstdint>
#include <ctime>

#if defined(__x86_64__)
#include <cpuid.h>
#include <x86intrin.h>
#endif

namespace graphguard {

inline std::uint64_t nanoseconds_of(clockid_t clock) {
    timespec time{};
    clock_gettime(clock, &time);
    return static_cast<std::uint64_t>(time.tv_sec) * 1'000'000'000ULL +
           static_cast<std::uint64_t>(time.tv_nsec);
}

// Ticks at an unknown, constant rate: the processor's counter where it runs alike in every state
// and on every core, else CLOCK_MONOTONIC.
class TickClock {
  public:
    [[nodiscard]] std::uint64_t now() const {
#if defined(__x86_64__)
        if (invariant_) return __rdtsc();
        return nanoseconds_of(CLOCK_MONOTONIC);
#elif defined(__aarch64__)
        std::uint64_t ticks = 0;
        asm volatile("mrs %0, cntvct_el0" : "=r"(ticks));
        return ticks;
#else
        return nanoseconds_of(CLOCK_MONOTONIC);
#endif
    }

  private:
#if defined(__x86_64__)
    // CPUID, "Advanced Power Management": bit 8 of EDX is the invariant TSC.
    static bool has_invariant_counter() {
        unsigned int eax = 0;
        unsigned int ebx = 0;
        unsigned int ecx = 0;
        unsigned int edx = 0;
        return __get_cpuid(0x80000007U, &eax, &ebx, &ecx, &edx) != 0 && (edx & (1U << 8U)) != 0;
    }

    bool invariant_ = has_invariant_counter();
#endif
};

// One moment, told by the three clocks.
struct ClockSample {
    std::uint64_t ticks = 0;
    std::uint64_t monotonic_ns = 0;
    std::uint64_t realtime_ns = 0;
};

// The best of a few tries: one during which the thread was interrupted shows as many ticks.
inline ClockSample sample_clocks(const TickClock& clock) {
    constexpr int kTries = 4;
    ClockSample best;
    std::uint64_t least = UINT64_MAX;
    for (int i = 0; i < kTries; ++i) {
        const std::uint64_t before = clock.now();
        const std::uint64_t monotonic_ns = nanoseconds_of(CLOCK_MONOTONIC);
        const std::uint64_t realtime_ns = nanoseconds_of(CLOCK_REALTIME);
        const std::uint64_t taken = clock.now() - before;
        if (taken >= least) continue;
        least = taken;
        best = {before + taken / 2, monotonic_ns, realtime_ns};
    }
    return best;
}

}  // namespace graphguard
