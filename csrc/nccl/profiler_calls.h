// From the events of NCCL's profiler interface to the log of calls.
#pragma once

#include "nccl/profiler_communicators.h"
#include "nccl/profiler_v4.h"
#include "nccl/profiler_v5.h"
#include "nccl/profiler_v6.h"
#include "nccl/profiler_v7.h"

namespace graphguard::nccl {

// What NCCL is asked for. From version 5 on these are the API events: they come once, on the thread
// of the caller, in its order, whether a stream is captured or not, and asking for them adds
// nothing to a captured graph. Version 4 has only the events of what NCCL made of the calls.
inline constexpr int kMaskOfV4 = kCollective | kPointToPoint;
inline constexpr int kMaskSinceV5 = kGroupApi | kCollectiveApi | kPointToPointApi;
static_assert(kMaskSinceV5 == 0x700);

// Puts what an event tells into the log, if a capture is being recorded and the event is a call.
void note_event(const Communicator& communicator, const EventDescriptorV4& event) noexcept;
void note_event(const Communicator& communicator, const EventDescriptorV5& event) noexcept;
void note_event(const Communicator& communicator, const EventDescriptorV6& event) noexcept;
void note_event(const Communicator& communicator, const EventDescriptorV7& event) noexcept;

}  // namespace graphguard::nccl
