// The interposer with many threads at once, under sanitizers, in front of the stub of NCCL.
//
// It is compiled into this program, whose functions come before those of any library: the stub's
// calls of its own exported functions come here, as NCCL's do. Each thread records itself, calls in
// and out of groups, makes communicators and ends them, and compares what it takes from the log
// with what it called.
//
//   graphguard_interposer_stress THREADS ROUNDS     with GRAPHGUARD_NCCL_SO set to the stub
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "nccl/call_abi.h"
#include "nccl/nccl_types.h"

using graphguard::nccl::CallRecord;
using graphguard::nccl::Communicator;
using graphguard::nccl::Result;
using graphguard::nccl::Stream;
using graphguard::nccl::UniqueId;

extern "C" {
Result ncclCommInitRank(Communicator* place, int num_ranks, UniqueId id, int rank) noexcept;
Result ncclCommSplit(Communicator parent, int color, int key, Communicator* place,
                     void* config) noexcept;
Result ncclCommDestroy(Communicator communicator) noexcept;
Result ncclGroupStart() noexcept;
Result ncclGroupEnd() noexcept;
Result ncclGetVersion(int* version);
Result ncclAllReduce(const void*, void*, std::size_t count, int, int, Communicator,
                     Stream) noexcept;
Result ncclBcast(void*, std::size_t count, int, int, Communicator, Stream) noexcept;
}

namespace {

constexpr int kFloat32 = 7;

[[noreturn]] void fail(const std::string& what) {
    std::printf("FAILED %s\n", what.c_str());
    std::fflush(stdout);
    std::_Exit(1);
}

void require(bool holds, const char* what) {
    if (!holds) fail(what);
}

struct Called {
    std::size_t count;
    const char* operation;
    Communicator communicator;
    bool grouped;
};

class Rank {
  public:
    explicit Rank(unsigned int seed) : state_(seed) {
        UniqueId id{};
        std::memset(id.internal, static_cast<int>(seed), sizeof(id.internal));
        require(ncclCommInitRank(&world_, 4, id, 1) == 0, "ncclCommInitRank");
    }

    std::size_t round() {
        require(graphguard_nccl_begin(0) == 0, "begin");
        called_.clear();
        for (int step = 0; step < 16; ++step) take_a_step();
        require(graphguard_nccl_end(0) == 0, "end");
        compare();
        return called_.size();
    }

    void finish() { require(ncclCommDestroy(world_) == 0, "ncclCommDestroy"); }

  private:
    unsigned int next(unsigned int bound) {
        state_ = state_ * 1'664'525U + 1'013'904'223U;
        return (state_ >> 16U) % bound;
    }

    void call(Communicator communicator, bool grouped) {
        const std::size_t count = 1 + next(1000);
        if (next(2) == 0) {
            require(ncclAllReduce(nullptr, nullptr, count, kFloat32, 0, communicator, nullptr) == 0,
                    "ncclAllReduce");
            called_.push_back({count, "all_reduce", communicator, grouped});
        } else {
            require(ncclBcast(nullptr, count, kFloat32, 0, communicator, nullptr) == 0,
                    "ncclBcast");
            called_.push_back({count, "broadcast", communicator, grouped});
        }
    }

    void take_a_step() {
        int version = 0;
        switch (next(4)) {
            case 0:
                require(ncclGroupStart() == 0, "ncclGroupStart");
                for (unsigned int left = next(4); left > 0; --left) call(world_, true);
                require(ncclGroupEnd() == 0, "ncclGroupEnd");
                break;
            case 1: {
                Communicator child = nullptr;
                require(ncclCommSplit(world_, 0, 0, &child, nullptr) == 0, "ncclCommSplit");
                call(child, false);
                require(ncclCommDestroy(child) == 0, "ncclCommDestroy");
                break;
            }
            case 2:
                require(ncclGetVersion(&version) == 0, "ncclGetVersion");
                break;
            default:
                call(world_, false);
        }
    }

    void compare() const {
        std::vector<CallRecord> taken(called_.size() + 1);
        std::uint64_t dropped = 0;
        const std::size_t count = graphguard_nccl_take(0, taken.data(), taken.size(), &dropped);
        require(count == called_.size() && dropped == 0, "every call is recorded once");
        std::uint64_t last = 0;
        for (std::size_t index = 0; index < count; ++index) {
            const CallRecord& record = taken[index];
            const Called& one = called_[index];
            require(record.count == one.count, "count");
            require(std::strcmp(record.operation, one.operation) == 0, "operation");
            require(record.communicator == reinterpret_cast<std::uintptr_t>(one.communicator),
                    "communicator");
            require((record.group != 0) == one.grouped, "group");
            require(record.order > last, "order");
            require(record.communicator_hash != 0 && record.num_ranks != 0, "membership");
            last = record.order;
        }
    }

    unsigned int state_;
    Communicator world_ = nullptr;
    std::vector<Called> called_;
};

}  // namespace

int main(int argc, char** argv) {
    if (argc != 3) fail("usage: graphguard_interposer_stress THREADS ROUNDS");
    const int num_threads = std::atoi(argv[1]);
    const int rounds = std::atoi(argv[2]);
    std::vector<std::size_t> calls(static_cast<std::size_t>(num_threads), 0);
    std::vector<std::thread> threads;
    for (int index = 0; index < num_threads; ++index) {
        threads.emplace_back([index, rounds, &calls] {
            Rank rank(static_cast<unsigned int>(index) + 1);
            for (int round = 0; round < rounds; ++round) {
                calls[static_cast<std::size_t>(index)] += rank.round();
            }
            rank.finish();
        });
    }
    std::size_t total = 0;
    for (std::thread& thread : threads) thread.join();
    for (const std::size_t count : calls) total += count;
    std::printf("ok calls=%zu\n", total);
    return 0;
}
