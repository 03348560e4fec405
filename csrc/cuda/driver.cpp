#include "cuda/driver.h"

#include <dlfcn.h>

#include <cstdlib>
#include <string>

namespace graphguard::cuda {

namespace {

// cuGetProcAddress_v2 (CUDA 12.0). The version says which layout of a function is meant.
using GetProcAddress = Result (*)(const char* name, void** function, int version,
                                  std::uint64_t flags, int* status);

class Resolver {
  public:
    explicit Resolver(GetProcAddress get) : get_(get) {}

    template <typename Function>
    void operator()(Function& function, const char* name, int version) const {
        void* found = nullptr;
        int status = 0;
        const bool known = get_(name, &found, version, 0, &status) == kSuccess;
        function = known ? reinterpret_cast<Function>(found) : nullptr;
    }

  private:
    GetProcAddress get_;
};

int driver_version(const Functions& functions) {
    int version = 0;
    const bool told =
        functions.get_version != nullptr && functions.get_version(&version) == kSuccess;
    return told ? version : 0;
}

// Each with the version of CUDA in which the function got the form that is declared here.
Functions resolve(const Resolver& find) {
    Functions found{};
    find(found.get_version, "cuDriverGetVersion", 2020);
    find(found.exchange_capture_mode, "cuThreadExchangeStreamCaptureMode", 10010);
    find(found.get_capture_info_v3, "cuStreamGetCaptureInfo", 12030);
    find(found.get_capture_info_v2, "cuStreamGetCaptureInfo", 11030);
    find(found.get_nodes, "cuGraphGetNodes", 10000);
    find(found.get_node_type, "cuGraphNodeGetType", 10000);
    find(found.get_kernel_params, "cuGraphKernelNodeGetParams", 12000);
    find(found.get_memcpy_params, "cuGraphMemcpyNodeGetParams", 10000);
    find(found.get_memset_params, "cuGraphMemsetNodeGetParams", 10000);
    find(found.get_host_params, "cuGraphHostNodeGetParams", 10000);
    find(found.get_batch_params, "cuGraphBatchMemOpNodeGetParams", 11070);
    find(found.get_child_graph, "cuGraphChildGraphNodeGetGraph", 10000);
    find(found.get_node_params, "cuGraphNodeGetParams", 13020);
    find(found.get_function_name, "cuFuncGetName", 12030);
    find(found.get_kernel_name, "cuKernelGetName", 12030);
    find(found.get_function_parameter, "cuFuncGetParamInfo", 12040);
    find(found.get_kernel_parameter, "cuKernelGetParamInfo", 12040);
    find(found.get_edges_v2, "cuGraphGetEdges", 12030);
    find(found.get_edges, "cuGraphGetEdges", 10000);
    find(found.get_current_context, "cuCtxGetCurrent", 4000);
    find(found.load_module, "cuModuleLoadData", 2000);
    find(found.get_module_function, "cuModuleGetFunction", 2000);
    find(found.register_host_memory, "cuMemHostRegister", 6050);
    find(found.get_device_pointer, "cuMemHostGetDevicePointer", 3020);
    find(found.add_kernel_node, "cuGraphAddKernelNode", 12000);
    find(found.add_memset_node, "cuGraphAddMemsetNode", 10000);
    find(found.add_host_node, "cuGraphAddHostNode", 10000);
    find(found.add_batch_node, "cuGraphAddBatchMemOpNode", 11070);
    // A driver gives the oldest form it has of what it does not know in a newer one.
    if (driver_version(found) < 12030) found.get_edges_v2 = nullptr;
    return found;
}

const char* chosen_library() {
    const char* const chosen = std::getenv("GRAPHGUARD_CUDA_DRIVER");
    return chosen != nullptr && *chosen != '\0' ? chosen : "libcuda.so.1";
}

std::string last_error() {
    const char* const text = dlerror();
    return text != nullptr ? text : "no reason given";
}

}  // namespace

const Driver& Driver::instance() {
    // Never destroyed: threads of the program may ask while the process ends.
    static const Driver* const driver = new Driver(chosen_library());
    return *driver;
}

Driver::Driver(const char* library) {
    void* const loaded = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    if (loaded == nullptr) {
        absence_ = "no CUDA driver: " + last_error();
        return;
    }
    const auto get = reinterpret_cast<GetProcAddress>(dlsym(loaded, "cuGetProcAddress_v2"));
    if (get == nullptr) {
        absence_ = "the CUDA driver is older than CUDA 12: it has no cuGetProcAddress_v2";
        return;
    }
    functions_ = resolve(Resolver(get));
}

std::optional<CaptureInfo> Driver::capture_of(Handle stream) const {
    CaptureInfo info;
    Result result = -1;
    if (functions_.get_capture_info_v3 != nullptr) {
        // The edges are asked for because the driver refuses to leave them out where they matter.
        const Handle* dependencies = nullptr;
        const void* edges = nullptr;
        std::size_t num_dependencies = 0;
        result = functions_.get_capture_info_v3(stream, &info.status, &info.id, &info.graph,
                                                &dependencies, &edges, &num_dependencies);
    } else if (functions_.get_capture_info_v2 != nullptr) {
        result = functions_.get_capture_info_v2(stream, &info.status, &info.id, &info.graph,
                                                nullptr, nullptr);
    }
    if (result != kSuccess) return std::nullopt;
    // What the driver says of the rest counts only while a capture is active.
    return info.active() ? info : CaptureInfo{0, nullptr, info.status};
}

std::optional<CaptureInfo> capture_of(Handle stream) {
    return Driver::instance().capture_of(stream);
}

RelaxedCaptureMode::RelaxedCaptureMode(const Driver& driver) : driver_(driver) {
    const auto exchange = driver_.functions().exchange_capture_mode;
    exchanged_ = exchange != nullptr && exchange(&mode_) == kSuccess;
}

RelaxedCaptureMode::~RelaxedCaptureMode() {
    if (exchanged_) driver_.functions().exchange_capture_mode(&mode_);
}

}  // namespace graphguard::cuda
