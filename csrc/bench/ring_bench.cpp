// Measures a record into the black box, against copying 64 bytes and reading a clock in the same
// run.
//
// Prints JSON: for each number of records kept, the median nanoseconds of one call. "memcpy" puts a
// record's bytes into the same ring; "ticks" is what a record's time costs, "clock_gettime" what it
// would cost with the clock that everybody uses. "threads" is one record where several write.
// "launch_record" is a record that begins or ends a launch, which the pulse tells too.
#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <string>
#include <thread>
#include <vector>

#include "core/clock.h"
#include "core/ring.h"

namespace graphguard::bench {
namespace {

constexpr std::size_t kCalls = 1U << 18U;
constexpr std::size_t kRepetitions = 21;
constexpr std::size_t kThreads = 2;

// In the first level of the cache, in the second, and the default, which is beyond both or nearly.
constexpr std::array<std::uint32_t, 3> kCapacities = {256, 4096, 16384};

struct Timings {
    double write = 0;
    double write_from_threads = 0;
    double launch_record = 0;
    double memcpy = 0;
    double ticks = 0;
    double clock_gettime = 0;
};

std::uint64_t checksum = 0;

template <typename Call>
double nanoseconds(const Call& call) {
    std::array<double, kRepetitions> times{};
    for (double& time : times) {
        const auto start = std::chrono::steady_clock::now();
        for (std::size_t i = 0; i < kCalls; ++i) call(i);
        const std::chrono::duration<double, std::nano> taken =
            std::chrono::steady_clock::now() - start;
        time = taken.count() / static_cast<double>(kCalls);
    }
    std::nth_element(times.begin(), times.begin() + kRepetitions / 2, times.end());
    return times[kRepetitions / 2];
}

RecordFields fields_of(std::size_t i) {
    RecordFields fields;
    fields.step = i;
    fields.digest = 0x9E3779B97F4A7C15ULL * i;
    fields.num_reqs = 16;
    fields.query_len = 2;
    fields.num_tokens = 32;
    fields.role = 0;
    fields.event = Event::kCheck;
    return fields;
}

// All threads at once, over all that they write together.
double from_threads(RingWriter& writer) {
    const auto start = std::chrono::steady_clock::now();
    std::vector<std::thread> threads;
    for (std::size_t thread = 0; thread < kThreads; ++thread) {
        threads.emplace_back([&] {
            for (std::size_t i = 0; i < 4 * kCalls; ++i) writer.write(fields_of(i));
        });
    }
    for (std::thread& thread : threads) thread.join();
    const std::chrono::duration<double, std::nano> taken = std::chrono::steady_clock::now() - start;
    return taken.count() / static_cast<double>(4 * kCalls * kThreads);
}

Timings measure(std::uint32_t capacity) {
    std::vector<std::uint64_t> words(RingWriter::bytes_for(capacity) / sizeof(std::uint64_t));
    const std::span<std::byte> memory = std::as_writable_bytes(std::span(words));
    RingWriter writer(memory, {0, 1, 1, "host", capacity});
    const TickClock clock;

    Timings times;
    times.write = nanoseconds([&](std::size_t i) { writer.write(fields_of(i)); });
    times.write_from_threads = from_threads(writer);
    times.launch_record = nanoseconds([&](std::size_t i) {
        RecordFields fields = fields_of(i);
        fields.event = i % 2 == 0 ? Event::kReplayBegin : Event::kReplayEnd;
        writer.write(fields);
    });
    times.ticks = nanoseconds([&](std::size_t) { checksum += clock.now(); });
    times.clock_gettime =
        nanoseconds([](std::size_t) { checksum += nanoseconds_of(CLOCK_MONOTONIC); });
    std::byte* const slots = memory.data() + sizeof(ring::FixedPart);
    times.memcpy = nanoseconds([&](std::size_t i) {
        const ring::RecordWords record = {i, i + 1, i + 2, i + 3, i + 4, i + 5, i + 6, i + 7};
        std::memcpy(slots + i % capacity * sizeof(record), record.data(), sizeof(record));
        // Without it the compiler may leave out what the next round overwrites.
        asm volatile("" ::: "memory");
    });
    checksum += words.back();
    return times;
}

}  // namespace
}  // namespace graphguard::bench

int main() {
    using namespace graphguard::bench;
    std::cout << "{\"repetitions\": " << kRepetitions << ", \"calls\": " << kCalls
              << ", \"threads\": " << kThreads << ", \"unit\": \"ns\", \"results\": [";
    std::string separator;
    for (const std::uint32_t capacity : kCapacities) {
        const Timings times = measure(capacity);
        std::cout << separator << "{\"capacity\": " << capacity << ", \"write\": " << times.write
                  << ", \"write_from_threads\": " << times.write_from_threads
                  << ", \"launch_record\": " << times.launch_record
                  << ", \"memcpy\": " << times.memcpy << ", \"ticks\": " << times.ticks
                  << ", \"clock_gettime\": " << times.clock_gettime << "}";
        separator = ", ";
    }
    std::cout << "], \"checksum\": " << checksum << "}\n";
    return EXIT_SUCCESS;
}
