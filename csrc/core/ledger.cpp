#include "core/ledger.h"

#include <sched.h>

#include <algorithm>
#include <string>
#include <utility>

#include "core/fold.h"

namespace graphguard {

using ledger::Line;
using ledger::Notice;
using ledger::Slot;
using ledger::Word;

namespace {

// A decision cell holds the step and who decided; two values of `who` are no rank.
constexpr std::uint64_t kWhoBits = 16;
constexpr std::uint64_t kWhoMask = (1U << kWhoBits) - 1;
constexpr std::uint64_t kVoted = kWhoMask - 1;
constexpr std::uint64_t kTimedOutVote = kWhoMask;

constexpr std::uint64_t cell_of(std::uint64_t step, std::uint64_t who) {
    return step << kWhoBits | who;
}
constexpr std::uint64_t step_of(std::uint64_t cell) {
    return cell >> kWhoBits;
}
constexpr std::uint64_t who_of(std::uint64_t cell) {
    return cell & kWhoMask;
}

constexpr std::uint64_t trouble_of(std::uint64_t step, Trouble kind, std::uint32_t rank) {
    return step << 16U | static_cast<std::uint64_t>(kind) << 12U | rank;
}

// A notice's word: its state in two bits, and the step from which it holds.
enum class NoticeState : std::uint8_t { kEmpty, kProposed, kConfirmed, kWithdrawn };

constexpr std::uint64_t notice_word(NoticeState state, std::uint64_t from_step) {
    return from_step << 2U | static_cast<std::uint64_t>(state);
}
constexpr NoticeState state_of(std::uint64_t word) {
    return static_cast<NoticeState>(word & 3U);
}

std::uint64_t requests_of(const Launch& launch) {
    return std::uint64_t{launch.batch.num_reqs} << 32U | launch.batch.query_len;
}
std::uint64_t rest_of(const Launch& launch) {
    return std::uint64_t{launch.batch.num_tokens} << 32U |
           static_cast<std::uint64_t>(launch.batch.phase) << 16U |
           static_cast<std::uint64_t>(launch.kind) << 8U |
           static_cast<std::uint64_t>(launch.reason);
}
std::uint64_t checksum_of(std::uint64_t step, const Launch& launch) {
    std::uint64_t sum = fold(step, launch.digest_high);
    sum = fold(sum ^ launch.digest_low, launch.key);
    return fold(sum ^ requests_of(launch), rest_of(launch));
}

// Of a launch in one word: equal where same_as() says so.
std::uint64_t digest_of(const Launch& launch) {
    std::uint64_t sum = fold(launch.digest_high, launch.digest_low);
    sum = fold(sum ^ launch.key, static_cast<std::uint64_t>(launch.kind));
    if (launch.kind == LaunchKind::kReplay) return sum;
    return fold(sum ^ requests_of(launch), std::uint64_t{launch.batch.num_tokens} << 8U |
                                               static_cast<std::uint64_t>(launch.batch.phase));
}

bool fill(Launch& launch, std::uint64_t requests, std::uint64_t rest) {
    const auto phase = static_cast<std::uint8_t>(rest >> 16U);
    const auto kind = static_cast<std::uint8_t>(rest >> 8U);
    const auto reason = static_cast<std::uint8_t>(rest);
    if (phase >= kPhaseCount || kind >= kLaunchKindCount || reason >= kReasonCount) return false;
    launch.batch = {static_cast<std::uint32_t>(requests >> 32U),
                    static_cast<std::uint32_t>(requests), static_cast<std::uint32_t>(rest >> 32U),
                    static_cast<Phase>(phase)};
    launch.kind = static_cast<LaunchKind>(kind);
    launch.reason = static_cast<Reason>(reason);
    return true;
}

ledger::Shared* checked(std::span<std::byte> memory, std::uint32_t rank, std::uint64_t token) {
    if (memory.size() < sizeof(ledger::Shared)) throw LedgerError("the segment is too small");
    auto* shared = reinterpret_cast<ledger::Shared*>(memory.data());
    const ledger::Header& header = shared->header;
    if (header.magic != ledger::kMagic) throw LedgerError("the segment is no ledger");
    if (header.version != ledger::kVersion || header.slots != ledger::kSlots ||
        header.notices != ledger::kNotices) {
        throw LedgerError("the ledger was made by another version of graphguard");
    }
    if (header.token != token) throw LedgerError("the ledger belongs to another run");
    if (header.num_ranks == 0 || header.num_ranks > ledger::kMaxRanks ||
        header.bytes != memory.size() || ledger::bytes_for(header.num_ranks) != memory.size()) {
        throw LedgerError("the ledger has another size than it says");
    }
    if (rank >= header.num_ranks) throw LedgerError("the ledger has no place for this rank");
    return shared;
}

}  // namespace

void Ledger::initialise(std::span<std::byte> memory, std::uint32_t num_ranks, std::uint64_t token) {
    if (num_ranks == 0 || num_ranks > ledger::kMaxRanks) {
        throw LedgerError("a ledger is for 1 to 512 ranks");
    }
    if (memory.size() != ledger::bytes_for(num_ranks)) {
        throw LedgerError("the segment has another size than a ledger of that many ranks");
    }
    auto* shared = reinterpret_cast<ledger::Shared*>(memory.data());
    shared->header = {ledger::kMagic,   ledger::kVersion, num_ranks, ledger::kSlots,
                      ledger::kNotices, memory.size(),    token};
}

Ledger::Ledger(std::span<std::byte> memory, std::uint32_t rank, std::uint64_t token,
               std::uint64_t pid)
    : shared_(checked(memory, rank, token)),
      ranks_(reinterpret_cast<ledger::RankLines*>(memory.data() + sizeof(ledger::Shared))),
      slots_(reinterpret_cast<Slot*>(ranks_ + shared_->header.num_ranks)),
      rank_(rank),
      num_ranks_(shared_->header.num_ranks),
      seen_passed_(num_ranks_, 0) {
    std::uint64_t nobody = 0;
    if (!ranks_[rank].pid.compare_exchange_strong(nobody, pid)) {
        throw LedgerError("the place of this rank is taken by process " + std::to_string(nobody));
    }
}

// ---- publishing --------------------------------------------------------------------------------

std::uint64_t Ledger::slowest() {
    std::uint64_t slowest = UINT64_MAX;
    for (std::uint32_t peer = 0; peer < num_ranks_; ++peer) {
        slowest = std::min(slowest, ranks_[peer].passed.load(std::memory_order_acquire));
    }
    return slowest;
}

Seen Ledger::publish(const Launch& launch, bool bounded) {
    const std::uint64_t step = step_ + 1;
    if (bounded && step - slowest_seen_ >= ledger::kSlots - 1) {
        // passed only grows, so what was seen last is on the safe side and seldom looked up.
        slowest_seen_ = slowest();
        if (step - slowest_seen_ >= ledger::kSlots - 1) return Seen::kAhead;
    }
    step_ = step;
    mine_ = launch;
    Slot& to = slot(rank_, step);
    // Released one by one, so that whoever reads a new field also sees that the stamp is gone.
    to.stamp.store(0, std::memory_order_relaxed);
    to.digest_high.store(launch.digest_high, std::memory_order_release);
    to.digest_low.store(launch.digest_low, std::memory_order_release);
    to.key.store(launch.key, std::memory_order_release);
    to.requests.store(requests_of(launch), std::memory_order_release);
    to.rest.store(rest_of(launch), std::memory_order_release);
    to.outcome.store(static_cast<std::uint64_t>(Outcome::kPending), std::memory_order_release);
    to.checksum.store(checksum_of(step, launch), std::memory_order_release);
    to.stamp.store(step, std::memory_order_release);
    // Before any look at the others, and visible to them before it: of two ranks that publish at
    // once at least one sees the other. A plain store would be let past by the processor.
    ranks_[rank_].passed.exchange(step, std::memory_order_seq_cst);
    return Seen::kSame;
}

Ledger::Read Ledger::read(std::uint32_t rank, std::uint64_t step, Launch& launch) const {
    const Slot& from = slot(rank, step);
    const std::uint64_t before = from.stamp.load(std::memory_order_acquire);
    launch.digest_high = from.digest_high.load(std::memory_order_acquire);
    launch.digest_low = from.digest_low.load(std::memory_order_acquire);
    launch.key = from.key.load(std::memory_order_acquire);
    const std::uint64_t requests = from.requests.load(std::memory_order_acquire);
    const std::uint64_t rest = from.rest.load(std::memory_order_acquire);
    const std::uint64_t checksum = from.checksum.load(std::memory_order_acquire);
    const std::uint64_t after = from.stamp.load(std::memory_order_relaxed);
    if (before == step && after == step) {
        const bool sound = fill(launch, requests, rest) && checksum_of(step, launch) == checksum;
        return sound ? Read::kThere : Read::kDamaged;
    }
    const std::uint64_t passed = ranks_[rank].passed.load(std::memory_order_acquire);
    if (passed < step) return Read::kNotYet;
    // Its writer is a whole round ahead, or about to be; else the stamp was not written by it.
    return passed + 1 >= step + ledger::kSlots ? Read::kLapped : Read::kDamaged;
}

// ---- observe -----------------------------------------------------------------------------------

Decision Ledger::compare() {
    Decision result;
    for (std::uint32_t peer = 0; peer < num_ranks_; ++peer) {
        if (peer == rank_) continue;
        const std::uint64_t passed = ranks_[peer].passed.load(std::memory_order_seq_cst);
        const bool went_back = passed < seen_passed_[peer];
        seen_passed_[peer] = passed;
        if (went_back) return {Seen::kDamaged, peer, {}};
        if (passed < step_) continue;
        Launch other;
        switch (read(peer, step_, other)) {
            case Read::kThere:
                if (!other.same_as(mine_)) return {Seen::kDiffers, peer, other};
                break;
            case Read::kLapped:
                if (result.seen == Seen::kSame) result = {Seen::kLapped, peer, {}};
                break;
            case Read::kDamaged:
                return {Seen::kDamaged, peer, {}};
            case Read::kNotYet:
                break;
        }
    }
    return result;
}

// ---- enforce -----------------------------------------------------------------------------------

// Returns what the cell of this step holds after this rank has tried to write `wanted`.
std::uint64_t Ledger::claim(std::uint64_t wanted) {
    Word& cell = shared_->cells[step_ % ledger::kSlots].word;
    std::uint64_t seen = cell.load(std::memory_order_acquire);
    // A failed exchange means that the cell has grown, and it can grow to this step only a round at
    // a time: the loop ends.
    while (step_of(seen) < step_) {
        if (cell.compare_exchange_strong(seen, wanted, std::memory_order_acq_rel,
                                         std::memory_order_acquire)) {
            return wanted;
        }
    }
    return seen;
}

Decision Ledger::decide() {
    return follow(claim(cell_of(step_, rank_ + 1)));
}

Decision Ledger::follow(std::uint64_t cell) {
    if (step_of(cell) != step_) {
        const bool lapped = step_of(cell) % ledger::kSlots == step_ % ledger::kSlots;
        return {lapped ? Seen::kLapped : Seen::kDamaged, rank_, {}};
    }
    const std::uint64_t who = who_of(cell);
    if (who == kVoted) return resolve_vote();
    if (who == kTimedOutVote) return {Seen::kTimedOut, rank_, {}};
    if (who == 0 || who > num_ranks_) return {Seen::kDamaged, rank_, {}};
    const auto winner = static_cast<std::uint32_t>(who - 1);
    if (winner == rank_) return {Seen::kSame, rank_, mine_};
    Launch theirs;
    switch (read(winner, step_, theirs)) {
        case Read::kThere:
            return {theirs.same_as(mine_) ? Seen::kSame : Seen::kDiffers, winner, theirs};
        case Read::kLapped:
            return {Seen::kLapped, winner, {}};
        case Read::kNotYet:
        case Read::kDamaged:
            break;
    }
    // It published before it decided.
    return {Seen::kDamaged, winner, {}};
}

void Ledger::settle(Outcome outcome, const Launch& launched) {
    slot(rank_, step_)
        .outcome.store(static_cast<std::uint64_t>(outcome), std::memory_order_release);
    const std::uint64_t digest = digest_of(launched);
    rolling_ = fold(rolling_ ^ digest, step_);
    Recent& recent = recent_[step_ % kRecent];
    recent.step.store(0, std::memory_order_relaxed);
    recent.digest.store(digest, std::memory_order_release);
    recent.rolling.store(rolling_, std::memory_order_release);
    recent.step.store(step_, std::memory_order_release);
    settled_.store(step_, std::memory_order_release);
}

// ---- vote --------------------------------------------------------------------------------------

bool Ledger::all_passed(std::uint64_t step) const {
    for (std::uint32_t peer = 0; peer < num_ranks_; ++peer) {
        if (ranks_[peer].passed.load(std::memory_order_seq_cst) < step) return false;
    }
    return true;
}

Decision Ledger::vote(std::chrono::nanoseconds bound, const std::atomic<bool>* give_up) {
    constexpr int kSpins = 256;
    const auto deadline = std::chrono::steady_clock::now() + bound;
    bool all = all_passed(step_);
    for (int spins = 0; !all; ++spins) {
        // Ranks may share a core: spinning on keeps the one that is waited for from running.
        if (spins > kSpins) {
            if (give_up != nullptr && give_up->load(std::memory_order_relaxed)) break;
            if (std::chrono::steady_clock::now() >= deadline) break;
            sched_yield();
        }
        all = all_passed(step_);
    }
    // The cell says for all ranks alike whether the vote was held, whatever each has seen itself.
    return follow(claim(cell_of(step_, all ? kVoted : kTimedOutVote)));
}

// The same function of the same proposals on every rank.
Decision Ledger::resolve_vote() {
    bool all_same = true;
    bool eager_is_open = true;
    std::optional<Decision> refused;
    for (std::uint32_t peer = 0; peer < num_ranks_; ++peer) {
        Launch theirs = mine_;
        if (peer != rank_) {
            const Read found = read(peer, step_, theirs);
            if (found == Read::kLapped) return {Seen::kLapped, peer, {}};
            if (found != Read::kThere) return {Seen::kDamaged, peer, {}};
        }
        all_same = all_same && theirs.same_as(mine_);
        eager_is_open = eager_is_open && theirs.key == mine_.key && theirs.same_batch(mine_);
        if (theirs.kind == LaunchKind::kAbort && !refused) {
            refused = Decision{Seen::kDiffers, peer, theirs};
        }
    }
    if (all_same) return {Seen::kSame, rank_, mine_};
    if (refused && refused->launch.same_as(mine_)) return {Seen::kSame, rank_, mine_};
    if (refused) return *refused;
    if (!eager_is_open) return {Seen::kImpossible, rank_, {}};
    Launch eager = mine_;
    eager.kind = LaunchKind::kEager;
    eager.digest_high = eager.digest_low = 0;
    return {eager.same_as(mine_) ? Seen::kSame : Seen::kDiffers, rank_, eager};
}

// ---- trouble -----------------------------------------------------------------------------------

void Ledger::tell(Trouble kind) {
    std::uint64_t none = 0;
    shared_->trouble.word.compare_exchange_strong(none, trouble_of(step_, kind, rank_));
}

TroubleSeen Ledger::trouble() const {
    const std::uint64_t word = shared_->trouble.word.load(std::memory_order_acquire);
    if (word == 0) return {};
    const TroubleSeen seen{static_cast<Trouble>(word >> 12U & 0xFU),
                           static_cast<std::uint32_t>(word & 0xFFFU), word >> 16U};
    // Whoever told it had published that step before.
    const bool sound = seen.kind > Trouble::kNone && seen.kind < Trouble::kDamaged &&
                       seen.rank < num_ranks_ && seen.step > 0 && seen.step <= passed(seen.rank);
    if (!sound) return {Trouble::kDamaged, rank_, step_};
    return seen;
}

// ---- notices -----------------------------------------------------------------------------------

std::optional<std::uint64_t> Ledger::announce(NoticeKind kind, std::uint64_t subject_high,
                                              std::uint64_t subject_low, std::uint64_t key,
                                              std::uint64_t margin) {
    constexpr int kTries = 4;
    for (int tries = 0; tries < kTries; ++tries, margin *= 4) {
        const std::uint64_t place = shared_->notice_count.word.fetch_add(1);
        if (place >= ledger::kNotices) return std::nullopt;
        Notice& notice = shared_->notices[place];
        notice.what.store(static_cast<std::uint64_t>(kind), std::memory_order_release);
        notice.subject_high.store(subject_high, std::memory_order_release);
        notice.subject_low.store(subject_low, std::memory_order_release);
        notice.key.store(key, std::memory_order_release);
        notice.from.store(rank_, std::memory_order_release);
        std::uint64_t fastest = 0;
        for (std::uint32_t peer = 0; peer < num_ranks_; ++peer) {
            fastest = std::max(fastest, ranks_[peer].passed.load(std::memory_order_seq_cst));
        }
        if (announce_once(notice, fastest + margin)) return fastest + margin;
    }
    return std::nullopt;
}

bool Ledger::announce_once(Notice& notice, std::uint64_t from_step) {
    std::uint64_t proposed = notice_word(NoticeState::kProposed, from_step);
    // Visible before the look at the others: whoever passes that step without having seen it is
    // seen here.
    notice.word.exchange(proposed, std::memory_order_seq_cst);
    bool ahead_of_all = true;
    for (std::uint32_t peer = 0; peer < num_ranks_; ++peer) {
        const std::uint64_t passed = ranks_[peer].passed.load(std::memory_order_seq_cst);
        // A rank may decide its next step by what it has read already.
        ahead_of_all = ahead_of_all && passed + 2 <= from_step;
    }
    const NoticeState answer = ahead_of_all ? NoticeState::kConfirmed : NoticeState::kWithdrawn;
    if (notice.word.compare_exchange_strong(proposed, notice_word(answer, from_step))) {
        return ahead_of_all;
    }
    return state_of(proposed) == NoticeState::kConfirmed;
}

// The word of a notice, final if it had to be: `horizon` is the next step of this rank.
std::uint64_t Ledger::settled_notice(Notice& notice, std::uint64_t horizon) {
    std::uint64_t word = notice.word.load(std::memory_order_seq_cst);
    if (state_of(word) != NoticeState::kProposed || word >> 2U > horizon) return word;
    const std::uint64_t withdrawn = notice_word(NoticeState::kWithdrawn, word >> 2U);
    if (notice.word.compare_exchange_strong(word, withdrawn)) return withdrawn;
    return word;
}

bool Ledger::read_notices() {
    const std::uint64_t count = std::min<std::uint64_t>(
        shared_->notice_count.word.load(std::memory_order_seq_cst), ledger::kNotices);
    for (std::uint64_t place = first_open_notice_; place < count; ++place) {
        if (final_[place]) continue;
        Notice& notice = shared_->notices[place];
        const std::uint64_t word = settled_notice(notice, step_ + 1);
        if (state_of(word) == NoticeState::kEmpty || state_of(word) == NoticeState::kProposed) {
            continue;
        }
        final_[place] = true;
        if (state_of(word) == NoticeState::kWithdrawn) continue;
        waiting_.push_back({static_cast<NoticeKind>(notice.what.load(std::memory_order_acquire)),
                            static_cast<std::uint32_t>(notice.from.load(std::memory_order_acquire)),
                            word >> 2U, notice.subject_high.load(std::memory_order_acquire),
                            notice.subject_low.load(std::memory_order_acquire),
                            notice.key.load(std::memory_order_acquire), place});
        next_due_ = std::min(next_due_, word >> 2U);
    }
    while (first_open_notice_ < count && final_[first_open_notice_]) ++first_open_notice_;
    return next_due_ <= step_ + 1;
}

std::optional<NoticeRead> Ledger::take_due() {
    const auto due = std::min_element(
        waiting_.begin(), waiting_.end(), [](const NoticeRead& a, const NoticeRead& b) {
            return std::pair(a.from_step, a.place) < std::pair(b.from_step, b.place);
        });
    if (due == waiting_.end() || due->from_step > step_ + 1) return std::nullopt;
    const NoticeRead taken = *due;
    waiting_.erase(due);
    next_due_ = UINT64_MAX;
    for (const NoticeRead& notice : waiting_) next_due_ = std::min(next_due_, notice.from_step);
    return taken;
}

// ---- looking -----------------------------------------------------------------------------------

std::uint64_t Ledger::passed(std::uint32_t rank) const {
    return ranks_[rank].passed.load(std::memory_order_acquire);
}

std::uint64_t Ledger::pid(std::uint32_t rank) const {
    return ranks_[rank].pid.load(std::memory_order_acquire) & ~ledger::kLeft;
}

bool Ledger::has_left(std::uint32_t rank) const {
    return (ranks_[rank].pid.load(std::memory_order_acquire) & ledger::kLeft) != 0;
}

void Ledger::leave() {
    ranks_[rank_].pid.fetch_or(ledger::kLeft);
}

Outcome Ledger::outcome(std::uint32_t rank, std::uint64_t step) const {
    const std::uint64_t word = slot(rank, step).outcome.load(std::memory_order_acquire);
    return word <= static_cast<std::uint64_t>(Outcome::kTimedOut) ? static_cast<Outcome>(word)
                                                                  : Outcome::kPending;
}

std::optional<Launch> Ledger::published(std::uint32_t rank, std::uint64_t step) const {
    Launch launch;
    if (read(rank, step, launch) != Read::kThere) return std::nullopt;
    return launch;
}

std::vector<StepDigest> Ledger::window(std::size_t steps) const {
    std::vector<StepDigest> result;
    const std::uint64_t last = settled_.load(std::memory_order_acquire);
    const std::uint64_t first = last - std::min<std::uint64_t>({last, steps, kRecent - 1});
    for (std::uint64_t step = first + 1; step <= last; ++step) {
        const Recent& recent = recent_[step % kRecent];
        const std::uint64_t before = recent.step.load(std::memory_order_acquire);
        const StepDigest seen{step, recent.digest.load(std::memory_order_acquire),
                              recent.rolling.load(std::memory_order_acquire)};
        if (before == step && recent.step.load(std::memory_order_relaxed) == step) {
            result.push_back(seen);
        }
    }
    return result;
}

}  // namespace graphguard
