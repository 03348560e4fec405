"""Guards with a group, as ranks on threads of one process. Steps need no threads: none waits."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from graphguard import (
    Agreement,
    AgreementError,
    BatchDescriptor,
    Captured,
    CaptureError,
    ConfigurationError,
    GuardedCapture,
    LedgerError,
    RanksDiverged,
    Session,
    _core,
    guard,
)
from graphguard.agreement.segment import DIRECTORY, Segment, SegmentName
from graphguard.agreement.store import GroupMembers
from graphguard.environment import Mode
from graphguard.graph_set import CaptureFunction
from tests.unit.agreement.ranks import all_at_once, memory
from tests.unit.emulated_step import MAX_TOKENS, Step

OF = BatchDescriptor.of
MOVED = {"input_address": "recapture", "default": "eager"}
SIZES = ("1x2", "2x2", "4x2")


_capturing = threading.Lock()


def _one_at_a_time(capture: CaptureFunction) -> CaptureFunction:
    """Capture on one thread at a time: two that work out shapes at once crashed torch 2.11."""

    def captured(batch: BatchDescriptor) -> Captured:
        with _capturing:
            return capture(batch)

    return captured


class Ranks:
    """The guards of two ranks, and what they guard."""

    def __init__(self, mode: str = "enforce", seconds: float = 20.0, **settings: Any) -> None:
        store = memory()
        self.agreements = [
            Agreement(store, GroupMembers(rank, (0, 1), "0[0-1]"), Mode(mode), seconds=seconds)
            for rank in range(2)
        ]
        self.steps = [Step() for _ in range(2)]
        self.guards: list[GuardedCapture] = [
            guard(
                "target",
                eager=step.eager,
                mode=mode,
                group=agreement,
                session=Session(),
                **settings,
            )(_one_at_a_time(step.capture))
            for step, agreement in zip(self.steps, self.agreements, strict=True)
        ]

    def warm_up(self, *sizes: Sequence[str]) -> list[Exception | None]:
        """Warm up every rank, with sizes of its own if they are given for each."""
        by_rank = sizes or (SIZES, SIZES)
        batches = [list(map(BatchDescriptor.parse, own)) for own in by_rank]

        def call(guarded: GuardedCapture, own: list[BatchDescriptor]) -> Callable[[], None]:
            return lambda: guarded.warm_up(own)

        calls = [call(g, own) for g, own in zip(self.guards, batches, strict=True)]
        return all_at_once(calls)

    def move(self, rank: int) -> None:
        """Move the static tensor of a rank."""
        self.steps[rank].tokens.data = torch.zeros(MAX_TOKENS)

    def run(self, batch: BatchDescriptor) -> list[str]:
        """Run a step on every rank, all at once, and return the verdicts."""
        results = all_at_once([lambda g=g: g(batch) for g in self.guards])  # type: ignore[misc]
        for result in results:
            if isinstance(result, Exception):
                raise result
        return [str(guarded.last_verdict) for guarded in self.guards]


def test_after_captures_that_differ_no_step_is_launched_until_they_agree() -> None:
    ranks = Ranks()
    errors = ranks.warm_up(("4x2",), ("4x2", "8x2"))
    assert [type(error) for error in errors] == [AgreementError] * 2

    for guarded in ranks.guards:
        with pytest.raises(AgreementError, match="did not capture the same"):
            guarded(OF(4, 2))

    assert ranks.warm_up(("4x2", "8x2"), ("4x2", "8x2")) == [None, None]
    assert ranks.run(OF(4, 2)) == ["replay (exact)"] * 2


def test_after_a_capture_that_failed_no_rank_launches_a_step() -> None:
    ranks = Ranks()
    ranks.steps[1].fail_with = RuntimeError("out of memory")
    errors = ranks.warm_up()
    assert [type(error) for error in errors] == [AgreementError, CaptureError]

    with pytest.raises(AgreementError, match="out of memory"):
        ranks.guards[0](OF(4, 2))
    with pytest.raises(CaptureError, match="out of memory"):
        ranks.guards[1](OF(4, 2))


def test_a_graph_cannot_be_announced_before_the_ranks_have_agreed_on_it() -> None:
    ranks = Ranks()
    ranks.warm_up(("4x2",), ("4x2", "8x2"))
    with pytest.raises(ConfigurationError, match="cannot be taken out of use"):
        ranks.guards[0].quarantine(OF(4, 2))


def test_observing_a_rank_that_answers_a_failed_capture_by_fewer_sizes_waits_for_nobody() -> None:
    ranks = Ranks("observe", seconds=2.0)
    ranks.steps[1].fail_with = RuntimeError("out of memory")
    none, error = ranks.warm_up(("1x2", "2x2"), ("1x2", "2x2"))
    assert none is None
    assert str(error) == "out of memory"

    ranks.steps[1].fail_with = None
    ranks.guards[1].warm_up([OF(1, 2)])
    assert ranks.run(OF(1, 2)) == ["replay (exact)"] * 2
    ranks.run(OF(2, 2))

    kinds = [[str(d.kind) for d in agreement.divergences] for agreement in ranks.agreements]
    assert any("differs" in of_rank for of_rank in kinds)


def test_captures_again_by_notice_stay_within_the_limit_of_the_policy() -> None:
    ranks = Ranks(check_inputs="address", on_divergence=MOVED, max_recaptures=2)
    assert ranks.warm_up() == [None, None]
    for _ in range(4):
        ranks.move(0)
        ranks.move(1)
        for _ in range(80):
            ranks.run(OF(4, 2))

    captures = [step.captures[len(SIZES) :] for step in ranks.steps]
    assert captures == [[OF(4, 2)] * 2] * 2
    assert ranks.run(OF(4, 2)) == ["eager (input_address)"] * 2


def test_a_graph_that_moved_on_every_rank_is_captured_again_once() -> None:
    ranks = Ranks(check_inputs="address", on_divergence=MOVED)
    assert ranks.warm_up() == [None, None]
    ranks.move(0)
    ranks.run(OF(1, 2))
    ranks.move(1)
    for _ in range(100):
        ranks.run(OF(1, 2))

    assert [step.captures[len(SIZES) :] for step in ranks.steps] == [[OF(1, 2)]] * 2


def test_a_manifest_that_one_rank_cannot_write_stops_no_rank_in_a_step(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ranks = Ranks(on_divergence="recapture")
    assert ranks.warm_up() == [None, None]
    monkeypatch.setenv("GRAPHGUARD_DIR", str(tmp_path / "file" / "below"))
    (tmp_path / "file").write_text("no directory")

    with caplog.at_level(logging.WARNING, "graphguard"):
        assert ranks.run(OF(9, 1)) == ["recapture (query_length)"] * 2
    assert "the manifest is not written" in caplog.text


def test_a_quarantine_that_is_announced_after_a_capture_again_outlives_it() -> None:
    ranks = Ranks()
    assert ranks.warm_up() == [None, None]
    for _ in range(3):
        ranks.run(OF(4, 2))
    first = ranks.guards[0].capture_again(OF(4, 2))
    assert ranks.guards[1].quarantine(OF(4, 2)) == first
    verdicts = [ranks.run(OF(4, 2)) for _ in range(80)]

    assert verdicts[-1] == ["eager (quarantined)"] * 2


def test_a_rank_that_was_only_too_far_ahead_is_still_ended_when_it_waits_in_vain() -> None:
    ranks = Ranks()
    assert ranks.warm_up() == [None, None]
    for _ in range(_core.LEDGER_SLOTS - 2):
        ranks.guards[0](OF(4, 2))
    with pytest.raises(RanksDiverged, match="steps ahead of rank 1"):
        ranks.guards[0](OF(4, 2))

    watcher = ranks.agreements[0]._watcher
    assert watcher is not None
    assert not watcher._program_knows


def test_observing_in_the_child_of_a_fork_it_is_said_once_that_steps_are_not_compared(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ranks = Ranks("observe")
    assert ranks.warm_up() == [None, None]
    ledger = ranks.agreements[1].ledger
    assert ledger is not None
    # What is done in the child.
    ledger.native.disown()

    with caplog.at_level(logging.WARNING, "graphguard"):
        for _ in range(2):
            assert ranks.run(OF(4, 2)) == ["replay (exact)"] * 2
    assert caplog.text.count("forked from rank 1 are not compared") == 1


def test_an_eager_run_of_another_role_is_not_adopted() -> None:
    ranks = Ranks()
    assert ranks.warm_up() == [None, None]
    drafters = [
        guard("drafter", eager=step.eager, mode="enforce", group=agreement, session=Session())(
            step.capture
        )
        for step, agreement in zip(ranks.steps, ranks.agreements, strict=True)
    ]
    assert all_at_once([lambda d=d: d.warm_up([OF(4, 2)]) for d in drafters]) == [None, None]  # type: ignore[misc]

    ranks.guards[0](OF(9, 1))
    with pytest.raises(RanksDiverged, match="rank 0 decided on a eager run of target/full 9x1"):
        drafters[1](OF(9, 1))


def test_an_eager_run_of_another_batch_is_not_adopted() -> None:
    ranks = Ranks()
    assert ranks.warm_up() == [None, None]

    ranks.guards[0](OF(9, 1))
    with pytest.raises(RanksDiverged, match="which this rank cannot serve"):
        ranks.guards[1](OF(8, 1))
    assert ranks.steps[1].eager_runs == []

    with pytest.raises(RanksDiverged, match="which this rank cannot serve"):
        ranks.guards[1](OF(4, 2))
    with pytest.raises(RanksDiverged, match="rank 1 refused step 1"):
        ranks.guards[0](OF(4, 2))
    watcher = ranks.agreements[1]._watcher
    assert watcher is not None
    assert watcher._program_knows


def test_a_capture_that_fails_on_one_rank_is_used_on_none() -> None:
    ranks = Ranks(on_divergence="recapture")
    assert ranks.warm_up() == [None, None]
    ranks.steps[1].fail_with = RuntimeError("out of memory")
    for _ in range(2):
        ranks.run(OF(9, 1))

    assert [step.eager_runs for step in ranks.steps] == [[OF(9, 1)] * 2] * 2
    assert [len(guarded.batches) for guarded in ranks.guards] == [3, 3]


def test_a_graph_that_cannot_be_captured_again_on_one_rank_is_quarantined_on_all() -> None:
    ranks = Ranks()
    assert ranks.warm_up() == [None, None]
    first = ranks.guards[0].capture_again(OF(4, 2))
    assert first is not None
    ranks.steps[1].fail_with = RuntimeError("out of memory")
    verdicts = [ranks.run(OF(4, 2)) for _ in range(first)]

    assert verdicts[-2:] == [["replay (exact)"] * 2, ["eager (quarantined)"] * 2]


def test_nothing_has_a_name_any_more_when_the_ranks_have_joined() -> None:
    ranks = Ranks()
    assert ranks.warm_up() == [None, None]
    for agreement in ranks.agreements:
        assert agreement.ledger is not None
        assert not Path(DIRECTORY, agreement.ledger.segment.name.file).exists()


def test_if_one_rank_cannot_open_the_ledger_none_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(name: SegmentName, num_ranks: int) -> Segment:
        raise LedgerError("the ledger cannot be opened", hint="look at it")

    monkeypatch.setattr(Segment, "open", refused)
    errors = Ranks().warm_up()

    assert [type(error) for error in errors] == [LedgerError] * 2
    assert all("ranks 1 of the group have no ledger" in str(error) for error in errors)
