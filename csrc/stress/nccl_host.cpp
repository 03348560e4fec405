// Drives the profiler plugin as NCCL does, and prints what the log holds afterwards.
//
//     graphguard_nccl_host PLUGIN VERSION SCENARIO
//
// VERSION is the interface that this NCCL knows, 4 to 7. GRAPHGUARD_CUDA_DRIVER names the driver
// (graphguard_nccl_driver, for which a stream's capture has the number of the stream as its id),
// and GRAPHGUARD_NEXT_PROFILER_PLUGIN the plugin behind this one, as in a real process.
#include <cinttypes>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <thread>

#include "nccl/call_record.h"
#include "stress/nccl_emulation.h"
#include "stress/recorded_calls.h"

namespace graphguard::stress {
namespace {

using nccl::CallRecord;

void* stream(std::uintptr_t capture_id) {
    return reinterpret_cast<void*>(capture_id);
}

template <int kVersion>
class Host {
  public:
    explicit Host(const char* plugin)
        : path_(plugin), library_(std::make_unique<Library>(plugin)), log_(*library_) {}

    [[nodiscard]] Communicator<kVersion> communicator(std::uint64_t hash, int ranks = 8,
                                                      int rank = 3) const {
        Communicator<kVersion> made{library_->symbol<const typename Interface<kVersion>::Table>(
            Interface<kVersion>::kSymbol)};
        made.init(hash, ranks, rank);
        return made;
    }

    void sequence() {
        const auto comm = communicator(0xabc);
        std::printf("mask value=%d\n", activation_mask.load());
        Caller<kVersion> caller;
        caller.collective(comm, "AllReduce", 1, "ncclInt8", 0, stream(7), true);  // before
        log_.begin(7);
        every_call(caller, comm);
        caller.collective(comm, "AllReduce", 99, "ncclInt8", 0, stream(0), false);  // eager
        log_.end(7);
        caller.collective(comm, "AllReduce", 2, "ncclInt8", 0, stream(7), true);  // after
        print(log_.take(7));
        comm.finalize();
    }

    void groups() {
        const auto one = communicator(0xabc);
        const auto other = communicator(0xdef, 2, 1);
        Caller<kVersion> caller;
        log_.begin(7);
        caller.collective(one, "AllReduce", 10, "ncclFloat32", 0, stream(7), true);
        for (int group = 0; group < 2; ++group) {
            caller.group_start();
            caller.collective(one, "AllReduce", 20, "ncclFloat32", 0, stream(7), true);
            caller.group_start();
            caller.point_to_point(other, "Send", 30, "ncclFloat32", 0, stream(7), true);
            caller.point_to_point(other, "Recv", 31, "ncclFloat32", 0, stream(7), true);
            caller.group_end(other);
            caller.group_end(one);
        }
        caller.collective(one, "AllReduce", 40, "ncclFloat32", 0, stream(7), true);
        log_.end(7);
        print(log_.take(7));
    }

    // Without an id of the capture: what this thread does, and no other.
    void by_thread() {
        const auto comm = communicator(0xabc);
        log_.begin(0);
        Caller<kVersion> caller;
        std::thread([&] {
            Caller<kVersion> elsewhere;
            elsewhere.collective(comm, "AllReduce", 1, "ncclInt8", 0, stream(8), true);
        }).join();
        caller.collective(comm, "AllReduce", 10, "ncclFloat32", 0, stream(7), true);
        log_.end(0);
        print(log_.take(0));
    }

    void threads() {
        constexpr std::uint64_t kThreads = 4;
        constexpr std::uint64_t kCaptures = 50;
        constexpr std::uint64_t kCalls = 20;
        std::atomic<std::uint64_t> kept{0};
        std::vector<std::thread> running;
        for (std::uint64_t t = 1; t <= kThreads; ++t) {
            running.emplace_back([this, t, &kept] {
                for (std::uint64_t n = 0; n < kCaptures; ++n) {
                    kept += capture_on_a_thread(t * 1000 + n, kCalls);
                }
            });
        }
        for (std::thread& one : running) one.join();
        if (kept != kThreads * kCaptures * kCalls) fail("calls were lost, or in the wrong log");
        std::printf("kept calls=%" PRIu64 "\n", kept.load());
    }

    // A captured plan of more than one node: its events come at every replay, from CUDA's thread,
    // with what the last replay left in the handles; and once after the communicator is gone.
    void replays() {
        const auto comm = communicator(0xabc);
        Caller<kVersion> caller;
        log_.begin(7);
        caller.group_start();
        caller.collective(comm, "AllReduce", 10, "ncclFloat32", 0, stream(7), true);
        caller.point_to_point(comm, "Send", 30, "ncclFloat32", 0, stream(7), true);
        caller.group_end(comm);
        log_.end(7);
        Plan plan = caller.plan;
        log_.begin(9);
        std::thread([&] {
            for (int replay = 0; replay < 3; ++replay) Caller<kVersion>::run(comm, plan);
            comm.finalize();
            Caller<kVersion>::run(comm, plan);
        }).join();
        comm.finalize();
        log_.end(9);
        print(log_.take(7));
        std::printf("replayed calls=%zu\n", log_.take(9).size());
        print_next();
    }

    // NCCL unloads the plugin with the last communicator and loads it again for the next.
    void reload() {
        auto comm = communicator(0xabc);
        Caller<kVersion> caller;
        log_.begin(7);
        caller.collective(comm, "AllReduce", 10, "ncclFloat32", 0, stream(7), true);
        comm.finalize();
        library_.reset();
        library_ = std::make_unique<Library>(path_);
        comm = communicator(0xdef);
        caller.collective(comm, "AllReduce", 20, "ncclFloat32", 0, stream(7), true);
        log_.end(7);
        print(log_.take(7));
        std::uint64_t live = 0;
        const auto counts = library_->template symbol<std::uint64_t(std::uint64_t*)>(
            "graphguard_nccl_plugin_communicators");
        std::printf("communicators told=%" PRIu64, counts(&live));
        std::printf(" live=%" PRIu64 "\n", live);
    }

    void bounds() {
        const auto comm = communicator(0xabc);
        Caller<kVersion> caller;
        log_.begin(7);
        for (int n = 0; n < 65'536 + 5; ++n) {
            caller.collective(comm, "AllReduce", 1, "ncclInt8", 0, stream(7), true);
        }
        std::printf("begun again=%d", log_.begin(7));
        log_.end(7);
        std::printf(" ended again=%d\n", log_.end(7));
        std::printf("kept calls=%zu\n", log_.take(7).size());
        many_recordings();
    }

    void dropped() {
        const auto comm = communicator(0xabc);
        Caller<kVersion> caller;
        log_.begin(7);
        for (int n = 0; n < 65'536 + 5; ++n) {
            caller.collective(comm, "AllReduce", 1, "ncclInt8", 0, stream(7), true);
        }
        log_.end(7);
        CallRecord first;
        std::uint64_t lost = 0;
        log_.take_into(7, &first, 1, &lost);
        std::printf("dropped calls=%" PRIu64 "\n", lost);
    }

    // Words that this plugin does not know, and an event that nobody asked for.
    void unknown() {
        const auto comm = communicator(0xabc);
        Caller<kVersion> caller;
        log_.begin(7);
        caller.collective(comm, "AllReduceOfTheFutureThatHasALongName", 1, "ncclFloat4", 0,
                          stream(7), true);
        caller.collective(comm, "Invalid", 1, "Unknown", 0, stream(7), true);
        caller.collective(comm, nullptr, 1, nullptr, 0, stream(7), true);
        typename Interface<kVersion>::Event event{};
        event.type = 128;
        void* handle = &handle;
        comm.table->startEvent(comm.context, &handle, &event);
        comm.table->startEvent(nullptr, &handle, &event);
        if (handle != nullptr) fail("a handle was left as it was");
        comm.table->stopEvent(nullptr);
        log_.end(7);
        print(log_.take(7));
    }

    void run(const std::string& scenario) {
        const std::map<std::string, void (Host::*)()> scenarios = {
            {"sequence", &Host::sequence},   {"groups", &Host::groups},
            {"by_thread", &Host::by_thread}, {"threads", &Host::threads},
            {"replays", &Host::replays},     {"reload", &Host::reload},
            {"bounds", &Host::bounds},       {"dropped", &Host::dropped},
            {"unknown", &Host::unknown}};
        const auto found = scenarios.find(scenario);
        if (found == scenarios.end()) fail("there is no scenario " + scenario);
        (this->*found->second)();
        std::printf("ok\n");
    }

  private:
    static void every_call(Caller<kVersion>& caller, const Communicator<kVersion>& comm) {
        caller.collective(comm, "AllReduce", 10, "ncclBfloat16", 0, stream(7), true, 42);
        caller.collective(comm, "AllGather", 20, "ncclFloat16", 0, stream(7), true);
        caller.collective(comm, "ReduceScatter", 30, "ncclFloat32", 0, stream(7), true);
        caller.collective(comm, "Broadcast", 40, "ncclInt64", 2, stream(7), true);
        caller.collective(comm, "Reduce", 50, "ncclFloat8e4m3", 5, stream(7), true);
        caller.point_to_point(comm, "Send", 60, "ncclFloat32", 4, stream(7), true);
        caller.point_to_point(comm, "Recv", 70, "ncclFloat32", 1, stream(7), true);
    }

    std::uint64_t capture_on_a_thread(std::uint64_t id, std::uint64_t calls) const {
        const auto comm = communicator(id);
        Caller<kVersion> caller;
        log_.begin(id);
        for (std::uint64_t n = 0; n < calls; ++n) {
            caller.collective(comm, "AllReduce", n, "ncclFloat32", 0, stream(id), true);
        }
        log_.end(id);
        const std::vector<CallRecord> taken = log_.take(id);
        for (std::uint64_t n = 0; n < taken.size(); ++n) {
            if (taken[n].communicator_hash != id || taken[n].count != n) fail("not in order");
        }
        comm.finalize();
        return taken.size();
    }

    // Those that nobody takes are forgotten, the oldest first; too many open ones are refused.
    void many_recordings() {
        int begun = 0;
        while (begun < 1000 && log_.begin(static_cast<std::uint64_t>(begun) + 100) == 0) ++begun;
        for (int n = 0; n < begun; ++n) log_.end(static_cast<std::uint64_t>(n) + 100);
        std::printf("recordings open=%d\n", begun);
    }

    void print_next() const {
        const char* const path = std::getenv("GRAPHGUARD_NEXT_PROFILER_PLUGIN");
        if (path == nullptr) return;
        Library(path).symbol<void()>("print_events")();
    }

    const char* path_;
    std::unique_ptr<Library> library_;
    Log log_;
};

}  // namespace
}  // namespace graphguard::stress

int main(int count, char** arguments) {
    using namespace graphguard::stress;
    if (count != 4) fail("usage: graphguard_nccl_host PLUGIN VERSION SCENARIO");
    const std::string version = arguments[2];
    if (version == "4") Host<4>(arguments[1]).run(arguments[3]);
    if (version == "5") Host<5>(arguments[1]).run(arguments[3]);
    if (version == "6") Host<6>(arguments[1]).run(arguments[3]);
    if (version == "7") Host<7>(arguments[1]).run(arguments[3]);
    return 0;
}
