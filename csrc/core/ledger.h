// The ledger: what the ranks of one node are about to launch, step by step, in shared memory.
//
// One ledger for one group of ranks. All launches under it form one sequence, as the calls of a
// NCCL communicator do: launch number 1, 2, 3 … is the *step*. models/ holds the protocol as a
// checked model; docs/agreement.md says in words what each part is for.
//
// No lock and no wait but in vote(), whose wait is bounded. No allocation and no system call on the
// path of a replay. One object belongs to one thread.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <stdexcept>
#include <vector>

#include "core/ledger_layout.h"
#include "core/verdict.h"

namespace graphguard {

class LedgerError : public std::runtime_error {
  public:
    using std::runtime_error::runtime_error;
};

enum class LaunchKind : std::uint8_t { kReplay, kEager, kCapture, kAbort };
inline constexpr std::size_t kLaunchKindCount = 4;

// What a rank is about to do. A replay is known by the shared digest of its graph, everything else
// by its family and its batch.
struct Launch {
    std::uint64_t digest_high = 0;
    std::uint64_t digest_low = 0;
    std::uint64_t key = 0;  // digest of the graph key: role, mode, variant
    Batch batch;
    LaunchKind kind = LaunchKind::kReplay;
    Reason reason = Reason::kExact;

    // Whether two ranks that launch these launch the same collectives.
    [[nodiscard]] bool same_as(const Launch& other) const {
        return kind == other.kind && key == other.key && digest_high == other.digest_high &&
               digest_low == other.digest_low && (kind == LaunchKind::kReplay || same_batch(other));
    }
    [[nodiscard]] bool same_batch(const Launch& other) const {
        return batch.same_shape(other.batch) && batch.phase == other.batch.phase;
    }
};

enum class Outcome : std::uint8_t { kPending, kLaunched, kAdopted, kRefused, kTimedOut };

// kDamaged is never told: it is what a word says that no rank can have told.
enum class Trouble : std::uint8_t { kNone, kDiffers, kRefused, kTimedOut, kDamaged };

struct TroubleSeen {
    Trouble kind = Trouble::kNone;
    std::uint32_t rank = 0;  // who saw it
    std::uint64_t step = 0;
};

// What a rank sees of the others when it has published. kDiffers and the rest are never combined.
enum class Seen : std::uint8_t {
    kSame,        // nothing else than my own launch
    kDiffers,     // observe: a peer launches something else; enforce: another decision holds
    kLapped,      // a peer is so far ahead that its launch is no longer there
    kDamaged,     // a word that no rank can have written
    kAhead,       // not published: a peer is so far behind that its step would be overwritten
    kImpossible,  // vote: the proposals differ and no way is open to all
    kTimedOut,    // vote: some rank has not come
};

struct Decision {
    Seen seen = Seen::kSame;
    std::uint32_t rank = 0;  // whose launch it is
    Launch launch;
};

enum class NoticeKind : std::uint8_t { kNone, kQuarantine, kCaptureAgain, kNoMoreCaptures };

struct NoticeRead {
    NoticeKind kind = NoticeKind::kNone;
    std::uint32_t rank = 0;
    std::uint64_t from_step = 0;
    std::uint64_t subject_high = 0;
    std::uint64_t subject_low = 0;
    std::uint64_t key = 0;
    std::uint64_t place = 0;  // tells notices for one step apart, alike on every rank
};

struct StepDigest {
    std::uint64_t step = 0;
    std::uint64_t digest = 0;
    std::uint64_t rolling = 0;
};

class Ledger {
  public:
    // Fills a zeroed segment. Throws LedgerError for a size or number of ranks that cannot be
    // meant.
    static void initialise(std::span<std::byte> memory, std::uint32_t num_ranks,
                           std::uint64_t token);

    // Joins as `rank`. Throws LedgerError if the memory is no ledger of that token and size, or the
    // place of the rank is taken.
    Ledger(std::span<std::byte> memory, std::uint32_t rank, std::uint64_t token, std::uint64_t pid);

    // Publishes what this rank is about to do in its next step. `bounded` refuses to run so far
    // ahead that a slower rank could no longer read it; then the answer is kAhead and nothing is
    // published.
    Seen publish(const Launch& launch, bool bounded);

    // Observe: compares with every peer that has published this step. The rank in the answer is the
    // first that differs.
    [[nodiscard]] Decision compare();

    // Enforce: the first rank to reach the step decides. kSame: launch what was published.
    // kDiffers: the launch in the answer holds; settle() says what became of it.
    [[nodiscard]] Decision decide();

    // Enforce, by vote: waits for every rank, but no longer than `bound`, nor when `give_up` says
    // that one of them will not come.
    [[nodiscard]] Decision vote(std::chrono::nanoseconds bound,
                                const std::atomic<bool>* give_up = nullptr);

    // Says what this rank does in the step that it has published.
    void settle(Outcome outcome, const Launch& launched);

    // Tells every rank; only the first word of it is kept.
    void tell(Trouble kind);
    [[nodiscard]] TroubleSeen trouble() const;

    // Announces for a step that no rank has passed. Returns that step, or nothing if every try was
    // overtaken or there is no room for more.
    std::optional<std::uint64_t> announce(NoticeKind kind, std::uint64_t subject_high,
                                          std::uint64_t subject_low, std::uint64_t key,
                                          std::uint64_t margin);

    // Reads notices after a publish; true if some hold from the next step on. take_due() hands them
    // out.
    bool read_notices();
    [[nodiscard]] std::optional<NoticeRead> take_due();

    [[nodiscard]] std::uint64_t step() const { return step_; }
    [[nodiscard]] std::uint32_t rank() const { return rank_; }
    [[nodiscard]] std::uint32_t num_ranks() const { return num_ranks_; }
    [[nodiscard]] std::uint64_t passed(std::uint32_t rank) const;
    // The process of a rank, 0 if it has not joined; and whether it said that it ends.
    [[nodiscard]] std::uint64_t pid(std::uint32_t rank) const;
    [[nodiscard]] bool has_left(std::uint32_t rank) const;
    void leave();
    [[nodiscard]] Outcome outcome(std::uint32_t rank, std::uint64_t step) const;
    // What a rank published for a step, if it is there.
    [[nodiscard]] std::optional<Launch> published(std::uint32_t rank, std::uint64_t step) const;
    // The last settled steps of this rank, oldest first. May be called from another thread.
    [[nodiscard]] std::vector<StepDigest> window(std::size_t steps) const;

  private:
    enum class Read : std::uint8_t { kThere, kNotYet, kLapped, kDamaged };

    struct Recent {
        ledger::Word step{0};
        ledger::Word digest{0};
        ledger::Word rolling{0};
    };
    static constexpr std::size_t kRecent = 512;

    [[nodiscard]] ledger::Slot& slot(std::uint32_t rank, std::uint64_t step) const {
        return slots_[std::size_t{rank} * ledger::kSlots + step % ledger::kSlots];
    }
    Read read(std::uint32_t rank, std::uint64_t step, Launch& launch) const;
    [[nodiscard]] std::uint64_t slowest();
    [[nodiscard]] bool all_passed(std::uint64_t step) const;
    std::uint64_t claim(std::uint64_t wanted);
    [[nodiscard]] Decision follow(std::uint64_t cell);
    [[nodiscard]] Decision resolve_vote();
    std::uint64_t settled_notice(ledger::Notice& notice, std::uint64_t horizon);
    bool announce_once(ledger::Notice& notice, std::uint64_t from_step);

    ledger::Shared* shared_;
    ledger::RankLines* ranks_;
    ledger::Slot* slots_;
    std::uint32_t rank_;
    std::uint32_t num_ranks_;
    std::uint64_t step_ = 0;
    Launch mine_;
    std::uint64_t slowest_seen_ = 0;
    std::uint64_t rolling_ = 0;
    std::uint64_t first_open_notice_ = 0;
    std::vector<NoticeRead> waiting_;
    std::array<bool, ledger::kNotices> final_{};
    std::uint64_t next_due_ = UINT64_MAX;
    std::vector<std::uint64_t> seen_passed_;
    ledger::Word settled_{0};
    std::array<Recent, kRecent> recent_;
};

}  // namespace graphguard
