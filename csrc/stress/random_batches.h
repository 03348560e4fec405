// Random batches that are worth checking: small sizes, so that they collide and nearly miss, and
// the sizes at which the arithmetic or the index changes its way.
#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "core/size_index.h"
#include "core/verdict.h"
#include "stress/naive_table.h"

namespace graphguard::stress {

class Random {
  public:
    explicit Random(std::uint64_t seed) : engine_(seed) {}

    // std::uniform_int_distribution differs between standard libraries; a seed must not.
    std::uint32_t below(std::uint32_t bound) {
        return static_cast<std::uint32_t>((engine_() >> 32U) * bound >> 32U);
    }
    bool one_in(std::uint32_t n) { return below(n) == 0; }

  private:
    std::mt19937_64 engine_;
};

enum class Sizes : std::uint8_t { kSmall, kAroundDirect, kHuge };
inline constexpr std::uint32_t kSizesCount = 3;

class RandomBatches {
  public:
    RandomBatches(Random& random, Sizes sizes) : random_(random), sizes_(sizes) {}

    Batch batch() {
        Batch batch;
        batch.num_reqs = size();
        batch.query_len = query_len();
        const std::uint64_t product = std::uint64_t{batch.num_reqs} * batch.query_len;
        // The cut product is what a 32-bit multiplication would take for a uniform batch.
        batch.num_tokens = static_cast<std::uint32_t>(product);
        if (random_.one_in(4)) batch.num_tokens = size();
        if (random_.one_in(8)) batch.num_tokens -= 1;
        batch.phase = phase();
        return batch;
    }

    // A recorded batch, or one that differs from it in one respect.
    Batch near(const Batch& recorded) {
        Batch batch = recorded;
        switch (random_.below(6)) {
            case 0:
                batch.num_reqs += step();
                batch.num_tokens = batch.num_reqs * batch.query_len;
                break;
            case 1:
                batch.query_len += step();
                break;
            case 2:
                batch.num_tokens += step();
                break;
            case 3:
                batch.phase = phase();
                break;
            case 4:
                batch.num_reqs = size();
                batch.num_tokens = batch.num_reqs * batch.query_len;
                break;
            default:
                break;
        }
        return batch;
    }

    NaiveInput input() {
        NaiveInput input{random_.below(3), random_.below(2), random_.below(3), {}};
        for (std::uint32_t rank = random_.below(4); rank > 0; --rank) {
            input.shape.push_back(static_cast<std::int64_t>(size()));
        }
        return input;
    }

    std::vector<NaiveInput> inputs() {
        std::vector<NaiveInput> inputs(random_.below(5));
        for (NaiveInput& each : inputs) each = input();
        return inputs;
    }

  private:
    Phase phase() { return static_cast<Phase>(random_.below(kPhaseCount)); }
    // Unsigned arithmetic wraps, so that 0 - 1 is one of the huge sizes.
    std::uint32_t step() {
        return random_.one_in(2) ? 1U : std::numeric_limits<std::uint32_t>::max();
    }

    // 256 is where the table changes from loading to probing.
    std::uint32_t query_len() {
        if (random_.one_in(8)) return size();
        return random_.one_in(8) ? 254 + random_.below(5) : random_.below(4);
    }

    std::uint32_t size() {
        constexpr std::uint32_t kDirect = SizeIndex::kDirectSizes;
        constexpr std::uint32_t kMax = std::numeric_limits<std::uint32_t>::max();
        if (sizes_ == Sizes::kSmall || random_.one_in(3)) return random_.below(9);
        if (sizes_ == Sizes::kAroundDirect) return kDirect - 2 + random_.below(5);
        constexpr std::array<std::uint32_t, 5> kEdges = {kMax, kMax - 1, kMax / 2, kDirect * 2,
                                                         kDirect};
        return kEdges[random_.below(kEdges.size())];
    }

    Random& random_;
    Sizes sizes_;
};

}  // namespace graphguard::stress
