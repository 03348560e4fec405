// Threads begin and end activities while a watchdog looks, ledgers come and go, and it is started
// and stopped, under ThreadSanitizer.
//
//     graphguard_watchdog_stress WORKERS ACTIVITIES ROUNDS
//
// Prints one line of counts and ends with 0 if no short activity was examined, each long one was
// once, and every pulse that was read held whole activities.
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <iostream>
#include <string>
#include <thread>
#include <vector>

#include "core/ledger.h"
#include "core/pulse.h"
#include "core/ring.h"
#include "core/watchdog.h"

namespace graphguard::stress {
namespace {

constexpr std::uint32_t kCapacity = 1024;
constexpr std::uint64_t kLimitNs = 300'000'000;
constexpr std::uint64_t kTickNs = 1'000'000;
constexpr std::uint16_t kLong = 1000;

struct Counts {
    std::atomic<std::uint64_t> activities{0};
    std::uint64_t readings = 0;
    std::uint64_t seen = 0;
    std::uint64_t examined = 0;
    std::uint64_t failures = 0;
};

// As pread() would copy it, but by words, each of which is an atomic.
std::vector<std::byte> copy_of(const std::vector<std::uint64_t>& words) {
    std::vector<std::uint64_t> copy(ring::kHeaderBytes / sizeof(std::uint64_t));
    const auto* const live = reinterpret_cast<const ring::Word*>(words.data());
    for (std::size_t i = 0; i < copy.size(); ++i) {
        copy[i] = live[i].load(std::memory_order_acquire);
    }
    std::vector<std::byte> bytes(ring::kHeaderBytes);
    std::memcpy(bytes.data(), copy.data(), bytes.size());
    return bytes;
}

int empty_ledger(std::size_t& bytes) {
    bytes = ledger::bytes_for(2);
    const int descriptor = memfd_create("ledger", MFD_CLOEXEC);
    if (descriptor < 0 || ftruncate(descriptor, static_cast<off_t>(bytes)) != 0) std::abort();
    return descriptor;
}

class Round {
  public:
    Round(const std::string& directory, std::uint64_t workers, std::uint64_t activities,
          Counts& counts)
        : workers_(workers),
          activities_(activities),
          counts_(counts),
          words_(RingWriter::bytes_for(kCapacity) / sizeof(std::uint64_t)),
          ring_(std::make_shared<RingWriter>(std::as_writable_bytes(std::span(words_)),
                                             RingIdentity{0, 1, 1, "host", kCapacity})),
          watchdog_(ring_, {.stall_ns = kLimitNs,
                            .startup_ns = kLimitNs,
                            .tick_ns = kTickNs,
                            .command = {"true"},
                            .environment = {"PATH=/usr/bin:/bin"},
                            .directory = directory,
                            .job = "job"}) {}

    void run() {
        watchdog_.start();
        std::vector<std::thread> threads;
        for (std::uint64_t worker = 0; worker < workers_; ++worker) {
            threads.emplace_back([this, worker] { work(worker); });
        }
        threads.emplace_back([this] { change_ledgers(); });
        while (left_.load() > 0) read();
        for (std::thread& thread : threads) thread.join();
        if (watchdog_.started() != 0) ++counts_.failures;

        ring_->begin_activity(ActivityKind::kOther, kLong, 1);
        std::this_thread::sleep_for(std::chrono::nanoseconds(3 * kLimitNs));
        ring_->end_activity(ActivityKind::kOther, kLong);
        watchdog_.stop();
        watchdog_.start();
        watchdog_.stop();
        counts_.examined += watchdog_.started();
        if (watchdog_.started() != 1) ++counts_.failures;
    }

  private:
    void work(std::uint64_t worker) {
        const auto role = static_cast<std::uint16_t>(worker);
        RecordFields fields;
        fields.role = role;
        for (std::uint64_t i = 1; i <= activities_; ++i) {
            // Each word tells the same number: who reads two different ones has read half of one.
            fields.step = i;
            fields.digest = i;
            fields.num_reqs = static_cast<std::uint32_t>(i);
            fields.event = Event::kReplayBegin;
            ring_->write(fields);
            fields.event = Event::kReplayEnd;
            ring_->write(fields);
            counts_.activities.fetch_add(1, std::memory_order_relaxed);
        }
        left_.fetch_sub(1);
    }

    void change_ledgers() {
        std::size_t bytes = 0;
        const int descriptor = empty_ledger(bytes);
        for (int i = 0; left_.load() > 0; ++i) {
            const std::string job = "job" + std::to_string(i % 3);
            watchdog_.add({descriptor, bytes, "group", {0, 1}, job});
            watchdog_.remove(job);
        }
        close(descriptor);
    }

    void read() {
        const std::vector<std::byte> copy = copy_of(words_);
        const PulseRead read = read_pulse(copy, copy_of(words_), sample_clocks(TickClock()));
        ++counts_.readings;
        if (!read.there) ++counts_.failures;
        for (const ActivityRead& activity : read.activities) {
            ++counts_.seen;
            const bool whole =
                activity.step == activity.digest && activity.step == activity.num_reqs;
            if (!whole || activity.name >= workers_) ++counts_.failures;
        }
    }

    std::uint64_t workers_;
    std::uint64_t activities_;
    Counts& counts_;
    std::atomic<std::uint64_t> left_{workers_};
    std::vector<std::uint64_t> words_;
    std::shared_ptr<RingWriter> ring_;
    Watchdog watchdog_;
};

int stress(std::uint64_t workers, std::uint64_t activities, std::uint64_t rounds) {
    std::string directory = std::filesystem::temp_directory_path() / "graphguard-XXXXXX";
    if (mkdtemp(directory.data()) == nullptr) return 2;
    Counts counts;
    for (std::uint64_t i = 0; i < rounds; ++i) Round(directory, workers, activities, counts).run();
    std::filesystem::remove_all(directory);
    std::cout << (counts.failures == 0 ? "ok" : "failed") << " activities=" << counts.activities
              << " readings=" << counts.readings << " seen=" << counts.seen
              << " examined=" << counts.examined << " failures=" << counts.failures << '\n';
    return counts.failures == 0 ? 0 : 1;
}

}  // namespace
}  // namespace graphguard::stress

int main(int argc, char** argv) {
    if (argc != 4) return 2;
    return graphguard::stress::stress(std::stoull(argv[1]), std::stoull(argv[2]),
                                      std::stoull(argv[3]));
}
