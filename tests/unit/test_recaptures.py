"""Captures after warm-up: what they leave behind, and what ranks must do alike."""

from collections.abc import Callable

import pytest
import torch

from graphguard import (
    BatchDescriptor,
    Captured,
    CaptureError,
    ConfigurationError,
    GuardMismatch,
    Reason,
    Session,
    guard,
)
from graphguard.graph_set import GraphSet
from graphguard.graphs.emulated import EmulatedGraph, capture
from tests.unit.emulated_step import Step

OF = BatchDescriptor.of
MOVED = {"input_address": "recapture", "default": "recapture"}


@pytest.fixture
def step() -> Step:
    return Step()


def move(step: Step, value: float) -> None:
    step.tokens.data = torch.full((64,), value)


def test_what_a_rank_captures_alone_does_not_use_up_what_ranks_capture_together(
    step: Step, session: Session
) -> None:
    guarded = step.guarded(session, check_inputs="address", on_divergence=MOVED, max_recaptures=2)
    for value in (1.0, 2.0):
        move(step, value)
        guarded(OF(2, 2))
    guarded(OF(3, 1))

    assert step.captures[5:] == [OF(2, 2), OF(2, 2), OF(3, 1)]
    move(step, 3.0)
    guarded(OF(2, 2))
    assert step.eager_runs == [OF(2, 2)]


def test_a_failed_capture_is_raised_again_even_past_the_limit(step: Step, session: Session) -> None:
    """Another rank may have captured this graph, and replays it."""
    guarded = step.guarded(session, on_divergence="recapture", max_recaptures=1)
    step.fail_with = RuntimeError("out of memory")

    for _ in range(2):
        with pytest.raises(CaptureError, match="out of memory"):
            guarded(OF(15, 1))

    assert step.eager_runs == []


def test_a_piecewise_capture_that_failed_is_not_tried_for_another_batch_of_its_size(
    step: Step, session: Session
) -> None:
    guarded = step.guarded(session, "8t", graph_mode="piecewise", on_divergence="recapture")
    step.fail_with = RuntimeError("out of memory")

    for batch in (OF(16, 1), OF(8, 2)):
        with pytest.raises(CaptureError):
            guarded(batch)

    assert [str(batch) for batch in step.captures] == ["8t", "16t"]


def test_a_memory_limit_is_not_acted_on_before_it_is_known_whether_graphs_communicate(
    step: Step, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    guarded = guard(
        "target",
        eager=step.eager,
        mode="enforce",
        on_divergence="recapture",
        max_recapture_bytes=0,
        session=session,
    )(step.capture)
    guarded(OF(2, 1))
    assert step.eager_runs == [OF(2, 1)]
    monkeypatch.setenv("WORLD_SIZE", "2")

    with pytest.raises(GuardMismatch, match="only this rank can see that"):
        guarded(OF(2, 1))


def test_a_second_warm_up_leaves_the_memory_limit_as_it_is(step: Step, session: Session) -> None:
    guarded = step.guarded(session, on_divergence="recapture", max_recapture_bytes=1000)
    guarded(OF(3, 1))
    # Stands for CUDA's allocator, which only a GPU has.
    guarded._graphs._reserved(1000)
    guarded.warm_up([OF(32, 2)])
    guarded(OF(5, 1))

    assert step.captures[5:] == [OF(3, 1), OF(32, 2)]
    assert step.eager_runs == [OF(5, 1)]


class OneGraph:
    """Captures into the same graph object every time, as a program with a memory pool may."""

    def __init__(self) -> None:
        self.x = torch.zeros(8)
        self.graph = EmulatedGraph()
        self.inputs: Callable[[], dict[str, torch.Tensor]] = lambda: {"x": self.x}

    def capture(self, batch: BatchDescriptor) -> Captured:
        with capture(self.graph):
            out = self.x * 2
        return Captured(self.graph, inputs=self.inputs(), outputs=out)


def test_a_graph_that_is_captured_into_again_is_not_reset_afterwards(session: Session) -> None:
    one = OneGraph()
    guarded = guard(
        "target",
        eager=lambda batch: None,
        mode="enforce",
        check_inputs="address",
        on_divergence=MOVED,
        session=session,
    )(one.capture)
    guarded.warm_up([OF(8, 1)])
    one.x = torch.full((8,), 3.0)

    assert torch.equal(guarded(OF(8, 1), inputs={"x": one.x}), torch.full((8,), 6.0))


def test_a_recapture_that_the_table_refuses_leaves_the_old_graph(
    step: Step, session: Session
) -> None:
    guarded = step.guarded(session, "2x2", check_inputs="address", on_divergence=MOVED)
    old = guarded._graphs.captured[0]
    original = step.capture

    def with_too_many_dimensions(batch: BatchDescriptor) -> Captured:
        captured = original(batch)
        return Captured(captured.graph, {"tokens": torch.zeros([1] * 17)}, captured.outputs)

    guarded._graphs._capture = with_too_many_dimensions
    move(step, 1.0)
    with pytest.raises(ConfigurationError, match="cannot be checked"):
        guarded(OF(2, 2))

    assert guarded._graphs.captured == [old]
    old.graph.replay()


def test_a_graph_captured_again_is_kept_when_the_session_was_emptied(
    step: Step, session: Session
) -> None:
    guarded = step.guarded(session, "2x2", check_inputs="address", on_divergence=MOVED)
    session.signatures.clear()
    move(step, 1.0)
    guarded(OF(2, 2))

    assert [str(signature.batch) for signature in session.signatures] == ["2x2"]


def test_refused_inputs_are_counted_as_what_they_were(step: Step, session: Session) -> None:
    guarded = step.guarded(session, "2x2", check_inputs="address")
    guarded(OF(2, 2))
    move(step, 1.0)
    for _ in range(2):
        with pytest.raises(GuardMismatch):
            guarded(OF(2, 2))

    assert {v.reason: n for v, n in guarded.verdicts().items()} == {
        Reason.EXACT: 1,
        Reason.INPUT_ADDRESS: 2,
    }


@pytest.mark.parametrize("action", ["eager", "recapture"])
def test_what_one_rank_alone_can_see_is_refused_where_graphs_communicate(
    step: Step, session: Session, monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    guarded = step.guarded(
        session, "2x2", check_inputs="address", on_divergence={"input_address": action}
    )
    # Stands for a collective of several ranks, which tests/distributed has.
    monkeypatch.setattr(GraphSet, "communicates", True)
    move(step, 1.0)

    with pytest.raises(GuardMismatch, match="only this rank can see that"):
        guarded(OF(2, 2))

    assert step.captures == [OF(2, 2)]
    assert step.eager_runs == []


def test_a_graph_that_was_captured_again_lets_go_of_its_memory(
    step: Step, session: Session
) -> None:
    guarded = step.guarded(session, "1x2", "2x2", check_inputs="address", on_divergence=MOVED)
    old = guarded._graphs.captured[1].graph
    move(step, 1.0)
    guarded(OF(2, 2))

    assert session.signatures == guarded._graphs.signatures
    with pytest.raises(CaptureError, match="holds no capture"):
        old.replay()
