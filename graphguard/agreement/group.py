"""The agreement of the ranks of a group: at capture by a rendezvous, at replay by the ledger."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from graphguard import environment
from graphguard.agreement import members
from graphguard.agreement.divergence import Divergence
from graphguard.agreement.launches import Launch, Names, Trouble, halves
from graphguard.agreement.members import LocalLedger, Member
from graphguard.agreement.rendezvous import Rendezvous
from graphguard.agreement.seal import SealOutcome, difference_error, seal
from graphguard.blackbox.events import DivergenceKind, Event
from graphguard.blackbox.writer import BlackBox, process_box
from graphguard.environment import Mode
from graphguard.errors import AgreementError, ConfigurationError
from graphguard.log import logger
from graphguard.signature import GraphKey, Signature

if TYPE_CHECKING:
    from graphguard._core import Launches
    from graphguard.agreement.store import GroupMembers, Store
    from graphguard.agreement.watcher import Watcher

OnNotice = Callable[[int, int, tuple[int, int], int], None]
"""Takes a notice: kind, key, digest in halves, first step."""

MAX_KEPT = 1_000
"""Divergences that are kept. More are counted."""


class Agreement:
    """The ranks that guards agree with. All guards of a group in a process share one.

    Made by :func:`agreement_of` from a process group of torch.distributed, or by hand from any
    store that all ranks reach.

    Args:
        store: Where ranks meet: ``set``, ``get`` and ``check`` of torch's stores.
        group: Who the members are.
        mode: The mode of the guards.
        seconds: How long ranks wait for each other at captures; without it what
            ``GRAPHGUARD_AGREE_SECONDS`` says.

    Attributes:
        name: Name and global ranks of the group.
        mode: The mode of the guards.
        divergences: What was seen of ranks that do not do the same, oldest first, at most
            ``MAX_KEPT``.
        num_divergences: How many that were in all.
        names: What the digests in the ledger stand for.
        group_digests: For a shared digest of this rank, the one by which all ranks know the graph;
            they differ where ranks rightly use other communicators besides.
        launches: Of engines that launch by themselves, whether they are in a launch right now. For
            guards the threads' stacks say it.
    """

    def __init__(
        self, store: Store, group: GroupMembers, mode: Mode, seconds: float | None = None
    ) -> None:
        self.name = group.name
        self.mode = mode
        self.divergences: list[Divergence] = []
        self.num_divergences = 0
        self.names = Names()
        self.group_digests: dict[str, str] = {}
        self.launches: list[Launches] = []
        self._store = store
        self._group = group
        self._seconds = environment.agree_seconds(mode) if seconds is None else seconds
        self._rendezvous = Rendezvous(
            store, group.rank, len(group.ranks), group.name, ranks=group.ranks
        )
        self._ledger: LocalLedger | None = None
        self._members: list[Member] = []
        self._failure: Exception | None = None
        self._watcher: Watcher | None = None
        self._said: set[DivergenceKind] = set()
        self._on_notice: list[weakref.WeakMethod[OnNotice]] = []
        self._stopped_by: Divergence | None = None
        _living.add(self)

    @property
    def enforces(self) -> bool:
        """Whether a difference is an error."""
        return self.mode is Mode.ENFORCE

    @property
    def rank(self) -> int:
        """The global rank of this process."""
        return self._group.ranks[self._group.rank]

    @property
    def ledger(self) -> LocalLedger | None:
        """The ledger of this node, or None before :meth:`join` or where there is none."""
        return self._ledger

    @property
    def remote_ranks(self) -> tuple[int, ...]:
        """The global ranks of other nodes, which have a ledger of their own."""
        if self._ledger is None:
            return ()
        here = {self._group.ranks[rank] for rank in self._ledger.ranks}
        return tuple(rank for rank in self._group.ranks if rank not in here)

    @property
    def stopped_by(self) -> Divergence | None:
        """What makes every further launch of this group a hang, if there is something."""
        return self._stopped_by

    def join(self) -> bool:
        """Meet the other ranks and open the ledger. Called again, it does nothing.

        Returns:
            Whether there is a ledger. In observe it may have failed, which is logged.

        Raises:
            AgreementError: When enforcing, if a rank does not come in time.
            LedgerError: When enforcing, if the ledger cannot be made.
        """
        if self._ledger is None and self._failure is None:
            try:
                self._members, self._ledger = members.join(
                    self._rendezvous, self._group.rank, self.mode, self._seconds
                )
            except Exception as error:
                self._failure = error
                if self.enforces:
                    raise
                logger().warning("ranks of %s are not compared: %s", self.name, error)
            else:
                self._watch()
        elif self._failure is not None and self.enforces:
            raise self._failure.with_traceback(None)
        return self._ledger is not None

    def seal(
        self, key: GraphKey, signatures: Sequence[Signature], failure: str = ""
    ) -> SealOutcome | None:
        """Compare what the ranks captured under a key.

        Args:
            key: The family of the graphs.
            signatures: What this rank captured, in order.
            failure: Why this rank could not capture, if it could not.

        Returns:
            What was found, or None in observe if the ranks could not be compared.

        Raises:
            AgreementError: When enforcing, if captures differ or a rank does not come in time.
        """
        if not self.join():
            return None
        self.names.add_key(key)
        try:
            outcome = seal(
                self._rendezvous,
                key,
                signatures,
                mode=self.mode,
                failure=failure,
                seconds=self._seconds,
            )
        except AgreementError as error:
            if self.enforces:
                raise
            self._failure, self._ledger = error, None
            logger().warning("ranks of %s are not compared: %s", self.name, error)
            return None
        for shared_digest, name in outcome.digest_names.items():
            self.names.add_graph(halves(shared_digest), name)
        self.group_digests.update(outcome.group_digests)
        if box := process_box():
            box.record(Event.SEALED, role=str(key), group=self.name, detail=len(signatures))
        if outcome.differences:
            differs = difference_error(outcome.differences, key, self.rank)
            text = differs.message.removeprefix(f"rank {self.rank}: ")
            self.report(DivergenceKind.CAPTURES_DIFFER, 0, (), text)
            if self.enforces:
                raise differs
        return outcome

    def global_rank(self, place: int) -> int:
        """Return the global rank of a place in the ledger."""
        assert self._ledger is not None  # noqa: S101 - places come from it
        return self._group.ranks[self._ledger.ranks[place]]

    def sides(self, step: int) -> str:
        """Say what every rank of this node has published for a step."""
        assert self._ledger is not None  # noqa: S101 - callers have it
        native = self._ledger.native
        launches: list[tuple[Launch, list[int]]] = []
        absent: dict[str, list[int]] = {}
        for place in range(len(self._ledger.ranks)):
            rank = self.global_rank(place)
            fields = native.published(place, step)
            if fields is None:
                why = "nothing yet" if native.passed(place) < step else "not to be read any more"
                absent.setdefault(why, []).append(rank)
                continue
            launch = Launch.of(fields)
            for other, ranks in launches:
                if launch.same_as(other):
                    ranks.append(rank)
                    break
            else:
                launches.append((launch, [rank]))
        launches.sort(key=lambda side: -len(side[1]))
        words = [self.names.describe(launch) for launch, _ in launches]
        texts = [
            f"{_ranks(ranks)}: {word}{f' ({launch.identity})' if words.count(word) > 1 else ''}"
            for (launch, ranks), word in zip(launches, words, strict=True)
        ]
        texts += [f"{_ranks(ranks)}: {why}" for why, ranks in absent.items()]
        return "; ".join(texts)

    def unlike_mine(self, step: int) -> tuple[int, ...]:
        """Return the ranks of this node that have published something else than this rank."""
        assert self._ledger is not None  # noqa: S101 - callers have it
        native = self._ledger.native
        published = {p: native.published(p, step) for p in range(len(self._ledger.ranks))}
        launches = {p: Launch.of(fields) for p, fields in published.items() if fields is not None}
        mine = launches.get(self._ledger.place)
        return tuple(
            self.global_rank(place)
            for place, launch in launches.items()
            if mine is not None and not launch.same_as(mine)
        )

    def report_trouble(self, trouble: Trouble, step: int, place: int) -> Divergence:
        """Report what another rank has told all of them through the ledger."""
        if trouble is Trouble.DAMAGED:
            return self.report(
                DivergenceKind.DAMAGED,
                step,
                (),
                f"the ledger of {self.name} is damaged, which this rank sees at step {step}: it "
                "tells of trouble that no rank can have had",
            )
        rank = self.global_rank(place)
        kind, what = {
            Trouble.DIFFERS: (DivergenceKind.DIFFERS, "saw that ranks differ at"),
            Trouble.REFUSED: (DivergenceKind.PEER_REFUSED, "refused"),
            Trouble.TIMED_OUT: (
                DivergenceKind.PEER_REFUSED,
                "did not find all ranks at the vote on",
            ),
        }[trouble]
        return self.report(
            kind,
            step,
            (rank,),
            f"rank {rank} {what} step {step} of {self.name}: {self.sides(step)}",
        )

    def report(
        self, kind: DivergenceKind, step: int, ranks: tuple[int, ...], text: str
    ) -> Divergence:
        """Keep a divergence, record it, and log the first of its kind."""
        divergence = Divergence(kind, self.name, step, self.rank, ranks, text)
        self.num_divergences += 1
        if len(self.divergences) < MAX_KEPT:
            self.divergences.append(divergence)
        if kind not in self._said:
            self._said.add(kind)
            level = "warning" if kind is DivergenceKind.ADOPTED or not self.enforces else "error"
            getattr(logger(), level)(
                "rank %d: %s (%s); each kind is said once", self.rank, text, kind
            )
        if box := process_box():
            self._record(box, divergence)
        return divergence

    def stop(self, divergence: Divergence) -> None:
        """Let no further launch of this group begin: the next one raises."""
        if self._stopped_by is None:
            self._stopped_by = divergence
            if self._ledger is not None:
                self._ledger.native.stop()

    def told(self) -> None:
        """Note that the program has got an error about it, and ends as it sees fit."""
        if self._watcher is not None:
            self._watcher.program_knows()

    def on_notice(self, call: OnNotice) -> None:
        """Register a method that is called with notices, for as long as its object lives."""
        self._on_notice.append(weakref.WeakMethod(call))

    def take_notices(self) -> None:
        """Hand out the notices that hold from the next step on, in their order."""
        assert self._ledger is not None  # noqa: S101 - notices come from it
        for kind, _, step, high, low, key in self._ledger.native.take_due():
            for method in self._on_notice:
                if (call := method()) is not None:
                    call(kind, key, (high, low), step)

    def _watch(self) -> None:
        from graphguard.agreement.watcher import Watcher

        self._watcher = Watcher(self, self._store, self._group, self._members)
        self._watcher.start()
        self._look_for_stalls()

    def _look_for_stalls(self) -> None:
        from graphguard.watch import watchdog

        assert self._ledger is not None  # noqa: S101 - this follows joining
        segment = self._ledger.segment
        watchdog.watch_ledger(
            segment.descriptor,
            segment.size,
            self.name,
            [self._group.ranks[rank] for rank in self._ledger.ranks],
            segment.job,
        )

    def _record(self, box: BlackBox, divergence: Divergence) -> None:
        box.record(
            Event.DIVERGENCE,
            group=self.name,
            step=divergence.step,
            peer=divergence.ranks[0] if divergence.ranks else None,
            detail=divergence.kind,
        )


def agreement_of(group: Any, mode: Mode) -> Agreement:  # noqa: ANN401 - whatever guard() takes
    """Return the agreement of a group, the same one for every guard of it.

    Args:
        group: A process group of torch.distributed, a function that returns one, or an agreement.
        mode: The mode of the guard that asks.

    Raises:
        ConfigurationError: If it is none of these, if this process is no member, or if another
            guard of the group has another mode.
    """
    if not isinstance(group, Agreement):
        from graphguard.agreement.store import members_of, store_of

        if callable(group):
            group = group()
        known = _by_group.get(group)
        if known is None:
            known = _by_group[group] = Agreement(store_of(group), members_of(group), mode)
        group = known
    if group.mode is not mode:
        raise ConfigurationError(
            f"a guard of {group.name} asks for mode {mode}, and another one has {group.mode}",
            hint="give all guards of a group one mode",
        )
    agreement: Agreement = group
    return agreement


def _ranks(ranks: Sequence[int]) -> str:
    return f"rank{'' if len(ranks) == 1 else 's'} {', '.join(map(str, ranks))}"


def _after_fork() -> None:
    for agreement in list(_living):
        if agreement.ledger is not None:
            agreement.ledger.native.disown()


_by_group: weakref.WeakKeyDictionary[Any, Agreement] = weakref.WeakKeyDictionary()
_living: weakref.WeakSet[Agreement] = weakref.WeakSet()
os.register_at_fork(after_in_child=_after_fork)
