"""The recorder of collective calls, on coordinators made here that speak vLLM's language."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from graphguard.errors import NestedCapture
from graphguard.recorders import own_captures
from graphguard.vllm import communicator_calls as calls_of
from graphguard.vllm import communicator_wrappers as wrappers
from graphguard.vllm import transports
from graphguard.vllm.collectives import CommunicatorRecorder
from graphguard.vllm.collectives import transports as transports_of
from graphguard.vllm.communicator_wrappers import Method
from graphguard.vllm.patches import unwrap_all, wrap

HALF = torch.ones(4, 8, dtype=torch.bfloat16)


class Wire:
    """Something that carries a collective."""

    disabled = False
    refuses = False

    def reduce(self, tensor: torch.Tensor) -> torch.Tensor | None:
        return None if self.refuses else tensor

    def copy(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor


class Group:
    """A coordinator that reduces over its wire."""

    def __init__(self, name: str = "tp:0", ranks: tuple[int, ...] = (4, 5, 6)) -> None:
        self.unique_name, self.ranks, self.world_size = name, ranks, len(ranks)
        self.rank_in_group = 1
        self.wire = Wire()
        self.inner: Group | None = None

    def all_reduce(self, input_: torch.Tensor, **_: Any) -> torch.Tensor | None:
        self.wire.copy(input_)
        return self.wire.reduce(input_)

    def all_gather(self, input_: torch.Tensor) -> torch.Tensor | None:
        """Two steps in one call."""
        return self.all_reduce(input_)

    def dispatch(self, hidden_states: torch.Tensor) -> torch.Tensor | None:
        return hidden_states if self.inner is None else self.inner.all_reduce(hidden_states)

    def fails(self, input_: torch.Tensor) -> None:
        raise ValueError("the network is gone")


@pytest.fixture(autouse=True)
def _wrapped() -> Iterator[None]:
    reads_all_reduce = wrappers.recorded(Method(calls_of.all_reduce))
    for _ in range(2):  # As when a plugin is loaded again in a process that was forked.
        wrap(Group, "all_reduce", reads_all_reduce)
        wrap(Group, "fails", reads_all_reduce)
        wrap(Group, "all_gather", wrappers.recorded(Method(calls_of.all_gather, declines=True)))
        dispatch = Method(calls_of.expert_dispatch, passes_on=True)
        wrap(Group, "dispatch", wrappers.recorded(dispatch))
        wrap(Wire, "reduce", wrappers.through("radio", declines=True))
    yield
    unwrap_all()
    wrappers.active.recorder = None


def lines(recorder: CommunicatorRecorder) -> list[str]:
    assert recorder.failure is None
    return [f"{call} by {call.seen_by}" for call in recorder.calls]


ALL_REDUCE = "all_reduce(32 bfloat16, sum) on tp:0[4-6]"


def test_a_call_is_recorded_once_with_the_group_and_the_transport() -> None:
    group = Group()
    with CommunicatorRecorder() as recorder:
        assert group.all_reduce(HALF) is HALF
    assert lines(recorder) == [f"{ALL_REDUCE} by vllm:radio"]
    assert (recorder.calls[0].group_size, recorder.calls[0].group_rank) == (3, 1)


def test_nothing_is_recorded_outside_of_a_recorder() -> None:
    group = Group()
    group.all_reduce(HALF)
    with CommunicatorRecorder() as recorder:
        pass
    group.all_reduce(HALF)
    assert recorder.calls == []


def test_what_runs_inside_a_call_is_not_another_call() -> None:
    with CommunicatorRecorder() as recorder:
        Group().all_gather(HALF)
    assert lines(recorder) == ["all_gather(32 bfloat16) on tp:0[4-6] by vllm:radio"]


def test_a_call_below_which_nothing_ran_says_so() -> None:
    group = Group()
    group.wire.disabled = True
    with CommunicatorRecorder() as recorder:
        group.all_reduce(HALF)
    assert lines(recorder) == [f"{ALL_REDUCE} by vllm:unseen"]


def test_a_transport_that_declines_is_not_the_way_a_call_went() -> None:
    wrap(Wire, "copy", wrappers.through("cable"))
    group = Group()
    group.wire.refuses = True
    with CommunicatorRecorder() as recorder:
        group.all_reduce(HALF)
    assert lines(recorder) == [f"{ALL_REDUCE} by vllm:cable"]


def test_several_transports_of_one_call_are_all_named() -> None:
    wrap(Wire, "copy", wrappers.through("cable"))
    with CommunicatorRecorder() as recorder:
        Group().all_reduce(HALF)
    assert lines(recorder) == [f"{ALL_REDUCE} by vllm:cable+radio"]


def test_a_communicator_that_declines_has_made_no_call() -> None:
    group = Group()
    group.wire.refuses = True
    with CommunicatorRecorder() as recorder:
        assert group.all_gather(HALF) is None
    assert lines(recorder) == []


def test_an_error_of_vllm_reaches_vllm_and_its_call_is_kept() -> None:
    group = Group()
    with CommunicatorRecorder() as recorder:
        with pytest.raises(ValueError, match="the network is gone"):
            group.fails(HALF)
        group.all_reduce(HALF)
    assert lines(recorder) == [f"{ALL_REDUCE} by vllm:unseen", f"{ALL_REDUCE} by vllm:radio"]


def test_an_argument_that_nobody_knows_is_kept_as_a_failure_and_the_call_goes_on() -> None:
    group = Group()
    with CommunicatorRecorder() as recorder:
        assert group.all_reduce(HALF, priority=1) is HALF
    assert isinstance(recorder.failure, TypeError)
    assert "priority" in str(recorder.failure)
    assert recorder.calls == []


def test_a_coordinator_that_lost_an_attribute_is_kept_as_a_failure() -> None:
    group = Group()
    del group.ranks
    with CommunicatorRecorder() as recorder:
        assert group.all_reduce(HALF) is HALF
    assert isinstance(recorder.failure, AttributeError)


def test_a_module_that_cannot_be_looked_at_is_kept_as_a_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(name: str) -> None:
        raise RuntimeError("no device")

    stand_in(monkeypatch, transports.FUSED_ALL_REDUCE[0], __getattr__=refuse)
    with CommunicatorRecorder() as recorder:
        Group().all_reduce(HALF)
    assert str(recorder.failure) == "no device"
    assert len(recorder.calls) == 1


def test_a_recorder_inside_of_another_fails_and_leaves_the_calls_to_the_first() -> None:
    with CommunicatorRecorder() as outer:
        with CommunicatorRecorder() as inner:
            Group().all_reduce(HALF)
        Group().all_reduce(HALF)
    assert isinstance(inner.failure, NestedCapture)
    assert inner.calls == []
    assert len(outer.calls) == 2
    assert outer.failure is None


def test_a_capture_that_fails_ends_the_recording() -> None:
    with pytest.raises(ValueError, match="network"), CommunicatorRecorder():
        Group().fails(HALF)
    with CommunicatorRecorder() as recorder:
        Group().all_reduce(HALF)
    assert len(recorder.calls) == 1


@pytest.mark.parametrize("capturing", [False, True])
def test_another_thread_counts_while_its_stream_is_captured(
    monkeypatch: pytest.MonkeyPatch, capturing: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: capturing)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: capturing)
    with CommunicatorRecorder() as recorder:
        thread = threading.Thread(target=Group().all_reduce, args=(HALF,))
        thread.start()
        thread.join()
    assert lines(recorder) == ([f"{ALL_REDUCE} by vllm:radio"] if capturing else [])


def test_experts_that_leave_it_to_another_group_are_recorded_there() -> None:
    outer = Group("ep:0")
    outer.inner = Group("dp:0", (4, 8))
    with CommunicatorRecorder() as recorder:
        outer.dispatch(HALF)
    assert lines(recorder) == ["all_reduce(32 bfloat16, sum) on dp:0[4,8] by vllm:radio"]


def test_experts_that_leave_it_to_nobody_are_recorded_without_a_count() -> None:
    with CommunicatorRecorder() as recorder:
        Group("ep:0").dispatch(HALF)
    assert lines(recorder) == ["dispatch(? bfloat16) on ep:0[4-6] by vllm:unseen"]


def stand_in(monkeypatch: pytest.MonkeyPatch, name: str, **attributes: Any) -> None:
    module = ModuleType(name)
    vars(module).update(attributes)
    monkeypatch.setitem(sys.modules, name, module)


def test_experts_without_a_coordinator_are_recorded_on_the_expert_group(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class DeepEPLLPrepareAndFinalize:
        """A stand-in: the real one needs DeepEP and a GPU to be imported."""

        def prepare_async(self, a1: torch.Tensor, topk_ids: torch.Tensor) -> torch.Tensor:
            return a1

        def prepare(self, a1: torch.Tensor, topk_ids: torch.Tensor) -> torch.Tensor:
            return self.prepare_async(a1, topk_ids)

        def finalize(self, output: torch.Tensor, fused: torch.Tensor) -> None:
            output.copy_(fused)

    module = next(e.module for e in transports.EXPERT_EXCHANGES if e.name == "all2all:DeepEPLL")
    stand_in(monkeypatch, module, DeepEPLLPrepareAndFinalize=DeepEPLLPrepareAndFinalize)
    stand_in(monkeypatch, "vllm.distributed.parallel_state", get_ep_group=lambda: Group("ep:0"))
    exchange = DeepEPLLPrepareAndFinalize()
    with CommunicatorRecorder() as recorder:
        exchange.prepare(HALF, torch.ones(4, 2))
        exchange.finalize(output=HALF.clone(), fused=HALF)
    assert lines(recorder) == [
        "dispatch(? bfloat16) on ep:0[4-6] by vllm:all2all:DeepEPLL",
        "combine(? bfloat16, sum) on ep:0[4-6] by vllm:all2all:DeepEPLL",
    ]


def test_the_fused_all_reduce_of_compiled_code_is_recorded_on_the_tensor_group(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module, name, _ = transports.FUSED_ALL_REDUCE
    stand_in(monkeypatch, module, **{name: lambda **given: given["input"]})
    stand_in(monkeypatch, "vllm.distributed.parallel_state", get_tp_group=Group)
    with CommunicatorRecorder() as recorder:
        sys.modules[module].allreduce_fusion(input=HALF, workspace=None, pattern=1)
    assert lines(recorder) == [f"{ALL_REDUCE} by vllm:flashinfer"]


@pytest.mark.parametrize(
    ("rows", "sizes", "expected"),
    [
        (4, None, "all_gather(32 bfloat16)"),
        (4, [4, 4, 4], "all_gather(32 bfloat16)"),
        (4, [4, 2, 0], "all_gather_v(48 bfloat16)"),
        (0, [4, 2, 0], "all_gather_v(48 bfloat16)"),
    ],
)
def test_every_rank_counts_an_uneven_gather_alike(
    rows: int, sizes: list[int] | None, expected: str
) -> None:
    (call,) = calls_of.all_gatherv(Group(), HALF[:rows], sizes=sizes)
    assert str(call) == f"{expected} on tp:0[4-6]"


def test_the_other_end_of_a_message_is_the_neighbour_if_none_is_named() -> None:
    group = Group()
    (sent,) = calls_of.send(group, HALF)
    (received,) = calls_of.recv(group, HALF.size(), HALF.dtype)
    (named,) = calls_of.recv(group, HALF.size(), HALF.dtype, src=2)
    assert (sent.peer, received.peer, named.peer) == (2, 0, 2)


def test_point_to_point_calls_in_one_batch_are_coalesced() -> None:
    operations = [
        SimpleNamespace(op=torch.distributed.isend, tensor=HALF, group_peer=2),
        SimpleNamespace(op=torch.distributed.irecv, tensor=HALF[:1], group_peer=0),
    ]
    assert [str(call) for call in calls_of.batch_isend_irecv(Group(), operations)] == [
        "send(32 bfloat16, peer 2, coalesced) on tp:0[4-6]",
        "recv(8 bfloat16, peer 0, coalesced) on tp:0[4-6]",
    ]


def test_transports_are_told_in_order() -> None:
    group = Group()
    with CommunicatorRecorder() as recorder:
        group.all_reduce(HALF)
        group.wire.disabled = True
        group.all_reduce(HALF)
    assert transports_of(recorder.calls) == ("radio", "unseen")


def test_what_is_recorded_here_is_left_alone_by_what_records_every_graph() -> None:
    assert not own_captures.claimed()
    with CommunicatorRecorder():
        assert own_captures.claimed()
        with CommunicatorRecorder():
            pass
        assert own_captures.claimed()
    assert not own_captures.claimed()
