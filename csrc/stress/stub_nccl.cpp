// A libnccl.so.2 that communicates nothing: what the interposer stands in front of in the tests.
// Its functions have NCCL's signatures where the interposer looks at the arguments, and count how
// often they were reached. Real NCCL needs a GPU for all but a few functions.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <string>

#include "nccl/nccl_types.h"

using graphguard::nccl::CollectiveConfig;
using graphguard::nccl::kInvalidUsage;
using graphguard::nccl::kSuccess;
using graphguard::nccl::Result;
using graphguard::nccl::UniqueId;
using graphguard::nccl::WaitSignalDescriptor;

#define STUB_EXPORT __attribute__((visibility("default")))

namespace {

struct Communicator {
    int rank;
    int num_ranks;
};

struct Split {
    Communicator* made;
    Communicator** place;
};

std::mutex mutex;
std::map<std::string, int> calls;
// What ncclCommSplit makes in a group is there when the group has ended, as in NCCL.
thread_local int group_depth = 0;
thread_local Split waiting{nullptr, nullptr};

Result count(const char* name, Result result = kSuccess) {
    const std::lock_guard<std::mutex> lock(mutex);
    ++calls[name];
    return result;
}

// A count of elements that NCCL would refuse.
constexpr std::size_t kRefused = 0xBAD;

Result count(const char* name, std::size_t elements) {
    return count(name, elements == kRefused ? kInvalidUsage : kSuccess);
}

}  // namespace

// Both of a pair of names.
#define STUB_PAIR(type, name, parameters, arguments)     \
    extern "C" STUB_EXPORT type pnccl##name parameters { \
        return nccl##name arguments;                     \
    }                                                    \
    static_assert(true)

extern "C" {

STUB_EXPORT int stub_calls(const char* name) {
    const std::lock_guard<std::mutex> lock(mutex);
    return calls[name];
}

STUB_EXPORT Result ncclGetVersion(int* version) {
    *version = 23'102;
    return count("ncclGetVersion");
}

STUB_EXPORT Result ncclGetUniqueId(UniqueId* id) {
    std::memset(id->internal, 7, sizeof(id->internal));
    return count("ncclGetUniqueId");
}

STUB_EXPORT const char* ncclGetErrorString(Result result) {
    return result == kSuccess ? "no error" : "some error";
}

STUB_EXPORT Result ncclGroupStart() {
    ++group_depth;
    return count("ncclGroupStart");
}

STUB_EXPORT Result ncclGroupEnd() {
    if (--group_depth == 0 && waiting.place != nullptr) {
        *waiting.place = waiting.made;
        waiting = {nullptr, nullptr};
    }
    return count("ncclGroupEnd");
}

STUB_EXPORT Result ncclGroupSimulateEnd(void*) {
    --group_depth;
    return count("ncclGroupSimulateEnd");
}

STUB_EXPORT Result ncclCommInitRank(Communicator** place, int num_ranks, UniqueId id, int rank) {
    // The id is passed by value: that all of it has come says that the stack is as it was.
    for (const char byte : id.internal) {
        if (byte != id.internal[0]) return count("ncclCommInitRank", kInvalidUsage);
    }
    *place = new Communicator{rank, num_ranks};
    return count("ncclCommInitRank");
}

STUB_EXPORT Result ncclCommInitAll(Communicator** places, int num_ranks, const int*) {
    for (int rank = 0; rank < num_ranks; ++rank) places[rank] = new Communicator{rank, num_ranks};
    return count("ncclCommInitAll");
}

STUB_EXPORT Result ncclCommSplit(Communicator* parent, int, int, Communicator** place, void*) {
    auto* const made = new Communicator{0, (parent->num_ranks + 1) / 2};
    if (group_depth == 0) {
        *place = made;
    } else {
        waiting = {made, place};
    }
    return count("ncclCommSplit");
}

STUB_EXPORT Result ncclCommDestroy(Communicator* communicator) {
    delete communicator;
    return count("ncclCommDestroy");
}

STUB_EXPORT Result ncclCommCount(const Communicator* communicator, int* answer) {
    *answer = communicator->num_ranks;
    return count("ncclCommCount");
}

STUB_EXPORT Result ncclCommUserRank(const Communicator* communicator, int* answer) {
    *answer = communicator->rank;
    return count("ncclCommUserRank");
}

STUB_EXPORT Result ncclAllReduce(const void*, void*, std::size_t elements, int, int, void*, void*) {
    return count("ncclAllReduce", elements);
}

STUB_EXPORT Result ncclAllReduceConfig(const void*, void*, std::size_t elements, int, int, void*,
                                       void*, const CollectiveConfig*) {
    return count("ncclAllReduceConfig", elements);
}

STUB_EXPORT Result ncclReduce(const void*, void*, std::size_t elements, int, int, int, void*,
                              void*) {
    return count("ncclReduce", elements);
}

STUB_EXPORT Result ncclAllGather(const void*, void*, std::size_t elements, int, void*, void*) {
    return count("ncclAllGather", elements);
}

STUB_EXPORT Result ncclReduceScatter(const void*, void*, std::size_t elements, int, int, void*,
                                     void*) {
    return count("ncclReduceScatter", elements);
}

STUB_EXPORT Result ncclBroadcast(const void*, void*, std::size_t elements, int, int, void*, void*) {
    return count("ncclBroadcast", elements);
}

// Through the linkage table, as in NCCL: the loader may send the call to the interposer.
STUB_EXPORT Result ncclBcast(void* buffer, std::size_t elements, int dtype, int root,
                             void* communicator, void* stream) {
    count("ncclBcast");
    return ncclBroadcast(buffer, buffer, elements, dtype, root, communicator, stream);
}

STUB_EXPORT Result ncclAlltoAll(const void*, void*, std::size_t elements, int, void*, void*) {
    return count("ncclAlltoAll", elements);
}

STUB_EXPORT Result ncclSend(const void*, std::size_t elements, int, int, void*, void*) {
    return count("ncclSend", elements);
}

STUB_EXPORT Result ncclRecv(void*, std::size_t elements, int, int, void*, void*) {
    return count("ncclRecv", elements);
}

STUB_EXPORT Result ncclPutSignal(const void*, std::size_t elements, int, int, void*, std::size_t,
                                 int, int, unsigned int, void*, void*) {
    return count("ncclPutSignal", elements);
}

STUB_EXPORT Result ncclSignal(int, int, int, unsigned int, void*, void*) {
    return count("ncclSignal");
}

STUB_EXPORT Result ncclWaitSignal(int, WaitSignalDescriptor*, void*, void*) {
    return count("ncclWaitSignal");
}

// A trampoline knows no arguments. These fill every register for arguments, and the stack.
STUB_EXPORT double ncclCommMemStats(long a, long b, long c, long d, long e, long f, long g,
                                    double h, double i, double j, double k, double l, double m,
                                    double n, double o, double p) {
    count("ncclCommMemStats");
    return static_cast<double>(a + 2 * b + 3 * c + 4 * d + 5 * e + 6 * f + 7 * g) + h + 2 * i +
           3 * j + 4 * k + 5 * l + 6 * m + 7 * n + 8 * o + 9 * p;
}

// As ncclTeam_t: what is returned is in two registers.
struct Team {
    int num_ranks, rank, stride;
};

STUB_EXPORT Team ncclTeamWorld(Communicator* communicator) {
    count("ncclTeamWorld");
    return {communicator->num_ranks, communicator->rank, 1};
}

// A function of an NCCL that is newer than the interposer's table.
STUB_EXPORT Result ncclOfTheFuture() {
    return count("ncclOfTheFuture");
}
}

STUB_PAIR(Result, AllReduce,
          (const void* send, void* recv, std::size_t elements, int dtype, int reduction,
           void* communicator, void* stream),
          (send, recv, elements, dtype, reduction, communicator, stream));
STUB_PAIR(Result, GroupStart, (), ());
STUB_PAIR(Result, GroupEnd, (), ());
