#include "core/watchdog.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <stdexcept>
#include <system_error>
#include <utility>

#include "core/clock.h"
#include "core/examiner_start.h"

namespace graphguard {

namespace {

using pulse::Lane;

constexpr auto kRelaxed = std::memory_order_relaxed;

// Who has not got the lock asks again after this; who has started an examiner, after that. An
// examiner that is at work has the lock, so this is for one that found the stall to be over.
constexpr std::uint64_t kAskAgainNs = 1'000'000'000;
constexpr std::uint64_t kStartAgainNs = 5'000'000'000;

// An engine may bind a worker to one core, on which it then spins. Neither this thread nor the
// examiner, which inherits from it, may have to wait for that. What the system does not allow to
// the process stays left out.
void leave_bound_cores() noexcept {
    cpu_set_t all;
    std::memset(&all, 0xFF, sizeof all);
    sched_setaffinity(0, sizeof all, &all);
}

// What is lost without it is only a word in a log.
void say(const char* text) noexcept {
    [[maybe_unused]] const ssize_t written =
        write(STDERR_FILENO, text, std::char_traits<char>::length(text));
}

ActivityKind kind_of(const Lane& lane) {
    return static_cast<ActivityKind>(lane.what.load(kRelaxed) & 0xFFU);
}

std::string pids_text(const WatchedLedger& ledger) {
    const std::vector<std::uint64_t> pids =
        ledger_pids(ledger.descriptor, ledger.bytes, ledger.ranks.size());
    std::string text;
    for (std::size_t place = 0; place < pids.size(); ++place) {
        if (!text.empty()) text += ',';
        text += std::to_string(ledger.ranks[place]) + '=' + std::to_string(pids[place]);
    }
    return text;
}

}  // namespace

void WatchedTime::look(pulse::Page& page, std::uint64_t passed_ns) {
    const std::uint64_t counted = std::min(passed_ns, longest_tick_);
    for (std::size_t i = 0; i < pulse::kLanes; ++i) {
        Watched& watched = lanes_[i];
        const std::uint64_t began = page.lanes[i].began.load(std::memory_order_acquire);
        if (began == 0 || began != watched.began) {
            watched = {began, 0};
            continue;
        }
        watched.watched_ns += counted;
        page.lanes[i].watched.store(watched.watched_ns, kRelaxed);
    }
}

Watchdog::Watchdog(std::shared_ptr<RingWriter> ring, WatchdogSettings settings)
    : ring_(std::move(ring)),
      page_(ring_->pulse().page()),
      settings_(std::move(settings)),
      watched_(settings_.tick_ns) {
    if (settings_.stall_ns == 0 || settings_.startup_ns == 0 || settings_.tick_ns == 0 ||
        settings_.command.empty()) {
        throw std::invalid_argument("a watchdog needs limits, a tick and a command");
    }
    page_.head.stall_ns.store(settings_.stall_ns, kRelaxed);
    page_.head.startup_ns.store(settings_.startup_ns, kRelaxed);
}

Watchdog::~Watchdog() {
    stop();
    for (const WatchedLedger& ledger : ledgers_) close(ledger.descriptor);
}

void Watchdog::add(const WatchedLedger& ledger) {
    WatchedLedger kept = ledger;
    // Kept until the process leaves the ledger: closing it frees the process's lock.
    kept.descriptor = fcntl(ledger.descriptor, F_DUPFD_CLOEXEC, 0);
    if (kept.descriptor < 0) {
        throw std::system_error(errno, std::generic_category(), "a ledger cannot be watched");
    }
    const std::lock_guard guard(ledgers_lock_);
    ledgers_.push_back(std::move(kept));
}

void Watchdog::remove(const std::string& job) {
    const std::lock_guard guard(ledgers_lock_);
    const auto gone = std::ranges::find(ledgers_, job, &WatchedLedger::job);
    if (gone == ledgers_.end()) return;
    close(gone->descriptor);
    ledgers_.erase(gone);
}

void Watchdog::start() {
    if (running_ != nullptr) return;
    auto running = std::make_unique<Running>();
    running->owner = getpid();
    // The program's signals are not for this thread.
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    try {
        running->thread = std::thread([this, &told = *running] { run(told); });
    } catch (...) {
        pthread_sigmask(SIG_SETMASK, &before, nullptr);
        throw;
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    running_ = std::move(running);
}

void Watchdog::stop() noexcept {
    if (running_ == nullptr) return;
    if (running_->owner != getpid()) {
        // A child after a fork has the object and not the thread, which can neither be joined nor
        // be waited for: a condition that somebody waits on cannot even be destroyed.
        [[maybe_unused]] auto* const never_freed = running_.release();
        return;
    }
    {
        const std::lock_guard guard(running_->lock);
        running_->stop = true;
    }
    running_->told.notify_all();
    running_->thread.join();
    running_.reset();
    page_.head.beat_ns.store(0, kRelaxed);
    page_.head.beat_ticks.store(0, kRelaxed);
    reap();
}

void Watchdog::run(Running& running) noexcept {
    pthread_setname_np(pthread_self(), "graphguard-dog");
    leave_bound_cores();
    const auto tick = std::chrono::nanoseconds(settings_.tick_ns);
    std::uint64_t last = nanoseconds_of(CLOCK_MONOTONIC);
    std::unique_lock guard(running.lock);
    while (!running.told.wait_for(guard, tick, [&] { return running.stop; })) {
        guard.unlock();
        const std::uint64_t now = nanoseconds_of(CLOCK_MONOTONIC);
        look(now, now - last);
        last = now;
        guard.lock();
    }
}

void Watchdog::look(std::uint64_t now_ns, std::uint64_t passed_ns) noexcept {
    page_.head.beat_ticks.store(ring_->clock().now(), kRelaxed);
    page_.head.beat_ns.store(now_ns, kRelaxed);
    if (passed_ns > WatchedTime::kLongestTick * settings_.tick_ns) {
        const std::uint64_t missed = page_.head.missed_ns.load(kRelaxed);
        page_.head.missed_ns.store(missed + passed_ns - settings_.tick_ns, kRelaxed);
    }
    watched_.look(page_, passed_ns);
    reap();
    if (now_ns < page_.head.extended_until_ns.load(std::memory_order_acquire)) return;
    for (std::size_t lane = 0; lane < pulse::kLanes; ++lane) {
        if (watched_.activity(lane) == 0 || watched_.of(lane) < limit(lane)) continue;
        if (tried_for_[lane] == watched_.activity(lane) && now_ns < next_try_ns_[lane]) continue;
        tried_for_[lane] = watched_.activity(lane);
        next_try_ns_[lane] = now_ns + kAskAgainNs;
        examine(lane);
    }
}

std::uint64_t Watchdog::limit(std::size_t lane) const noexcept {
    const ActivityKind kind = kind_of(page_.lanes[lane]);
    const bool starts = kind == ActivityKind::kStartup || kind == ActivityKind::kCapture;
    return starts ? settings_.startup_ns : settings_.stall_ns;
}

std::string Watchdog::job() const {
    // The widest one: every rank of a job then comes to the same.
    const auto widest = std::ranges::max_element(
        ledgers_, {}, [](const WatchedLedger& ledger) { return ledger.ranks.size(); });
    return widest == ledgers_.end() ? settings_.job : widest->job;
}

int Watchdog::lock(const std::string& job) const noexcept {
    return open_locked(settings_.directory + "/stall-" + job + ".lock");
}

void Watchdog::examine(std::size_t lane) noexcept {
    try {
        const std::lock_guard guard(ledgers_lock_);
        const std::string job_name = job();
        const int locked = lock(job_name);
        if (locked == kLockTaken) return;
        std::vector<int> descriptors;
        if (locked >= 0) descriptors.push_back(locked);
        for (const WatchedLedger& ledger : ledgers_) descriptors.push_back(ledger.descriptor);
        int given = first_given(descriptors);

        std::vector<std::string> command = settings_.command;
        const auto append = [&](const char* option, std::string value) {
            command.emplace_back(option);
            command.push_back(std::move(value));
        };
        append("--job", job_name);
        append("--lane", std::to_string(static_cast<int>(kind_of(page_.lanes[lane]))));
        append("--watched-ms", std::to_string(watched_.of(lane) / 1'000'000));
        if (locked >= 0) append("--lock-fd", std::to_string(given++));
        for (const WatchedLedger& ledger : ledgers_) {
            append("--ledger", std::to_string(given++) + ':' + std::to_string(ledger.bytes) + ':' +
                                   ledger.name + ':' + pids_text(ledger));
        }
        int error = 0;
        examiner_ = start_process(command, settings_.environment, descriptors, error);
        if (locked >= 0) close(locked);
        next_try_ns_[lane] += kStartAgainNs - kAskAgainNs;
        if (examiner_ < 0) {
            say("graphguard: a stall cannot be examined: no process could be started for it\n");
            return;
        }
        started_.fetch_add(1, kRelaxed);
        page_.head.stalls.store(page_.head.stalls.load(kRelaxed) + 1, kRelaxed);
    } catch (const std::exception&) {
        say("graphguard: a stall cannot be examined: there is no memory for it\n");
    }
}

void Watchdog::reap() noexcept {
    if (examiner_ <= 0) return;
    const pid_t ended = waitpid(examiner_, nullptr, WNOHANG);
    // Not ours any more: the program waits for all its children.
    if (ended == examiner_ || (ended < 0 && errno == ECHILD)) examiner_ = -1;
}

}  // namespace graphguard
