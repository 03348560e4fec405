// The calls of NCCL that were made while captures are recorded, kept until Python takes them.
//
// A recording is known by the id of its capture (cuStreamGetCaptureInfo), or by its thread where no
// id can be had. A call belongs to the recording of its own capture id. A call whose id nobody
// knows belongs to the recordings of the thread that makes it.
//
// Any thread may call anything here. Nothing throws: NCCL is C, and what cannot be kept is counted.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <vector>

#include "nccl/call_record.h"

namespace graphguard::nccl {

inline constexpr std::size_t kMaxCallsOfARecording = 65'536;
inline constexpr std::size_t kMaxOpenRecordings = 64;
inline constexpr std::size_t kMaxEndedRecordings = 64;  // that nobody has taken yet

class CallLog {
  public:
    enum class Status : std::int32_t {
        kDone = 0,
        kAlready = 1,   // begin: there is one of this id (or thread) already; it goes on
        kUnknown = 2,   // end: there is none
        kNoMemory = 3,  // begin: too many are open, or no memory is left
    };

    // Whether any recording is open: what a caller asks before it fills a record.
    [[nodiscard]] bool recording() const noexcept {
        return open_.load(std::memory_order_acquire) != 0;
    }

    // The id 0 stands for the captures of the calling thread, also in end() and take().
    Status begin(std::uint64_t capture_id) noexcept;
    Status end(std::uint64_t capture_id) noexcept;

    // Fills in order and thread. Returns whether the call belongs to an open recording, even if
    // there was no room left in it.
    bool append(CallRecord call) noexcept;

    // Copies the oldest calls and forgets them; returns how many. `dropped`, which may be null, is
    // how many calls of this recording were not kept. An ended recording that is empty is
    // forgotten.
    std::size_t take(std::uint64_t capture_id, CallRecord* calls, std::size_t capacity,
                     std::uint64_t* dropped) noexcept;

  private:
    struct Recording {
        std::uint64_t capture_id;
        std::uint64_t thread;
        bool ended;
        std::uint64_t dropped;
        std::size_t taken;
        std::vector<CallRecord> calls;
    };

    [[nodiscard]] Recording* find(std::uint64_t capture_id, bool ended);
    [[nodiscard]] bool belongs(const Recording& recording, const CallRecord& call) const;
    void erase(const Recording* recording);
    void forget_the_oldest_ended();

    std::atomic<std::size_t> open_{0};
    std::mutex mutex_;
    std::uint64_t order_ = 0;
    std::vector<Recording> recordings_;
};

// The log of this library. It is never destroyed: NCCL's threads may call while a process exits.
CallLog& call_log() noexcept;

}  // namespace graphguard::nccl
