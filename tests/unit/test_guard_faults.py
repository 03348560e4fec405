"""Faults of graphguard itself, and settings that cannot be meant."""

import logging
from typing import Any

import pytest
import torch

from graphguard import (
    BatchDescriptor,
    Captured,
    CaptureError,
    ConfigurationError,
    GuardedCapture,
    Session,
    guard,
    record,
)
from graphguard.graphs import measured_memory, tensors
from graphguard.graphs.emulated import EmulatedGraph, capture
from graphguard.recorders.c10d import CollectiveRecorder
from tests.unit.emulated_step import Step

OF = BatchDescriptor.of


def with_inputs(inputs: dict[str, Any], mode: str, **settings: Any) -> GuardedCapture:
    def capturing(batch: BatchDescriptor) -> Captured:
        graph = EmulatedGraph()
        with capture(graph):
            out = torch.ones(2) + 1
        return Captured(graph, inputs=inputs, outputs=out)

    settings = {"eager": lambda batch: None, "session": Session(), **settings}
    guarded = guard("target", mode=mode, **settings)(capturing)
    guarded.warm_up([OF(2, 1)])
    return guarded


@pytest.mark.parametrize(
    "inputs",
    [
        {str(number): torch.zeros(1) for number in range(65)},
        {"deep": torch.zeros([1] * 17)},
        {"sparse": torch.eye(2).to_sparse()},
        {"number": 3},
    ],
)
def test_inputs_that_cannot_be_checked_stop_only_a_guard_that_enforces(
    inputs: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ConfigurationError):
        with_inputs(inputs, "enforce")
    with caplog.at_level(logging.WARNING, "graphguard"):
        guarded = with_inputs(inputs, "observe", check_inputs="address")

    for _ in range(2):
        assert torch.equal(guarded(OF(2, 1)), torch.full((2,), 2.0))
        assert torch.equal(guarded(OF(2, 1), inputs=inputs), torch.full((2,), 2.0))
    assert "not recorded" in caplog.text or "will not be checked" in caplog.text


def test_inputs_may_be_given_in_another_order_than_at_capture(session: Session) -> None:
    inputs = {"a": torch.zeros(2), "b": torch.zeros(3)}
    guarded = with_inputs(inputs, "enforce", check_inputs="address")

    assert guarded(OF(2, 1), inputs=dict(reversed(inputs.items()))).shape == (2,)


class TestRecorder:
    def test_one_that_does_not_start_stops_only_a_guard_that_enforces(
        self, step: Step, session: Session, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fails(self: object) -> None:
            raise OSError("no dispatcher")

        monkeypatch.setattr(CollectiveRecorder, "__enter__", fails)

        assert step.guarded(session, mode="observe")(OF(2, 2)).shape == (4,)
        assert len(step.captures) == 5
        with pytest.raises(CaptureError, match="could not be recorded: no dispatcher"):
            step.guarded(session, mode="enforce")

    def test_one_that_does_not_start_leaves_nothing_behind(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from torch._C._distributed_c10d import ProcessGroup

        from graphguard.graphs import emulated
        from graphguard.recorders.c10d import _RecordingMode

        def fails(self: object) -> None:
            raise OSError("no dispatcher")

        before = dict(vars(ProcessGroup))
        monkeypatch.setattr(_RecordingMode, "__enter__", fails)
        with pytest.raises(OSError, match="no dispatcher"), CollectiveRecorder():
            pass

        assert dict(vars(ProcessGroup)) == before
        assert emulated._thread.observers == []

    def test_any_other_fault_has_a_name(
        self, step: Step, session: Session, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fails(outputs: object) -> None:
            raise KeyError("fault")

        monkeypatch.setattr("graphguard.recording.output_specs", fails)
        with pytest.raises(CaptureError, match=r"target/full 1x2 could not be recorded: KeyError"):
            step.guarded(session)


def test_a_manifest_that_cannot_be_made_does_not_reach_a_program_that_is_observed(
    step: Step, session: Session, monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    def fails() -> None:
        raise TypeError("not a manifest")

    monkeypatch.setenv("GRAPHGUARD_DIR", str(tmp_path))
    monkeypatch.setattr(session, "manifest", fails)

    assert step.guarded(session, mode="observe")(OF(2, 2)).shape == (4,)
    with pytest.raises(TypeError):
        step.guarded(session, mode="enforce")


@pytest.mark.parametrize("mode", ["off", "observe"])
def test_a_choice_that_was_never_captured_is_named(step: Step, session: Session, mode: str) -> None:
    guarded = step.guarded(session, mode=mode, choose=lambda batch, captured: OF(3, 3))

    with pytest.raises(ConfigurationError, match="choose returned 3x3 for 2x2"):
        guarded(OF(2, 2))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"graph_mode": "partial"}, "graph_mode='partial' does not exist"),
        ({"check_inputs": "all"}, "check_inputs='all' does not exist"),
        ({"unpad": "rows"}, "unpad='rows' does not exist"),
        ({"unpad": "requests", "graph_mode": "piecewise"}, "cuts nothing off"),
    ],
)
def test_a_setting_that_does_not_exist_is_named_before_it_decorates(
    settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigurationError, match=words) as raised:
        guard("target", mode="observe", **settings)

    assert raised.value.hint.startswith("use ")


def test_a_recording_names_a_graph_mode_that_does_not_exist() -> None:
    with pytest.raises(ConfigurationError, match="graph_mode='partial' does not exist"):
        record("target", OF(1, 1), graph_mode="partial")


def test_a_tensor_without_plain_memory_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"'output\.mask' has no plain memory"):
        tensors.output_specs({"mask": torch.eye(2).to_sparse()})


def test_memory_that_a_failed_capture_reserved_is_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Stands for CUDA's allocator, which only a GPU has.
    reserved = iter([100, 600])
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: next(reserved))
    reports: list[int] = []

    with pytest.raises(ZeroDivisionError), measured_memory(reports.append):
        _ = 1 / 0

    assert reports == [500]


@pytest.fixture
def step() -> Step:
    return Step()
