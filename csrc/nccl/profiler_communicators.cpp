#include "nccl/profiler_communicators.h"

#include <new>

namespace graphguard::nccl {

namespace {

// The list is for leak checkers and debuggers: what is on it can be reached.
std::atomic<Communicator*> newest{nullptr};
std::atomic<std::uint64_t> told{0};
std::atomic<std::uint64_t> live{0};

}  // namespace

Communicator* remember_communicator(const CommunicatorFacts& facts, int* mask) noexcept {
    auto* const made = new (std::nothrow)
        Communicator{facts.hash, facts.rank, facts.num_ranks, mask, std::nullopt, nullptr};
    if (made == nullptr) return nullptr;
    made->older = newest.load(std::memory_order_relaxed);
    while (!newest.compare_exchange_weak(made->older, made, std::memory_order_release,
                                         std::memory_order_relaxed)) {
    }
    told.fetch_add(1, std::memory_order_relaxed);
    live.fetch_add(1, std::memory_order_relaxed);
    return made;
}

bool finalize_communicator(Communicator& communicator) noexcept {
    if (communicator.finalized.exchange(true, std::memory_order_acq_rel)) return false;
    live.fetch_sub(1, std::memory_order_relaxed);
    return true;
}

CommunicatorCounts communicator_counts() noexcept {
    return {told.load(std::memory_order_relaxed), live.load(std::memory_order_relaxed)};
}

}  // namespace graphguard::nccl
