#include "nccl/interposed_thread.h"

#include <atomic>
#include <new>

#include "nccl/call_log.h"

namespace graphguard::nccl {

namespace {

std::atomic<std::uint64_t> last_group{0};

}  // namespace

InterposedThread& InterposedThread::current() noexcept {
    thread_local InterposedThread thread;
    return thread;
}

void InterposedThread::group_started() noexcept {
    if (depth_++ == 0) group_ = last_group.fetch_add(1, std::memory_order_relaxed) + 1;
}

void InterposedThread::group_ended(bool launched) noexcept {
    if (depth_ == 0 || --depth_ != 0) return;
    if (launched) {
        for (const CallRecord& record : calls_) call_log().append(record);
        for (const PendingCommunicator& pending : communicators_) {
            if (*pending.place != nullptr) {
                nccl::known_communicators().know(*pending.place, pending.membership);
            }
        }
    }
    group_ = 0;
    calls_.clear();
    communicators_.clear();
}

void InterposedThread::call(CallRecord record) noexcept {
    record.group = group_;
    // Beyond the log's own bound, and where no memory is left, the log counts what it drops.
    if (depth_ != 0 && calls_.size() < kMaxCallsOfARecording) {
        try {
            calls_.push_back(record);
            return;
        } catch (const std::bad_alloc&) {
            call_log().append(record);
            return;
        }
    }
    call_log().append(record);
}

void InterposedThread::communicator(Communicator* place, const Membership& membership) noexcept {
    if (place == nullptr) return;
    if (*place != nullptr) {
        nccl::known_communicators().know(*place, membership);
    } else if (depth_ != 0) {
        try {
            communicators_.push_back({place, membership});
        } catch (const std::bad_alloc&) {
            return;  // it stays unknown
        }
    }
}

}  // namespace graphguard::nccl
