// What the stand-in for the CUDA driver holds.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "cuda/driver_types.h"

namespace graphguard::fake {

struct Calls {
    std::uint64_t made = 0;
    std::uint64_t refused_every = 0;
};

struct Capture {
    std::uint64_t id = 0;
    void* graph = nullptr;
    cuda::CaptureStatus status = cuda::CaptureStatus::kNone;
};

struct KernelFunction {
    std::string name;
    std::vector<std::size_t> parameters;
};

struct Node {
    cuda::NodeType type{};
    cuda::KernelNodeParams kernel{};
    cuda::Memcpy3D memcpy{};
    cuda::MemsetNodeParams memset{};
    cuda::HostNodeParams host{};
    cuda::ConditionalType condition{};
    std::vector<cuda::MemoryOperation> operations{};
    // Of a child node one, of a conditional one its bodies.
    std::vector<void*> graphs{};
    std::vector<Node*> after{};
    // Of a node that was added by a call of the driver: the argument of its kernel.
    cuda::DevicePointer argument = 0;
    void* context = nullptr;
};

struct Graph {
    std::vector<Node*> nodes;
};

enum class Kind : std::uint8_t { kGraph, kNode, kFunction, kModule };

// Memory of the host that a device may write to. A device sees it elsewhere, so that a pointer of
// the one kind in the place of the other is noticed.
struct Registered {
    char* start = nullptr;
    std::size_t bytes = 0;
};
inline constexpr cuda::DevicePointer kDeviceOffset = 0x7000'0000'0000ULL;

// A function in one of its forms, and the version of CUDA that brought that form.
struct Entry {
    std::string_view name;
    int since;
    void* function;
};

template <typename Function>
void* address(Function* function) {
    return reinterpret_cast<void*>(function);
}

struct State {
    int version = 13020;
    std::map<std::string, Calls> calls;
    std::map<void*, Capture> captures;
    std::vector<std::unique_ptr<Graph>> graphs;
    std::vector<std::unique_ptr<Node>> nodes;
    std::vector<std::unique_ptr<KernelFunction>> functions;
    // Every handle that was given out, with what it is of.
    std::unordered_map<void*, Kind> handles;
    std::vector<std::unique_ptr<std::string>> modules;
    std::vector<Registered> registered;
    void* context = reinterpret_cast<void*>(0xC0DE);

    // Counts a call, and says whether it is to fail.
    bool refuses(std::string_view function);

    Node& node(void* handle);
    Graph& graph(void* handle);
    KernelFunction& function(void* handle);
    Node& add(void* graph_handle, cuda::NodeType type);
};

State& state();

// What the driver has for adding nodes to graphs, in fake_driver_marks.cpp.
std::span<const Entry> entries_for_marks();

inline thread_local cuda::CaptureMode capture_mode = cuda::CaptureMode::kGlobal;

}  // namespace graphguard::fake
