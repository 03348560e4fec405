// Checks the signature table against a naive scan, on random tables and batches.
//
//     graphguard_stress SEED ROUNDS
//
// Prints one line of counts and ends with 0 if every answer was right and no check allocated.
#include <array>
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <new>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "core/signature_table.h"
#include "stress/counts.h"
#include "stress/known_answers.h"
#include "stress/naive_table.h"
#include "stress/random_batches.h"

namespace {

thread_local std::uint64_t allocations = 0;

void* counted_allocation(std::size_t size) {
    ++allocations;
    return std::malloc(size == 0 ? 1 : size);
}

void* counted_allocation_or_throw(std::size_t size) {
    if (void* memory = counted_allocation(size)) return memory;
    throw std::bad_alloc();
}

}  // namespace

// Every form is replaced, because the sanitizer's own forms do not lead to each other.
void* operator new(std::size_t size) {
    return counted_allocation_or_throw(size);
}
void* operator new[](std::size_t size) {
    return counted_allocation_or_throw(size);
}
void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
    return counted_allocation(size);
}
void* operator new[](std::size_t size, const std::nothrow_t&) noexcept {
    return counted_allocation(size);
}
void operator delete(void* memory) noexcept {
    std::free(memory);
}
void operator delete[](void* memory) noexcept {
    std::free(memory);
}
void operator delete(void* memory, std::size_t) noexcept {
    std::free(memory);
}
void operator delete[](void* memory, std::size_t) noexcept {
    std::free(memory);
}
void operator delete(void* memory, const std::nothrow_t&) noexcept {
    std::free(memory);
}
void operator delete[](void* memory, const std::nothrow_t&) noexcept {
    std::free(memory);
}

namespace graphguard::stress {
namespace {

constexpr std::uint32_t kBatchesPerTable = 300;
constexpr std::uint32_t kInputChecksPerTable = 60;
constexpr std::size_t kThreads = 4;
constexpr std::uint64_t kShownFailures = 10;

struct Question {
    std::uint32_t family = 0;
    Batch batch;
    Verdict answer;
};

std::ostream& operator<<(std::ostream& out, const Batch& batch) {
    return out << batch.num_reqs << "x" << batch.query_len << "/" << batch.num_tokens << ":"
               << static_cast<int>(batch.phase);
}

bool same(const Verdict& a, const Verdict& b) {
    return a.action == b.action && a.reason == b.reason && a.graph == b.graph;
}

// Adds what was allocated during its life to a total. The call it surrounds must do nothing else.
class AllocationCount {
  public:
    explicit AllocationCount(std::uint64_t& total) : total_(total), before_(allocations) {}
    ~AllocationCount() { total_ += allocations - before_; }
    AllocationCount(const AllocationCount&) = delete;
    AllocationCount& operator=(const AllocationCount&) = delete;

  private:
    std::uint64_t& total_;
    std::uint64_t before_;
};

class Round {
  public:
    Round(Random& random, Counts& counts)
        : random_(random),
          counts_(counts),
          batches_(random, static_cast<Sizes>(random.below(kSizesCount))) {}

    void run() {
        build();
        std::vector<Question> questions = ask();
        check_graphs(questions);
        for (std::uint32_t i = 0; i < kInputChecksPerTable; ++i) check_inputs();
        check_concurrently(questions);
        check_refusals();
        ++counts_.tables;
        counts_.graphs += naive_.graphs.size();
    }

  private:
    static std::vector<InputView> views(const std::vector<NaiveInput>& inputs) {
        std::vector<InputView> views;
        for (const NaiveInput& input : inputs) views.push_back(input.view());
        return views;
    }

    void fail(const std::string& what, const Batch& batch, const Verdict& got,
              const Verdict& expected) {
        if (++counts_.failures > kShownFailures) return;
        std::cerr << what << " of " << batch << ": got reason " << static_cast<int>(got.reason)
                  << " graph " << got.graph << ", expected reason "
                  << static_cast<int>(expected.reason) << " graph " << expected.graph << "\n";
    }

    void build() {
        const std::uint32_t families = 1 + random_.below(3);
        for (std::uint32_t id = 0; id < families; ++id) {
            naive_.families.push_back(random_.one_in(3) ? Mode::kPiecewise : Mode::kFull);
            if (table_.add_family(naive_.families.back()) != id) ++counts_.failures;
        }
        for (std::uint32_t i = random_.below(40); i > 0; --i) {
            NaiveGraph graph{random_.below(families), batches_.batch(), batches_.inputs()};
            const std::uint32_t id = table_.insert(graph.family, graph.batch, views(graph.inputs));
            if (id != naive_.graphs.size()) ++counts_.failures;
            naive_.graphs.push_back(std::move(graph));
        }
        for (auto reason = static_cast<std::uint8_t>(Reason::kWrongPhase); reason < kReasonCount;
             ++reason) {
            const auto action = static_cast<Action>(random_.below(kActionCount));
            table_.set_fallback(static_cast<Reason>(reason), action);
            naive_.fallbacks[reason] = action;
        }
    }

    Batch draw() {
        if (naive_.graphs.empty() || random_.one_in(4)) return batches_.batch();
        const auto graphs = static_cast<std::uint32_t>(naive_.graphs.size());
        return batches_.near(naive_.graphs[random_.below(graphs)].batch);
    }

    std::vector<Question> ask() {
        std::vector<Question> questions;
        const auto families = static_cast<std::uint32_t>(naive_.families.size());
        for (std::uint32_t i = 0; i < kBatchesPerTable; ++i) {
            Question question{random_.below(families), draw(), {}};
            question.answer = naive_.check(question.family, question.batch);
            Verdict got;
            {
                const AllocationCount count(counts_.allocations);
                got = table_.check(question.family, question.batch);
            }
            if (!same(got, question.answer)) fail("check", question.batch, got, question.answer);
            ++counts_.checks;
            ++counts_.reasons[static_cast<std::size_t>(got.reason)];
            questions.push_back(question);
        }
        return questions;
    }

    void check_graphs(const std::vector<Question>& questions) {
        for (std::uint32_t id = 0; id < naive_.graphs.size(); ++id) {
            const Batch& batch = questions[random_.below(kBatchesPerTable)].batch;
            const Verdict expected = naive_.check_graph(id, batch);
            Verdict got;
            {
                const AllocationCount count(counts_.allocations);
                got = table_.check_graph(id, batch);
            }
            if (!same(got, expected)) fail("check_graph", batch, got, expected);
            ++counts_.graph_checks;
        }
    }

    void check_inputs() {
        if (naive_.graphs.empty()) return;
        const std::uint32_t id = random_.below(static_cast<std::uint32_t>(naive_.graphs.size()));
        NaiveGraph& graph = naive_.graphs[id];
        if (random_.one_in(8)) {
            graph.inputs = batches_.inputs();
            table_.replace_inputs(id, views(graph.inputs));
        }
        std::vector<NaiveInput> inputs = random_.one_in(4) ? batches_.inputs() : graph.inputs;
        if (!inputs.empty() && random_.one_in(2)) {
            inputs[random_.below(static_cast<std::uint32_t>(inputs.size()))] = batches_.input();
        }
        const std::vector<InputView> is = views(inputs);
        const bool addresses = random_.one_in(2);
        const InputVerdict expected = naive_.check_inputs(id, inputs, addresses);
        InputVerdict got;
        {
            const AllocationCount count(counts_.allocations);
            got = table_.check_inputs(id, is, addresses);
        }
        if (got.reason != expected.reason || got.input != expected.input) ++counts_.failures;
        ++counts_.input_checks;
        ++counts_.reasons[static_cast<std::size_t>(got.reason)];
    }

    void check_concurrently(const std::vector<Question>& questions) {
        std::array<std::uint64_t, kThreads> wrong{};
        std::vector<std::thread> threads;
        for (std::uint64_t& mine : wrong) {
            threads.emplace_back([&] {
                const SignatureTable& table = table_;
                for (const Question& question : questions) {
                    const Verdict got = table.check(question.family, question.batch);
                    mine += same(got, question.answer) ? 0 : 1;
                }
            });
        }
        for (std::thread& thread : threads) thread.join();
        for (const std::uint64_t each : wrong) counts_.failures += each;
        counts_.concurrent_checks += kThreads * questions.size();
    }

    template <typename Error, typename Call>
    void must_throw(Call call) {
        try {
            call();
            ++counts_.failures;
        } catch (const Error&) {
            ++counts_.refusals;
        }
    }

    void check_refusals() {
        const auto families = static_cast<std::uint32_t>(table_.num_families());
        const auto graphs = static_cast<std::uint32_t>(table_.num_graphs());
        must_throw<std::out_of_range>([&] { table_.insert(families, Batch{}, {}); });
        must_throw<std::out_of_range>([&] { table_.insert(kNoGraphId, Batch{}, {}); });
        must_throw<std::out_of_range>([&] { table_.replace_inputs(graphs, {}); });
        for (const Reason fits : {Reason::kExact, Reason::kPadded}) {
            must_throw<std::invalid_argument>([&] { table_.set_fallback(fits, Action::kEager); });
        }
        if (table_.num_graphs() != naive_.graphs.size()) ++counts_.failures;
    }

    Random& random_;
    Counts& counts_;
    RandomBatches batches_;
    SignatureTable table_;
    NaiveTable naive_;
};

}  // namespace
}  // namespace graphguard::stress

int main(int argc, char** argv) {
    using namespace graphguard::stress;
    if (argc != 3) {
        std::cerr << "usage: graphguard_stress SEED ROUNDS\n";
        return EXIT_FAILURE;
    }
    Random random(std::stoull(argv[1]));
    Counts counts;
    counts.failures += wrong_known_answers();
    for (std::uint64_t rounds = std::stoull(argv[2]); rounds > 0; --rounds) {
        Round(random, counts).run();
    }
    return report(counts, argv[1]);
}
