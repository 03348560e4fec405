#include "nccl/profiler_calls.h"

#include <atomic>
#include <cstring>

#include "cuda/driver.h"
#include "nccl/call_log.h"
#include "nccl/call_words.h"

namespace graphguard::nccl {

namespace {

std::atomic<std::uint64_t> groups_begun{0};

// The outermost group that this thread is in, as far as it was begun while a capture was recorded.
// The events of a group's calls follow its own on the same thread.
thread_local std::uint64_t current_group = 0;

// A call outside of ncclGroupStart is a group of its own, of depth 1.
constexpr int kImplicitDepth = 1;

void begin_group(const GroupApiV5& group) noexcept {
    const bool told = call_log().recording() && group.groupDepth > kImplicitDepth;
    current_group = told ? groups_begun.fetch_add(1, std::memory_order_relaxed) + 1 : 0;
}

CallRecord begin_record(const Communicator& communicator, const char* function, std::size_t count,
                        const char* data_type) noexcept {
    CallRecord call;
    call.source = Source::kPlugin;
    call.communicator = reinterpret_cast<std::uint64_t>(&communicator);
    call.communicator_hash = communicator.hash;
    call.rank = communicator.rank;
    call.num_ranks = communicator.num_ranks;
    call.count = count;
    set_word(call.operation, operation_word(function));
    set_word(call.dtype, dtype_word(data_type));
    return call;
}

// The id of the capture is asked for here, while the stream is captured, and nowhere later.
std::uint64_t capture_id_of(void* stream) noexcept try {
    const auto info = cuda::capture_of(stream);
    return info && info->active() ? info->id : 0;
} catch (...) {
    return 0;
}

template <typename Api>
void record_api_call(const Communicator& communicator, const Api& api, int root,
                     std::uint64_t user_tag) noexcept {
    if (!call_log().recording()) return;
    CallRecord call = begin_record(communicator, api.func, api.count, api.datatype);
    call.root = root;
    call.user_tag = user_tag;
    call.group = current_group;
    call.stream = reinterpret_cast<std::uint64_t>(api.stream);
    call.captured = api.graphCaptured ? Captured::kYes : Captured::kNo;
    if (api.graphCaptured) call.capture_id = capture_id_of(api.stream);
    call_log().append(call);
}

template <typename Api>
std::uint64_t tag_of(const Api& api) noexcept {
    if constexpr (requires { api.userTag; }) {
        return api.userTag;
    } else {
        return 0;
    }
}

// NCCL fills in the root of every collective, with 0 where there is none.
int root_of(const char* function, int root) noexcept {
    const char* const word = operation_word(function);
    const bool rooted = std::strcmp(word, "broadcast") == 0 || std::strcmp(word, "reduce") == 0 ||
                        std::strcmp(word, "gather") == 0 || std::strcmp(word, "scatter") == 0;
    return rooted ? root : -1;
}

template <typename Descriptor>
void note_api_event(const Communicator& communicator, const Descriptor& event) noexcept {
    switch (event.type) {
        case kGroupApi:
            begin_group(event.groupApi);
            break;
        case kCollectiveApi:
            record_api_call(communicator, event.collApi,
                            root_of(event.collApi.func, event.collApi.root), tag_of(event.collApi));
            break;
        case kPointToPointApi:
            record_api_call(communicator, event.p2pApi, -1, tag_of(event.p2pApi));
            break;
        default:
            break;
    }
}

void record_collective(const Communicator& communicator, const CollectiveV4& event) noexcept {
    CallRecord call = begin_record(communicator, event.func, event.count, event.datatype);
    call.root = root_of(event.func, event.root);
    call.send_buffer = reinterpret_cast<std::uint64_t>(event.sendBuff);
    call.recv_buffer = reinterpret_cast<std::uint64_t>(event.recvBuff);
    // NCCL has made bytes of these before it tells (src/enqueue.cc, collTaskAppend).
    if (std::strcmp(call.operation, "all_gather") == 0 ||
        std::strcmp(call.operation, "broadcast") == 0) {
        set_word(call.dtype, "bytes");
    }
    call_log().append(call);
}

void record_point_to_point(const Communicator& communicator, const PointToPointV4& event) noexcept {
    CallRecord call = begin_record(communicator, event.func, event.count, event.datatype);
    call.peer = event.peer;
    const bool sends = std::strcmp(call.operation, "send") == 0;
    (sends ? call.send_buffer : call.recv_buffer) = reinterpret_cast<std::uint64_t>(event.buff);
    call_log().append(call);
}

}  // namespace

void note_event(const Communicator& communicator, const EventDescriptorV4& event) noexcept {
    if (!call_log().recording()) return;
    if (event.type == kCollective) record_collective(communicator, event.coll);
    if (event.type == kPointToPoint) record_point_to_point(communicator, event.p2p);
}

void note_event(const Communicator& communicator, const EventDescriptorV5& event) noexcept {
    note_api_event(communicator, event);
}

void note_event(const Communicator& communicator, const EventDescriptorV6& event) noexcept {
    note_api_event(communicator, event);
}

void note_event(const Communicator& communicator, const EventDescriptorV7& event) noexcept {
    note_api_event(communicator, event);
}

}  // namespace graphguard::nccl
