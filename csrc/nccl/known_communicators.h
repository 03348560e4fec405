// What is known of the communicators of this process.
#pragma once

#include <cstdint>
#include <mutex>
#include <optional>
#include <unordered_map>

#include "nccl/nccl_types.h"

namespace graphguard::nccl {

struct Membership {
    std::uint64_t hash = 0;  // the same on all ranks of the communicator; 0 where unknown
    std::int32_t rank = -1;
    std::int32_t num_ranks = 0;  // 0 where unknown
};

// Any thread may call anything here. Where no memory is left, a communicator stays unknown.
class KnownCommunicators {
  public:
    void know(Communicator communicator, const Membership& membership) noexcept;
    void forget(Communicator communicator) noexcept;
    [[nodiscard]] std::optional<Membership> find(Communicator communicator) const noexcept;

    // The hash of the next communicator that all ranks of `parent` make together, as NCCL forms
    // its own: from the parent's, from how many it has made, and from the colour. 0 where the
    // parent's is unknown.
    [[nodiscard]] std::uint64_t next_child_hash(Communicator parent, std::int64_t color) noexcept;

  private:
    struct Entry {
        Membership membership;
        std::uint64_t children = 0;
    };

    mutable std::mutex mutex_;
    std::unordered_map<Communicator, Entry> entries_;
};

// Never destroyed: NCCL's threads may call while a process exits.
KnownCommunicators& known_communicators() noexcept;

// The hash of a communicator that is made from these ids.
[[nodiscard]] std::uint64_t hash_of(const UniqueId* ids, int count) noexcept;

}  // namespace graphguard::nccl
