// Which graph is the smallest that holds n requests (or tokens)?
#pragma once

#include <cstdint>
#include <vector>

#include "core/verdict.h"

namespace graphguard {

struct SizedGraph {
    std::uint32_t size = 0;
    std::uint32_t graph = kNoGraphId;

    [[nodiscard]] explicit operator bool() const { return graph != kNoGraphId; }
};

// A direct table answers in one load for the sizes that serving reaches; beyond it, binary search.
// Of two graphs of one size the one inserted first is kept: every rank captures in the same order,
// so every rank breaks the tie alike.
class SizeIndex {
  public:
    static constexpr std::uint32_t kDirectSizes = 1U << 16U;

    void insert(std::uint32_t size, std::uint32_t graph);

    // Whether any recorded size is not below `size`.
    [[nodiscard]] bool holds(std::uint32_t size) const { return size < end_; }

    // The smallest recorded size that is not below `size`, or an empty answer if there is none.
    [[nodiscard]] SizedGraph at_least(std::uint32_t size) const {
        if (size < direct_.size()) return direct_[size];
        return search(size);
    }

  private:
    [[nodiscard]] SizedGraph search(std::uint32_t size) const;

    std::uint64_t end_ = 0;           // one beyond the largest size
    std::vector<SizedGraph> sizes_;   // sorted by size, no size twice
    std::vector<SizedGraph> direct_;  // size -> its answer
};

}  // namespace graphguard
