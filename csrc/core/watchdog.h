// The watchdog: a thread that looks at what its process has under way, and has a stall examined.
//
// It needs no lock of an interpreter and asks nothing of a device. Ten times a second it adds up
// how long each activity in the pulse has been under way *while the thread itself was let run*: a
// process that was stopped, or a machine that slept, has not waited. What takes longer than its
// limit, and is not said to be slow, is handed to a process of its own, the examiner, once for all
// ranks of a job: who gets the job's lock starts it, and the examiner holds the lock while it
// lives.
#pragma once

#include <sys/types.h>

#include <array>
#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "core/pulse_format.h"
#include "core/ring.h"

namespace graphguard {

struct WatchdogSettings {
    std::uint64_t stall_ns = 0;
    std::uint64_t startup_ns = 0;
    std::uint64_t tick_ns = 100'000'000;
    std::vector<std::string> command;      // what starts the examiner, without what is appended
    std::vector<std::string> environment;  // NAME=value
    std::string directory;                 // where the lock of the job is
    std::string job;                       // names the lock; until a ledger gives another
};

// A ledger whose ranks the examiner is told of. The descriptor is duplicated.
struct WatchedLedger {
    int descriptor = -1;
    std::size_t bytes = 0;
    std::string name;
    std::vector<std::uint32_t> ranks;  // global, by place
    std::string job;                   // what all ranks of this ledger call it
};

// How long each activity has been seen under way. One thread looks, and nobody else.
class WatchedTime {
  public:
    static constexpr std::uint64_t kLongestTick = 5;

    explicit WatchedTime(std::uint64_t tick_ns) : longest_tick_(kLongestTick * tick_ns) {}

    // Looks at every lane, `passed_ns` after the last look. A look that came late counts as long as
    // five ticks, which a thread may wait for its turn on a busy machine: for the rest, nobody
    // knows whether the process could have done anything.
    void look(pulse::Page& page, std::uint64_t passed_ns);

    [[nodiscard]] std::uint64_t of(std::size_t lane) const { return lanes_[lane].watched_ns; }
    // Changes when another activity has taken the lane.
    [[nodiscard]] std::uint64_t activity(std::size_t lane) const { return lanes_[lane].began; }

  private:
    struct Watched {
        std::uint64_t began = 0;
        std::uint64_t watched_ns = 0;
    };
    std::uint64_t longest_tick_;
    std::array<Watched, pulse::kLanes> lanes_;
};

class Watchdog {
  public:
    // Throws std::invalid_argument for limits or a tick of 0, or an empty command.
    Watchdog(std::shared_ptr<RingWriter> ring, WatchdogSettings settings);
    ~Watchdog();
    Watchdog(const Watchdog&) = delete;
    Watchdog& operator=(const Watchdog&) = delete;

    // May be called while it runs. Throws std::system_error if the descriptor cannot be duplicated.
    void add(const WatchedLedger& ledger);
    void remove(const std::string& job);

    // Starts the thread. Throws std::system_error if there can be none.
    void start();
    // Ends it, and waits until it has ended. In a child after a fork, where it is not, does
    // nothing.
    void stop() noexcept;

    // How many examiners it has started.
    [[nodiscard]] std::uint64_t started() const { return started_.load(std::memory_order_relaxed); }

  private:
    // The thread, and how it is told to end.
    struct Running {
        std::mutex lock;
        std::condition_variable told;
        bool stop = false;
        pid_t owner = -1;
        std::thread thread;
    };

    void run(Running& running) noexcept;
    void look(std::uint64_t now_ns, std::uint64_t passed_ns) noexcept;
    [[nodiscard]] std::uint64_t limit(std::size_t lane) const noexcept;
    void examine(std::size_t lane) noexcept;
    [[nodiscard]] int lock(const std::string& job) const noexcept;
    [[nodiscard]] std::string job() const;
    void reap() noexcept;

    std::shared_ptr<RingWriter> ring_;
    pulse::Page& page_;
    const WatchdogSettings settings_;
    WatchedTime watched_;
    std::array<std::uint64_t, pulse::kLanes> next_try_ns_{};
    std::array<std::uint64_t, pulse::kLanes> tried_for_{};
    pid_t examiner_ = -1;
    std::atomic<std::uint64_t> started_{0};

    std::mutex ledgers_lock_;
    std::vector<WatchedLedger> ledgers_;

    std::unique_ptr<Running> running_;
};

}  // namespace graphguard
