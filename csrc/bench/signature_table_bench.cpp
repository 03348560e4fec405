// Measures the check in C++, against an empty call and a hash map of tuples in the same run.
//
// Prints JSON: for each number of signatures, the median nanoseconds of one call. "mixed" draws
// from batches that fit exactly, fit with padding or do not fit, in random order, so that neither
// the branch predictor nor one cache line answers; "same" asks for one batch again and again.
#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <random>
#include <string>
#include <tuple>
#include <unordered_map>
#include <vector>

#include "core/signature_table.h"

namespace graphguard::bench {
namespace {

constexpr std::size_t kQuestions = 16384;
constexpr std::size_t kCalls = 16 * kQuestions;
constexpr std::size_t kRepetitions = 21;

// How a number of signatures is spread: over families, query lengths and sizes.
struct Layout {
    std::uint32_t families = 0;
    std::uint32_t query_lens = 0;
    std::uint32_t sizes = 0;

    [[nodiscard]] std::uint32_t signatures() const { return families * query_lens * sizes; }
};

constexpr std::array<Layout, 3> kLayouts = {{{1, 1, 10}, {2, 2, 25}, {10, 10, 100}}};

// Engines record every fourth or eighth size; what lies between is padded.
constexpr std::uint32_t kSizeStep = 4;

struct Question {
    std::uint32_t family = 0;
    Batch batch;
};

struct Timings {
    double empty = 0;
    double mixed = 0;
    double same = 0;
    double hash_map = 0;
};

using Key = std::tuple<std::uint32_t, std::uint32_t, std::uint32_t, std::uint32_t, std::uint8_t>;

struct KeyHash {
    std::size_t operator()(const Key& key) const {
        return std::apply(
            [](const auto&... part) {
                std::size_t hash = 0;
                ((hash = (hash ^ part) * 0x9E3779B97F4A7C15ULL), ...);
                return hash ^ (hash >> 32U);
            },
            key);
    }
};

Key key_of(const Question& question) {
    const Batch& batch = question.batch;
    return {question.family, batch.num_reqs, batch.query_len, batch.num_tokens,
            static_cast<std::uint8_t>(batch.phase)};
}

Batch uniform(std::uint32_t num_reqs, std::uint32_t query_len) {
    return {num_reqs, query_len, num_reqs * query_len, Phase::kDecode};
}

std::vector<Question> recorded(const Layout& layout) {
    std::vector<Question> all;
    for (std::uint32_t family = 0; family < layout.families; ++family) {
        for (std::uint32_t query_len = 1; query_len <= layout.query_lens; ++query_len) {
            for (std::uint32_t size = 1; size <= layout.sizes; ++size) {
                all.push_back({family, uniform(kSizeStep * size, query_len)});
            }
        }
    }
    return all;
}

std::vector<Question> questions_about(const std::vector<Question>& graphs, const Layout& layout) {
    // A fixed seed: the same questions in every run.
    std::mt19937 random(20);
    std::vector<Question> questions(kQuestions);
    for (Question& question : questions) {
        question = graphs[random() % graphs.size()];
        const Batch& batch = question.batch;
        switch (random() % 3) {
            case 0:
                break;
            case 1:
                question.batch = uniform(batch.num_reqs - 1, batch.query_len);
                break;
            default:
                question.batch = random() % 2 == 0
                                     ? uniform(kSizeStep * layout.sizes + 1, batch.query_len)
                                     : uniform(batch.num_reqs, layout.query_lens + 1);
        }
    }
    return questions;
}

[[gnu::noinline]] Verdict nothing(std::uint32_t, const Batch&) {
    // Without it the compiler sees that the call has no effect and drops it.
    asm volatile("");
    return {};
}

std::uint64_t checksum = 0;

template <typename Call>
double nanoseconds(const std::vector<Question>& questions, const Call& call) {
    std::array<double, kRepetitions> times{};
    for (double& time : times) {
        const auto start = std::chrono::steady_clock::now();
        for (std::size_t i = 0; i < kCalls; ++i) {
            checksum += call(questions[i % questions.size()]);
        }
        const std::chrono::duration<double, std::nano> taken =
            std::chrono::steady_clock::now() - start;
        time = taken.count() / static_cast<double>(kCalls);
    }
    std::nth_element(times.begin(), times.begin() + kRepetitions / 2, times.end());
    return times[kRepetitions / 2];
}

Timings measure(const Layout& layout) {
    SignatureTable table;
    std::unordered_map<Key, std::uint32_t, KeyHash> map;
    for (std::uint32_t i = 0; i < layout.families; ++i) table.add_family(Mode::kFull);
    const std::vector<Question> graphs = recorded(layout);
    for (const Question& graph : graphs) {
        map.emplace(key_of(graph), table.insert(graph.family, graph.batch, {}));
    }
    const std::vector<Question> mixed = questions_about(graphs, layout);
    // As many copies as there are mixed questions, so that both loops read alike.
    const std::vector<Question> same(kQuestions, graphs[graphs.size() / 2]);

    const auto check = [&](const Question& q) { return table.check(q.family, q.batch).graph; };
    return {
        nanoseconds(mixed, [](const Question& q) { return nothing(q.family, q.batch).graph; }),
        nanoseconds(mixed, check),
        nanoseconds(same, check),
        nanoseconds(mixed,
                    [&](const Question& q) {
                        const auto found = map.find(key_of(q));
                        return found == map.end() ? kNoGraphId : found->second;
                    }),
    };
}

}  // namespace
}  // namespace graphguard::bench

int main() {
    using namespace graphguard::bench;
    std::cout << "{\"repetitions\": " << kRepetitions << ", \"calls\": " << kCalls
              << ", \"unit\": \"ns\", \"results\": [";
    std::string separator;
    for (const Layout& layout : kLayouts) {
        const Timings times = measure(layout);
        std::cout << separator << "{\"signatures\": " << layout.signatures()
                  << ", \"empty\": " << times.empty << ", \"mixed\": " << times.mixed
                  << ", \"same\": " << times.same << ", \"unordered_map\": " << times.hash_map
                  << "}";
        separator = ", ";
    }
    std::cout << "], \"checksum\": " << checksum << "}\n";
    return EXIT_SUCCESS;
}
