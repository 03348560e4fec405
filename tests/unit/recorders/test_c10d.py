"""The recorder for torch.distributed, apart from what needs several ranks."""

import pytest
import torch
import torch.distributed as dist
from torch._C._distributed_c10d import ProcessGroup

from graphguard import BatchDescriptor, CaptureError, Session, record
from graphguard.recorders import c10d
from graphguard.recorders.c10d import CollectiveRecorder
from graphguard.recorders.c10d_calls import name_reduction
from graphguard.recorders.c10d_groups import format_ranks

pytestmark = pytest.mark.usefixtures("one_rank")


@pytest.mark.parametrize(
    ("operation", "name"),
    [
        (dist.ReduceOp.SUM, "sum"),
        (dist.ReduceOp.MIN, "min"),
        (dist.ReduceOp.MAX, "max"),
        (dist.ReduceOp.PRODUCT, "product"),
        (dist.ReduceOp.BOR, "bor"),
    ],
)
def test_the_reduction_is_read(operation: dist.ReduceOp.RedOpType, name: str) -> None:
    with CollectiveRecorder() as recorder:
        dist.all_reduce(torch.ones(2, dtype=torch.int32), op=operation)

    assert recorder.calls[0].reduction == name
    assert recorder.calls[0].dtype == "int32"


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("AVG", "avg"),
        (dist.ReduceOp.MAX, "max"),
        (dist.ReduceOp(dist.ReduceOp.MIN), "min"),
        (torch.ones(1), None),
        (None, None),
    ],
)
def test_a_reduction_is_named_however_it_is_given(value: object, name: str | None) -> None:
    assert name_reduction(value) == name


def test_the_reduction_of_a_direct_call_on_the_group_is_read() -> None:
    world = dist.group.WORLD
    assert world is not None
    options = dist.AllreduceOptions()
    options.reduceOp = dist.ReduceOp(dist.ReduceOp.MIN)
    with CollectiveRecorder() as recorder:
        world.allreduce([torch.ones(2)], options).wait()
        world.allreduce([torch.ones(2)]).wait()

    assert [call.reduction for call in recorder.calls] == ["min", "sum"]


def test_a_collective_that_was_not_called_from_python_has_an_unknown_reduction() -> None:
    world = dist.group.WORLD
    assert world is not None
    with CollectiveRecorder() as recorder:
        # The original method, as C++ reaches it: past what the recorder put in its place.
        c10d._reductions._originals["allreduce"].__get__(world)([torch.ones(2)]).wait()

    assert recorder.calls[0].reduction == "unknown"


def test_nothing_is_left_in_torch_after_recording() -> None:
    before = dict(vars(ProcessGroup))
    with CollectiveRecorder(), CollectiveRecorder():
        assert vars(ProcessGroup)["allreduce"] is not before["allreduce"]

    assert dict(vars(ProcessGroup)) == before


def test_nothing_is_left_in_torch_when_the_capture_fails() -> None:
    before = dict(vars(ProcessGroup))
    with pytest.raises(ZeroDivisionError), CollectiveRecorder():
        _ = 1 / 0

    assert dict(vars(ProcessGroup)) == before


def test_calls_outside_are_not_recorded() -> None:
    recorder = CollectiveRecorder()
    dist.all_reduce(torch.ones(2))
    with recorder:
        pass
    dist.all_reduce(torch.ones(2))

    assert recorder.calls == []


def test_nested_recorders_each_see_the_call() -> None:
    with CollectiveRecorder() as outer, CollectiveRecorder() as inner:
        dist.all_reduce(torch.ones(2))

    assert len(outer.calls) == len(inner.calls) == 1


def test_a_fault_of_the_recorder_does_not_stop_the_program(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(*_: object) -> None:
        raise LookupError("no reader")

    monkeypatch.setattr(c10d, "read_calls", fails)
    x = torch.ones(2)
    with CollectiveRecorder() as recorder:
        dist.all_reduce(x)
    assert str(recorder.failure) == "no reader"

    with (
        pytest.raises(CaptureError, match="of target/full 1x1 could not be recorded: no reader"),
        record("target", BatchDescriptor.of(1, 1), session=Session()),
    ):
        dist.all_reduce(x)


def test_a_compiled_function_stays_compiled_while_it_is_recorded() -> None:
    compiled = 0

    def backend(module: torch.fx.GraphModule, _: object) -> torch.fx.GraphModule:
        nonlocal compiled
        compiled += 1
        return module

    function = torch.compile(lambda x: x * 2 + 1, backend=backend)
    with CollectiveRecorder() as recorder:
        result = function(torch.ones(3))
        dist.all_reduce(result)

    assert compiled == 1
    assert torch.equal(result, torch.full((3,), 3.0))
    assert len(recorder.calls) == 1


@pytest.mark.parametrize(
    ("ranks", "text"),
    [([0], "0"), ([0, 1, 2, 3], "0-3"), ([4, 0, 2, 5, 6], "4,0,2,5-6"), ([1, 0], "1,0"), ([], "")],
)
def test_ranks_are_written_in_their_order_and_in_runs(ranks: list[int], text: str) -> None:
    assert format_ranks(ranks) == text


def test_an_all_to_all_with_splits_is_uneven_even_where_this_ranks_splits_are_equal() -> None:
    """With three ranks, two of them may see equal splits while the third does not."""
    x = torch.ones(4, 2)
    with CollectiveRecorder() as recorder:
        dist.all_to_all_single(torch.empty(4, 2), x, [4], [4])
        dist.all_to_all_single(torch.empty(4, 2), x)

    with_splits, without = recorder.calls
    assert (with_splits.operation, with_splits.count) == ("all_to_all_v", None)
    assert (with_splits.send_splits, with_splits.recv_splits) == ((8,), (8,))
    assert (without.operation, without.count) == ("all_to_all", 8)
