// Version 4 of NCCL's profiler interface, NCCL 2.27: what is read or passed on of it. The fields
// have NCCL's own names and order; a test compares them with the debug information of its wheels.
#pragma once

#include <cstddef>
#include <cstdint>

#include "nccl/profiler_types.h"

namespace graphguard::nccl {

struct CollectiveV4 {
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
};

struct PointToPointV4 {
    const char* func;
    void* buff;
    const char* datatype;
    std::size_t count;
    int peer;
    std::uint8_t nChannels;
};

struct EventDescriptorV4 {
    std::uint8_t type;
    void* parentObj;
    int rank;
    union {
        CollectiveV4 coll;
        PointToPointV4 p2p;
    };
};
static_assert(sizeof(EventDescriptorV4) == 104 && offsetof(EventDescriptorV4, coll) == 24);

struct ProfilerV4 {
    const char* name;
    Result (*init)(void** context, int* eActivationMask, const char* commName,
                   std::uint64_t commHash, int nNodes, int nranks, int rank, Logger logfn);
    Result (*startEvent)(void* context, void** eHandle, EventDescriptorV4* eDescr);
    Result (*stopEvent)(void* eHandle);
    Result (*recordEventState)(void* eHandle, int eState, void* eStateArgs);
    Result (*finalize)(void* context);
};

}  // namespace graphguard::nccl
