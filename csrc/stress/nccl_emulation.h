// What NCCL does with a profiler plugin, without NCCL: src/plugin/profiler.cc, src/enqueue.cc and
// src/group.cc of NCCL 2.27 to 2.31, as far as a plugin can tell. It keeps and reuses handles as
// they do, those of captured graphs included.
#pragma once

#include <dlfcn.h>

#include <atomic>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <type_traits>
#include <vector>

#include "nccl/profiler_v4.h"
#include "nccl/profiler_v5.h"
#include "nccl/profiler_v6.h"
#include "nccl/profiler_v7.h"

namespace graphguard::stress {

namespace nccl = graphguard::nccl;

template <int kVersion>
struct Interface;
template <>
struct Interface<4> {
    using Table = nccl::ProfilerV4;
    using Event = nccl::EventDescriptorV4;
    static constexpr const char* kSymbol = "ncclProfiler_v4";
};
template <>
struct Interface<5> {
    using Table = nccl::ProfilerV5;
    using Event = nccl::EventDescriptorV5;
    static constexpr const char* kSymbol = "ncclProfiler_v5";
};
template <>
struct Interface<6> {
    using Table = nccl::ProfilerV6;
    using Event = nccl::EventDescriptorV6;
    static constexpr const char* kSymbol = "ncclProfiler_v6";
};
template <>
struct Interface<7> {
    using Table = nccl::ProfilerV7;
    using Event = nccl::EventDescriptorV7;
    static constexpr const char* kSymbol = "ncclProfiler_v7";
};

[[noreturn]] inline void fail(const std::string& what) {
    std::printf("failed: %s\n", what.c_str());
    std::exit(1);
}

// Opened and closed as NCCL does with its first and its last communicator.
class Library {
  public:
    explicit Library(const char* path) : handle_(dlopen(path, RTLD_NOW | RTLD_LOCAL)) {
        if (handle_ == nullptr) fail(dlerror());
    }
    Library(const Library&) = delete;
    Library& operator=(const Library&) = delete;
    ~Library() { dlclose(handle_); }

    template <typename Symbol>
    [[nodiscard]] Symbol* symbol(const char* name) const {
        auto* const found = reinterpret_cast<Symbol*>(dlsym(handle_, name));
        if (found == nullptr) fail(std::string("no symbol ") + name);
        return found;
    }

  private:
    void* handle_;
};

// For which bits of the mask NCCL starts an event (src/plugin/profiler.cc).
inline constexpr int kForCollective = nccl::kCollective | nccl::kProxyOperation | nccl::kProxyStep |
                                      nccl::kKernelChannel | nccl::kNetPlugin;
inline constexpr int kForPoint = nccl::kPointToPoint | nccl::kProxyOperation | nccl::kProxyStep |
                                 nccl::kKernelChannel | nccl::kNetPlugin;
inline constexpr int kForGroup = nccl::kGroup | kForCollective | kForPoint;
inline constexpr int kForCopyEngine =
    nccl::kCopyEngineCollective | nccl::kCopyEngineSync | nccl::kCopyEngineBatch;
inline constexpr int kForCollectiveApi = nccl::kCollectiveApi | kForCollective | kForCopyEngine;
inline constexpr int kForPointApi = nccl::kPointToPointApi | kForPoint;
inline constexpr int kForGroupApi =
    nccl::kGroupApi | nccl::kKernelLaunch | kForCollectiveApi | kForPointApi | kForGroup;

inline std::atomic<int> activation_mask{0};

inline void print_warning(int level, unsigned long, const char*, int, const char* format, ...) {
    std::va_list arguments;
    va_start(arguments, format);
    std::printf("log level=%d text=", level);
    std::vprintf(format, arguments);
    std::printf("\n");
    va_end(arguments);
}

template <int kVersion>
struct Communicator {
    const typename Interface<kVersion>::Table* table;
    void* context = nullptr;
    int rank = 0;

    void init(std::uint64_t hash, int ranks, int own_rank, const char* name = "test") {
        // NCCL hands out a plain int, and loads it atomically.
        auto* const mask = reinterpret_cast<int*>(&activation_mask);
        rank = own_rank;
        int result = 0;
        if constexpr (kVersion == 4) {
            result = table->init(&context, mask, name, hash, 1, ranks, rank, print_warning);
        } else {
            result = table->init(&context, hash, mask, name, 1, ranks, rank, print_warning);
        }
        if (result != nccl::kSuccess) fail("init");
    }
    void finalize() const {
        if (context != nullptr && table->finalize(context) != nccl::kSuccess) fail("finalize");
    }
};

// A task of a plan, as a captured graph keeps it: with the mask and the handles of its capture.
struct Task {
    bool collective;
    const char* function;
    std::uint64_t count;
    const char* data_type;
    int root_or_peer;
    int mask;
    void* api_handle;
    void* handle = nullptr;
};

struct Plan {
    std::vector<Task> tasks;
    void* group_api_handle = nullptr;
    void* group_handle = nullptr;
};

// One thread's calls of NCCL. `handles` is thread_local there, and is never cleared of the handles
// of collectives before 2.31.
template <int kVersion>
class Caller {
  public:
    using Event = typename Interface<kVersion>::Event;
    using Comm = Communicator<kVersion>;

    Plan plan;  // of the group that was ended last

    void group_start() { ++depth_; }

    void group_end(const Comm& comm) {
        if (--depth_ > 0) return;
        if constexpr (kVersion >= 5) {
            if (group_handle_ != nullptr) {
                check(comm.table->recordEventState(group_handle_, 24, nullptr));
                check(comm.table->stopEvent(group_handle_));
            }
            open_.group_api_handle = group_handle_;
            group_handle_ = nullptr;
            begun_ = false;
        }
        plan = std::move(open_);
        open_ = {};
        // Without a network the plan's events come now; a captured plan with one brings them at
        // every replay instead.
        run(comm, plan);
    }

    void collective(const Comm& comm, const char* function, std::uint64_t count,
                    const char* data_type, int root, void* stream, bool captured,
                    std::uint64_t tag = 0) {
        group_start();
        if constexpr (kVersion >= 5) {
            begin_group(comm, captured);
            Event event{};
            event.type = nccl::kCollectiveApi;
            event.parentObj = group_handle_;
            event.collApi = {};
            event.collApi.func = function;
            event.collApi.count = count;
            event.collApi.datatype = data_type;
            event.collApi.root = root;
            event.collApi.stream = stream;
            event.collApi.graphCaptured = captured;
            if constexpr (kVersion >= 7) event.collApi.userTag = tag;
            if ((mask_ & kForCollectiveApi) != 0) start(comm, &collective_handle_, event);
            if (collective_handle_ != nullptr) check(comm.table->stopEvent(collective_handle_));
        }
        open_.tasks.push_back({true, function, count, data_type, root, mask(), collective_handle_});
        if constexpr (kVersion >= 7) collective_handle_ = nullptr;
        group_end(comm);
    }

    void point_to_point(const Comm& comm, const char* function, std::uint64_t count,
                        const char* data_type, int peer, void* stream, bool captured) {
        group_start();
        if constexpr (kVersion >= 5) {
            begin_group(comm, captured);
            Event event{};
            event.type = nccl::kPointToPointApi;
            event.parentObj = group_handle_;
            event.p2pApi = {};
            event.p2pApi.func = function;
            event.p2pApi.count = count;
            event.p2pApi.datatype = data_type;
            event.p2pApi.stream = stream;
            event.p2pApi.graphCaptured = captured;
            if ((mask_ & kForPointApi) != 0) start(comm, &point_handle_, event);
            if (point_handle_ != nullptr) check(comm.table->stopEvent(point_handle_));
        }
        open_.tasks.push_back({false, function, count, data_type, peer, mask(), point_handle_});
        point_handle_ = nullptr;
        group_end(comm);
    }

    // hostStreamPlanTask: at once, or on a thread of CUDA whenever the captured graph is replayed,
    // with the handles that the plan has from the last time.
    static void run(const Comm& comm, Plan& plan) {
        const int wanted = plan.tasks.empty() ? 0 : plan.tasks.front().mask;
        if ((wanted & kForGroup) == 0) return;
        Event group{};
        group.type = nccl::kGroup;
        group.parentObj = plan.group_api_handle;
        start(comm, &plan.group_handle, group);
        // Without a group NCCL tells of no call in it.
        if (plan.group_handle == nullptr) return;
        for (Task& task : plan.tasks) run_task(comm, plan, task);
        for (const Task& task : plan.tasks) {
            if (task.handle != nullptr) check(comm.table->stopEvent(task.handle));
        }
        check(comm.table->stopEvent(plan.group_handle));
    }

  private:
    static void check(int result) {
        if (result != nccl::kSuccess) fail("a call of the plugin did not succeed");
    }

    static void start(const Comm& comm, void** handle, Event& event) {
        check(comm.table->startEvent(comm.context, handle, &event));
    }

    static void run_task(const Comm& comm, const Plan& plan, Task& task) {
        Event event{};
        event.rank = comm.rank;
        event.parentObj = kVersion == 4 ? plan.group_handle : task.api_handle;
        if (task.collective) {
            event.type = nccl::kCollective;
            event.coll = {};
            event.coll.func = task.function;
            event.coll.count = task.count;
            event.coll.datatype = task.data_type;
            event.coll.root = task.root_or_peer;
            if constexpr (kVersion >= 5) event.coll.parentGroup = plan.group_handle;
        } else {
            event.type = nccl::kPointToPoint;
            event.p2p = {};
            event.p2p.func = task.function;
            event.p2p.count = task.count;
            event.p2p.datatype = task.data_type;
            event.p2p.peer = task.root_or_peer;
            if constexpr (kVersion >= 5) event.p2p.parentGroup = plan.group_handle;
        }
        if ((task.mask & (task.collective ? kForCollective : kForPoint)) != 0)
            start(comm, &task.handle, event);
    }

    [[nodiscard]] int mask() const { return kVersion == 4 ? activation_mask.load() : mask_; }

    void begin_group(const Comm& comm, bool captured) {
        if constexpr (kVersion >= 5) {
            mask_ = activation_mask.load(std::memory_order_relaxed);
            if (begun_ || (mask_ & kForGroupApi) == 0) return;
            Event event{};
            event.type = nccl::kGroupApi;
            event.groupApi.graphCaptured = captured;
            event.groupApi.groupDepth = depth_;
            start(comm, &group_handle_, event);
            begun_ = true;
            if (group_handle_ != nullptr) {
                check(comm.table->recordEventState(group_handle_, 23, nullptr));
            }
        }
    }

    int depth_ = 0;
    int mask_ = 0;
    bool begun_ = false;
    void* group_handle_ = nullptr;
    void* collective_handle_ = nullptr;
    void* point_handle_ = nullptr;
    Plan open_;
};

}  // namespace graphguard::stress
