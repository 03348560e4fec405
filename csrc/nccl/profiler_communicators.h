// The communicators that NCCL has told the plugin of.
//
// They are never freed: NCCL's callbacks for a captured graph may come with the context of a
// communicator that is gone. A program makes few of them, and each is far smaller here than there.
#pragma once

#include <atomic>
#include <cstdint>
#include <optional>

#include "nccl/next_plugin.h"

namespace graphguard::nccl {

struct Communicator {
    std::uint64_t hash;
    int rank;
    int num_ranks;
    int* mask;  // NCCL's activation mask, one for all communicators of a loaded NCCL
    std::optional<NextInterface> next;
    void* next_context;
    std::atomic<bool> finalized{false};
    Communicator* older = nullptr;
};

// What the next plugin behind this one is to be told of, or null.
[[nodiscard]] inline const NextInterface* next_of(const Communicator& communicator) {
    const bool live = !communicator.finalized.load(std::memory_order_acquire);
    return live && communicator.next ? &*communicator.next : nullptr;
}

// Null where no memory is left.
Communicator* remember_communicator(const CommunicatorFacts& facts, int* mask) noexcept;

// Returns false if it was finalized before.
bool finalize_communicator(Communicator& communicator) noexcept;

struct CommunicatorCounts {
    std::uint64_t told;
    std::uint64_t live;
};
[[nodiscard]] CommunicatorCounts communicator_counts() noexcept;

}  // namespace graphguard::nccl
