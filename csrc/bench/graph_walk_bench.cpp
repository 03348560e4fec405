// What a walk costs per node, in a stand-in for the CUDA driver, beside the same questions asked of
// it with nothing made of the answers. Prints JSON. What the real driver takes is in neither.
#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <iostream>
#include <limits>
#include <string>
#include <vector>

#include "cuda/graph_walk.h"
#include "stress/fake_driver.h"

namespace graphguard::bench {
namespace {

using cuda::Driver;
using cuda::Functions;
using cuda::Handle;

constexpr std::size_t kNodes = 3000;
constexpr int kRounds = 30;

// Kernels of a model come again and again; those of a step differ in name or extent.
void* graph_of(std::size_t num_functions, std::size_t num_grids) {
    std::vector<void*> functions;
    for (std::size_t i = 0; i < num_functions; ++i) {
        const std::string name = "_ZN5model6kernelILi" + std::to_string(i) + "EEEvPvS1_";
        const std::array<std::size_t, 3> sizes{8, 8, 4};
        functions.push_back(fake_function(name.c_str(), sizes.data(), sizes.size()));
    }
    void* const graph = fake_graph();
    for (std::size_t i = 0; i < kNodes; ++i) {
        const std::array<unsigned int, 3> grid{1U + static_cast<unsigned int>(i % num_grids), 1, 1};
        const std::array<unsigned int, 3> block{128, 1, 1};
        fake_add_kernel(graph, functions[i % num_functions], nullptr, grid.data(), block.data(), 0);
    }
    return graph;
}

void ask_only(const Functions& driver, void* graph) {
    std::size_t num_nodes = 0;
    driver.get_nodes(graph, nullptr, &num_nodes);
    std::vector<Handle> nodes(num_nodes);
    driver.get_nodes(graph, nodes.data(), &num_nodes);
    for (Handle const node : nodes) {
        cuda::NodeType type{};
        cuda::KernelNodeParams params{};
        driver.get_node_type(node, &type);
        driver.get_kernel_params(node, &params);
    }
}

// The fastest of several rounds, in nanoseconds per node: others use this machine, too.
template <typename Call>
double ns_per_node(Call call) {
    using Clock = std::chrono::steady_clock;
    double fastest = std::numeric_limits<double>::max();
    for (int round = 0; round < kRounds; ++round) {
        const auto began = Clock::now();
        call();
        const std::chrono::duration<double, std::nano> took = Clock::now() - began;
        fastest = std::min(fastest, took.count() / static_cast<double>(kNodes));
    }
    return fastest;
}

}  // namespace
}  // namespace graphguard::bench

int main() {
    using namespace graphguard::bench;
    const Driver driver(nullptr);
    std::cout << R"({"unit": "ns per node", "nodes": )" << kNodes << R"(, "results": [)";
    const std::array<std::array<std::size_t, 2>, 3> shapes{{{60, 1}, {60, 7}, {3000, 1}}};
    const char* separator = "";
    for (const auto& [functions, grids] : shapes) {
        fake_reset();
        void* const graph = graph_of(functions, grids);
        const std::size_t different = walk_graph(driver, graph).nodes.size();
        const double asked = ns_per_node([&] { ask_only(driver.functions(), graph); });
        const double walked = ns_per_node([&] { (void)walk_graph(driver, graph); });
        std::cout << separator << R"({"different": )" << different << R"(, "walk": )" << walked
                  << R"(, "asked": )" << asked << "}";
        separator = ", ";
    }
    std::cout << "]}\n";
    return 0;
}
