// The functions of the driver, as the stand-in answers them.
#include <algorithm>
#include <array>
#include <cstdint>
#include <span>
#include <string_view>

#include "cuda/driver_types.h"
#include "stress/fake_driver.h"
#include "stress/fake_driver_state.h"

namespace graphguard::fake {
namespace {

using cuda::Handle;
using cuda::kSuccess;
using cuda::NodeType;
using cuda::Result;

// cudaErrorInvalidValue, cudaErrorNotFound and CUDA_ERROR_UNKNOWN in the driver's numbers.
constexpr Result kInvalidValue = 1;
constexpr Result kNotFound = 500;
constexpr Result kUnknown = 999;

Result get_version(int* version) {
    *version = state().version;
    return kSuccess;
}

Result exchange_capture_mode(cuda::CaptureMode* mode) {
    if (state().refuses("cuThreadExchangeStreamCaptureMode")) return kUnknown;
    std::swap(capture_mode, *mode);
    return kSuccess;
}

Result capture_info(Handle stream, cuda::CaptureStatus* status, std::uint64_t* id, Handle* graph) {
    if (state().refuses("cuStreamGetCaptureInfo")) return kUnknown;
    const Capture capture = state().captures[stream];
    *status = capture.status;
    // As the real one, which says no more while nothing is captured.
    if (capture.status == cuda::CaptureStatus::kNone) return kSuccess;
    *id = capture.id;
    *graph = capture.graph;
    return kSuccess;
}

Result capture_info_v3(Handle stream, cuda::CaptureStatus* status, std::uint64_t* id, Handle* graph,
                       const Handle** dependencies, const void** edges,
                       std::size_t* num_dependencies) {
    // CUDA_ERROR_LOSSY_QUERY where edges are not asked for.
    if (dependencies != nullptr && edges == nullptr) return 911;
    if (num_dependencies != nullptr) *num_dependencies = 0;
    return capture_info(stream, status, id, graph);
}

Result capture_info_v2(Handle stream, cuda::CaptureStatus* status, std::uint64_t* id, Handle* graph,
                       const Handle**, std::size_t*) {
    return capture_info(stream, status, id, graph);
}

Result get_nodes(Handle graph, Handle* nodes, std::size_t* num_nodes) {
    if (state().refuses("cuGraphGetNodes")) return kUnknown;
    const std::vector<Node*>& held = state().graph(graph).nodes;
    if (nodes != nullptr) {
        for (std::size_t i = 0; i < *num_nodes; ++i) {
            nodes[i] = i < held.size() ? held[i] : nullptr;
        }
        *num_nodes = std::min(*num_nodes, held.size());
    } else {
        *num_nodes = held.size();
    }
    return kSuccess;
}

Result get_node_type(Handle node, NodeType* type) {
    if (state().refuses("cuGraphNodeGetType")) return kUnknown;
    *type = state().node(node).type;
    return kSuccess;
}

// Answers with a member of a node that is of the right type.
template <auto Member, NodeType kType, typename Params>
Result answer(std::string_view function, Handle handle, Params* params) {
    if (state().refuses(function)) return kUnknown;
    const Node& node = state().node(handle);
    if (node.type != kType) return kInvalidValue;
    *params = node.*Member;
    return kSuccess;
}

Result get_kernel_params(Handle node, cuda::KernelNodeParams* params) {
    return answer<&Node::kernel, NodeType::kKernel>("cuGraphKernelNodeGetParams", node, params);
}

Result get_memcpy_params(Handle node, cuda::Memcpy3D* params) {
    return answer<&Node::memcpy, NodeType::kMemcpy>("cuGraphMemcpyNodeGetParams", node, params);
}

Result get_memset_params(Handle node, cuda::MemsetNodeParams* params) {
    return answer<&Node::memset, NodeType::kMemset>("cuGraphMemsetNodeGetParams", node, params);
}

Result get_host_params(Handle node, cuda::HostNodeParams* params) {
    return answer<&Node::host, NodeType::kHost>("cuGraphHostNodeGetParams", node, params);
}

Result get_batch_params(Handle handle, cuda::BatchMemoryOperationParams* params) {
    if (state().refuses("cuGraphBatchMemOpNodeGetParams")) return kUnknown;
    Node& node = state().node(handle);
    if (node.type != NodeType::kBatchMemoryOperation) return kInvalidValue;
    *params = {nullptr, static_cast<unsigned int>(node.operations.size()),
               node.operations.empty() ? nullptr : node.operations.data(), 0};
    return kSuccess;
}

Result get_child_graph(Handle handle, Handle* graph) {
    if (state().refuses("cuGraphChildGraphNodeGetGraph")) return kUnknown;
    const Node& node = state().node(handle);
    if (node.type != NodeType::kChild) return kInvalidValue;
    *graph = node.graphs.at(0);
    return kSuccess;
}

Result get_node_params(Handle handle, cuda::NodeParams* params) {
    if (state().refuses("cuGraphNodeGetParams")) return kUnknown;
    Node& node = state().node(handle);
    params->type = node.type;
    if (node.type != NodeType::kConditional) return kSuccess;
    params->conditional = {7, node.condition, static_cast<unsigned int>(node.graphs.size()),
                           node.graphs.data(), nullptr};
    return kSuccess;
}

Result name_of(std::string_view function, const char** name, Handle handle) {
    if (state().refuses(function)) return kUnknown;
    const KernelFunction& kernel = state().function(handle);
    if (kernel.name.empty()) return kInvalidValue;
    *name = kernel.name.c_str();
    return kSuccess;
}

Result parameter_of(std::string_view function, Handle handle, std::size_t index,
                    std::size_t* offset, std::size_t* bytes) {
    if (state().refuses(function)) return kUnknown;
    const std::vector<std::size_t>& parameters = state().function(handle).parameters;
    if (index >= parameters.size()) return kInvalidValue;
    *offset = 0;
    *bytes = parameters[index];
    return kSuccess;
}

Result get_function_name(const char** name, Handle function) {
    return name_of("cuFuncGetName", name, function);
}

Result get_kernel_name(const char** name, Handle kernel) {
    return name_of("cuKernelGetName", name, kernel);
}

Result get_function_parameter(Handle function, std::size_t index, std::size_t* offset,
                              std::size_t* bytes) {
    return parameter_of("cuFuncGetParamInfo", function, index, offset, bytes);
}

Result get_kernel_parameter(Handle kernel, std::size_t index, std::size_t* offset,
                            std::size_t* bytes) {
    return parameter_of("cuKernelGetParamInfo", kernel, index, offset, bytes);
}

const std::array kEntries = {
    Entry{"cuDriverGetVersion", 2020, address(get_version)},
    Entry{"cuThreadExchangeStreamCaptureMode", 10010, address(exchange_capture_mode)},
    Entry{"cuStreamGetCaptureInfo", 11030, address(capture_info_v2)},
    Entry{"cuStreamGetCaptureInfo", 12030, address(capture_info_v3)},
    Entry{"cuGraphGetNodes", 10000, address(get_nodes)},
    Entry{"cuGraphNodeGetType", 10000, address(get_node_type)},
    Entry{"cuGraphKernelNodeGetParams", 12000, address(get_kernel_params)},
    Entry{"cuGraphMemcpyNodeGetParams", 10000, address(get_memcpy_params)},
    Entry{"cuGraphMemsetNodeGetParams", 10000, address(get_memset_params)},
    Entry{"cuGraphHostNodeGetParams", 10000, address(get_host_params)},
    Entry{"cuGraphBatchMemOpNodeGetParams", 11070, address(get_batch_params)},
    Entry{"cuGraphChildGraphNodeGetGraph", 10000, address(get_child_graph)},
    Entry{"cuGraphNodeGetParams", 13020, address(get_node_params)},
    Entry{"cuFuncGetName", 12030, address(get_function_name)},
    Entry{"cuKernelGetName", 12030, address(get_kernel_name)},
    Entry{"cuFuncGetParamInfo", 12040, address(get_function_parameter)},
    Entry{"cuKernelGetParamInfo", 12040, address(get_kernel_parameter)},
};

}  // namespace
}  // namespace graphguard::fake

// As the real one: of the forms that a function has, the newest that is not newer than asked for.
FAKE_DRIVER int cuGetProcAddress_v2(const char* name, void** function, int version, std::uint64_t,
                                    int* status) {
    using namespace graphguard::fake;
    *function = nullptr;
    int newest = 0;
    bool known = false;
    for (const std::span<const Entry> entries :
         {std::span<const Entry>(kEntries), entries_for_marks()}) {
        for (const Entry& entry : entries) {
            if (entry.name != name) continue;
            known = true;
            if (entry.since <= std::min(version, state().version) && entry.since > newest) {
                newest = entry.since;
                *function = entry.function;
            }
        }
    }
    // CU_GET_PROC_ADDRESS_SUCCESS, _SYMBOL_NOT_FOUND, _VERSION_NOT_SUFFICIENT
    const int missing = known ? 2 : 1;
    *status = *function != nullptr ? 0 : missing;
    return *function != nullptr ? kSuccess : kNotFound;
}
