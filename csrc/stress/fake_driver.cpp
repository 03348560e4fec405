#include "stress/fake_driver.h"

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <unordered_map>

#include "cuda/driver_types.h"
#include "stress/fake_driver_state.h"

namespace graphguard::fake {

namespace {

// What a handle stands for. One that was never given out, or that is of something else, is a bug
// of whoever asks.
template <typename Thing>
Thing& known(const std::unordered_map<void*, Kind>& handles, void* handle, Kind kind) {
    const auto found = handles.find(handle);
    if (found == handles.end() || found->second != kind) std::abort();
    return *static_cast<Thing*>(handle);
}

}  // namespace

State& state() {
    static State state;
    return state;
}

bool State::refuses(std::string_view function) {
    Calls& counted = calls[std::string(function)];
    ++counted.made;
    return counted.refused_every != 0 && counted.made % counted.refused_every == 0;
}

Node& State::node(void* handle) {
    return known<Node>(handles, handle, Kind::kNode);
}

Graph& State::graph(void* handle) {
    return known<Graph>(handles, handle, Kind::kGraph);
}

KernelFunction& State::function(void* handle) {
    return known<KernelFunction>(handles, handle, Kind::kFunction);
}

Node& State::add(void* graph_handle, cuda::NodeType type) {
    Graph& into = graph(graph_handle);
    nodes.push_back(std::make_unique<Node>());
    nodes.back()->type = type;
    handles[nodes.back().get()] = Kind::kNode;
    into.nodes.push_back(nodes.back().get());
    return *nodes.back();
}

}  // namespace graphguard::fake

using graphguard::cuda::ConditionalType;
using graphguard::cuda::MemoryType;
using graphguard::cuda::NodeType;
using graphguard::fake::Node;
using graphguard::fake::state;

void fake_reset() {
    state() = {};
}

void fake_set_version(int version) {
    state().version = version;
}

void fake_refuse(const char* function, std::uint64_t every) {
    state().calls[function] = {0, every};
}

std::uint64_t fake_calls(const char* function) {
    return state().calls[function].made;
}

int fake_capture_mode() {
    return static_cast<int>(graphguard::fake::capture_mode);
}

void fake_set_capture(void* stream, std::uint64_t id, void* graph, int status) {
    state().captures[stream] = {id, graph, static_cast<graphguard::cuda::CaptureStatus>(status)};
}

void* fake_graph() {
    auto& graphs = state().graphs;
    graphs.push_back(std::make_unique<graphguard::fake::Graph>());
    state().handles[graphs.back().get()] = graphguard::fake::Kind::kGraph;
    return graphs.back().get();
}

void* fake_function(const char* name, const std::size_t* parameters, std::size_t num_parameters) {
    auto& functions = state().functions;
    functions.push_back(std::make_unique<graphguard::fake::KernelFunction>());
    state().handles[functions.back().get()] = graphguard::fake::Kind::kFunction;
    if (name != nullptr) functions.back()->name = name;
    functions.back()->parameters.assign(parameters, parameters + num_parameters);
    return functions.back().get();
}

void fake_add_kernel(void* graph, void* function, void* kernel, const unsigned int* grid,
                     const unsigned int* block, unsigned int shared_bytes) {
    auto& params = state().add(graph, NodeType::kKernel).kernel;
    params.function = function;
    params.kernel = kernel;
    std::copy_n(grid, 3, params.grid);
    std::copy_n(block, 3, params.block);
    params.shared_bytes = shared_bytes;
}

void fake_add_memcpy(void* graph, int source_type, int target_type, std::size_t width,
                     std::size_t height, std::size_t depth) {
    auto& params = state().add(graph, NodeType::kMemcpy).memcpy;
    params.source_type = static_cast<MemoryType>(source_type);
    params.target_type = static_cast<MemoryType>(target_type);
    params.width_bytes = width;
    params.height = height;
    params.depth = depth;
}

void fake_add_memset(void* graph, unsigned int element_bytes, std::size_t width,
                     std::size_t height) {
    auto& params = state().add(graph, NodeType::kMemset).memset;
    params.element_bytes = element_bytes;
    params.width = width;
    params.height = height;
}

void fake_add_host(void* graph, void (*function)(void*)) {
    state().add(graph, NodeType::kHost).host.function = function;
}

void fake_add_batch(void* graph, const int* operations, unsigned int count) {
    Node& node = state().add(graph, NodeType::kBatchMemoryOperation);
    for (unsigned int i = 0; i < count; ++i) node.operations.push_back({operations[i], {}});
}

void fake_add_child(void* graph, void* child) {
    state().add(graph, NodeType::kChild).graphs = {child};
}

void fake_add_conditional(void* graph, int type, void* const* bodies, unsigned int num_bodies) {
    Node& node = state().add(graph, NodeType::kConditional);
    node.condition = static_cast<ConditionalType>(type);
    node.graphs.assign(bodies, bodies + num_bodies);
}

void fake_add_node(void* graph, int type) {
    state().add(graph, static_cast<NodeType>(type));
}

void fake_shuffle(std::uint64_t seed) {
    std::mt19937_64 random(seed);
    for (const auto& graph : state().graphs) {
        std::shuffle(graph->nodes.begin(), graph->nodes.end(), random);
    }
}

void fake_exported_callback(void* data) {
    *static_cast<int*>(data) += 1;
}

namespace {

void hidden_callback(void* data) {
    *static_cast<int*>(data) += 2;
}

}  // namespace

void* fake_hidden_callback() {
    return reinterpret_cast<void*>(&hidden_callback);
}
