// The functions of NCCL that start a communication, as the interposer exports them.
#include <cstddef>
#include <cstdint>

#include "cuda/driver.h"
#include "nccl/call_log.h"
#include "nccl/call_words.h"
#include "nccl/interposed_thread.h"
#include "nccl/known_communicators.h"
#include "nccl/nccl_types.h"
#include "nccl/slots.h"

namespace graphguard::nccl {

namespace {

constexpr int kNone = -1;

struct Call {
    const char* operation;
    Communicator communicator;
    Stream stream;
    const void* send_buffer = nullptr;
    const void* recv_buffer = nullptr;
    std::size_t count = 0;
    int dtype = kNone;
    int reduction = kNone;
    int root = kNone;
    int peer = kNone;
    const CollectiveConfig* config = nullptr;
};

std::uint64_t number_of(const void* pointer) noexcept {
    return static_cast<std::uint64_t>(reinterpret_cast<std::uintptr_t>(pointer));
}

// For a communicator that was made before the interposer could see it, or in a way that tells
// nothing of it.
Membership asked_of_nccl(Communicator communicator) noexcept {
    using Ask = Result(const void* communicator, int* answer);
    Membership membership;
    int rank = -1;
    int num_ranks = 0;
    if (graphguard_slot_ncclCommCount.as<Ask>()(communicator, &num_ranks) == kSuccess &&
        graphguard_slot_ncclCommUserRank.as<Ask>()(communicator, &rank) == kSuccess) {
        membership.rank = rank;
        membership.num_ranks = num_ranks;
    }
    return membership;
}

Membership membership_of(Communicator communicator) noexcept {
    Membership membership = known_communicators().find(communicator).value_or(Membership{});
    if (membership.num_ranks == 0 && communicator != nullptr) {
        const std::uint64_t hash = membership.hash;
        membership = asked_of_nccl(communicator);
        membership.hash = hash;
    }
    return membership;
}

std::uint64_t tag_of(const CollectiveConfig* config) noexcept {
    return config != nullptr && config->size >= sizeof(CollectiveConfig) ? config->user_profiler_tag
                                                                         : 0;
}

void set_capture(CallRecord& record, Stream stream) noexcept {
    const auto capture = cuda::capture_of(stream);
    if (!capture.has_value()) return;
    record.capture_id = capture->id;
    record.captured = capture->active() ? Captured::kYes : Captured::kNo;
}

CallRecord record_of(const Call& call) noexcept {
    CallRecord record;
    const Membership membership = membership_of(call.communicator);
    record.communicator = number_of(call.communicator);
    record.communicator_hash = membership.hash;
    record.rank = membership.rank;
    record.num_ranks = membership.num_ranks;
    record.count = call.count;
    record.send_buffer = number_of(call.send_buffer);
    record.recv_buffer = number_of(call.recv_buffer);
    record.stream = number_of(call.stream);
    record.user_tag = tag_of(call.config);
    record.root = call.root;
    record.peer = call.peer;
    set_word(record.operation, call.operation);
    if (call.dtype != kNone) set_word(record.dtype, dtype_word(call.dtype));
    if (call.reduction != kNone) set_word(record.reduction, reduction_word(call.reduction));
    record.source = Source::kInterposer;
    set_capture(record, call.stream);
    return record;
}

// Passes a call on, and records it once NCCL has taken it.
template <typename... Arguments>
Result pass(Slot& slot, const Call& call, Arguments... arguments) noexcept {
    auto* const real = slot.as<Result(Arguments...)>();
    if (!call_log().recording()) return real(arguments...);
    const Passage passage;
    const Result result = real(arguments...);
    if (passage.outermost() && (result == kSuccess || result == kInProgress)) {
        passage.thread().call(record_of(call));
    }
    return result;
}

int only_peer(int num_descriptors, const WaitSignalDescriptor* descriptors) noexcept {
    if (num_descriptors <= 0 || descriptors == nullptr) return kNone;
    for (int index = 1; index < num_descriptors; ++index) {
        if (descriptors[index].peer != descriptors[0].peer) return kNone;
    }
    return descriptors[0].peer;
}

}  // namespace

}  // namespace graphguard::nccl

using graphguard::nccl::Call;
using graphguard::nccl::CollectiveConfig;
using graphguard::nccl::Communicator;
using graphguard::nccl::only_peer;
using graphguard::nccl::pass;
using graphguard::nccl::Result;
using graphguard::nccl::Stream;
using graphguard::nccl::WaitSignalDescriptor;
using graphguard::nccl::Window;

#define GRAPHGUARD_OPEN(...) __VA_ARGS__
#define GRAPHGUARD_EXPORTED extern "C" __attribute__((visibility("default"))) Result

// Both of a pair of names, each passed on under its own.
#define GRAPHGUARD_PAIR(name, parameters, call, arguments)                              \
    GRAPHGUARD_EXPORTED nccl##name parameters noexcept {                                \
        return pass(graphguard_slot_nccl##name, Call call, GRAPHGUARD_OPEN arguments);  \
    }                                                                                   \
    GRAPHGUARD_EXPORTED pnccl##name parameters noexcept {                               \
        return pass(graphguard_slot_pnccl##name, Call call, GRAPHGUARD_OPEN arguments); \
    }

// A collective, and the same with a configuration behind its arguments (NCCL 2.31).
#define GRAPHGUARD_COLLECTIVE(name, parameters, call, arguments)                                \
    GRAPHGUARD_PAIR(name, (GRAPHGUARD_OPEN parameters), ({GRAPHGUARD_OPEN call}),               \
                    (GRAPHGUARD_OPEN arguments))                                                \
    GRAPHGUARD_PAIR(name##Config, (GRAPHGUARD_OPEN parameters, const CollectiveConfig* config), \
                    ({GRAPHGUARD_OPEN call, .config = config}),                                 \
                    (GRAPHGUARD_OPEN arguments, config))

#define GRAPHGUARD_ON(operation_word) \
    .operation = (operation_word), .communicator = communicator, .stream = stream

GRAPHGUARD_COLLECTIVE(AllReduce,
                      (const void* send, void* recv, std::size_t count, int dtype, int reduction,
                       Communicator communicator, Stream stream),
                      (GRAPHGUARD_ON("all_reduce"), .send_buffer = send, .recv_buffer = recv,
                       .count = count, .dtype = dtype, .reduction = reduction),
                      (send, recv, count, dtype, reduction, communicator, stream))

GRAPHGUARD_COLLECTIVE(Broadcast,
                      (const void* send, void* recv, std::size_t count, int dtype, int root,
                       Communicator communicator, Stream stream),
                      (GRAPHGUARD_ON("broadcast"), .send_buffer = send, .recv_buffer = recv,
                       .count = count, .dtype = dtype, .root = root),
                      (send, recv, count, dtype, root, communicator, stream))

GRAPHGUARD_COLLECTIVE(Reduce,
                      (const void* send, void* recv, std::size_t count, int dtype, int reduction,
                       int root, Communicator communicator, Stream stream),
                      (GRAPHGUARD_ON("reduce"), .send_buffer = send, .recv_buffer = recv,
                       .count = count, .dtype = dtype, .reduction = reduction, .root = root),
                      (send, recv, count, dtype, reduction, root, communicator, stream))

GRAPHGUARD_COLLECTIVE(AllGather,
                      (const void* send, void* recv, std::size_t count, int dtype,
                       Communicator communicator, Stream stream),
                      (GRAPHGUARD_ON("all_gather"), .send_buffer = send, .recv_buffer = recv,
                       .count = count, .dtype = dtype),
                      (send, recv, count, dtype, communicator, stream))

GRAPHGUARD_COLLECTIVE(ReduceScatter,
                      (const void* send, void* recv, std::size_t count, int dtype, int reduction,
                       Communicator communicator, Stream stream),
                      (GRAPHGUARD_ON("reduce_scatter"), .send_buffer = send, .recv_buffer = recv,
                       .count = count, .dtype = dtype, .reduction = reduction),
                      (send, recv, count, dtype, reduction, communicator, stream))

GRAPHGUARD_COLLECTIVE(AlltoAll,
                      (const void* send, void* recv, std::size_t count, int dtype,
                       Communicator communicator, Stream stream),
                      (GRAPHGUARD_ON("all_to_all"), .send_buffer = send, .recv_buffer = recv,
                       .count = count, .dtype = dtype),
                      (send, recv, count, dtype, communicator, stream))

GRAPHGUARD_COLLECTIVE(Gather,
                      (const void* send, void* recv, std::size_t count, int dtype, int root,
                       Communicator communicator, Stream stream),
                      (GRAPHGUARD_ON("gather"), .send_buffer = send, .recv_buffer = recv,
                       .count = count, .dtype = dtype, .root = root),
                      (send, recv, count, dtype, root, communicator, stream))

GRAPHGUARD_COLLECTIVE(Scatter,
                      (const void* send, void* recv, std::size_t count, int dtype, int root,
                       Communicator communicator, Stream stream),
                      (GRAPHGUARD_ON("scatter"), .send_buffer = send, .recv_buffer = recv,
                       .count = count, .dtype = dtype, .root = root),
                      (send, recv, count, dtype, root, communicator, stream))

GRAPHGUARD_PAIR(Bcast,
                (void* buffer, std::size_t count, int dtype, int root, Communicator communicator,
                 Stream stream),
                ({GRAPHGUARD_ON("broadcast"), .send_buffer = buffer, .recv_buffer = buffer,
                  .count = count, .dtype = dtype, .root = root}),
                (buffer, count, dtype, root, communicator, stream))

GRAPHGUARD_PAIR(Send,
                (const void* send, std::size_t count, int dtype, int peer,
                 Communicator communicator, Stream stream),
                ({GRAPHGUARD_ON("send"), .send_buffer = send, .count = count, .dtype = dtype,
                  .peer = peer}),
                (send, count, dtype, peer, communicator, stream))

GRAPHGUARD_PAIR(
    Recv,
    (void* recv, std::size_t count, int dtype, int peer, Communicator communicator, Stream stream),
    ({GRAPHGUARD_ON("recv"), .recv_buffer = recv, .count = count, .dtype = dtype, .peer = peer}),
    (recv, count, dtype, peer, communicator, stream))

GRAPHGUARD_PAIR(PutSignal,
                (const void* send, std::size_t count, int dtype, int peer, Window window,
                 std::size_t offset, int signal, int context, unsigned int flags,
                 Communicator communicator, Stream stream),
                ({GRAPHGUARD_ON("put_signal"), .send_buffer = send, .count = count, .dtype = dtype,
                  .peer = peer}),
                (send, count, dtype, peer, window, offset, signal, context, flags, communicator,
                 stream))

GRAPHGUARD_PAIR(Signal,
                (int peer, int signal, int context, unsigned int flags, Communicator communicator,
                 Stream stream),
                ({GRAPHGUARD_ON("signal"), .peer = peer}),
                (peer, signal, context, flags, communicator, stream))

// Each descriptor waits for one rank; where all are of the same one, it is the peer.
GRAPHGUARD_PAIR(WaitSignal,
                (int num_descriptors, WaitSignalDescriptor* descriptors, Communicator communicator,
                 Stream stream),
                ({GRAPHGUARD_ON("wait_signal"), .peer = only_peer(num_descriptors, descriptors)}),
                (num_descriptors, descriptors, communicator, stream))
