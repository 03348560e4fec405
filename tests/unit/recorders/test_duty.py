"""The recorders on duty record a capture together, and none of them can spoil it.

The logs are stand-ins: real ones need a library in front of NCCL, as in ``tests/native``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pytest

from graphguard.batch import BatchDescriptor
from graphguard.errors import CaptureError
from graphguard.recorders import duty
from graphguard.recorders.duty import MAX_DISAGREEMENTS, Duty, Log
from graphguard.recorders.nccl_calls import NcclCall, Source
from graphguard.recording import record
from graphguard.session import Session


class Taken(NamedTuple):
    calls: Sequence[NcclCall]
    dropped: int


class FakeLog:
    """Holds the calls that it is given, and fails where it is told to."""

    def __init__(
        self, *counts: int, source: Source = Source.INTERPOSER, dropped: int = 0, fails: str = ""
    ) -> None:
        self.steps: list[tuple[str, int]] = []
        self._taken = Taken([_call(source, *one) for one in enumerate(counts, 1)], dropped)
        self._fails = fails

    def begin(self, capture_id: int = 0) -> None:
        self._step("begin", capture_id)

    def end(self, capture_id: int = 0) -> None:
        self._step("end", capture_id)

    def take(self, capture_id: int = 0) -> Taken:
        self._step("take", capture_id)
        return self._taken

    def _step(self, name: str, capture_id: int) -> None:
        self.steps.append((name, capture_id))
        if name == self._fails:
            raise CaptureError("recorded already") if name == "begin" else OSError("gone")


def _call(source: Source, order: int, count: int) -> NcclCall:
    return NcclCall(
        source=source,
        order=order,
        operation="all_reduce",
        count=count,
        dtype="float32",
        num_ranks=2,
        rank=0,
    )


def recorded(logs: dict[Source, Log], *, interface: int = 7, capture_id: int = 0) -> Duty:
    on_duty = Duty(capture_id, find_logs=lambda: logs, find_interface=lambda: interface)
    with on_duty:
        pass
    return on_duty


def counts(on_duty: Duty) -> list[tuple[int | None, str]]:
    return [(call.count, call.seen_by) for call in on_duty.merged(lambda: (0, 2)).calls]


def test_a_log_is_begun_ended_and_taken_for_the_capture() -> None:
    log = FakeLog(1, 2)
    on_duty = recorded({Source.INTERPOSER: log}, capture_id=5)
    assert log.steps == [("begin", 5), ("end", 5), ("take", 5)]
    assert counts(on_duty) == [(1, "interposer"), (2, "interposer")]


def test_plugin_and_interposer_give_one_sequence() -> None:
    logs: dict[Source, Log] = {
        Source.PLUGIN: FakeLog(1, 2, 3, source=Source.PLUGIN),
        Source.INTERPOSER: FakeLog(1, 3),
    }
    on_duty = recorded(logs)
    assert counts(on_duty) == [(1, "interposer"), (2, "plugin"), (3, "interposer")]
    assert len(on_duty.merged(lambda: (0, 2)).disagreements) == 1


@pytest.mark.parametrize("interface", [0, 4])
def test_a_plugin_that_nccl_does_not_tell_every_call_does_not_contradict_the_interposer(
    interface: int,
) -> None:
    logs: dict[Source, Log] = {
        Source.PLUGIN: FakeLog(3, source=Source.PLUGIN),
        Source.INTERPOSER: FakeLog(1, 3),
    }
    on_duty = recorded(logs, interface=interface)
    assert counts(on_duty) == [(1, "interposer"), (3, "interposer")]
    assert on_duty.merged(lambda: (0, 2)).disagreements == ()
    # Alone it is better than nothing.
    del logs[Source.INTERPOSER]
    assert counts(recorded(logs, interface=interface)) == [(3, "plugin")]


def test_a_log_that_another_recording_has_is_left_to_it() -> None:
    log = FakeLog(1, fails="begin")
    on_duty = recorded({Source.INTERPOSER: log})
    assert log.steps == [("begin", 0)]
    assert on_duty.failure is None
    assert counts(on_duty) == []


def test_a_log_that_fails_is_told_at_the_end_and_the_others_are_ended() -> None:
    plugin = FakeLog(1, source=Source.PLUGIN, fails="end")
    interposer = FakeLog(1)
    on_duty = recorded({Source.PLUGIN: plugin, Source.INTERPOSER: interposer})
    assert isinstance(on_duty.failure, OSError)
    assert interposer.steps[-1] == ("take", 0)


def test_calls_that_a_log_had_no_room_for_are_told() -> None:
    on_duty = recorded({Source.INTERPOSER: FakeLog(1, dropped=3)})
    told = on_duty.merged(lambda: (0, 2)).disagreements
    assert told == ("the interposer had no room for 3 more calls",)


def test_no_more_disagreements_are_kept_than_a_signature_holds() -> None:
    # Each at its own place between calls that are equal.
    pairs = range(0, 60, 2)
    plugin = FakeLog(*[n for p in pairs for n in (p + 1, 1000 + p)], source=Source.PLUGIN)
    interposer = FakeLog(*[n for p in pairs for n in (p + 1, 2000 + p)])
    on_duty = recorded({Source.PLUGIN: plugin, Source.INTERPOSER: interposer})
    told = on_duty.merged(lambda: (0, 2)).disagreements
    assert len(told) == MAX_DISAGREEMENTS
    assert told[-1] == "and 15 more disagreements"


def test_the_rank_is_asked_for_only_where_there_are_calls_of_nccl() -> None:
    def unknown() -> tuple[int, int]:
        raise AssertionError

    assert recorded({Source.INTERPOSER: FakeLog()}).merged(unknown).calls == ()


def test_a_signature_has_what_nccl_saw_and_where_its_recorders_disagree(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    logs = {
        Source.PLUGIN: FakeLog(1, 2, source=Source.PLUGIN),
        Source.INTERPOSER: FakeLog(1, 2, 3),
    }
    monkeypatch.setattr(Duty.__init__, "__kwdefaults__", _kinds(logs))
    with record("target", BatchDescriptor.of(4, 1), session=session) as recording:
        pass
    signature = recording.signature
    assert [call.count for call in signature.collectives] == [1, 2, 3]
    assert len(signature.disagreements) == 1
    # They say something of the recording, not of the graph.
    logs[Source.PLUGIN] = FakeLog(1, 2, 3, source=Source.PLUGIN)
    logs[Source.INTERPOSER] = FakeLog(1, 2, 3)
    with record("target", BatchDescriptor.of(4, 1), session=session) as again:
        pass
    assert again.signature.disagreements == ()
    assert again.signature.digests == signature.digests


def _kinds(logs: dict[Source, FakeLog]) -> dict[str, object]:
    return {"find_logs": lambda: logs, "find_interface": lambda: 7}


def test_a_recorder_that_fails_makes_the_recording_fail_and_not_the_capture(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> dict[Source, Log]:
        raise OSError("no such library")

    monkeypatch.setattr(Duty.__init__, "__kwdefaults__", {**_kinds({}), "find_logs": broken})
    reached = False
    with (
        pytest.raises(CaptureError, match="no such library"),
        record("target", BatchDescriptor.of(4, 1), session=session),
    ):
        reached = True
    assert reached


def test_without_any_library_of_its_own_a_process_has_no_logs() -> None:
    # No test of this process loads one.
    assert duty.logs_of_this_process() == {}
