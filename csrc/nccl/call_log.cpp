#include "nccl/call_log.h"

#include <pthread.h>

#include <algorithm>
#include <new>
#include <utility>

namespace graphguard::nccl {

namespace {

std::uint64_t this_thread() noexcept {
    static_assert(sizeof(pthread_t) == sizeof(std::uint64_t));
    return static_cast<std::uint64_t>(pthread_self());
}

}  // namespace

CallLog::Recording* CallLog::find(std::uint64_t capture_id, bool ended) {
    const std::uint64_t thread = this_thread();
    const auto found = std::ranges::find_if(recordings_, [=](const Recording& one) {
        return one.ended == ended && one.capture_id == capture_id &&
               (capture_id != 0 || one.thread == thread);
    });
    return found == recordings_.end() ? nullptr : &*found;
}

void CallLog::erase(const Recording* recording) {
    recordings_.erase(recordings_.begin() + (recording - recordings_.data()));
}

void CallLog::forget_the_oldest_ended() {
    const auto is_ended = [](const Recording& one) { return one.ended; };
    if (static_cast<std::size_t>(std::ranges::count_if(recordings_, is_ended)) <
        kMaxEndedRecordings) {
        return;
    }
    recordings_.erase(std::ranges::find_if(recordings_, is_ended));
}

CallLog::Status CallLog::begin(std::uint64_t capture_id) noexcept try {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (find(capture_id, false) != nullptr) return Status::kAlready;
    if (open_.load(std::memory_order_relaxed) >= kMaxOpenRecordings) return Status::kNoMemory;
    // Left by somebody who never took it: its calls are not those of the capture that begins now.
    if (const Recording* left = find(capture_id, true); left != nullptr) erase(left);
    recordings_.push_back({capture_id, this_thread(), false, 0, 0, {}});
    open_.fetch_add(1, std::memory_order_release);
    return Status::kDone;
} catch (const std::bad_alloc&) {
    return Status::kNoMemory;
}

CallLog::Status CallLog::end(std::uint64_t capture_id) noexcept {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (find(capture_id, false) == nullptr) return Status::kUnknown;
    forget_the_oldest_ended();
    find(capture_id, false)->ended = true;
    open_.fetch_sub(1, std::memory_order_release);
    return Status::kDone;
}

bool CallLog::belongs(const Recording& recording, const CallRecord& call) const {
    if (recording.ended) return false;
    // A recording that knows its capture does not take what runs at once beside it.
    if (recording.capture_id != 0 && call.captured == Captured::kNo) return false;
    if (call.capture_id != 0 && recording.capture_id != 0) {
        return call.capture_id == recording.capture_id;
    }
    return recording.thread == call.thread;
}

bool CallLog::append(CallRecord call) noexcept {
    if (!recording()) return false;
    call.thread = this_thread();
    const std::lock_guard<std::mutex> lock(mutex_);
    const std::uint64_t order = order_ + 1;
    bool kept = false;
    for (Recording& recording : recordings_) {
        if (!belongs(recording, call)) continue;
        kept = true;
        call.order = order;
        try {
            if (recording.calls.size() >= kMaxCallsOfARecording) throw std::bad_alloc();
            recording.calls.push_back(call);
        } catch (const std::bad_alloc&) {
            ++recording.dropped;
        }
    }
    if (kept) order_ = order;
    return kept;
}

std::size_t CallLog::take(std::uint64_t capture_id, CallRecord* calls, std::size_t capacity,
                          std::uint64_t* dropped) noexcept {
    const std::lock_guard<std::mutex> lock(mutex_);
    Recording* recording = find(capture_id, true);
    if (recording == nullptr) recording = find(capture_id, false);
    if (dropped != nullptr) *dropped = recording == nullptr ? 0 : recording->dropped;
    if (recording == nullptr) return 0;
    const std::size_t left = recording->calls.size() - recording->taken;
    const std::size_t taken = calls == nullptr ? 0 : std::min(capacity, left);
    std::copy_n(recording->calls.begin() + static_cast<std::ptrdiff_t>(recording->taken), taken,
                calls);
    recording->taken += taken;
    if (recording->ended && taken == left) erase(recording);
    return taken;
}

CallLog& call_log() noexcept {
    // In memory of its own and never freed; `new` could throw.
    alignas(CallLog) static unsigned char memory[sizeof(CallLog)];
    static CallLog* const log = ::new (memory) CallLog;
    return *log;
}

}  // namespace graphguard::nccl
