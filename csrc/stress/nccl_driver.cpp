// As much of a CUDA driver as the plugin asks for: a stream is its capture's id, and 0 is none.
#include <cstdint>
#include <cstring>

namespace {

int get_capture_info(void* stream, int* status, std::uint64_t* id, void** graph,
                     const void** dependencies, std::size_t* count) {
    const auto number = reinterpret_cast<std::uintptr_t>(stream);
    *status = number == 0 ? 0 : 1;
    *id = number;
    if (graph != nullptr) *graph = nullptr;
    if (dependencies != nullptr) *dependencies = nullptr;
    if (count != nullptr) *count = 0;
    return 0;
}

}  // namespace

extern "C" __attribute__((visibility("default"))) int cuGetProcAddress_v2(
    const char* name, void** function, int version, std::uint64_t /*flags*/, int* status) {
    // The form of CUDA 11.3; a caller that asks for the newer one is told that there is none.
    const bool known = std::strcmp(name, "cuStreamGetCaptureInfo") == 0 && version < 12030;
    *function = known ? reinterpret_cast<void*>(&get_capture_info) : nullptr;
    if (status != nullptr) *status = known ? 0 : 1;
    return known ? 0 : 500;  // CUDA_ERROR_NOT_FOUND
}
