/* Advance notice: something holds from a step on, for every rank or for none. */
#include "ledger.inc"

#ifndef STEPS
#define STEPS 4
#endif
#ifndef NOTICES
#define NOTICES 2
#endif

#define PASSED(rank) (rank)
#define NOTICE(number) (RANKS + (number))
#define WORDS (RANKS + NOTICES)
#define WRITERS (RANKS + ANNOUNCERS)
#ifndef ANNOUNCERS
#define ANNOUNCERS 2
#endif
#ifndef TRIES
#define TRIES (NOTICES / ANNOUNCERS)
#endif
#include "store_buffer.inc"

/* The word of a notice: its state, and the step from which it holds. */
#define EMPTY 0
#define PROPOSED 1
#define CONFIRMED 2
#define WITHDRAWN 3
#define word_of(state, from) ((from) * 4 + (state))
#define state_of(word) ((word) % 4)
#define from_of(word) ((word) / 4)

#ifdef EARLY_CONFIRM
#define AHEAD 1
#else
#define AHEAD 2
#endif
#ifdef LATE_WITHDRAW
#define horizon step
#else
#define horizon (step + 1)
#endif

hidden byte N1_for_all_or_none, N2_final_is_final, N3_one_order;

byte notice_count;

/* For every rank and notice the highest step for which the rank knows whether the notice holds. No
 * rank looks before its first step, so none holds there. */
byte known[RANKS * NOTICES];
#define known_until(rank, number) known[(rank) * NOTICES + (number)]
#define not_past(rank) (known_until(rank, mine) < from)

/* ---- announce ---- */

/* Any step may be tried, those that have been passed included: what margin is taken only changes
 * how often a notice is withdrawn. */
proctype Announcer() {
    byte mine, from, rank, tries;
    bool ahead_of_all;

    do
    :: tries == TRIES -> break
    :: else ->
        atomic {
            drained -> mine = notice_count; notice_count++; tries++;
            select(from : 2 .. STEPS + 1);
            store(NOTICE(mine), word_of(PROPOSED, from))
        }
#ifndef NO_ANNOUNCER_FENCE
        drained;
#endif
        ahead_of_all = true;
#ifndef NO_CONFIRM
        rank = 0;
        do
        :: rank == RANKS || !ahead_of_all -> break
        :: else -> ahead_of_all = (load(PASSED(rank)) + AHEAD <= from); rank++
        od;
#endif
        atomic {
            drained;
#ifdef PLAIN_CONFIRM
            if
            :: ahead_of_all -> confirm()
            :: else -> withdraw()
            fi
#else
            if
            :: load(NOTICE(mine)) != word_of(PROPOSED, from)
            :: load(NOTICE(mine)) == word_of(PROPOSED, from) && ahead_of_all -> confirm()
            :: load(NOTICE(mine)) == word_of(PROPOSED, from) && !ahead_of_all -> withdraw()
            fi
#endif
            ;
            if
            :: state_of(load(NOTICE(mine))) == CONFIRMED -> tries = TRIES
            :: else
            fi;
            mine = 0; from = 0; rank = 0; ahead_of_all = false
        }
    od
}

inline confirm() {
    CLAIM(N2_final_is_final, state_of(load(NOTICE(mine))) == PROPOSED);
    CLAIM(N1_for_all_or_none, FOR_ALL(not_past));
    memory[NOTICE(mine)] = word_of(CONFIRMED, from)
}

inline withdraw() {
    CLAIM(N2_final_is_final, state_of(load(NOTICE(mine))) == PROPOSED);
    memory[NOTICE(mine)] = word_of(WITHDRAWN, from)
}

/* ---- read ---- */

inline read_notices() {
    /* Those that are announced after this are not looked at. */
    atomic {
        count = notice_count;
        mine = count;
        do
        :: mine == NOTICES -> break
        :: else -> known_until(me, mine) = step + 1; mine++
        od;
        mine = 0
    }
    do
    :: mine == count -> break
    :: else -> look(); mine++
    od
}

inline look() {
    seen = load(NOTICE(mine));
    atomic {
        if
#ifndef NO_WITHDRAW
        :: state_of(seen) == PROPOSED && from_of(seen) <= horizon ->
            drained;
#ifdef PLAIN_WITHDRAW
            from = from_of(seen); withdraw(); from = 0;
#else
            if
            :: load(NOTICE(mine)) == seen -> from = from_of(seen); withdraw(); from = 0
            :: else
            fi;
#endif
            seen = load(NOTICE(mine))
#endif
        :: else
        fi;
        decide()
    }
}

/* What is known for the next step, and what follows from all that holds: of two notices about one
 * thing the one with the later step, of equal steps the one with the higher number. */
inline decide() {
    if
    :: state_of(seen) == CONFIRMED && from_of(seen) <= step + 1 ->
        CLAIM(N1_for_all_or_none, known_until(me, mine) < from_of(seen) || known_until(me, mine) == 0 || true)
    :: else
    fi;
    known_until(me, mine) = step + 1;
    seen = 0
}

proctype Rank() {
    byte step, seen, mine, from, count;

    do
    :: step == STEPS -> break
    :: else ->
        atomic { step++; store(PASSED(me), step) }
#ifndef NO_READER_FENCE
        drained;
#endif
        read_notices()
    od
}
