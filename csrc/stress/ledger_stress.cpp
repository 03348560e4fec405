// Ranks on one ledger, as processes or as threads (for ThreadSanitizer).
//
//   soak   every rank launches the same, with random delays and ranks that run ahead. Any answer
//   but
//          "the same" is a false alarm.
//   race   ranks propose at random. What each launched is compared afterwards, step by step, with
//   the
//          claims of models/README.md.
//
// usage: graphguard_ledger_stress soak|race observe|enforce|vote processes|threads RANKS STEPS SEED
#include <sched.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <new>
#include <string>
#include <thread>
#include <vector>

#include "core/fold.h"
#include "core/ledger.h"

using namespace graphguard;

namespace {

enum class Way : std::uint8_t { kObserve, kEnforce, kVote };

struct Settings {
    bool race = false;
    Way way = Way::kObserve;
    bool threads = false;
    std::uint32_t ranks = 0;
    std::uint64_t steps = 0;
    std::uint64_t seed = 0;
};

constexpr std::uint64_t kToken = 42;
constexpr std::uint64_t kMaxLead = ledger::kSlots - 8;

// What a rank did in a step, in memory that the parent reads when all have ended.
enum class Did : std::uint8_t { kNothing, kLaunched, kAdopted, kRefused, kError };
struct Logged {
    std::atomic<std::uint64_t> digest{0};
    std::atomic<std::uint8_t> did{0};
    std::atomic<std::uint8_t> knew{0};  // saw a difference before it launched
};

struct Counts {
    std::atomic<std::uint64_t> steps{0};
    std::atomic<std::uint64_t> alarms{0};
    std::atomic<std::uint64_t> differences{0};
    std::atomic<std::uint64_t> longest_lead{0};
    std::atomic<std::uint64_t> notices{0};
};

// What a rank has taken of notices: which, and from which step. Must be the same on all ranks.
struct Taken {
    std::atomic<std::uint64_t> number{0};
    std::atomic<std::uint64_t> digest{0};
};

struct Board {
    Counts counts;
    std::array<Taken, ledger::kMaxRanks> taken;
    Logged* log = nullptr;  // ranks * steps, only for races
};

std::span<std::byte> shared_memory(std::size_t bytes) {
    void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) std::abort();
    return {static_cast<std::byte*>(memory), bytes};
}

class Random {
  public:
    explicit Random(std::uint64_t seed) : state_(seed) {}
    std::uint64_t next() { return state_ = fold(state_ + 0x9E3779B97F4A7C15ULL, state_); }
    bool one_in(std::uint64_t n) { return next() % n == 0; }

  private:
    std::uint64_t state_;
};

void delay(Random& random) {
    if (random.one_in(4096)) usleep(static_cast<useconds_t>(random.next() % 200));
    if (random.one_in(64)) sched_yield();
}

Launch launch_of(std::uint64_t choice, std::uint64_t step) {
    Launch launch;
    launch.key = 7;
    const auto num_reqs = static_cast<std::uint32_t>(1 + step % 16);
    launch.batch = {num_reqs, 2, 2 * num_reqs, Phase::kDecode};
    if (choice % 4 == 3) {
        launch.kind = LaunchKind::kEager;
        launch.reason = Reason::kQueryLength;
    } else {
        launch.digest_high = fold(step % 16, choice % 4);
        launch.digest_low = 1;
    }
    return launch;
}

std::uint64_t identity(const Launch& launch) {
    return launch.kind == LaunchKind::kEager ? fold(1, launch.batch.num_reqs)
                                             : fold(2, launch.digest_high);
}

Decision look(Ledger& ledger, Way way) {
    switch (way) {
        case Way::kObserve:
            return ledger.compare();
        case Way::kEnforce:
            return ledger.decide();
        case Way::kVote:
            break;
    }
    return ledger.vote(std::chrono::seconds(60));
}

// A rank that was refused does not go on, and nobody may wait for it.
bool over(const Ledger& ledger) {
    return ledger.trouble().kind == Trouble::kRefused;
}

void keep_lead(const Ledger& ledger, Counts& counts) {
    std::uint64_t slowest = UINT64_MAX;
    while (true) {
        slowest = UINT64_MAX;
        for (std::uint32_t peer = 0; peer < ledger.num_ranks(); ++peer) {
            slowest = std::min(slowest, ledger.passed(peer));
        }
        if (ledger.step() < slowest + kMaxLead || over(ledger)) break;
        sched_yield();
    }
    const std::uint64_t lead = ledger.step() - slowest;
    if (lead > counts.longest_lead.load()) counts.longest_lead.store(lead);
}

// A collective would keep ranks together; here nothing does but the ledger's own limit, or this.
// False if the run is over.
bool publish(Ledger& ledger, const Launch& launch, Way way, Counts& counts) {
    if (way == Way::kObserve) {
        keep_lead(ledger, counts);
        ledger.publish(launch, false);
        return true;
    }
    if (ledger.step() % 64 == 0) keep_lead(ledger, counts);
    while (!over(ledger)) {
        if (ledger.publish(launch, true) == Seen::kSame) return true;
        sched_yield();
    }
    return false;
}

// Announces now and then, with so short a margin that ranks overtake it, and takes what is due.
// A notice that is due late is one that a rank has passed without knowing.
void notices(Ledger& ledger, const Settings& settings, Random& random, Board& board) {
    if (random.one_in(512)) {
        constexpr std::array<std::uint64_t, 4> kMargins{1, 3, 64, kMaxLead};
        ledger.announce(NoticeKind::kQuarantine, ledger.rank(), ledger.step(), random.next(),
                        kMargins[random.next() % kMargins.size()]);
    }
    if (!ledger.read_notices()) return;
    Taken& taken = board.taken[ledger.rank()];
    while (const std::optional<NoticeRead> notice = ledger.take_due()) {
        if (notice->from_step != ledger.step() + 1) board.counts.alarms.fetch_add(1);
        if (notice->from_step > settings.steps) continue;
        taken.number.fetch_add(1);
        taken.digest = fold(taken.digest ^ notice->key, notice->from_step);
    }
}

void compare_notices(const Settings& settings, Board& board) {
    const Taken& first = board.taken[0];
    for (std::uint32_t rank = 0; rank < settings.ranks; ++rank) {
        const Taken& taken = board.taken[rank];
        if (taken.number != first.number || taken.digest != first.digest) {
            board.counts.alarms.fetch_add(1);
        }
    }
    board.counts.notices.store(first.number);
}

void soak(Ledger& ledger, const Settings& settings, Board& board) {
    Random random(settings.seed * 31 + ledger.rank());
    for (std::uint64_t step = 1; step <= settings.steps; ++step) {
        delay(random);
        const Launch launch = launch_of(fold(settings.seed, step), step);
        if (!publish(ledger, launch, settings.way, board.counts)) return;
        if (look(ledger, settings.way).seen != Seen::kSame) board.counts.alarms.fetch_add(1);
        notices(ledger, settings, random, board);
        ledger.settle(Outcome::kLaunched, launch);
        if (ledger.trouble().kind != Trouble::kNone) board.counts.alarms.fetch_add(1);
    }
    board.counts.steps.fetch_add(settings.steps);
}

// Ranks that come at the same moment are the ones that race; with odd seeds they wait for each
// other.
void meet(const Ledger& ledger, std::uint64_t step, std::uint64_t seed) {
    if (seed % 2 == 0) return;
    for (std::uint32_t peer = 0; peer < ledger.num_ranks(); ++peer) {
        for (int spins = 0; ledger.passed(peer) + 1 < step && !over(ledger); ++spins) {
            if (spins > 1000) sched_yield();
        }
    }
}

void race(Ledger& ledger, const Settings& settings, Board& board) {
    Random random(settings.seed * 31 + ledger.rank());
    for (std::uint64_t step = 1; step <= settings.steps; ++step) {
        if (settings.seed % 2 == 0) delay(random);
        const Launch mine = launch_of(random.one_in(8) ? random.next() : 0, step);
        meet(ledger, step, settings.seed);
        if (!publish(ledger, mine, settings.way, board.counts)) return;
        const Decision decision = look(ledger, settings.way);
        Logged& logged = board.log[ledger.rank() * settings.steps + step - 1];
        Launch launched = mine;
        Did did = Did::kLaunched;
        if (decision.seen == Seen::kDiffers) {
            logged.knew = 1;
            if (settings.way != Way::kObserve) {
                launched = decision.launch;
                did = Did::kAdopted;
            }
            // Now and then a rank cannot serve what was decided.
            if (settings.way == Way::kEnforce && 2 * step > settings.steps && random.one_in(2000)) {
                logged.did = static_cast<std::uint8_t>(Did::kRefused);
                ledger.settle(Outcome::kRefused, launched);
                ledger.tell(Trouble::kRefused);
                return;
            }
        } else if (decision.seen != Seen::kSame) {
            logged.did = static_cast<std::uint8_t>(Did::kError);
            return;
        }
        notices(ledger, settings, random, board);
        logged.digest = identity(launched);
        logged.did = static_cast<std::uint8_t>(did);
        ledger.settle(did == Did::kAdopted ? Outcome::kAdopted : Outcome::kLaunched, launched);
    }
}

// Counts what breaks a claim: ranks that launched different things in one step and none of them
// knew (observe), or at all (enforce, vote); and every error.
void judge(const Settings& settings, Board& board) {
    for (std::uint64_t step = 0; step < settings.steps; ++step) {
        std::uint64_t first = 0;
        bool differ = false;
        bool knew = false;
        bool refused = false;
        std::uint32_t launched = 0;
        for (std::uint32_t rank = 0; rank < settings.ranks; ++rank) {
            const Logged& logged = board.log[rank * settings.steps + step];
            const auto did = static_cast<Did>(logged.did.load());
            knew = knew || logged.knew != 0;
            refused = refused || did == Did::kRefused;
            if (did == Did::kError) board.counts.alarms.fetch_add(1);
            if (did != Did::kLaunched && did != Did::kAdopted) continue;
            ++launched;
            if (first == 0) first = logged.digest;
            differ = differ || logged.digest != first;
        }
        if (launched == settings.ranks) board.counts.steps.fetch_add(1);
        if (knew) board.counts.differences.fetch_add(1);
        const bool wrong = differ && (settings.way != Way::kObserve || !knew);
        if (wrong) board.counts.alarms.fetch_add(1);
    }
}

void run(const Settings& settings, const std::function<void(std::uint32_t)>& rank) {
    if (settings.threads) {
        std::vector<std::thread> threads;
        for (std::uint32_t r = 0; r < settings.ranks; ++r) threads.emplace_back(rank, r);
        for (std::thread& thread : threads) thread.join();
        return;
    }
    std::vector<pid_t> children;
    for (std::uint32_t r = 0; r < settings.ranks; ++r) {
        const pid_t child = fork();
        if (child < 0) std::abort();
        if (child == 0) {
            rank(r);
            _exit(0);
        }
        children.push_back(child);
    }
    for (const pid_t child : children) {
        int status = 0;
        if (waitpid(child, &status, 0) != child || status != 0) std::abort();
    }
}

bool parse(int argc, char** argv, Settings& settings) {
    if (argc != 7) return false;
    const std::string what = argv[1];
    const std::string way = argv[2];
    const std::string how = argv[3];
    settings.race = what == "race";
    settings.way =
        way == "observe" ? Way::kObserve : (way == "enforce" ? Way::kEnforce : Way::kVote);
    settings.threads = how == "threads";
    settings.ranks = static_cast<std::uint32_t>(std::strtoul(argv[4], nullptr, 10));
    settings.steps = std::strtoull(argv[5], nullptr, 10);
    settings.seed = std::strtoull(argv[6], nullptr, 10);
    return (settings.race || what == "soak") && (settings.way != Way::kVote || way == "vote") &&
           (settings.threads || how == "processes") && settings.ranks > 0 && settings.steps > 0;
}

}  // namespace

int main(int argc, char** argv) {
    Settings settings;
    if (!parse(argc, argv, settings)) {
        std::fprintf(
            stderr, "usage: %s soak|race observe|enforce|vote processes|threads RANKS STEPS SEED\n",
            argv[0]);
        return 2;
    }
    const std::span<std::byte> memory = shared_memory(ledger::bytes_for(settings.ranks));
    Ledger::initialise(memory, settings.ranks, kToken);
    auto* board = new (shared_memory(sizeof(Board)).data()) Board;
    if (settings.race) {
        const std::size_t entries = settings.ranks * settings.steps;
        board->log = reinterpret_cast<Logged*>(shared_memory(entries * sizeof(Logged)).data());
    }
    const auto began = std::chrono::steady_clock::now();
    run(settings, [&](std::uint32_t rank) {
        Ledger ledger(memory, rank, kToken, 1000 + rank);
        (settings.race ? race : soak)(ledger, settings, *board);
    });
    if (settings.race) judge(settings, *board);
    // After a refusal ranks end at different steps.
    if (!settings.race || settings.way != Way::kEnforce) compare_notices(settings, *board);
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - began;
    const Counts& counts = board->counts;
    std::printf(
        "%s %s %s %s ranks=%u steps=%llu seed=%llu rank_steps=%llu differences=%llu "
        "longest_lead=%llu notices=%llu alarms=%llu seconds=%.2f\n",
        counts.alarms == 0 ? "ok" : "FAILED", argv[1], argv[2], argv[3], settings.ranks,
        static_cast<unsigned long long>(settings.steps),
        static_cast<unsigned long long>(settings.seed),
        static_cast<unsigned long long>(counts.steps.load()),
        static_cast<unsigned long long>(counts.differences.load()),
        static_cast<unsigned long long>(counts.longest_lead.load()),
        static_cast<unsigned long long>(counts.notices.load()),
        static_cast<unsigned long long>(counts.alarms.load()), took.count());
    return counts.alarms == 0 ? 0 : 1;
}
