// The ledger as Python sees it.
#pragma once

#include <nanobind/nanobind.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <vector>

#include "core/ledger.h"
#include "core/mapping.h"
#include "python/bound_ring.h"
#include "python/bound_table.h"

namespace graphguard {

// What a proposal answers: a Seen in the low bits, and marks.
inline constexpr unsigned kNoticesDue = 16;
inline constexpr unsigned kTroubleTold = 32;
inline constexpr unsigned kDisowned = 64;
inline constexpr unsigned kStopped = 128;

// One ledger with what a process registers once, so that a step passes a few numbers only. Every
// proposal is also recorded in the black box, if there is one.
class BoundLedger {
  public:
    static constexpr std::size_t kMaxLaunches = 1U << 20U;

    static void initialise(int fd, std::size_t bytes, std::uint32_t num_ranks,
                           std::uint64_t token) {
        Mapping mapping(fd, bytes);
        Ledger::initialise(mapping.memory(), num_ranks, token);
    }

    BoundLedger(int fd, std::size_t bytes, std::uint32_t rank, std::uint64_t token,
                std::uint64_t pid, bool enforces)
        : mapping_(fd, bytes), ledger_(mapping_.memory(), rank, token, pid), enforces_(enforces) {}

    // Proposals of this launch are recorded in `ring` if it is one, under these names.
    std::uint32_t add_launch(std::uint8_t kind, std::uint64_t digest_high, std::uint64_t digest_low,
                             std::uint64_t key, nb::object ring, std::uint16_t role,
                             std::uint16_t group) {
        if (kind >= kLaunchKindCount) throw std::invalid_argument("no such kind of launch");
        if (launches_.size() == kMaxLaunches) throw std::length_error("too many launches");
        Registered launch;
        launch.launch.kind = static_cast<LaunchKind>(kind);
        launch.launch.digest_high = digest_high;
        launch.launch.digest_low = digest_low;
        launch.launch.key = key;
        launch.ring = ring.is_none() ? nullptr : nb::cast<BoundRing*>(ring);
        launch.kept_alive = std::move(ring);
        launch.role = role;
        launch.group = group;
        launches_.push_back(std::move(launch));
        return static_cast<std::uint32_t>(launches_.size() - 1);
    }

    // Publishes the next step of this rank and looks at the others. 0: launch it.
    unsigned propose(std::uint32_t id, std::uint8_t reason, std::uint32_t num_reqs,
                     std::uint32_t query_len, std::uint32_t num_tokens, std::uint8_t phase) {
        const Launch launch =
            prepared(id, reason, make_batch(num_reqs, query_len, num_tokens, phase));
        if (const unsigned stop = must_stop()) return stop;
        record_check(launch, launches_[id], 0);
        if (ledger_.publish(launch, enforces_) == Seen::kAhead)
            return answer({Seen::kAhead, 0, {}});
        return looked(enforces_ ? ledger_.decide() : ledger_.compare(), launch);
    }

    // The same, by a vote that waits for every rank at most `seconds`.
    unsigned vote(std::uint32_t id, std::uint8_t reason, std::uint32_t num_reqs,
                  std::uint32_t query_len, std::uint32_t num_tokens, std::uint8_t phase,
                  double seconds) {
        const Launch launch =
            prepared(id, reason, make_batch(num_reqs, query_len, num_tokens, phase));
        if (const unsigned stop = must_stop()) return stop;
        record_check(launch, launches_[id], kFlagVoted);
        if (ledger_.publish(launch, true) == Seen::kAhead) return answer({Seen::kAhead, 0, {}});
        const auto bound = std::chrono::duration_cast<std::chrono::nanoseconds>(
            std::chrono::duration<double>(seconds));
        Decision decision;
        {
            nb::gil_scoped_release released;
            decision = ledger_.vote(bound, &stopped_);
        }
        return looked(decision, launch);
    }

    // What became of a step that was not simply launched: the outcome, and what is told to all.
    void settle(std::uint8_t outcome, std::uint8_t trouble, bool take_decision) {
        if (outcome > static_cast<std::uint8_t>(Outcome::kTimedOut) ||
            trouble > static_cast<std::uint8_t>(Trouble::kTimedOut)) {
            throw std::invalid_argument("no such outcome or trouble");
        }
        ledger_.settle(static_cast<Outcome>(outcome), take_decision ? last_.launch : published_);
        if (trouble != 0) ledger_.tell(static_cast<Trouble>(trouble));
    }

    // The last answer in full: seen, rank, and the launch of that rank.
    [[nodiscard]] nb::tuple last() const {
        return nb::make_tuple(static_cast<int>(last_.seen), last_.rank, tuple_of(last_.launch));
    }

    // (kind, step, rank) of the first trouble that any rank has told, kind 0 if there is none.
    [[nodiscard]] nb::tuple trouble() const {
        const TroubleSeen seen = ledger_.trouble();
        return nb::make_tuple(static_cast<int>(seen.kind), seen.step, seen.rank);
    }

    // From now on propose() does not mention a difference that somebody has only observed.
    void acknowledge_trouble() { acknowledged_ = true; }

    [[nodiscard]] nb::object published(std::uint32_t rank, std::uint64_t step) const {
        require(rank);
        const std::optional<Launch> launch = ledger_.published(rank, step);
        if (!launch) return nb::none();
        return tuple_of(*launch);
    }
    [[nodiscard]] int outcome(std::uint32_t rank, std::uint64_t step) const {
        require(rank);
        return static_cast<int>(ledger_.outcome(rank, step));
    }
    [[nodiscard]] std::uint64_t passed(std::uint32_t rank) const {
        require(rank);
        return ledger_.passed(rank);
    }
    [[nodiscard]] std::uint64_t pid(std::uint32_t rank) const {
        require(rank);
        return ledger_.pid(rank);
    }
    [[nodiscard]] bool has_left(std::uint32_t rank) const {
        require(rank);
        return ledger_.has_left(rank);
    }
    void leave() {
        if (!disowned_) ledger_.leave();
    }
    [[nodiscard]] std::uint64_t step() const { return ledger_.step(); }

    // The step from which the notice holds on every rank, or None if it could not be announced.
    nb::object announce(std::uint8_t kind, std::uint64_t subject_high, std::uint64_t subject_low,
                        std::uint64_t key, std::uint64_t margin) {
        if (kind == 0 || kind > static_cast<std::uint8_t>(NoticeKind::kNoMoreCaptures)) {
            throw std::invalid_argument("no such notice");
        }
        const std::optional<std::uint64_t> from =
            ledger_.announce(static_cast<NoticeKind>(kind), subject_high, subject_low, key, margin);
        if (!from) return nb::none();
        return nb::int_(*from);
    }

    // Notices that hold from the next step on, each handed out once: (kind, rank, from step, digest
    // high and low, key).
    nb::list take_due() {
        nb::list due;
        while (const std::optional<NoticeRead> notice = ledger_.take_due()) {
            due.append(nb::make_tuple(static_cast<int>(notice->kind), notice->rank,
                                      notice->from_step, notice->subject_high, notice->subject_low,
                                      notice->key));
        }
        return due;
    }

    // (step, digest, rolling digest) of the last settled steps, oldest first.
    [[nodiscard]] nb::list window(std::size_t steps) const {
        nb::list result;
        for (const StepDigest& seen : ledger_.window(steps)) {
            result.append(nb::make_tuple(seen.step, seen.digest, seen.rolling));
        }
        return result;
    }

    // From another thread: something was seen that makes every further launch a hang.
    void stop() { stopped_.store(true, std::memory_order_relaxed); }

    // In the child of a fork: the place in the ledger is the parent's.
    void disown() { disowned_ = true; }

  private:
    struct Registered {
        Launch launch;
        BoundRing* ring = nullptr;
        nb::object kept_alive;
        std::uint16_t role = 0;
        std::uint16_t group = 0;
    };

    static nb::tuple tuple_of(const Launch& launch) {
        return nb::make_tuple(static_cast<int>(launch.kind), static_cast<int>(launch.reason),
                              launch.key, launch.digest_high, launch.digest_low,
                              launch.batch.num_reqs, launch.batch.query_len,
                              launch.batch.num_tokens, static_cast<int>(launch.batch.phase));
    }

    void require(std::uint32_t rank) const {
        if (rank >= ledger_.num_ranks()) throw nb::index_error("no such rank");
    }

    [[nodiscard]] Launch prepared(std::uint32_t id, std::uint8_t reason, const Batch& batch) const {
        if (id >= launches_.size()) throw nb::index_error("no such launch");
        Launch launch = launches_[id].launch;
        launch.batch = batch;
        launch.reason = make_reason(reason);
        return launch;
    }

    // Once a rank was refused, the others wait for it in vain: nothing more is launched.
    [[nodiscard]] unsigned must_stop() const {
        if (disowned_) return kDisowned;
        if (stopped_.load(std::memory_order_relaxed)) return kStopped;
        const Trouble told = enforces_ ? ledger_.trouble().kind : Trouble::kNone;
        return told >= Trouble::kRefused ? kTroubleTold : 0;
    }

    unsigned looked(const Decision& decision, const Launch& launch) {
        published_ = launch;
        if (decision.seen == Seen::kSame) ledger_.settle(Outcome::kLaunched, launch);
        return answer(decision);
    }

    unsigned answer(const Decision& decision) {
        unsigned result = static_cast<unsigned>(decision.seen);
        if (decision.seen != Seen::kSame) last_ = decision;
        if (decision.seen != Seen::kAhead && ledger_.read_notices()) result |= kNoticesDue;
        if (!acknowledged_ && ledger_.trouble().kind != Trouble::kNone) result |= kTroubleTold;
        return result;
    }

    void record_check(const Launch& launch, const Registered& registered, std::uint16_t flags) {
        if (registered.ring == nullptr) return;
        static constexpr Action kActions[] = {Action::kReplay, Action::kEager, Action::kRecapture,
                                              Action::kAbort};
        Action action = kActions[static_cast<std::size_t>(launch.kind)];
        if (action == Action::kReplay && launch.reason == Reason::kPadded) action = Action::kPad;
        registered.ring->check(
            registered.role, registered.group, ledger_.step() + 1, launch.digest_high,
            launch.batch.num_reqs, launch.batch.query_len, launch.batch.num_tokens,
            static_cast<std::uint8_t>(launch.batch.phase), static_cast<std::uint8_t>(action),
            static_cast<std::uint8_t>(launch.reason),
            static_cast<std::uint16_t>(flags | (enforces_ ? kFlagEnforce : 0)));
    }

    Mapping mapping_;
    Ledger ledger_;
    bool enforces_;
    bool disowned_ = false;
    bool acknowledged_ = false;
    std::atomic<bool> stopped_ = false;
    std::vector<Registered> launches_;
    Launch published_;
    Decision last_;
};

// The ledger's part of the module.
inline void bind_ledger(nb::module_& m) {
    m.attr("LEDGER_SLOTS") = ledger::kSlots;
    m.attr("NOTICES_DUE") = kNoticesDue;
    m.attr("TROUBLE_TOLD") = kTroubleTold;
    m.attr("DISOWNED") = kDisowned;
    m.attr("STOPPED") = kStopped;
    m.def("ledger_bytes", [](std::uint32_t num_ranks) {
        if (num_ranks == 0 || num_ranks > ledger::kMaxRanks) {
            throw std::invalid_argument("a ledger is for 1 to 512 ranks");
        }
        return ledger::bytes_for(num_ranks);
    });
    m.def("initialise_ledger", &BoundLedger::initialise);

    nb::class_<BoundLedger>(m, "Ledger")
        .def(nb::init<int, std::size_t, std::uint32_t, std::uint64_t, std::uint64_t, bool>())
        .def("add_launch", &BoundLedger::add_launch, nb::arg("kind"), nb::arg("digest_high"),
             nb::arg("digest_low"), nb::arg("key"), nb::arg("ring").none(), nb::arg("role"),
             nb::arg("group"))
        .def("propose", &BoundLedger::propose)
        .def("vote", &BoundLedger::vote)
        .def("settle", &BoundLedger::settle)
        .def("last", &BoundLedger::last)
        .def("trouble", &BoundLedger::trouble)
        .def("acknowledge_trouble", &BoundLedger::acknowledge_trouble)
        .def("published", &BoundLedger::published)
        .def("outcome", &BoundLedger::outcome)
        .def("passed", &BoundLedger::passed)
        .def("pid", &BoundLedger::pid)
        .def("has_left", &BoundLedger::has_left)
        .def("leave", &BoundLedger::leave)
        .def("step", &BoundLedger::step)
        .def("announce", &BoundLedger::announce)
        .def("take_due", &BoundLedger::take_due)
        .def("window", &BoundLedger::window)
        .def("stop", &BoundLedger::stop)
        .def("disown", &BoundLedger::disown);
}

}  // namespace graphguard
