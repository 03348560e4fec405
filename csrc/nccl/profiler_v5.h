// Version 5 of NCCL's profiler interface, NCCL 2.28: what is read or passed on of it. The fields
// have NCCL's own names and order; a test compares them with the debug information of its wheels.
#pragma once

#include <cstddef>
#include <cstdint>

#include "nccl/profiler_types.h"

namespace graphguard::nccl {

struct GroupApiV5 {
    bool graphCaptured;
    int groupDepth;
};

struct CollectiveApiV5 {
    const char* func;
    std::size_t count;
    const char* datatype;
    int root;
    void* stream;
    bool graphCaptured;
};

struct PointToPointApiV5 {
    const char* func;
    std::size_t count;
    const char* datatype;
    void* stream;
    bool graphCaptured;
};

struct CollectiveV5 {
    std::uint64_t seqNumber;
    const char* func;
    const void* sendBuff;
    void* recvBuff;
    std::size_t count;
    int root;
    const char* datatype;
    std::uint8_t nChannels;
    std::uint8_t nWarps;
    const char* algo;
    const char* proto;
    void* parentGroup;
};

struct PointToPointV5 {
    const char* func;
    void* buff;
    const char* datatype;
    std::size_t count;
    int peer;
    std::uint8_t nChannels;
    void* parentGroup;
};

struct EventDescriptorV5 {
    std::uint64_t type;
    void* parentObj;
    int rank;
    union {
        GroupApiV5 groupApi;
        CollectiveApiV5 collApi;
        PointToPointApiV5 p2pApi;
        CollectiveV5 coll;
        PointToPointV5 p2p;
    };
};
static_assert(sizeof(EventDescriptorV5) == 112 && offsetof(EventDescriptorV5, coll) == 24);

template <typename Descriptor>
struct ProfilerSince5 {
    const char* name;
    Result (*init)(void** context, std::uint64_t commId, int* eActivationMask, const char* commName,
                   int nNodes, int nranks, int rank, Logger logfn);
    Result (*startEvent)(void* context, void** eHandle, Descriptor* eDescr);
    Result (*stopEvent)(void* eHandle);
    Result (*recordEventState)(void* eHandle, int eState, void* eStateArgs);
    Result (*finalize)(void* context);
};

using ProfilerV5 = ProfilerSince5<EventDescriptorV5>;

}  // namespace graphguard::nccl
