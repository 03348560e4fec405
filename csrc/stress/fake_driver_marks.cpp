// What the stand-in for the driver answers to whoever adds nodes to a graph, and how it runs them.
#include <algorithm>
#include <array>
#include <cstring>
#include <set>
#include <string_view>

#include "stress/fake_driver.h"
#include "stress/fake_driver_state.h"

namespace graphguard::fake {
namespace {

using cuda::DevicePointer;
using cuda::Handle;
using cuda::kSuccess;
using cuda::NodeType;
using cuda::Result;

constexpr Result kInvalidValue = 1;
constexpr Result kNotFound = 500;
constexpr Result kCaptureUnsupported = 900;
constexpr Result kLossyQuery = 911;
constexpr Result kUnknown = 999;
constexpr std::string_view kMark = "graphguard_mark";

// What the driver does not let a thread do while anybody captures, unless it said that it may.
bool forbidden() {
    if (capture_mode == cuda::CaptureMode::kRelaxed) return false;
    return std::ranges::any_of(state().captures, [](const auto& capture) {
        return capture.second.status == cuda::CaptureStatus::kActive;
    });
}

Result get_current_context(Handle* context) {
    if (state().refuses("cuCtxGetCurrent")) return kUnknown;
    *context = state().context;
    return kSuccess;
}

Result load_module(Handle* module, const void* image) {
    if (state().refuses("cuModuleLoadData")) return kUnknown;
    if (forbidden()) return kCaptureUnsupported;
    auto& modules = state().modules;
    modules.push_back(std::make_unique<std::string>(static_cast<const char*>(image)));
    state().handles[modules.back().get()] = Kind::kModule;
    *module = modules.back().get();
    return kSuccess;
}

Result get_module_function(Handle* function, Handle module, const char* name) {
    if (state().refuses("cuModuleGetFunction")) return kUnknown;
    if (state().handles.at(module) != Kind::kModule) std::abort();
    const std::string entry = ".entry " + std::string(name) + "(";
    if (static_cast<std::string*>(module)->find(entry) == std::string::npos) return kNotFound;
    const std::size_t bytes = sizeof(DevicePointer);
    *function = fake_function(name, &bytes, 1);
    return kSuccess;
}

Result register_host_memory(void* start, std::size_t bytes, unsigned int flags) {
    if (state().refuses("cuMemHostRegister")) return kUnknown;
    if (forbidden()) return kCaptureUnsupported;
    if (flags != (cuda::kRegisterPortable | cuda::kRegisterDeviceMap)) return kInvalidValue;
    if (reinterpret_cast<std::uintptr_t>(start) % 4096 != 0 || bytes % 4096 != 0) {
        return kInvalidValue;
    }
    for (const Registered& known : state().registered) {
        if (known.start == start) return 712;  // CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED
    }
    state().registered.push_back({static_cast<char*>(start), bytes});
    return kSuccess;
}

Result get_device_pointer(DevicePointer* pointer, void* host, unsigned int flags) {
    if (state().refuses("cuMemHostGetDevicePointer")) return kUnknown;
    for (const Registered& known : state().registered) {
        if (known.start == host && flags == 0) {
            *pointer = reinterpret_cast<DevicePointer>(host) + kDeviceOffset;
            return kSuccess;
        }
    }
    return kInvalidValue;
}

// What lies at a device's pointer; one that lies in no memory of the device ends the process.
char* memory_at(DevicePointer pointer, std::size_t bytes) {
    char* const host = reinterpret_cast<char*>(pointer - kDeviceOffset);
    for (const Registered& known : state().registered) {
        if (host >= known.start && host + bytes <= known.start + known.bytes) return host;
    }
    std::abort();
}

Result get_edges(Handle graph, Handle* from, Handle* to, std::size_t* num_edges) {
    if (state().refuses("cuGraphGetEdges")) return kUnknown;
    std::size_t count = 0;
    for (const Node* node : state().graph(graph).nodes) {
        for (Node* before : node->after) {
            if (from != nullptr && count < *num_edges) {
                from[count] = before;
                to[count] = const_cast<Node*>(node);
            }
            ++count;
        }
    }
    *num_edges = count;
    return kSuccess;
}

Result get_edges_v2(Handle graph, Handle* from, Handle* to, cuda::EdgeData* data,
                    std::size_t* num_edges) {
    // CUDA_ERROR_LOSSY_QUERY where the data is not asked for.
    if (from != nullptr && data == nullptr) return kLossyQuery;
    return get_edges(graph, from, to, num_edges);
}

// A new node behind others; null if the driver refuses it.
Node* added(std::string_view function, Handle graph, NodeType type, const Handle* dependencies,
            std::size_t count) {
    if (state().refuses(function)) return nullptr;
    Node& node = state().add(graph, type);
    for (std::size_t i = 0; i < count; ++i) node.after.push_back(&state().node(dependencies[i]));
    return &node;
}

Result add_kernel(Handle* node, Handle graph, const Handle* dependencies, std::size_t count,
                  const cuda::KernelNodeParams* params) {
    state().function(params->function);
    Node* const made = added("cuGraphAddKernelNode", graph, NodeType::kKernel, dependencies, count);
    if (made == nullptr) return kUnknown;
    made->kernel = *params;
    made->kernel.arguments = nullptr;
    std::memcpy(&made->argument, params->arguments[0], sizeof made->argument);
    *node = made;
    return kSuccess;
}

Result add_memset(Handle* node, Handle graph, const Handle* dependencies, std::size_t count,
                  const cuda::MemsetNodeParams* params, Handle context) {
    if (context != state().context || params->element_bytes != 4) return kInvalidValue;
    Node* const made = added("cuGraphAddMemsetNode", graph, NodeType::kMemset, dependencies, count);
    if (made == nullptr) return kUnknown;
    made->memset = *params;
    *node = made;
    return kSuccess;
}

Result add_host(Handle* node, Handle graph, const Handle* dependencies, std::size_t count,
                const cuda::HostNodeParams* params) {
    Node* const made = added("cuGraphAddHostNode", graph, NodeType::kHost, dependencies, count);
    if (made == nullptr) return kUnknown;
    made->host = *params;
    *node = made;
    return kSuccess;
}

Result add_batch(Handle* node, Handle graph, const Handle* dependencies, std::size_t count,
                 const cuda::BatchMemoryOperationParams* params) {
    if (params->context != state().context || params->flags != 0) return kInvalidValue;
    Node* const made = added("cuGraphAddBatchMemOpNode", graph, NodeType::kBatchMemoryOperation,
                             dependencies, count);
    if (made == nullptr) return kUnknown;
    made->operations.assign(params->operations, params->operations + params->count);
    *node = made;
    return kSuccess;
}

void run_kernel(const Node& node) {
    if (node.argument == 0 || state().function(node.kernel.function).name != kMark) return;
    char* const number = memory_at(node.argument, sizeof(std::uint64_t));
    std::uint64_t count = 0;
    std::memcpy(&count, number, sizeof count);
    ++count;
    std::memcpy(number, &count, sizeof count);
}

void run_memset(const Node& node) {
    if (node.memset.target == 0) return;
    for (std::size_t i = 0; i < node.memset.width; ++i) {
        std::memcpy(memory_at(node.memset.target + 4 * i, 4), &node.memset.value, 4);
    }
}

void run_writes(const Node& node) {
    for (const cuda::MemoryOperation& operation : node.operations) {
        cuda::WriteValueOperation write{};
        std::memcpy(&write, &operation, sizeof write);
        if (write.operation == cuda::kWriteValue32 && write.address != 0) {
            std::memcpy(memory_at(write.address, 4), &write.value, 4);
        }
    }
}

void run_node(const Node& node) {
    switch (node.type) {
        case NodeType::kKernel:
            return run_kernel(node);
        case NodeType::kMemset:
            return run_memset(node);
        case NodeType::kBatchMemoryOperation:
            return run_writes(node);
        case NodeType::kHost:
            if (node.host.user_data != nullptr) node.host.function(node.host.user_data);
            return;
        default:
            return;
    }
}

const std::array kEntries = {
    Entry{"cuCtxGetCurrent", 4000, address(get_current_context)},
    Entry{"cuModuleLoadData", 2000, address(load_module)},
    Entry{"cuModuleGetFunction", 2000, address(get_module_function)},
    Entry{"cuMemHostRegister", 6050, address(register_host_memory)},
    Entry{"cuMemHostGetDevicePointer", 3020, address(get_device_pointer)},
    Entry{"cuGraphGetEdges", 10000, address(get_edges)},
    Entry{"cuGraphGetEdges", 12030, address(get_edges_v2)},
    Entry{"cuGraphAddKernelNode", 12000, address(add_kernel)},
    Entry{"cuGraphAddMemsetNode", 10000, address(add_memset)},
    Entry{"cuGraphAddHostNode", 10000, address(add_host)},
    Entry{"cuGraphAddBatchMemOpNode", 11070, address(add_batch)},
};

}  // namespace

std::span<const Entry> entries_for_marks() {
    return kEntries;
}

}  // namespace graphguard::fake

using graphguard::fake::Node;
using graphguard::fake::state;

void* fake_node(void* graph, std::size_t place) {
    const auto& nodes = state().graph(graph).nodes;
    return place < nodes.size() ? nodes[place] : nullptr;
}

std::size_t fake_num_nodes(void* graph) {
    return state().graph(graph).nodes.size();
}

void fake_add_edge(void* from, void* to) {
    state().node(to).after.push_back(&state().node(from));
}

int fake_depends(void* node, void* on) {
    return std::ranges::count(state().node(node).after, &state().node(on)) != 0 ? 1 : 0;
}

int fake_is_leaf(void* handle) {
    Node* const node = &state().node(handle);
    const bool followed = std::ranges::any_of(state().nodes, [&](const auto& other) {
        return std::ranges::count(other->after, node) != 0;
    });
    return followed ? 0 : 1;
}

void fake_set_context(void* context) {
    state().context = context;
}

void fake_run(void* graph, void* stuck) {
    const auto& nodes = state().graph(graph).nodes;
    std::set<const Node*> over;
    for (bool moved = true; moved;) {
        moved = false;
        for (const Node* const node : nodes) {
            const bool ready = std::ranges::all_of(
                node->after, [&](const Node* before) { return over.contains(before); });
            if (node == stuck || over.contains(node) || !ready) continue;
            graphguard::fake::run_node(*node);
            over.insert(node);
            moved = true;
        }
    }
}
