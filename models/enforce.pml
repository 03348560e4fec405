/* Enforce, wait-free: publish, claim the decision cell, do what its winner has published. */
#include "ledger.inc"

#ifndef STEPS
#define STEPS 4
#endif
#ifndef DEATHS
#define DEATHS 1
#endif

hidden byte E1_all_launch_the_same, E2_one_step, E3_bounded, E4_nobody_lapped, E5_in_order;
#define AGREED E1_all_launch_the_same

#ifdef NO_LEAD_RULE
#define TRIES ((STEPS + SLOTS - 1) / SLOTS)
#else
#define TRIES 1
#endif
#ifndef MAY_BE_LAPPED
#define MAY_BE_LAPPED false
#endif
#include "ring.inc"

/* What a rank that has ended knew makes no difference to anybody. */
inline forget() {
    atomic {
        step = 0; decision = 0; found_low = 0; found_high = 0; launch = 0; failed = 0;
        there = false
    }
}

proctype Rank() {
    byte step, decision, found_low, found_high, launch, failed;
    bool there;

    {
        do
        :: step == STEPS -> break
        :: step > 0 -> completed /* or goes on while the device works */
        :: atomic {
            step < STEPS ->
            step++;
            if
            :: launch = GRAPH_A
            :: step == watched -> launch = GRAPH_B /* or anything else that some can serve */
#ifndef COARSE
            :: step == watched -> launch = ABORT
#endif
            fi;
            begin_to_publish()
        }
            publish();
            claim(me + 1);
            if
            :: step_of(decision) == step -> follow_rank()
            :: else ->
                CLAIM(E4_nobody_lapped, MAY_BE_LAPPED);
                tell();
                goto ended
            fi
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
#if DEATHS > 0
        run Death();
#endif
#if DEATHS > 1
        run Death()
#endif
    }
}
