#include "cuda/breadcrumbs.h"

#include <cstring>
#include <vector>

#include "cuda/mark_kernel.h"

namespace graphguard::cuda {

namespace {

std::string refused(const char* function, Result result) {
    return std::string(function) + " said " + std::to_string(result);
}

std::string absent(const char* function) {
    return std::string("this driver has no ") + function;
}

// Runs on a thread of the driver, which is the only one to count this mark.
void count_up(void* number) {
    auto& word = *static_cast<crumbs::Word*>(number);
    word.store(word.load(std::memory_order_relaxed) + 1, std::memory_order_release);
}

}  // namespace

std::string GraphMarker::prepare() {
    const RelaxedCaptureMode relaxed(driver_);
    Handle context = nullptr;
    return prepare_context(context);
}

std::string GraphMarker::prepare_context(Handle& context) {
    if (!driver_.present()) return driver_.absence();
    if (functions_.get_current_context == nullptr) return absent("cuCtxGetCurrent");
    if (const Result result = functions_.get_current_context(&context); result != kSuccess) {
        return refused("cuCtxGetCurrent", result);
    }
    if (context == nullptr) return "this thread has no CUDA context";
    if (places_.contains(context)) return {};
    if (!registered_) {
        const auto register_memory = functions_.register_host_memory;
        if (register_memory == nullptr) return absent("cuMemHostRegister");
        const Result result =
            register_memory(memory_.data(), memory_.size(), kRegisterPortable | kRegisterDeviceMap);
        if (result != kSuccess) {
            return refused("cuMemHostRegister", result) +
                   " of a mapped file; a directory in memory, such as /dev/shm, may do";
        }
        registered_ = true;
    }
    Place place;
    std::string problem = load(place);
    if (problem.empty()) places_.emplace(context, place);
    return problem;
}

std::string GraphMarker::load(Place& place) const {
    if (functions_.get_device_pointer == nullptr) return absent("cuMemHostGetDevicePointer");
    if (const Result result = functions_.get_device_pointer(&place.memory, memory_.data(), 0);
        result != kSuccess) {
        return refused("cuMemHostGetDevicePointer", result);
    }
    if (functions_.load_module == nullptr || functions_.get_module_function == nullptr) {
        return absent("cuModuleLoadData");
    }
    Handle module = nullptr;
    if (const Result result = functions_.load_module(&module, kMarkKernel); result != kSuccess) {
        return refused("cuModuleLoadData", result);
    }
    const Result result = functions_.get_module_function(&place.function, module, kMarkKernelName);
    return result == kSuccess ? std::string() : refused("cuModuleGetFunction", result);
}

std::string GraphMarker::mark(Handle graph, std::span<const Handle> nodes, crumbs::Word* numbers,
                              CrumbKind kind) {
    const RelaxedCaptureMode relaxed(driver_);
    Handle context = nullptr;
    if (std::string problem = prepare_context(context); !problem.empty()) return problem;
    const Place& place = places_.at(context);
    std::vector<Handle> after(1);
    if (!counts_replays(kind)) {
        // It is the first of the graph, and no leaf writes before it.
        after.resize(2);
        const Result result =
            add_memset(after[1], graph, {}, pointer(place, numbers), 0, 2 * nodes.size(), context);
        if (result != kSuccess) return refused("cuGraphAddMemsetNode", result);
    }
    for (std::size_t i = 0; i < nodes.size(); ++i) {
        after[0] = nodes[i];
        const Result result = add_leaf(graph, after, numbers + i, kind, context, place);
        if (result != kSuccess) return refused("adding a node to the graph", result);
    }
    return {};
}

Result GraphMarker::add_leaf(Handle graph, std::span<const Handle> after, crumbs::Word* number,
                             CrumbKind kind, Handle context, const Place& place) const {
    Handle node = nullptr;
    switch (kind) {
        case CrumbKind::kKernel:
            return add_kernel(graph, after, pointer(place, number), place.function);
        case CrumbKind::kMemset:
            return add_memset(node, graph, after, pointer(place, number), 1, 1, context);
        case CrumbKind::kMemop:
            return add_write(graph, after, pointer(place, number), context);
        case CrumbKind::kHost:
            return add_host(graph, after, number);
        case CrumbKind::kEmulated:
            break;
    }
    return -1;
}

Result GraphMarker::add_kernel(Handle graph, std::span<const Handle> after, DevicePointer number,
                               Handle function) const {
    if (functions_.add_kernel_node == nullptr) return -1;
    void* arguments[] = {&number};
    const KernelNodeParams params{
        .function = function,
        .grid = {1, 1, 1},
        .block = {1, 1, 1},
        .shared_bytes = 0,
        .arguments = arguments,
        .extra = nullptr,
        .kernel = nullptr,
        .context = nullptr,
    };
    Handle node = nullptr;
    return functions_.add_kernel_node(&node, graph, after.data(), after.size(), &params);
}

// `words` counts halves of numbers: a node sets at most 32 bits at a time.
Result GraphMarker::add_memset(Handle& node, Handle graph, std::span<const Handle> after,
                               DevicePointer first, unsigned int value, std::size_t words,
                               Handle context) const {
    if (functions_.add_memset_node == nullptr) return -1;
    const MemsetNodeParams params{
        .target = first,
        .pitch = 0,
        .value = value,
        .element_bytes = 4,
        .width = words,
        .height = 1,
    };
    return functions_.add_memset_node(&node, graph, after.data(), after.size(), &params, context);
}

Result GraphMarker::add_write(Handle graph, std::span<const Handle> after, DevicePointer number,
                              Handle context) const {
    if (functions_.add_batch_node == nullptr) return -1;
    const WriteValueOperation write{kWriteValue32, number, 1, 0, 0};
    MemoryOperation operation{};
    std::memcpy(&operation, &write, sizeof write);
    const BatchMemoryOperationParams params{context, 1, &operation, 0};
    Handle node = nullptr;
    return functions_.add_batch_node(&node, graph, after.data(), after.size(), &params);
}

Result GraphMarker::add_host(Handle graph, std::span<const Handle> after,
                             crumbs::Word* number) const {
    if (functions_.add_host_node == nullptr) return -1;
    const HostNodeParams params{&count_up, number};
    Handle node = nullptr;
    return functions_.add_host_node(&node, graph, after.data(), after.size(), &params);
}

DevicePointer GraphMarker::pointer(const Place& place, const crumbs::Word* number) const {
    const auto offset = reinterpret_cast<const std::byte*>(number) - memory_.data();
    return place.memory + static_cast<DevicePointer>(offset);
}

}  // namespace graphguard::cuda
