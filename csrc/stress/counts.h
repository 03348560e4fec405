// What a run of the stress binary did, and its closing line.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <string>

#include "core/verdict.h"

namespace graphguard::stress {

struct Counts {
    std::uint64_t tables = 0;
    std::uint64_t graphs = 0;
    std::uint64_t checks = 0;
    std::uint64_t graph_checks = 0;
    std::uint64_t input_checks = 0;
    std::uint64_t concurrent_checks = 0;
    std::uint64_t refusals = 0;
    std::uint64_t allocations = 0;
    std::uint64_t failures = 0;
    std::array<std::uint64_t, kReasonCount> reasons{};

    [[nodiscard]] std::size_t distinct_reasons() const {
        std::size_t distinct = 0;
        for (const std::uint64_t count : reasons) distinct += count > 0 ? 1 : 0;
        return distinct;
    }
};

inline int report(const Counts& counts, const std::string& seed) {
    const bool ok = counts.failures == 0 && counts.allocations == 0;
    std::cout << (ok ? "ok" : "FAILED") << " seed=" << seed << " tables=" << counts.tables
              << " graphs=" << counts.graphs << " checks=" << counts.checks
              << " graph_checks=" << counts.graph_checks << " input_checks=" << counts.input_checks
              << " concurrent_checks=" << counts.concurrent_checks
              << " refusals=" << counts.refusals << " reasons=" << counts.distinct_reasons()
              << " allocations=" << counts.allocations << " failures=" << counts.failures << "\n";
    return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}

}  // namespace graphguard::stress
