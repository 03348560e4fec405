// What the interposer keeps of each thread: whether it is inside NCCL, and its open group.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "nccl/call_record.h"
#include "nccl/known_communicators.h"

namespace graphguard::nccl {

// A communicator that NCCL writes to its place only when the group ends.
struct PendingCommunicator {
    Communicator* place;
    Membership membership;
};

class InterposedThread {
  public:
    static InterposedThread& current() noexcept;

    // While a call is passed on: the real library calls some of its own exported functions, as
    // ncclBcast calls ncclBroadcast, and those calls come here, too.
    [[nodiscard]] bool inside() const noexcept { return inside_ != 0; }

    void group_started() noexcept;

    // `launched`: whether NCCL has taken the calls of the group. They are recorded only then.
    void group_ended(bool launched) noexcept;

    // Records a call, or keeps it until the group ends.
    void call(CallRecord record) noexcept;

    // Notes a new communicator, now or when the group has ended.
    void communicator(Communicator* place, const Membership& membership) noexcept;

  private:
    friend class Passage;

    std::size_t inside_ = 0;
    std::size_t depth_ = 0;
    std::uint64_t group_ = 0;
    std::vector<CallRecord> calls_;
    std::vector<PendingCommunicator> communicators_;
};

// A call on its way into the real library.
class Passage {
  public:
    Passage() noexcept : thread_(InterposedThread::current()), outermost_(!thread_.inside()) {
        ++thread_.inside_;
    }
    ~Passage() { --thread_.inside_; }
    Passage(const Passage&) = delete;
    Passage& operator=(const Passage&) = delete;

    // Whether the program called, and not NCCL itself.
    [[nodiscard]] bool outermost() const noexcept { return outermost_; }
    [[nodiscard]] InterposedThread& thread() const noexcept { return thread_; }

  private:
    InterposedThread& thread_;
    bool outermost_;
};

}  // namespace graphguard::nccl
