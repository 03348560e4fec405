// What graphguard needs of the CUDA driver's interface, declared here so that no toolkit is needed
// to build. Names and layouts are those of cuda.h, which keeps them for as long as a function has
// its version suffix; each is asserted. Sources: cuda.h of CUDA 12.3 and 13.0, and for
// cuGraphNodeGetParams the bindings of CUDA 13.5.
#pragma once

#include <cstddef>
#include <cstdint>

namespace graphguard::cuda {

using Result = int;
inline constexpr Result kSuccess = 0;

// All of the driver's handles are pointers that only it looks behind.
using Handle = void*;
using DevicePointer = unsigned long long;

enum class CaptureStatus : int { kNone = 0, kActive = 1, kInvalidated = 2 };

enum class CaptureMode : int { kGlobal = 0, kThreadLocal = 1, kRelaxed = 2 };

enum class NodeType : int {
    kKernel = 0,
    kMemcpy = 1,
    kMemset = 2,
    kHost = 3,
    kChild = 4,
    kEmpty = 5,
    kEventWait = 6,
    kEventRecord = 7,
    kSemaphoreSignal = 8,
    kSemaphoreWait = 9,
    kMemoryAllocation = 10,
    kMemoryFree = 11,
    kBatchMemoryOperation = 12,
    kConditional = 13,
};

// CUDA_KERNEL_NODE_PARAMS_v2. The kernel is `function`, or `kernel` where that is null.
struct KernelNodeParams {
    Handle function;
    unsigned int grid[3];
    unsigned int block[3];
    unsigned int shared_bytes;
    void** arguments;
    void** extra;
    Handle kernel;
    Handle context;
};
static_assert(sizeof(KernelNodeParams) == 72);
static_assert(offsetof(KernelNodeParams, kernel) == 56);

enum class MemoryType : int { kHost = 1, kDevice = 2, kArray = 3, kUnified = 4 };

// CUDA_MEMCPY3D_v2
struct Memcpy3D {
    std::size_t source_x, source_y, source_z, source_lod;
    MemoryType source_type;
    const void* source_host;
    DevicePointer source_device;
    Handle source_array;
    void* reserved0;
    std::size_t source_pitch, source_height;
    std::size_t target_x, target_y, target_z, target_lod;
    MemoryType target_type;
    void* target_host;
    DevicePointer target_device;
    Handle target_array;
    void* reserved1;
    std::size_t target_pitch, target_height;
    std::size_t width_bytes, height, depth;
};
static_assert(sizeof(Memcpy3D) == 200);
static_assert(offsetof(Memcpy3D, target_type) == 120);

// CUDA_MEMSET_NODE_PARAMS_v1; `width` counts elements.
struct MemsetNodeParams {
    DevicePointer target;
    std::size_t pitch;
    unsigned int value;
    unsigned int element_bytes;
    std::size_t width;
    std::size_t height;
};
static_assert(sizeof(MemsetNodeParams) == 40);

// CUDA_HOST_NODE_PARAMS_v1
struct HostNodeParams {
    void (*function)(void*);
    void* user_data;
};
static_assert(sizeof(HostNodeParams) == 16);

// CUstreamBatchMemOpParams: a union whose first member says which operation it is.
struct MemoryOperation {
    int operation;
    int rest[11];
};
static_assert(sizeof(MemoryOperation) == 48);

// CUDA_BATCH_MEM_OP_NODE_PARAMS
struct BatchMemoryOperationParams {
    Handle context;
    unsigned int count;
    MemoryOperation* operations;
    unsigned int flags;
};
static_assert(sizeof(BatchMemoryOperationParams) == 32);

// CUstreamBatchMemOpParams as CU_STREAM_MEM_OP_WRITE_VALUE_32 has it.
struct WriteValueOperation {
    int operation;
    DevicePointer address;
    std::uint64_t value;
    unsigned int flags;
    DevicePointer alias;
};
inline constexpr int kWriteValue32 = 2;
static_assert(offsetof(WriteValueOperation, address) == 8);
static_assert(offsetof(WriteValueOperation, value) == 16);
static_assert(offsetof(WriteValueOperation, flags) == 24);
static_assert(sizeof(WriteValueOperation) <= sizeof(MemoryOperation));

// CUgraphEdgeData: how two nodes depend on each other.
struct EdgeData {
    unsigned char bytes[8];
};

// CU_MEMHOSTREGISTER_*
inline constexpr unsigned int kRegisterPortable = 1;
inline constexpr unsigned int kRegisterDeviceMap = 2;

enum class ConditionalType : int { kIf = 0, kWhile = 1, kSwitch = 2 };

// CUgraphNodeParams: one tagged union for every type of node. Only that of conditional nodes is
// read, since they have no function of their own.
struct NodeParams {
    NodeType type;
    int reserved0[3];
    union {
        std::int64_t reserved1[29];
        struct {
            std::uint64_t handle;
            ConditionalType type;
            unsigned int size;
            Handle* bodies;
            Handle context;
        } conditional;
    };
    std::int64_t reserved2;
};
static_assert(sizeof(NodeParams) == 256);

// Pointers to the driver's functions. What a driver is too old for is null.
struct Functions {
    Result (*get_version)(int* version);
    Result (*exchange_capture_mode)(CaptureMode* mode);
    // cuStreamGetCaptureInfo_v3, and _v2 for drivers before CUDA 12.3
    Result (*get_capture_info_v3)(Handle stream, CaptureStatus* status, std::uint64_t* id,
                                  Handle* graph, const Handle** dependencies, const void** edges,
                                  std::size_t* num_dependencies);
    Result (*get_capture_info_v2)(Handle stream, CaptureStatus* status, std::uint64_t* id,
                                  Handle* graph, const Handle** dependencies,
                                  std::size_t* num_dependencies);
    Result (*get_nodes)(Handle graph, Handle* nodes, std::size_t* num_nodes);
    Result (*get_node_type)(Handle node, NodeType* type);
    Result (*get_kernel_params)(Handle node, KernelNodeParams* params);
    Result (*get_memcpy_params)(Handle node, Memcpy3D* params);
    Result (*get_memset_params)(Handle node, MemsetNodeParams* params);
    Result (*get_host_params)(Handle node, HostNodeParams* params);
    Result (*get_batch_params)(Handle node, BatchMemoryOperationParams* params);
    Result (*get_child_graph)(Handle node, Handle* graph);
    Result (*get_node_params)(Handle node, NodeParams* params);
    Result (*get_function_name)(const char** name, Handle function);
    Result (*get_kernel_name)(const char** name, Handle kernel);
    Result (*get_function_parameter)(Handle function, std::size_t index, std::size_t* offset,
                                     std::size_t* bytes);
    Result (*get_kernel_parameter)(Handle kernel, std::size_t index, std::size_t* offset,
                                   std::size_t* bytes);
    // cuGraphGetEdges_v2, and what it was before CUDA 12.3
    Result (*get_edges_v2)(Handle graph, Handle* from, Handle* to, EdgeData* data,
                           std::size_t* num_edges);
    Result (*get_edges)(Handle graph, Handle* from, Handle* to, std::size_t* num_edges);
    Result (*get_current_context)(Handle* context);
    Result (*load_module)(Handle* module, const void* image);
    Result (*get_module_function)(Handle* function, Handle module, const char* name);
    Result (*register_host_memory)(void* start, std::size_t bytes, unsigned int flags);
    Result (*get_device_pointer)(DevicePointer* pointer, void* host, unsigned int flags);
    Result (*add_kernel_node)(Handle* node, Handle graph, const Handle* dependencies,
                              std::size_t num_dependencies, const KernelNodeParams* params);
    Result (*add_memset_node)(Handle* node, Handle graph, const Handle* dependencies,
                              std::size_t num_dependencies, const MemsetNodeParams* params,
                              Handle context);
    Result (*add_host_node)(Handle* node, Handle graph, const Handle* dependencies,
                            std::size_t num_dependencies, const HostNodeParams* params);
    Result (*add_batch_node)(Handle* node, Handle graph, const Handle* dependencies,
                             std::size_t num_dependencies,
                             const BatchMemoryOperationParams* params);
};

}  // namespace graphguard::cuda
