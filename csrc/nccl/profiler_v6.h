// Version 6 of NCCL's profiler interface, NCCL 2.29 and 2.30. Beside what version 5 has it tells of
// collectives by the copy engine, which are not asked for here: their API event comes first.
#pragma once

#include "nccl/profiler_v5.h"

namespace graphguard::nccl {

struct EventDescriptorV6 {
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
static_assert(sizeof(EventDescriptorV6) == 112 && offsetof(EventDescriptorV6, coll) == 24);

using ProfilerV6 = ProfilerSince5<EventDescriptorV6>;

}  // namespace graphguard::nccl
