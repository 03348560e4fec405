/* Observe: publish, fence, compare with every peer that has published the step, launch anyway. */
#include "ledger.inc"

#ifndef STEPS
#define STEPS 3
#endif

#define STAMP(rank, step) ((rank) * SLOTS + (step) % SLOTS)
#define LOW(rank, step) (RANKS * SLOTS + STAMP(rank, step))
#define HIGH(rank, step) (2 * RANKS * SLOTS + STAMP(rank, step))
#define PASSED(rank) (3 * RANKS * SLOTS + (rank))
#define WORDS (3 * RANKS * SLOTS + RANKS)
#define WRITERS RANKS
#include "store_buffer.inc"

/* A launch is two words, so that it can be torn. The step in them is for the claims only: the
 * program's words do not have it. */
#define half(step, launch) ((step) * 2 + (launch))
#define launch_of(half) ((half) % 2)
#define step_of(half) ((half) / 2)

hidden byte O1_one_of_two_knew, O2_compared_the_same_step, O3_lapped_peer_is_ahead;
hidden byte O4_trouble_is_told;

bool trouble;

/* The claims about pairs of launches are checked for one step, any of them. In the other steps all
 * launch the same: as far as O2 holds, no launch of another step is ever looked at in this one. */
byte watched;
byte launched[RANKS]; /* 0: not yet, else 1 + the launch */
bool knew[RANKS];

#define pair_is_sound(rank) \
    (launched[rank] == 0 || launched[rank] == launched[me] || knew[rank] || knew[me])

/* Putting a store into one's own buffer is seen by nobody: all of it is one step. */
inline publish() {
    store(STAMP(me, step), 0);
    if
    :: store(LOW(me, step), half(step, launch)); store(HIGH(me, step), half(step, launch))
    :: store(HIGH(me, step), half(step, launch)); store(LOW(me, step), half(step, launch))
    fi;
#ifdef RELAXED_PASSED
    if
    :: store(STAMP(me, step), step); store(PASSED(me), step)
    :: store(PASSED(me), step); store(STAMP(me, step), step)
    fi
#else
    store(STAMP(me, step), step);
    store(PASSED(me), step)
#endif
}

inline find() {
    drained;
    trouble = true;
    knows = true
}

/* The peer's slot no longer holds the step. Nothing can be said about it, and that is a finding. */
inline lapped() {
    CLAIM(O3_lapped_peer_is_ahead, load(PASSED(peer)) + 1 >= step + SLOTS);
#ifndef QUIET_LAPPED
    find()
#endif
}

#ifdef NO_STAMP_CHECK
#define is_there true
#else
#define is_there (load(STAMP(peer, step)) == step)
#endif
#define has_published (load(PASSED(peer)) >= step)

inline read_launch() {
    if
    :: low = load(LOW(peer, step)); high = load(HIGH(peer, step))
    :: high = load(HIGH(peer, step)); low = load(LOW(peer, step))
    fi
}

inline judge() {
    CLAIM(O2_compared_the_same_step, step_of(low) == step && step_of(high) == step);
    if
    :: launch_of(low) != launch || launch_of(high) != launch -> find()
    :: else
    fi
}

inline next_peer() {
    low = 0; high = 0; turn++;
    peer = peer_after(turn)
}

/* That a peer has published stays so: it may be looked at together with the stamp. */
inline compare() {
    do
    :: turn == RANKS -> break
    :: atomic { turn < RANKS && !has_published -> next_peer() }
    :: atomic { turn < RANKS && has_published && !is_there -> lapped(); next_peer() }
    :: turn < RANKS && has_published && is_there ->
        read_launch();
        atomic {
            if
            :: is_there -> judge()
            :: else -> lapped()
            fi;
            next_peer()
        }
    od
}

inline launch_it() {
    if
    :: step == watched ->
        launched[me] = 1 + launch;
        knew[me] = knows;
        CLAIM(O1_one_of_two_knew, FOR_ALL(pair_is_sound));
        CLAIM(O4_trouble_is_told, trouble || !knows)
    :: else
    fi;
    turn = 0; peer = 0; launch = 0; knows = false
}

proctype Rank() {
    byte step, low, high, peer, turn;
    bool launch, knows;

    do
    :: step == STEPS -> break
    :: else ->
        atomic {
            step++;
            if
            :: launch = 0
            :: step == watched -> launch = 1
            fi;
            publish();
            turn = 1;
            peer = peer_after(turn)
        }
#ifndef NO_FENCE
        drained;
#endif
        compare();
        atomic { launch_it() }
    od
}

init {
    atomic {
        select(watched : 1 .. STEPS);
        run Rank();
        run Rank();
#if RANKS == 3
        run Rank();
#endif
        run Memory()
    }
}
