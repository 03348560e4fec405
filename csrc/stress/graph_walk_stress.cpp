// The walk of random graphs in a stand-in for the CUDA driver that fails now and then, under the
// address and undefined-behaviour sanitizers.
//
//     graphguard_graph_walk_stress SEED ROUNDS
//
// Prints one line of counts and ends with 0 if every node that was put into a graph was found, in
// any order, and if what the driver refused to say was counted and nothing else.
#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <map>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "cuda/graph_walk.h"
#include "stress/fake_driver.h"

namespace graphguard::stress {
namespace {

using cuda::Driver;
using cuda::GraphContents;
using cuda::GraphNode;

constexpr std::array kRefusable = {
    "cuGraphNodeGetType",
    "cuGraphKernelNodeGetParams",
    "cuGraphMemcpyNodeGetParams",
    "cuGraphMemsetNodeGetParams",
    "cuGraphHostNodeGetParams",
    "cuGraphBatchMemOpNodeGetParams",
    "cuGraphChildGraphNodeGetGraph",
    "cuGraphNodeGetParams",
    "cuGraphGetNodes",
    "cuFuncGetName",
    "cuKernelGetName",
    "cuFuncGetParamInfo",
};

struct Counts {
    std::uint64_t graphs = 0;
    std::uint64_t nodes = 0;
    std::uint64_t refusals = 0;
    std::uint64_t unreadable = 0;
    std::uint64_t failures = 0;
};

class Round {
  public:
    Round(std::uint64_t seed, Counts& counts) : random_(seed), counts_(counts) {}

    void run() {
        fake_reset();
        fake_set_version(below(2) == 0 ? 12000 + 10 * below(10) : 13020);
        const Driver driver(nullptr);
        require(driver.present(), "the stand-in was not found");
        for (int i = 0; i < 4; ++i) make_function();
        void* const graph = make_graph(0);
        const GraphContents whole = walk_graph(driver, graph);
        require(total(whole) == nodes_, "nodes were lost or counted twice");
        require(whole.error.empty(), "a whole graph was said to lack nodes");
        fake_shuffle(random_());
        require(counted(walk_graph(driver, graph)) == counted(whole), "the order made a change");
        walk_with_refusals(driver, graph);
        require(fake_capture_mode() == 0, "the thread was left in another capture mode");
        counts_.graphs += 1;
        counts_.nodes += nodes_;
    }

  private:
    using Alike = std::tuple<std::string, std::string, std::vector<std::uint32_t>, std::uint64_t,
                             std::vector<std::uint64_t>>;

    int below(int bound) { return static_cast<int>(random_() % static_cast<std::uint64_t>(bound)); }

    unsigned int pick(int bound) { return static_cast<unsigned int>(below(bound)); }

    void make_function() {
        const std::array<std::size_t, 3> sizes{8, 4096, static_cast<std::size_t>(below(64))};
        const std::string name =
            below(4) == 0 ? "" : "_Z6kernelILi" + std::to_string(below(9)) + "EEvPv";
        functions_.push_back(fake_function(name.empty() ? nullptr : name.c_str(), sizes.data(),
                                           static_cast<std::size_t>(below(4))));
    }

    void* make_graph(int depth) {
        void* const graph = fake_graph();
        for (int i = below(30); i > 0; --i) add_node(graph, depth);
        return graph;
    }

    void add_kernel(void* graph) {
        void* const function = functions_[static_cast<std::size_t>(below(4))];
        const std::array<unsigned int, 3> grid{1U + pick(3), 1, 1};
        const std::array<unsigned int, 3> block{128, 1, 1U + pick(2)};
        const bool by_kernel = below(2) == 0;
        fake_add_kernel(graph, by_kernel ? nullptr : function, by_kernel ? function : nullptr,
                        grid.data(), block.data(), 16U * pick(2));
    }

    void add_node(void* graph, int depth) {
        ++nodes_;
        switch (below(depth < 3 ? 8 : 6)) {
            case 0:
                return fake_add_memcpy(graph, below(6), below(6), random_(), random_(), 1);
            case 1:
                return fake_add_memset(graph, 4, random_(), random_());
            case 2:
                return fake_add_host(graph, &fake_exported_callback);
            case 3:
                return add_batch(graph);
            case 4:
                return fake_add_node(graph, plain_types_[static_cast<std::size_t>(below(9))]);
            case 6:
                return fake_add_child(graph, make_graph(depth + 1));
            case 7:
                return add_conditional(graph, depth);
            default:
                return add_kernel(graph);
        }
    }

    void add_batch(void* graph) {
        std::vector<int> operations(static_cast<std::size_t>(below(300)));
        for (int& operation : operations) operation = below(10);
        fake_add_batch(graph, operations.data(), static_cast<unsigned int>(operations.size()));
    }

    // An old driver does not tell the bodies, so they are not to be counted then.
    void add_conditional(void* graph, int depth) {
        const std::uint64_t before = nodes_;
        std::vector<void*> bodies;
        for (int i = below(3); i > 0; --i) bodies.push_back(make_graph(depth + 1));
        fake_add_conditional(graph, below(4), bodies.data(),
                             static_cast<unsigned int>(bodies.size()));
        const cuda::Functions functions = Driver(nullptr).functions();
        if (functions.get_node_params == nullptr || bodies.empty()) nodes_ = before;
    }

    void walk_with_refusals(const Driver& driver, void* graph) {
        for (const char* const function : kRefusable) {
            fake_refuse(function, 1U + static_cast<std::uint64_t>(below(4)));
            const GraphContents part = walk_graph(driver, graph);
            fake_refuse(function, 0);
            require(part.error.empty() || total(part) <= nodes_, "a failed walk made up nodes");
            for (const GraphNode& node : part.nodes) {
                require(!node.kind.empty() && node.count > 0, "a node without a kind");
            }
            ++counts_.refusals;
            counts_.unreadable += part.unreadable;
        }
    }

    static std::uint64_t total(const GraphContents& contents) {
        std::uint64_t sum = 0;
        for (const GraphNode& node : contents.nodes) sum += node.count;
        return sum;
    }

    static std::map<Alike, std::uint64_t> counted(const GraphContents& contents) {
        std::map<Alike, std::uint64_t> counts;
        for (const GraphNode& node : contents.nodes) {
            std::vector<std::uint32_t> extents;
            for (const auto& extent : {node.grid, node.block}) {
                if (extent) extents.insert(extents.end(), extent->begin(), extent->end());
            }
            counts[{node.kind, node.name, extents, node.shared_bytes, node.parameter_bytes}] +=
                node.count;
        }
        return counts;
    }

    void require(bool held, const char* what) {
        if (held) return;
        ++counts_.failures;
        std::cerr << what << "\n";
    }

    static constexpr std::array plain_types_ = {5, 6, 7, 8, 9, 10, 11, 14, -3};

    std::mt19937_64 random_;
    Counts& counts_;
    std::vector<void*> functions_;
    std::uint64_t nodes_ = 0;
};

int report(const Counts& counts) {
    const bool ok = counts.failures == 0;
    std::cout << (ok ? "ok" : "FAILED") << " graphs=" << counts.graphs << " nodes=" << counts.nodes
              << " refusals=" << counts.refusals << " unreadable=" << counts.unreadable
              << " failures=" << counts.failures << "\n";
    return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}

}  // namespace
}  // namespace graphguard::stress

int main(int argc, char** argv) {
    using namespace graphguard::stress;
    if (argc != 3) {
        std::cerr << "usage: graphguard_graph_walk_stress SEED ROUNDS\n";
        return EXIT_FAILURE;
    }
    Counts counts;
    std::uint64_t seed = std::stoull(argv[1]);
    for (std::uint64_t rounds = std::stoull(argv[2]); rounds > 0; --rounds) {
        Round(seed++, counts).run();
    }
    return report(counts);
}
