// Version 7 of NCCL's profiler interface, NCCL 2.31 and newer: the caller's tag is told.
#pragma once

#include "nccl/profiler_v5.h"

namespace graphguard::nccl {

struct CollectiveApiV7 {
    const char* func;
    std::size_t count;
    const char* datatype;
    int root;
    void* stream;
    bool graphCaptured;
    std::uint64_t userTag;
};

struct PointToPointApiV7 {
    const char* func;
    std::size_t count;
    const char* datatype;
    void* stream;
    bool graphCaptured;
    std::uint64_t userTag;
};

struct CollectiveV7 {
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
    const char* kernelVariant;
    bool isSymColl;
    std::uint64_t userTag;
};

struct PointToPointV7 {
    const char* func;
    void* buff;
    const char* datatype;
    std::size_t count;
    int peer;
    std::uint8_t nChannels;
    void* parentGroup;
    std::uint64_t userTag;
};

struct EventDescriptorV7 {
    std::uint64_t type;
    void* parentObj;
    int rank;
    union {
        GroupApiV5 groupApi;
        CollectiveApiV7 collApi;
        PointToPointApiV7 p2pApi;
        CollectiveV7 coll;
        PointToPointV7 p2p;
    };
};
static_assert(sizeof(EventDescriptorV7) == 136 && offsetof(EventDescriptorV7, coll) == 24);

using ProfilerV7 = ProfilerSince5<EventDescriptorV7>;

}  // namespace graphguard::nccl
