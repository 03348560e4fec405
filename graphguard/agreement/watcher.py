"""The watcher: a thread that learns what the thread in a launch can no longer see.

A rank that has launched a graph waits in it. If another rank then refuses the step or ends, only
this thread is left to say so, and to end the process before a time-out of minutes does.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
import time
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING

from graphguard import environment
from graphguard.agreement.divergence import Divergence
from graphguard.agreement.in_progress import in_launch
from graphguard.agreement.launches import Trouble
from graphguard.agreement.members import LocalLedger, Member
from graphguard.agreement.nodes import NodeComparison, Window
from graphguard.at_exit import at_exit, ends_by_error
from graphguard.blackbox.events import DivergenceKind
from graphguard.blackbox.writer import process_box
from graphguard.log import logger
from graphguard.watch.across_nodes.nodes import NodeStalls, own_stall
from graphguard.watch.watchdog import forget_ledger

if TYPE_CHECKING:
    from graphguard.agreement.group import Agreement
    from graphguard.agreement.store import GroupMembers, Store
    from graphguard.watch.looking.bundles import Bundle

POLL_SECONDS = 0.1
PEERS_SECONDS = 0.5
"""How often it is asked whether the other processes live. Each costs a system call."""

GRACE_SECONDS = 1.0
"""How long a program may take to end by itself after a launch was found to wait in vain."""

DOUBT_SECONDS = 3.0
"""How long a launch may go on where it is not certain that it waits in vain: a rank is gone that
may have done its part in it."""

STUCK_EXIT_CODE = 70
"""What a process ends with that this thread has ended (EX_SOFTWARE of sysexits.h)."""

RECENT_STEPS = 256


class Watcher:
    """Watches one agreement until the process ends."""

    def __init__(
        self, agreement: Agreement, store: Store, group: GroupMembers, members: Sequence[Member]
    ) -> None:
        ledger = agreement.ledger
        assert ledger is not None  # noqa: S101 - it is started after joining
        self._ledger: LocalLedger = ledger
        # The agreement keeps this object, and must be able to go.
        self._agreement = weakref.ref(agreement)
        self._exits = environment.exits_when_stuck()
        self._done = threading.Event()
        self._thread: threading.Thread | None = None
        self._told_trouble = False
        self._gone: set[int] = set()
        self._next_look_at_peers = 0.0
        self._stuck_by: Divergence | None = None
        self._stuck_for_certain = False
        self._stuck_since: float | None = None
        self._program_knows = False
        self._failed = False
        self._nodes: NodeComparison | None = None
        self._node_stalls: NodeStalls | None = None
        nodes = _nodes(members)
        if len(nodes) > 1 and self._ledger.place == 0:
            # The first rank of each node speaks for it.
            mine = nodes.index(list(self._ledger.ranks))
            names = [_node_name(members, group, ranks) for ranks in nodes]
            self._nodes = self._compare_nodes(agreement.name, store, mine, names)
            posts = [members[ranks[0]].pid for ranks in nodes]
            told = list(zip(names, posts, strict=True))
            self._node_stalls = self._tell_nodes(agreement, store, mine, told)

    def start(self) -> None:
        """Start the thread."""
        name = f"graphguard-{self._ledger.segment.name.file[-8:]}"
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()
        # A group may be taken down and made again many times: only what lives is kept.
        leave = weakref.WeakMethod(self._leave)

        def leave_if_alive() -> None:
            if (call := leave()) is not None:
                call()

        at_exit(leave_if_alive)

    def program_knows(self) -> None:
        """Leave the end to the program: it has got an error."""
        self._program_knows = True

    def _leave(self) -> None:
        if self._done.is_set():
            return
        self._done.set()
        # A program that ends by an error has most likely not done what the others wait for.
        if not ends_by_error():
            self._ledger.native.leave()
        if self._nodes is not None and self._thread is not None:
            self._thread.join(GRACE_SECONDS)
            self._close_nodes()

    def _close_nodes(self) -> None:
        for each in (self._nodes, self._node_stalls):
            if each is not None:
                each.close()

    def _run(self) -> None:
        while not self._done.wait(POLL_SECONDS):
            agreement = self._agreement()
            if agreement is None:
                self._forget()
                return
            if agreement.ledger is None:
                return
            try:
                self._look(agreement)
            except Exception as error:  # noqa: BLE001 - the thread must outlive what it reports
                if not self._failed:
                    self._failed = True
                    logger().warning("watching %s: %s; said once", agreement.name, error)
            del agreement

    def _forget(self) -> None:
        """Leave the ledger of a group that this process has taken down."""
        self._done.set()
        self._ledger.native.leave()
        self._close_nodes()
        forget_ledger(self._ledger.segment.job)
        self._ledger.segment.close()

    def _look(self, agreement: Agreement) -> None:
        self._look_at_trouble(agreement)
        now = time.monotonic()
        # Who ends after the others were told that it is over ends because of that.
        if agreement.stopped_by is None and now >= self._next_look_at_peers:
            self._next_look_at_peers = now + PEERS_SECONDS
            self._look_at_peers(agreement)
        if self._node_stalls is not None:
            self._node_stalls.poll()
        if self._nodes is not None:
            self._look_at_nodes(agreement, self._nodes)
        if self._stuck_by is not None:
            self._look_at_launch(agreement, self._stuck_by, now)

    def _look_at_trouble(self, agreement: Agreement) -> None:
        kind, step, place = self._ledger.native.trouble()
        trouble = Trouble(kind)
        if self._told_trouble or trouble is Trouble.NONE:
            return
        if place == self._ledger.place and trouble is not Trouble.DAMAGED:
            return
        self._told_trouble = True
        divergence = agreement.report_trouble(trouble, step, place)
        if trouble.fatal and agreement.enforces:
            waits = trouble is not Trouble.DAMAGED and self._ledger.native.step() >= step
            self._stuck(agreement, divergence, waits=waits)

    def _look_at_peers(self, agreement: Agreement) -> None:
        native, segment = self._ledger.native, self._ledger.segment
        for place in range(len(self._ledger.ranks)):
            pid = native.pid(place)
            if place in self._gone or pid == 0 or segment.held(place):
                continue
            step, last, left = native.step(), native.passed(place), native.has_left(place)
            if left and step <= last:
                # It was done. That matters only to a rank that goes on.
                continue
            self._gone.add(place)
            rank = agreement.global_rank(place)
            what = f"{agreement.sides(last)}" if last else "it had launched nothing"
            divergence = agreement.report(
                DivergenceKind.PEER_GONE,
                last,
                (rank,),
                f"rank {rank} (process {pid}) of {agreement.name} has ended"
                f"{'' if left else ' without a word'} after step {last}, and this rank is at step "
                f"{step}. Step {last}: {what}",
            )
            if agreement.enforces:
                self._stuck(agreement, divergence, waits=step > last)

    def _look_at_nodes(self, agreement: Agreement, nodes: NodeComparison) -> None:
        for difference in nodes.poll():
            divergence = agreement.report(
                DivergenceKind.NODES_DIFFER, difference.step, (), str(difference)
            )
            if agreement.enforces:
                self._stuck(agreement, divergence, waits=True)

    def _stuck(self, agreement: Agreement, divergence: Divergence, *, waits: bool) -> None:
        """Let nothing more be launched; a launch that was begun ends, or is ended.

        Args:
            agreement: The ranks.
            divergence: Why.
            waits: Whether it is certain that this rank waits in vain, or will.
        """
        agreement.stop(divergence)
        if self._stuck_by is None or (waits and not self._stuck_for_certain):
            self._stuck_by = divergence
            self._stuck_for_certain = waits
            self._stuck_since = None

    def _look_at_launch(self, agreement: Agreement, stuck_by: Divergence, now: float) -> None:
        """End the process if it waits in a launch, and does not find out of it by itself."""
        if self._program_knows or not self._exits:
            return
        if not self._stuck_for_certain and not in_launch(agreement):
            self._stuck_since = None
            return
        if self._stuck_since is None:
            self._stuck_since = now
        patience = GRACE_SECONDS if self._stuck_for_certain else DOUBT_SECONDS
        if now - self._stuck_since >= patience:
            self._end(agreement, stuck_by)

    def _end(self, agreement: Agreement, stuck_by: Divergence) -> None:
        try:
            logger().critical(
                "rank %d waits in step %d of %s for what will not come, and is ended: %s",
                agreement.rank,
                self._ledger.native.step(),
                agreement.name,
                stuck_by.text,
            )
            if box := process_box():
                box.note("ended: a launch waits for ranks that will not come", group=agreement.name)
            # What a program has put in the place of sys.stderr may be no file.
            faulthandler.dump_traceback(sys.__stderr__ or 2, all_threads=True)
            sys.stderr.flush()
        finally:
            os._exit(STUCK_EXIT_CODE)

    def _compare_nodes(
        self, name: str, store: Store, mine: int, names: Sequence[str]
    ) -> NodeComparison:
        native = self._ledger.native

        def window() -> Window | None:
            steps = native.window(RECENT_STEPS)
            if not steps:
                return None
            return Window(
                group=name,
                step=steps[-1][0],
                rolling=f"{steps[-1][2]:016x}",
                recent=[(step, f"{seen:016x}", f"{rolling:016x}") for step, seen, rolling in steps],
            )

        return NodeComparison(store, mine, names, window)

    def _tell_nodes(
        self, agreement: Agreement, store: Store, mine: int, nodes: Sequence[tuple[str, int]]
    ) -> NodeStalls | None:
        """Tell stalls of this node to the others, if they are looked for."""
        box = process_box()
        if box is None or environment.stall_seconds() == 0:
            return None
        ledger, since_ns, directory = self._ledger, time.time_ns(), box.path.parent
        ranks = [agreement.global_rank(place) for place in range(len(ledger.ranks))]

        def stall() -> Bundle | None:
            return own_stall(directory, since_ns, ledger.segment.job, ranks)

        def steps() -> list[tuple[int, int]]:
            return [(rank, ledger.native.passed(place)) for place, rank in enumerate(ranks)]

        return NodeStalls(store, agreement.name, mine, nodes, own_stall=stall, steps=steps)


def _nodes(members: Sequence[Member]) -> list[list[int]]:
    """Return the ranks of each node, in the group."""
    by_memory: dict[str, list[int]] = {}
    for rank, member in enumerate(members):
        by_memory.setdefault(member.memory, []).append(rank)
    return sorted(by_memory.values())


def _node_name(members: Sequence[Member], group: GroupMembers, ranks: Sequence[int]) -> str:
    numbers = ", ".join(str(group.ranks[rank]) for rank in ranks)
    return f"{members[ranks[0]].host} (ranks {numbers})"
