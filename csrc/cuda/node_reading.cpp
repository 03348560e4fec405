#include "cuda/node_reading.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <string_view>
#include <utility>

#include "cuda/symbol_names.h"

namespace graphguard::cuda {

namespace {

// Of graphguard/nodes.py: what a reader of a manifest accepts.
constexpr std::size_t kMaxParameters = 4096;

// cuStreamBatchMemOp takes at most 256 operations.
constexpr unsigned int kMaxOperations = 256;

// No switch is known to have as many bodies.
constexpr unsigned int kMaxBodies = 4096;

constexpr std::array<const char*, 14> kKinds = {
    "kernel",
    "memcpy",
    "memset",
    "host",
    "child",
    "empty",
    "event_wait",
    "event_record",
    "semaphore_signal",
    "semaphore_wait",
    "memory_allocation",
    "memory_free",
    "batch_memory_operation",
    "conditional",
};

std::uint64_t bounded(std::uint64_t number) {
    return std::min(number, kLargestNumber);
}

// The product, or the largest number where it is larger.
std::uint64_t product(std::uint64_t a, std::uint64_t b) {
    return b != 0 && a > kLargestNumber / b ? kLargestNumber : a * b;
}

const char* memory_word(MemoryType type) {
    switch (type) {
        case MemoryType::kHost:
            return "host";
        case MemoryType::kDevice:
            return "device";
        case MemoryType::kArray:
            return "array";
        case MemoryType::kUnified:
            return "unified";
    }
    return "unknown";
}

// CUstreamBatchMemOpType
std::string operation_word(int operation) {
    switch (operation) {
        case 1:
            return "wait_value_32";
        case 2:
            return "write_value_32";
        case 3:
            return "flush_remote_writes";
        case 4:
            return "wait_value_64";
        case 5:
            return "write_value_64";
        case 6:
            return "barrier";
        case 8:
            return "atomic_reduction";
        default:
            return "operation " + std::to_string(operation);
    }
}

}  // namespace

std::string kind_of(NodeType type) {
    const auto number = static_cast<int>(type);
    if (number >= 0 && std::cmp_less(number, kKinds.size())) {
        return kKinds[static_cast<std::size_t>(number)];
    }
    return "unknown " + std::to_string(number);
}

bool NodeReader::kernel_params(Handle node, KernelNodeParams& params) const {
    return functions_.get_kernel_params != nullptr &&
           functions_.get_kernel_params(node, &params) == kSuccess;
}

const KernelDescription& NodeReader::kernel(const KernelNodeParams& params) {
    const Handle key = params.function != nullptr ? params.function : params.kernel;
    const auto found = kernels_.find(key);
    if (found != kernels_.end()) return found->second;
    return kernels_.emplace(key, describe_kernel(params.function, params.kernel)).first->second;
}

KernelDescription NodeReader::describe_kernel(Handle function, Handle kernel) const {
    // The driver looks at the kernel only where there is no function, and so does this.
    const bool by_function = function != nullptr;
    const Handle handle = by_function ? function : kernel;
    const auto get_name = by_function ? functions_.get_function_name : functions_.get_kernel_name;
    const auto get_parameter =
        by_function ? functions_.get_function_parameter : functions_.get_kernel_parameter;
    KernelDescription described{kUnreadable, {}};
    if (handle == nullptr) return described;
    const char* name = nullptr;
    if (get_name != nullptr && get_name(&name, handle) == kSuccess && name != nullptr) {
        described.name = readable_name(name);
    }
    std::size_t offset = 0;
    std::size_t bytes = 0;
    // The driver says how many there are by refusing the next one.
    for (std::size_t i = 0; get_parameter != nullptr && i < kMaxParameters; ++i) {
        if (get_parameter(handle, i, &offset, &bytes) != kSuccess) break;
        described.parameter_bytes.push_back(bounded(bytes));
    }
    return described;
}

bool NodeReader::describe(Handle node, NodeType type, GraphNode& described) const {
    switch (type) {
        case NodeType::kMemcpy:
            return describe_memcpy(node, described);
        case NodeType::kMemset:
            return describe_memset(node, described);
        case NodeType::kHost:
            return describe_host(node, described);
        case NodeType::kBatchMemoryOperation:
            return describe_batch(node, described);
        // Of the others nothing is asked.
        default:
            return true;
    }
}

bool NodeReader::describe_memcpy(Handle node, GraphNode& described) const {
    Memcpy3D params{};
    const auto get = functions_.get_memcpy_params;
    if (get == nullptr || get(node, &params) != kSuccess) return false;
    described.name =
        std::string(memory_word(params.source_type)) + " to " + memory_word(params.target_type);
    described.parameter_bytes = {product(product(params.width_bytes, params.height), params.depth)};
    return true;
}

bool NodeReader::describe_memset(Handle node, GraphNode& described) const {
    MemsetNodeParams params{};
    const auto get = functions_.get_memset_params;
    if (get == nullptr || get(node, &params) != kSuccess) return false;
    described.parameter_bytes = {
        product(product(params.element_bytes, params.width), params.height)};
    return true;
}

bool NodeReader::describe_host(Handle node, GraphNode& described) const {
    HostNodeParams params{};
    const auto get = functions_.get_host_params;
    if (get == nullptr || get(node, &params) != kSuccess) return false;
    described.name = name_at(reinterpret_cast<const void*>(params.function));
    return true;
}

bool NodeReader::describe_batch(Handle node, GraphNode& described) const {
    BatchMemoryOperationParams params{};
    const auto get = functions_.get_batch_params;
    if (get == nullptr || get(node, &params) != kSuccess) return false;
    if (params.operations == nullptr || params.count > kMaxOperations) return false;
    unsigned int run = 0;
    for (unsigned int i = 0; i < params.count; i += run) {
        const int operation = params.operations[i].operation;
        for (run = 1; i + run < params.count; ++run) {
            if (params.operations[i + run].operation != operation) break;
        }
        if (i > 0) described.name += ", ";
        if (run > 1) described.name += std::to_string(run) + " × ";
        described.name += operation_word(operation);
    }
    return true;
}

bool NodeReader::held_graphs(Handle node, NodeType type, std::vector<Handle>& graphs,
                             std::string& what) const {
    if (type == NodeType::kChild) {
        Handle graph = nullptr;
        const auto get = functions_.get_child_graph;
        if (get == nullptr || get(node, &graph) != kSuccess) return false;
        graphs.push_back(graph);
        return true;
    }
    NodeParams params{};
    const auto get = functions_.get_node_params;
    if (get == nullptr || get(node, &params) != kSuccess) return false;
    if (params.type != NodeType::kConditional || params.conditional.bodies == nullptr ||
        params.conditional.size > kMaxBodies) {
        return false;
    }
    switch (params.conditional.type) {
        case ConditionalType::kIf:
            what = "if";
            break;
        case ConditionalType::kWhile:
            what = "while";
            break;
        case ConditionalType::kSwitch:
            what = "switch";
            break;
        default:
            what = "condition";
            break;
    }
    graphs.assign(params.conditional.bodies, params.conditional.bodies + params.conditional.size);
    return true;
}

}  // namespace graphguard::cuda
