"""The parts of an evidence bundle: what is collected, from where, and into which file."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from graphguard import manifest
from graphguard.breadcrumbs.files import beside
from graphguard.errors import BlackBoxError
from graphguard.watch.breadcrumbs import breadcrumbs_in
from graphguard.watch.evidence import bundle_contents as contents
from graphguard.watch.evidence import (
    core_dump,
    environment_record,
    gpus,
    ledger_summary,
    log_tail,
    nccl_ras,
    process_record,
)
from graphguard.watch.evidence.collectors import Absent, Collector, Deadline
from graphguard.watch.evidence.evidence_directory import EvidenceDirectory, NotKept, read_regular
from graphguard.watch.evidence.ledger_summary import Ledger, LedgerUnreadable
from graphguard.watch.evidence.process_environments import Environments
from graphguard.watch.evidence.redaction import Redactor
from graphguard.watch.looking.processes import ELSEWHERE, GONE
from graphguard.watch.stack_traces import stacks

if TYPE_CHECKING:
    from graphguard.watch.looking.ranks import RankState
    from graphguard.watch.stack_traces.stack_model import ProcessStacks

RINGS_BYTES = 32 * 2**20
"""What the copies of the rings may take together, each rank the same."""

MANIFESTS_BYTES = 8 * 2**20
LEDGERS_BYTES = 8 * 2**20
STACKS_SECONDS = 0.9
"""For the Python stacks; the native ones have what is left."""

RAS_SECONDS = 1.0
_LEAST_SECONDS = 0.1
_LOOK_SECONDS = 0.3
_ENVIRONMENT_SECONDS = 0.4


class Parts:
    """Everything that is collected of one stall.

    Args:
        kept: Where it is put.
        directory: Where the rings are.
        states: The ranks.
        verdict_fn: Makes the verdict of the stacks.
        ledgers: Those of the ranks' groups.
        samples: Stacks that have been taken already.
        deadline: When all has to be there.
        log_file: The log that was named.
    """

    def __init__(
        self,
        *,
        kept: EvidenceDirectory,
        directory: Path,
        states: tuple[RankState, ...],
        verdict_fn: Callable[[Mapping[int, ProcessStacks]], object],
        ledgers: tuple[Ledger, ...],
        samples: Mapping[int, ProcessStacks] | None,
        deadline: Deadline,
        log_file: str,
    ) -> None:
        self._kept = kept
        self._directory = directory
        self._states = states
        self._verdict_fn = verdict_fn
        self._ledgers = ledgers
        self._samples = samples
        self._deadline = deadline
        self._log_file = log_file
        self._pids, self._not_here = _processes_here(states)
        self._looked_at = threading.Event()
        self._environments = Environments(self._pids)

    def collectors(self) -> list[Collector]:
        """Return what there is to collect."""
        return [
            Collector("stacks", self._stacks_and_verdict),
            Collector("processes", self._processes),
            Collector("states", self._states_of_ranks),
            Collector("rings", self._rings),
            Collector("ledgers", self._ledgers_of_groups),
            Collector("manifests", self._manifests),
            Collector("breadcrumbs", self._breadcrumbs),
            Collector("environment", self._environment),
            Collector("log", self._log_tail),
            Collector("gpus", self._gpus),
            Collector("nccl-ras", self._ras),
        ]

    def core_dump(self) -> Collector:
        """Return the collector that asks for core dumps of the GPUs."""
        return Collector("core-dump", self._core_dump)

    # ---- stacks and verdict ----

    def _stacks_and_verdict(self) -> Sequence[str]:
        missing = [f"stacks of process {pid}: {why}" for pid, why in self._not_here.items()]
        taken = dict(self._samples or {})
        if self._samples is not None:
            # It was made of them, and is not to wait for those that nobody has.
            self._verdict(taken, missing)
        rest = [pid for pid in self._pids if pid not in taken]
        seconds = min(STACKS_SECONDS, self._left())
        taken |= stacks.sample(rest, seconds, floors=stacks.floors_of(self._states))
        if self._samples is None:
            self._verdict(taken, missing)
        for pid, each in taken.items():
            self._put_stacks(pid, each, "", missing)
        # Native stacks stop the processes: they are looked at first.
        self._looked_at.wait(min(_LOOK_SECONDS, self._left()))
        alive = [pid for pid in self._pids if pid in taken and taken[pid].threads]
        if alive and self._left() > _LEAST_SECONDS:
            native = stacks.sample_native(alive, self._left() - _LEAST_SECONDS)
            for pid, each in native.items():
                self._put_stacks(pid, each, ".native", missing)
        return missing

    def _verdict(self, taken: Mapping[int, ProcessStacks], missing: list[str]) -> None:
        try:
            verdict = self._redacted().tree(msgspec.to_builtins(self._verdict_fn(taken)))
        except Exception as error:  # noqa: BLE001 - the evidence is worth having without it
            missing.append(f"verdict: {error!r}")
            return
        told = verdict if isinstance(verdict, dict) else {"verdict": verdict}
        self._put_json(contents.VERDICT, told, "what graphguard says of the stall")

    def _put_stacks(self, pid: int, taken: ProcessStacks, kind: str, missing: list[str]) -> None:
        if not taken.threads:
            missing.append(
                f"{kind.strip('.') or 'python'} stacks of process {pid}: {taken.problem}"
            )
            return
        what = f"{'native ' if kind else ''}stacks of process {pid}, by {taken.engine}"
        name = f"{contents.STACKS}/{pid}{kind}"
        try:
            text = stacks.as_text(taken).encode("utf-8", "replace")
            self._kept.put(f"{name}.txt", text, what)
            self._kept.put(f"{name}.json", msgspec.json.encode(taken), what)
        except NotKept as why:
            missing.append(str(why))

    # ---- what graphguard itself wrote ----

    def _states_of_ranks(self) -> Sequence[str]:
        told = msgspec.to_builtins(self._states, str_keys=True)
        redacted = self._redacted().tree(told)
        self._put_json(contents.STATES, {"states": redacted}, "each rank as it was looked at")
        return ()

    def _rings(self) -> Sequence[str]:
        rings = list(dict.fromkeys(state.ring for state in self._states if state.ring))
        return self._copy([Path(ring) for ring in rings], "rings", RINGS_BYTES, "black box")

    def _manifests(self) -> Sequence[str]:
        ranks = sorted({state.rank for state in self._states})
        paths = [self._directory / manifest.file_name(rank) for rank in ranks]
        there = [path for path in paths if path.exists()]
        if not there:
            raise Absent(f"{self._directory} holds no manifest of these ranks")
        return self._copy(there, "manifests", MANIFESTS_BYTES, "manifest")

    def _breadcrumbs(self) -> Sequence[str]:
        beside_rings = [beside(state.ring) for state in self._states]
        found = list(dict.fromkeys(path for path in beside_rings if path is not None))
        if not found:
            raise Absent("these ranks leave no breadcrumbs (GRAPHGUARD_BREADCRUMBS=1)")
        missing = []
        for path in found:
            # What they say and no copy: a file has room for thousands of graphs.
            try:
                told = breadcrumbs_in(path, in_flight=True)
                name = f"breadcrumbs/{path.stem}.json"
                self._put_json(name, msgspec.to_builtins(told), f"replays in flight, of {path}")
            except (BlackBoxError, NotKept) as why:  # noqa: PERF203 - the others are told all the same
                missing.append(str(why).partition("\n")[0])
        return missing

    def _copy(self, paths: list[Path], into: str, max_bytes: int, what: str) -> list[str]:
        """Copy files, of which each may take an equal part of the bytes."""
        missing = []
        for path in paths:
            try:
                content = read_regular(path, max_bytes // len(paths))
                self._kept.put(f"{into}/{path.name}", content, f"{what}, copied of {path}")
            except NotKept as why:  # noqa: PERF203 - the others are copied all the same
                missing.append(str(why))
        return missing

    def _ledgers_of_groups(self) -> Sequence[str]:
        if not self._ledgers:
            raise Absent("no ledger was inherited: no group of ranks compares its launches")
        missing: list[str] = []
        summaries = []
        room = LEDGERS_BYTES
        for number, ledger in enumerate(self._ledgers):
            try:
                content = ledger_summary.copy(ledger)
                summaries.append(ledger_summary.summarise(content, ledger.group, ledger.ranks))
                if len(content) > room:
                    missing.append(f"the copy of the ledger of {ledger.group!r}: it is too large")
                    continue
                room -= len(content)
                self._kept.put(f"ledgers/{number}.ledger", content, f"ledger of {ledger.group}")
            except (LedgerUnreadable, NotKept) as why:
                missing.append(str(why))
        told = {"ledgers": msgspec.to_builtins(summaries)}
        self._put_json(contents.LEDGERS, told, "how far each rank came")
        return missing

    # ---- the machine and the processes ----

    def _processes(self) -> Sequence[str]:
        try:
            told = process_record.record(self._pids, self._redacted())
        finally:
            self._looked_at.set()
        self._put_json("processes.json", told, "what ps would say")
        return [f"process {pid}: {why}" for pid, why in self._not_here.items()]

    def _environment(self) -> Sequence[str]:
        known = self._known()
        told = environment_record.record(self._pids, known, self._redacted())
        self._put_json("environment.json", told, "versions, variables, limits")
        unread = [pid for pid in self._pids if not known.get(pid)]
        return [f"the environment of process {pid} cannot be read" for pid in unread]

    def _log_tail(self) -> Sequence[str]:
        found, problems = log_tail.tails(self._pids, self._log_file, self._redacted())
        if not found:
            raise Absent("; ".join(problems) or "there is no process")
        text = log_tail.as_text(found).encode("utf-8", "replace")
        self._kept.put(contents.LOG_TAIL, text, "the last lines of the log")
        return ()

    def _gpus(self) -> Sequence[str]:
        if not gpus.driver_there():
            raise Absent("there is no driver of NVIDIA on this machine")
        try:
            told = gpus.ask(self._left())
        except gpus.NoGpus as why:
            raise Absent(str(why)) from why
        self._put_json("gpus.json", told, "NVML")
        return ()

    def _ras(self) -> Sequence[str]:
        address = nccl_ras.address_of(self._known().values())
        try:
            told = nccl_ras.ask(address, min(RAS_SECONDS, self._left()))
        except nccl_ras.NoAnswer as why:
            raise Absent(str(why)) from why
        self._put_json("nccl-ras.json", told, "NCCL's RAS")
        return () if told["whole"] else ("NCCL's RAS was still answering",)

    def _core_dump(self) -> Sequence[str]:
        problems, triggered = [], []
        known = self._known()
        for pid in self._pids:
            try:
                environment = known.get(pid, {})
                triggered.append(f"process {pid} by {core_dump.trigger(pid, environment)}")
            except core_dump.NotTriggered as why:  # noqa: PERF203 - the others are asked
                problems.append(str(why))
        if not triggered:
            raise Absent("; ".join(problems) or "there is no process")
        text = "".join(f"asked: {each}\n" for each in triggered)
        self._kept.put("core-dump.txt", text.encode(), "which processes were asked for a dump")
        return problems

    def _redacted(self) -> Redactor:
        """Return what takes out secrets; those of the processes' environments are known to it."""
        return self._environments.redactor(min(_ENVIRONMENT_SECONDS, self._left()))

    def _known(self) -> dict[int, dict[str, str]]:
        """Return the environments of the processes, those that could be read in time."""
        return self._environments.known(min(_ENVIRONMENT_SECONDS, self._left()))

    def _put_json(self, name: str, told: Mapping[str, Any], what: str) -> None:
        content = msgspec.json.encode({"format": contents.FORMAT, **told}, enc_hook=str)
        self._kept.put(name, msgspec.json.format(content, indent=2), what)

    def _left(self) -> float:
        return self._deadline.left()


def _processes_here(states: Sequence[RankState]) -> tuple[tuple[int, ...], dict[int, str]]:
    """Return the processes of ranks that can be looked at, and why the others cannot.

    The id of a process that is gone, or of another machine or container, is that of another
    process here, which is nobody's business.
    """
    here: dict[int, None] = {}
    not_here: dict[int, str] = {}
    for state in states:
        if state.process.state == GONE:
            not_here[state.pid] = "it is gone"
        elif state.process.state == ELSEWHERE or state.pid <= 0:
            not_here[state.pid] = "it is on another machine, or in another container"
        else:
            here[state.pid] = None
    return tuple(here), not_here
