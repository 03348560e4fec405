/* Advance notice: something holds from a step on, for every rank or for none.
 *
 * An announcer is a process of its own, so that a rank may announce at any moment of its steps.
 */
#include "ledger.inc"

#ifndef STEPS
#define STEPS 4
#endif
#ifndef ANNOUNCERS
#define ANNOUNCERS 2
#endif
#ifndef TRIES
#define TRIES 1
#endif
#define NOTICES (ANNOUNCERS * TRIES)

#define PASSED(rank) (rank)
#define NOTICE(number) (RANKS + (number))
#define WORDS (RANKS + NOTICES)
#define WRITERS (RANKS + ANNOUNCERS)
#include "store_buffer.inc"

/* The word of a notice: its state, and the step from which it holds. */
#define EMPTY 0
#define PROPOSED 1
#define CONFIRMED 2
#define WITHDRAWN 3
#define word_of(state, from) ((from) * 4 + (state))
#define state_of(word) ((word) % 4)
#define from_of(word) ((word) / 4)
#define holds(word, step) (state_of(word) == CONFIRMED && from_of(word) <= (step))

/* How far an announcer's step is from what every rank has passed. */
#ifdef EARLY_CONFIRM
#define AHEAD 1
#else
#define AHEAD 2
#endif

/* Up to which step a rank must not leave a notice open. */
#ifdef LATE_WITHDRAW
#define horizon step
#else
#define horizon (step + 1)
#endif

hidden byte N1_all_or_none, N2_final_is_final, N3_one_order;

byte notice_count;

/* For every rank and notice: the highest step for which the rank has settled whether the notice
 * holds. No rank looks before its first step, so none holds there. */
byte settled[RANKS * NOTICES];
#define settled_by(rank, notice) settled[(rank) * NOTICES + (notice)]
#define is_not_past(rank) (settled_by(rank, notice) < from)

/* ---- the word of a notice becomes final ---- */

inline confirm() {
    CLAIM(N2_final_is_final, state_of(load(NOTICE(notice))) == PROPOSED);
    CLAIM(N1_all_or_none, FOR_ALL(is_not_past));
    memory[NOTICE(notice)] = word_of(CONFIRMED, from)
}

inline withdraw() {
    CLAIM(N2_final_is_final, state_of(load(NOTICE(notice))) == PROPOSED);
    memory[NOTICE(notice)] = word_of(WITHDRAWN, from)
}

/* ---- announce ---- */

/* Announcers are alike: where each announces once, they may as well come in their order. */
#if TRIES == 1
#define is_its_turn (me - RANKS == notice_count)
#else
#define is_its_turn true
#endif

/* Tries any step, those that have been passed included: which margin is taken only changes how
 * often a notice is withdrawn. */
inline propose() {
    atomic {
        drained && is_its_turn -> notice = notice_count;
        notice_count++;
        select(from : 2 .. STEPS + 1);
        store(NOTICE(notice), word_of(PROPOSED, from))
    }
}

inline look_at_all() {
    atomic {
#ifndef NO_ANNOUNCER_FENCE
        drained;
#endif
        ahead_of_all = true
    }
#ifndef NO_CONFIRM
    ;
    do
    :: rank == RANKS || !ahead_of_all -> break
    :: atomic { else -> ahead_of_all = (load(PASSED(rank)) + AHEAD <= from); rank++ }
    od
#endif
}

inline answer() {
    atomic {
        drained;
        if
#ifdef PLAIN_CONFIRM
        :: ahead_of_all -> confirm()
        :: else -> withdraw()
#else
        :: load(NOTICE(notice)) != word_of(PROPOSED, from) -> ahead_of_all = false
        :: load(NOTICE(notice)) == word_of(PROPOSED, from) && ahead_of_all -> confirm()
        :: load(NOTICE(notice)) == word_of(PROPOSED, from) && !ahead_of_all -> withdraw()
#endif
        fi;
        tries = (ahead_of_all -> TRIES : tries + 1);
        notice = 0; from = 0; rank = 0; ahead_of_all = false
    }
}

proctype Announcer() {
    byte notice, from, rank, tries;
    bool ahead_of_all;

    do
    :: tries == TRIES -> break
    :: else ->
        propose();
        look_at_all();
        answer()
    od
}

/* ---- read_notices ---- */

/* Of two notices about one thing the one with the later step is in force, and of equal steps the
 * one with the higher number. */
#ifdef LEARNED_ORDER
#define is_later (latest == 1 + notice)
#else
#define is_later true
#endif

inline learn() {
#ifdef LEARNED_ORDER
    if
    :: state_of(seen) == CONFIRMED && !(learned & (1 << notice)) ->
        learned = learned | (1 << notice); latest = 1 + notice
    :: else
    fi
#else
    skip
#endif
}

inline put_in_force() {
    if
    :: in_force == 0 || from_of(seen) > in_force_from ||
       (from_of(seen) == in_force_from && is_later) ->
        in_force = 1 + notice; in_force_from = from_of(seen)
    :: else
    fi
}

/* A notice that holds in the next step, and is not seen to, would hold on other ranks only. */
inline settle() {
    if
    :: holds(seen, step + 1) -> put_in_force()
    :: else -> CLAIM(N1_all_or_none, !holds(load(NOTICE(notice)), step + 1))
    fi;
    settled_by(me, notice) = step + 1
}

inline exchange_for_withdrawn() {
    drained;
    if
#ifdef PLAIN_WITHDRAW
    :: true ->
#else
    :: load(NOTICE(notice)) == seen ->
#endif
        from = from_of(seen); withdraw(); from = 0
    :: else
    fi;
    seen = load(NOTICE(notice))
}

/* The last of a look: what was seen is settled for the next step. */
inline done_with_notice() {
    learn();
    settle();
    seen = 0;
    notice++
}

#ifdef NO_WITHDRAW
#define must_be_answered(word) false
#else
#define must_be_answered(word) (state_of(word) == PROPOSED && from_of(word) <= horizon)
#endif

/* A final word does not change (N2), so a step of its own would add nothing. */
#define is_final(word) (state_of(word) == CONFIRMED || state_of(word) == WITHDRAWN)
inline look_at_final() {
    do
    :: notice < count && is_final(load(NOTICE(notice))) ->
        seen = load(NOTICE(notice)); done_with_notice()
    :: else -> break
    od
}

inline look() {
    if
    :: atomic { must_be_answered(load(NOTICE(notice))) -> seen = load(NOTICE(notice)) };
        atomic { exchange_for_withdrawn(); done_with_notice(); look_at_final() }
    :: atomic { else -> seen = load(NOTICE(notice)); done_with_notice(); look_at_final() }
    fi
}

/* What follows from all notices that hold, in an order that does not depend on the rank. */
inline check_in_force() {
    notice = 0;
    do
    :: notice == NOTICES -> break
    :: else ->
        if
        :: holds(load(NOTICE(notice)), step + 1) && from_of(load(NOTICE(notice))) >= from ->
            from = from_of(load(NOTICE(notice))); seen = 1 + notice
        :: else
        fi;
        notice++
    od;
    CLAIM(N3_one_order, in_force == seen);
    from = 0; seen = 0
}

inline read_notices() {
    /* What is announced after this is not looked at before the next step. */
    atomic {
#ifndef NO_READER_FENCE
        drained;
#endif
        count = notice_count;
        notice = count;
        do
        :: notice == NOTICES -> break
        :: else -> settled_by(me, notice) = step + 1; notice++
        od;
        notice = 0;
        look_at_final()
    }
    do
    :: atomic {
        notice == count ->
        check_in_force();
        notice = 0; count = 0; in_force = 0; in_force_from = 0;
        break
    }
    :: notice < count -> look()
    od
}

proctype Rank() {
    byte step, seen, notice, from, count, in_force, in_force_from;
#ifdef LEARNED_ORDER
    byte learned, latest;
#endif

    do
    :: step == STEPS -> break
    :: else ->
        atomic { step++; store(PASSED(me), step) }
        read_notices()
    od
}

init {
    atomic {
        run Rank();
        run Rank();
#if RANKS == 3
        run Rank();
#endif
        run Announcer();
#if ANNOUNCERS == 2
        run Announcer();
#endif
        run Memory()
    }
}
