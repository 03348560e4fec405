// Another profiler plugin, to stand behind graphguard's: it keeps every event that it is told of,
// and complains of a handle that it has never given. NEXT_VERSION says which interface it has and
// NEXT_MASK which events it asks for.
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <type_traits>
#include <vector>

#include "nccl/profiler_v4.h"
#include "nccl/profiler_v5.h"
#include "nccl/profiler_v7.h"

namespace {

using namespace graphguard::nccl;

#if NEXT_VERSION == 4
using Event = EventDescriptorV4;
#elif NEXT_VERSION == 5
using Event = EventDescriptorV5;
#else
using Event = EventDescriptorV7;
#endif

struct Kept {
    std::uint64_t type;
    int stopped = 0;
};

std::mutex mutex;
std::vector<std::unique_ptr<Kept>> events;
std::map<std::uint64_t, int> starts;
int communicators = 0;
int stops = 0;
int stops_of_strangers = 0;
int strange_parents = 0;
int orphans = 0;

bool is_own(const void* handle) {
    for (const auto& event : events) {
        if (event.get() == handle) return true;
    }
    return false;
}

int begin(void** context, int* mask) {
    if (std::getenv("NEXT_REFUSES") != nullptr) return 1;
    const std::lock_guard<std::mutex> lock(mutex);
    ++communicators;
    *context = &communicators;
    // Atomically, as NVIDIA's example does: other threads of NCCL load it.
    __atomic_store_n(mask, NEXT_MASK, __ATOMIC_RELAXED);
    return 0;
}

int start(void* context, void** handle, Event* event) {
    const std::lock_guard<std::mutex> lock(mutex);
    if (context != &communicators) std::abort();
    if (event->parentObj != nullptr && !is_own(event->parentObj)) ++strange_parents;
    const bool is_task = event->type == kCollective || event->type == kPointToPoint;
    if (is_task && event->parentObj == nullptr) ++orphans;
    ++starts[event->type];
    events.push_back(std::make_unique<Kept>(Kept{event->type}));
    *handle = events.back().get();
    return 0;
}

int stop(void* handle) {
    const std::lock_guard<std::mutex> lock(mutex);
    ++stops;
    if (!is_own(handle)) ++stops_of_strangers;
    return 0;
}

int record_state(void* handle, int, void*) {
    const std::lock_guard<std::mutex> lock(mutex);
    if (!is_own(handle)) ++stops_of_strangers;
    return 0;
}

int finalize(void* context) {
    const std::lock_guard<std::mutex> lock(mutex);
    if (context != &communicators) std::abort();
    --communicators;
    return 0;
}

#if NEXT_VERSION == 4
int init(void** context, int* mask, const char*, std::uint64_t, int, int, int, Logger) {
    return begin(context, mask);
}
#else
int init(void** context, std::uint64_t, int* mask, const char*, int, int, int, Logger) {
    return begin(context, mask);
}
#endif

}  // namespace

#define EXPORT extern "C" __attribute__((visibility("default")))

#if NEXT_VERSION == 4
EXPORT const ProfilerV4 ncclProfiler_v4;
const ProfilerV4 ncclProfiler_v4 = {"next", init, start, stop, record_state, finalize};
#elif NEXT_VERSION == 5
EXPORT const ProfilerV5 ncclProfiler_v5;
const ProfilerV5 ncclProfiler_v5 = {"next", init, start, stop, record_state, finalize};
#else
EXPORT const ProfilerV7 ncclProfiler_v7;
const ProfilerV7 ncclProfiler_v7 = {"next", init, start, stop, record_state, finalize};
#endif

EXPORT void print_events() {
    const std::lock_guard<std::mutex> lock(mutex);
    std::printf("next communicators=%d stops=%d strangers=%d parents=%d orphans=%d", communicators,
                stops, stops_of_strangers, strange_parents, orphans);
    for (const auto& [type, number] : starts) {
        std::printf(" type%llu=%d", static_cast<unsigned long long>(type), number);
    }
    std::printf("\n");
}
