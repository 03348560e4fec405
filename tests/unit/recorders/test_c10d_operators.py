"""Every operator that the installed torch registers for communication is known."""

import pytest
import torch
import torch.distributed as dist
from torch._C._distributed_c10d import _make_nccl_premul_sum
from torch.distributed import distributed_c10d

from graphguard.recorders import c10d_calls
from graphguard.recorders.c10d import CollectiveRecorder
from graphguard.recorders.c10d_calls import read_calls
from graphguard.recorders.c10d_groups import describe_group

NAMESPACES = ("c10d", "_c10d_functional", "_c10d_functional_autograd")
SILENT = {
    "c10d::check_for_nan",
    "_c10d_functional::wait_tensor",
    "_c10d_functional::wait_tensors",
    "_c10d_functional::_wrap_tensor_autograd",
}


def registered() -> list[torch._ops.OpOverload]:
    names = {schema.name for schema in torch._C._jit_get_all_schemas()}
    operators = []
    for namespace, _, name in (full.partition("::") for full in sorted(names)):
        if namespace in NAMESPACES:
            packet = getattr(getattr(torch.ops, namespace), name)
            operators += [getattr(packet, overload) for overload in packet.overloads()]
    return operators


def test_every_registered_operator_is_read_or_known_to_communicate_nothing() -> None:
    operators = registered()

    assert len(operators) > 30
    for func in operators:
        silent = func._schema.name in SILENT
        assert (c10d_calls._operator(func) is None) == silent, func


def test_an_operator_of_another_version_is_not_passed_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(c10d_calls._READERS, "c10d::barrier")
    c10d_calls._operator.cache_clear()

    with pytest.raises(LookupError, match="c10d::barrier is not an operator"):
        read_calls(torch.ops.c10d.barrier.default, (), {}, "sum")
    c10d_calls._operator.cache_clear()


@pytest.mark.usefixtures("one_rank")
class TestCalls:
    def test_in_place_functional_operators_are_read(self) -> None:
        world = dist.group.WORLD
        assert world is not None
        x = torch.ones(3)
        operators = torch.ops._c10d_functional
        with CollectiveRecorder() as recorder:
            results = [
                *operators.all_reduce_coalesced_([x, x[:1]], "max", world.group_name),
                operators.all_gather_into_tensor_out(x, 1, world.group_name, out=torch.empty(3)),
                operators.broadcast_(x, 0, world.group_name),
            ]
            for result in results:
                operators.wait_tensor(result)

        assert [str(call) for call in recorder.calls] == [
            "all_reduce(3 float32, max, coalesced) on 0[0]",
            "all_reduce(1 float32, max, coalesced) on 0[0]",
            "all_gather(3 float32) on 0[0]",
            "broadcast(3 float32, root 0) on 0[0]",
        ]
        assert recorder.failure is None

    def test_objects_and_barriers_are_read(self) -> None:
        with CollectiveRecorder() as recorder:
            dist.all_gather_object([None], "object")
            dist.barrier(device_ids=[0])
            dist.monitored_barrier()

        assert [call.operation for call in recorder.calls] == [
            "all_gather",
            "all_gather",
            "barrier",
            "barrier",
        ]

    def test_calls_of_a_coalescing_manager_are_read(self) -> None:
        with CollectiveRecorder() as recorder, distributed_c10d._coalescing_manager():
            dist.all_reduce(torch.ones(2))
            dist.all_reduce(torch.ones(3))

        assert [(call.count, call.coalesced) for call in recorder.calls] == [(2, True), (3, True)]

    def test_a_premultiplied_sum_is_named(self) -> None:
        premultiplied = _make_nccl_premul_sum(2.0)
        with (
            CollectiveRecorder() as recorder,
            pytest.raises(RuntimeError, match="PREMUL_SUM"),
        ):
            dist.all_reduce(torch.ones(2), op=premultiplied)

        assert recorder.failure is None
        assert [call.reduction for call in recorder.calls] == ["premul_sum"]

    def test_a_group_that_is_made_again_is_described_again(self) -> None:
        first, second = dist.new_group([0]), dist.new_group([0])

        assert describe_group(first).name != describe_group(second).name
        assert describe_group(second.group_name) == describe_group(second)

    @pytest.mark.skipif(
        not hasattr(torch.ops._c10d_functional, "batch_p2p_ops"),
        reason="this torch has no functional sends and receives (2.11 has none, 2.13 has)",
    )
    def test_a_batch_of_sends_and_receives_is_read_in_order(self) -> None:
        world = dist.group.WORLD
        assert world is not None
        x = torch.ones(3)
        calls = read_calls(
            torch.ops._c10d_functional.batch_p2p_ops.default,
            (["isend", "irecv"], [0, 0], [0, 0], [x, x[:2]], world.group_name),
            {},
            "",
        )

        assert [str(call) for call in calls] == [
            "send(3 float32, peer 0, coalesced) on 0[0]",
            "recv(2 float32, peer 0, coalesced) on 0[0]",
        ]

    def test_a_recorder_that_ends_leaves_another_one_running(self) -> None:
        with CollectiveRecorder() as outer:
            with CollectiveRecorder():
                pass
            dist.all_reduce(torch.ones(2), op=dist.ReduceOp.MAX)

        assert [call.reduction for call in outer.calls] == ["max"]
