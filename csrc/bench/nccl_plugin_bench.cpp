// What the profiler plugin costs NCCL per collective, against a plugin that does nothing.
//
//     graphguard_nccl_plugin_bench PLUGIN
//
// A collective is what NCCL 2.28 and newer tells of one outside of any group: the start of a group
// and the start of a collective; a plugin that gives handles is told of both ends too. The three
// take turns, and each figure is the median of many rounds. Prints JSON, in nanoseconds.
#include <dlfcn.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "core/clock.h"
#include "nccl/call_record.h"
#include "nccl/profiler_v7.h"

namespace graphguard {
namespace {

using nccl::EventDescriptorV7;
using nccl::ProfilerV7;

constexpr int kRounds = 201;
constexpr int kCalls = 500;  // collectives of a large graph
constexpr std::uint64_t kCapture = 7;

template <typename Symbol>
Symbol* symbol(void* library, const char* name) {
    auto* const found = reinterpret_cast<Symbol*>(dlsym(library, name));
    if (found == nullptr) {
        std::fprintf(stderr, "no %s: %s\n", name, dlerror());
        std::exit(1);
    }
    return found;
}

int nothing_init(void** context, std::uint64_t, int*, const char*, int, int, int, nccl::Logger) {
    *context = context;
    return 0;
}
int nothing_start(void*, void** handle, EventDescriptorV7*) {
    *handle = nullptr;
    return 0;
}
int nothing_stop(void*) {
    return 0;
}
int nothing_record(void*, int, void*) {
    return 0;
}

const ProfilerV7 kNothing = {"nothing",    nothing_init,   nothing_start,
                             nothing_stop, nothing_record, nothing_stop};

class Communicator {
  public:
    explicit Communicator(const ProfilerV7* profiler) : profiler_(profiler) {
        profiler_->init(&context_, 1, &mask_, "bench", 1, 8, 0, nullptr);
    }

    // Nanoseconds per collective.
    double round() const {
        const std::uint64_t begin = nanoseconds_of(CLOCK_MONOTONIC);
        for (int n = 0; n < kCalls; ++n) call();
        const std::uint64_t end = nanoseconds_of(CLOCK_MONOTONIC);
        return static_cast<double>(end - begin) / kCalls;
    }

  private:
    void call() const {
        void* group_handle = nullptr;
        EventDescriptorV7 group{};
        group.type = nccl::kGroupApi;
        group.groupApi = {true, 1};
        profiler_->startEvent(context_, &group_handle, &group);
        void* handle = nullptr;
        EventDescriptorV7 event{};
        event.type = nccl::kCollectiveApi;
        event.parentObj = group_handle;
        event.collApi = {"AllReduce", 4096, "ncclBfloat16", 0, this_stream(), true, 0};
        profiler_->startEvent(context_, &handle, &event);
        if (handle != nullptr) profiler_->stopEvent(handle);
        if (group_handle != nullptr) profiler_->stopEvent(group_handle);
    }

    static void* this_stream() { return reinterpret_cast<void*>(std::uintptr_t{kCapture}); }

    const ProfilerV7* profiler_;
    void* context_ = nullptr;
    int mask_ = 0;
};

double median(std::vector<double>& figures) {
    const auto middle = figures.begin() + static_cast<std::ptrdiff_t>(figures.size() / 2);
    std::nth_element(figures.begin(), middle, figures.end());
    return *middle;
}

void measure(void* library) {
    const auto begin = symbol<std::int32_t(std::uint64_t)>(library, "graphguard_nccl_begin");
    const auto end = symbol<std::int32_t(std::uint64_t)>(library, "graphguard_nccl_end");
    const auto take =
        symbol<std::size_t(std::uint64_t, nccl::CallRecord*, std::size_t, std::uint64_t*)>(
            library, "graphguard_nccl_take");
    const Communicator nothing(&kNothing);
    const Communicator plugin(symbol<const ProfilerV7>(library, "ncclProfiler_v7"));
    std::vector<nccl::CallRecord> calls(kCalls);
    std::vector<double> of_nothing;
    std::vector<double> idle;
    std::vector<double> recording;
    for (int n = 0; n < kRounds; ++n) {
        of_nothing.push_back(nothing.round());
        idle.push_back(plugin.round());
        begin(kCapture);
        recording.push_back(plugin.round());
        end(kCapture);
        if (take(kCapture, calls.data(), calls.size(), nullptr) != kCalls) std::exit(1);
    }
    std::printf(
        "{\"nothing_ns\": %.2f, \"idle_ns\": %.2f, \"recording_ns\": %.2f, \"calls\": %d}\n",
        median(of_nothing), median(idle), median(recording), kCalls);
}

}  // namespace
}  // namespace graphguard

int main(int count, char** arguments) {
    void* const library = count == 2 ? dlopen(arguments[1], RTLD_NOW) : nullptr;
    if (library == nullptr) {
        std::fprintf(stderr, "usage: graphguard_nccl_plugin_bench PLUGIN\n");
        return 1;
    }
    graphguard::measure(library);
    return 0;
}
