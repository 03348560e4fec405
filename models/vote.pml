/* Enforce, by vote: publish, wait for all within a bound, claim the decision cell for what came.
 *
 * In every step every rank votes or goes the wait-free way, as it likes: the cell says which holds.
 */
#include "ledger.inc"

#ifndef STEPS
#define STEPS 3
#endif
#ifndef DEATHS
#define DEATHS 1
#endif

hidden byte V1_one_outcome;
hidden byte E2_one_step, E3_bounded, E4_nobody_lapped, E5_in_order;
#define AGREED V1_one_outcome
#define TRIES 1
#define MAY_BE_LAPPED false
#include "ring.inc"

/* What a vote may say besides a launch. */
#define IMPOSSIBLE 5

#define has_passed(rank) (passed[rank] >= step)
#define all_passed FOR_ALL(has_passed)

/* The bound may be past at any moment. When waits are to be seen ending, a clock says so, which
 * goes on as all other processes do, and the rank polls instead of blocking. */
#ifdef POLLING
bool expired;

proctype Clock() {
    expired = true
}

inline wait_for_all() {
    do
    :: all_passed -> all = true; break
#ifndef UNBOUNDED_WAIT
    :: expired -> break
    :: !all_passed && !expired
#else
    :: !all_passed
#endif
    od
}
#else
inline wait_for_all() {
    if
    :: all_passed -> all = true
#ifndef UNBOUNDED_WAIT
    :: true
#endif
    fi
}
#endif

inline vote() {
    wait_for_all();
    if
    :: all ->
        all = false;
#ifdef SAME_CODE
        claim(me + 1)
#else
        claim(VOTED)
#endif
    :: else ->
#ifdef VOTE_WITHOUT_CELL
        atomic { agree(TIMED_OUT); goto ended }
#else
        claim(TIMED_OUT)
#endif
    fi
}

/* The same function of the same launches on every rank. */
inline count_vote() {
    atomic {
        CLAIM(E4_nobody_lapped, there);
        CLAIM(E2_one_step, step_of(found_low) == step && found_low == found_high);
        there = false;
        some_differ = some_differ || launch_of(found_low) != launch;
        some_abort = some_abort || launch_of(found_low) == ABORT;
        some_batch_differs = some_batch_differs ||
            (launch_of(found_low) == OTHER_BATCH) != (launch == OTHER_BATCH);
        turn++
    }
}

inline result_of_votes() {
    found_low = (!some_differ -> launch :
        (some_abort -> ABORT : (some_batch_differs -> IMPOSSIBLE : EAGER)));
    turn = 0; some_differ = false; some_abort = false; some_batch_differs = false
}

inline resolve_vote() {
    /* With COARSE one step for all of them, as ring.inc has it for one. */
#ifdef COARSE
    atomic {
#endif
    do
    :: turn == RANKS -> break
    :: turn < RANKS -> read(turn); count_vote()
    od;
    atomic { result_of_votes(); serve() }
#ifdef COARSE
    }
#endif
}

#ifdef SAME_CODE
#define vote_holds votes
#define choose(vote) votes = vote
#else
#define vote_holds (who_of(decision) == VOTED)
#define choose(vote) skip
#endif

inline follow() {
    if
    :: atomic {
        step_of(decision) == step && who_of(decision) == TIMED_OUT ->
        agree(TIMED_OUT);
        goto ended
    }
    :: step_of(decision) == step && who_of(decision) != TIMED_OUT && vote_holds -> resolve_vote()
    :: step_of(decision) == step && who_of(decision) != TIMED_OUT && !vote_holds -> follow_rank()
    :: step_of(decision) != step -> CLAIM(E4_nobody_lapped, false); goto ended
    fi
}

/* What a rank that has ended knew makes no difference to anybody. */
inline forget() {
    atomic {
        step = 0; decision = 0; found_low = 0; found_high = 0; launch = 0; failed = 0;
        there = false; turn = 0; all = false;
        some_differ = false; some_abort = false; some_batch_differs = false
    }
}

proctype Rank() {
    byte step, decision, found_low, found_high, launch, failed, turn;
    bool there, all, some_differ, some_abort, some_batch_differs;
#ifdef SAME_CODE
    bool votes;
#endif

    {
        do
        :: step == STEPS -> break
#ifndef POLLING
        :: step > 0 -> completed /* or goes on while the device works */
#endif
        :: atomic {
            step < STEPS ->
            step++;
            if
            :: launch = GRAPH_A
            :: step == watched -> launch = GRAPH_B
#ifndef COARSE
            :: step == watched -> launch = EAGER
            :: step == watched -> launch = OTHER_BATCH
            :: step == watched -> launch = ABORT
#endif
            fi;
            begin_to_publish()
        }
            publish();
            if
            :: choose(true); vote()
#ifndef ALL_VOTE
            :: choose(false); claim(me + 1)
#endif
            fi;
            follow()
        od;
        completed;
ended:
        forget()
    } unless {
        atomic { kill[me]?_ -> dead[me] = true; forget() }
    }
}

init {
    atomic {
        select(watched : 1 .. STEPS);
        run Rank();
        run Rank();
#if RANKS == 3
        run Rank();
#endif
#ifdef POLLING
        run Clock();
#endif
#if DEATHS > 0
        run Death();
#endif
#if DEATHS > 1
        run Death()
#endif
    }
}
