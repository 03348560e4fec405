// Measures one step on the ledger: publish and look at 1, 3 and 7 peers.
//
// Prints JSON: for each number of peers, nanoseconds of one step of one rank. "warm": the peers
// have published from the same core, "other core": from another one, so that their lines must come
// over (median and 99th of 100 calls, less what reading the clock takes). The baseline is one
// exchange on a line of this rank, which no agreement can do without.
#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <span>
#include <thread>
#include <vector>

#include "core/clock.h"
#include "core/ledger.h"

namespace graphguard::bench {
namespace {

constexpr std::size_t kSteps = 1U << 16U;
constexpr std::size_t kRepetitions = 11;
constexpr std::array<std::uint32_t, 3> kPeers = {1, 3, 7};

struct Memory {
    explicit Memory(std::uint32_t ranks)
        : size(ledger::bytes_for(ranks)),
          bytes(static_cast<std::byte*>(std::aligned_alloc(64, size))) {
        std::fill(bytes, bytes + size, std::byte{0});
        Ledger::initialise({bytes, size}, ranks, 1);
    }
    ~Memory() { std::free(bytes); }
    Memory(const Memory&) = delete;
    Memory& operator=(const Memory&) = delete;

    std::size_t size;
    std::byte* bytes;
};

// Ranks on one ledger; number 0 is the one that is measured.
class Ranks {
  public:
    explicit Ranks(std::uint32_t peers) : memory_(peers + 1) {
        for (std::uint32_t rank = 0; rank <= peers; ++rank) {
            ranks_.push_back(std::make_unique<Ledger>(std::span(memory_.bytes, memory_.size), rank,
                                                      1, 100 + rank));
        }
        launch_.digest_high = launch_.digest_low = launch_.key = 7;
        launch_.batch = {16, 2, 32, Phase::kDecode};
    }

    void peers_publish(bool enforce) {
        for (std::size_t rank = 1; rank < ranks_.size(); ++rank) step(*ranks_[rank], enforce);
    }
    void mine(bool enforce) { step(*ranks_[0], enforce); }

  private:
    void step(Ledger& ledger, bool enforce) const {
        ledger.publish(launch_, enforce);
        const Decision seen = enforce ? ledger.decide() : ledger.compare();
        if (seen.seen != Seen::kSame) std::abort();
        ledger.settle(Outcome::kLaunched, launch_);
        if (ledger.read_notices()) std::abort();
    }

    Memory memory_;
    std::vector<std::unique_ptr<Ledger>> ranks_;
    Launch launch_;
};

const TickClock& counter() {
    static const TickClock clock;
    return clock;
}

double nanoseconds_per_tick() {
    const auto began = std::chrono::steady_clock::now();
    const std::uint64_t first = counter().now();
    std::chrono::duration<double, std::nano> taken{};
    while (taken.count() < 20e6) taken = std::chrono::steady_clock::now() - began;
    return taken.count() / static_cast<double>(counter().now() - first);
}

double at(std::vector<double>& times, double share) {
    const auto place = static_cast<std::ptrdiff_t>(share * static_cast<double>(times.size() - 1));
    std::nth_element(times.begin(), times.begin() + place, times.end());
    return times[static_cast<std::size_t>(place)];
}

double exchange() {
    alignas(64) std::atomic<std::uint64_t> line{0};
    std::vector<double> times;
    for (std::size_t repetition = 0; repetition < kRepetitions; ++repetition) {
        const auto began = std::chrono::steady_clock::now();
        for (std::size_t i = 0; i < kSteps; ++i) line.exchange(i);
        const std::chrono::duration<double, std::nano> taken =
            std::chrono::steady_clock::now() - began;
        times.push_back(taken.count() / kSteps);
    }
    return at(times, 0.5);
}

// A batch of steps: the peers' first, then mine, timed together and shared out.
double warm(std::uint32_t peers, bool enforce) {
    constexpr std::size_t kBatch = 64;
    Ranks ranks(peers);
    std::vector<double> times;
    for (std::size_t batch = 0; batch < kSteps / kBatch; ++batch) {
        for (std::size_t i = 0; i < kBatch; ++i) ranks.peers_publish(enforce);
        const auto began = std::chrono::steady_clock::now();
        for (std::size_t i = 0; i < kBatch; ++i) ranks.mine(enforce);
        const std::chrono::duration<double, std::nano> taken =
            std::chrono::steady_clock::now() - began;
        times.push_back(taken.count() / kBatch);
    }
    return at(times, 0.5);
}

struct Spread {
    double median = 0;
    double ninety_ninth = 0;
};

// Another thread publishes for all peers, then this one is timed, in turn.
Spread from_other_core(std::uint32_t peers, bool enforce, double tick) {
    Ranks ranks(peers);
    std::atomic<std::size_t> published{0};
    std::atomic<std::size_t> done{0};
    std::thread other([&] {
        for (std::size_t i = 0; i < kSteps; ++i) {
            while (done.load(std::memory_order_acquire) < i) {
            }
            ranks.peers_publish(enforce);
            published.store(i + 1, std::memory_order_release);
        }
    });
    std::vector<double> times;
    for (std::size_t i = 0; i < kSteps; ++i) {
        while (published.load(std::memory_order_acquire) <= i) {
        }
        const std::uint64_t began = counter().now();
        ranks.mine(enforce);
        const std::uint64_t ended = counter().now();
        const std::uint64_t clock = counter().now() - ended;
        times.push_back(tick * (static_cast<double>(ended - began) - static_cast<double>(clock)));
        done.store(i + 1, std::memory_order_release);
    }
    other.join();
    return {at(times, 0.5), at(times, 0.99)};
}

void print(std::uint32_t peers, bool enforce, double tick) {
    const Spread other = from_other_core(peers, enforce, tick);
    std::cout << "{\"peers\": " << peers << ", \"way\": \"" << (enforce ? "enforce" : "observe")
              << "\", \"warm\": " << warm(peers, enforce) << ", \"other_core\": " << other.median
              << ", \"other_core_p99\": " << other.ninety_ninth << "}";
}

}  // namespace
}  // namespace graphguard::bench

int main() {
    using namespace graphguard::bench;
    const double tick = nanoseconds_per_tick();
    std::cout << "{\"exchange\": " << exchange() << ", \"results\": [";
    bool first = true;
    for (const std::uint32_t peers : kPeers) {
        for (const bool enforce : {false, true}) {
            if (!first) std::cout << ", ";
            first = false;
            print(peers, enforce, tick);
        }
    }
    std::cout << "]}\n";
}
