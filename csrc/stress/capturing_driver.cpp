// A libcuda.so.1 that knows streams only, for the tests: a stream whose number is 100 or more is
// being captured, and that number is the id of its capture.
#include <cstddef>
#include <cstdint>
#include <cstring>

#define DRIVER_EXPORT __attribute__((visibility("default")))

namespace {

constexpr std::uintptr_t kFirstCaptured = 100;
constexpr int kSuccess = 0;
constexpr int kNotFound = 500;
constexpr int kActive = 1;

int capture_info(void* stream, int* status, std::uint64_t* id, void** graph, const void**,
                 const void**, std::size_t*) {
    const auto number = reinterpret_cast<std::uintptr_t>(stream);
    *status = number >= kFirstCaptured ? kActive : 0;
    if (number >= kFirstCaptured) *id = number;
    if (graph != nullptr) *graph = stream;
    return kSuccess;
}

}  // namespace

extern "C" DRIVER_EXPORT int cuGetProcAddress_v2(const char* name, void** function, int version,
                                                 std::uint64_t, int*) {
    *function = nullptr;
    if (std::strcmp(name, "cuStreamGetCaptureInfo") != 0 || version < 12'030) return kNotFound;
    *function = reinterpret_cast<void*>(&capture_info);
    return kSuccess;
}
