"""Operations that are captured in a way of their own, and what a replay leaves out."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
import torch
from torch.overrides import TorchFunctionMode

from graphguard.errors import OperationNotRecordable
from graphguard.graphs.emulated import EmulatedGraph, capture
from graphguard.graphs.emulated_capture import CaptureMode

Function = Callable[[torch.Tensor], torch.Tensor]


def captured(function: Function, x: torch.Tensor) -> tuple[EmulatedGraph, torch.Tensor]:
    graph = EmulatedGraph()
    with capture(graph):
        result = function(x)
    return graph, result


def foreach_in_place(x: torch.Tensor) -> torch.Tensor:
    y = x * 1
    torch._foreach_add_([y, y], 1.0)
    return y


def written_lists(x: torch.Tensor) -> torch.Tensor:
    halves = [torch.empty(2, 4), torch.empty(2, 4)]
    torch.split_copy(x, 2, out=halves)
    return halves[1]


@torch.library.custom_op("graphguard_tests::fill_", mutates_args=("x",))
def fill_(x: torch.Tensor, value: float) -> None:
    x.fill_(value)


@fill_.register_fake
def _(x: torch.Tensor, value: float) -> None:
    pass


def operation_without_results(x: torch.Tensor) -> torch.Tensor:
    y = x * 1
    fill_(y, 3.0)
    return y + x


def transposed_in_place(x: torch.Tensor) -> torch.Tensor:
    y = x + 1
    y.t_()
    y[0].mul_(3)
    return y


@pytest.mark.parametrize(
    "function",
    [
        foreach_in_place,
        written_lists,
        operation_without_results,
        transposed_in_place,
        lambda x: (x * 1).unsqueeze_(0) + 1,
        lambda x: (x * 1).as_strided_((2, 2), (1, 1), 1) + 0,
        lambda x: x @ x.to(torch.complex64).conj().T.real,
        lambda x: x.to(torch.int32) * 2.5,
        lambda x: torch.cat([x[:0], x]) + torch.tensor(1.5),
        lambda x: x[:1].expand(4, 4) + torch.zeros_like(x[:1].expand(4, 4)),
        lambda x: torch.max(x, 1, out=(torch.empty(4), torch.empty(4, dtype=torch.long)))[0],
    ],
)
def test_a_replay_gives_what_an_eager_run_gives(function: Function) -> None:
    x = torch.randn(4, 4)
    graph, result = captured(function, x)

    for _ in range(2):
        x.copy_(torch.randn(4, 4))
        graph.replay()
        expected = function(x)
        assert torch.equal(result, expected)
        assert result.stride() == expected.stride()
        assert result.dtype == expected.dtype


def test_a_result_that_is_given_other_memory_is_still_written_where_it_was() -> None:
    x = torch.ones(3)
    graph, result = captured(lambda x: x + 1, x)
    memory = result.detach()

    result.data = torch.zeros(3)
    graph.replay()

    assert torch.equal(memory, torch.full((3,), 2.0))
    assert torch.equal(result, torch.zeros(3))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.to_sparse(),
        lambda x: torch.sparse.mm(torch.eye(4).to_sparse(), x),
    ],
)
def test_sparse_tensors_cannot_be_recorded(function: Function) -> None:
    with pytest.raises(OperationNotRecordable, match="is sparse"):
        captured(function, torch.ones(4, 4))


def test_a_sparse_argument_cannot_be_recorded() -> None:
    sparse = torch.eye(4).to_sparse()

    with pytest.raises(OperationNotRecordable, match="is sparse"):
        captured(lambda x: torch.sparse.mm(sparse, x), torch.ones(4, 4))


def test_results_are_on_the_device_of_the_operation() -> None:
    _, result = captured(lambda x: x + 1, torch.ones(4, device="meta"))

    assert result.device.type == "meta"


def test_a_capture_in_inference_mode_is_replayed_outside_of_it() -> None:
    x = torch.ones(3)
    with torch.inference_mode():
        graph, result = captured(lambda x: (x * 2).add_(1), x)
    graph.replay()

    assert torch.equal(result.clone(), torch.full((3,), 3.0))


@pytest.mark.parametrize(
    "convert",
    [
        lambda x: x.to(torch.float64),
        lambda x: x.t().reshape(-1),
        lambda x: x.t().contiguous(),
        lambda x: torch.nn.functional.linear(x, torch.eye(2)),
    ],
    ids=["to", "reshape", "contiguous", "linear"],
)
def test_an_operator_made_of_others_is_recorded_in_inference_mode_too(
    convert: Callable[[torch.Tensor], torch.Tensor],
) -> None:
    # It reaches the capture whole there. Its schema says that it may return a view.
    x = torch.zeros(3, 2)
    with torch.inference_mode():
        graph, result = captured(convert, x)
    x.copy_(torch.arange(6).view(3, 2))
    graph.replay()

    assert torch.equal(result.clone(), convert(x))


class Doubling(TorchFunctionMode):
    """Changes what an addition does, as a mode of the program might."""

    def __torch_function__(
        self, function: Callable[..., object], types: object, args: object = (), kwargs: object = ()
    ) -> object:
        raise AssertionError("a replay was shown to a mode of its caller")


@pytest.mark.parametrize(
    "context", [lambda: torch.autocast("cpu", torch.bfloat16), torch.inference_mode, Doubling]
)
def test_a_replay_is_not_changed_by_what_its_caller_has_switched_on(
    context: Callable[[], AbstractContextManager[object]],
) -> None:
    x = torch.randn(8, 8)
    graph, result = captured(lambda x: x @ x, x)

    with context():
        graph.replay()

    assert torch.equal(result, x @ x)


def test_a_function_that_is_compiled_can_capture_and_replay() -> None:
    @torch.compile(backend="eager")
    def run(x: torch.Tensor) -> torch.Tensor:
        graph, result = captured(lambda x: x + 1, x)
        graph.replay()
        return result

    assert torch.equal(run(torch.ones(2)), torch.full((2,), 2.0))


def test_tensors_without_memory_have_nothing_in_common() -> None:
    mode = CaptureMode([])
    with mode:
        for empty in (torch.ones(0), torch.ones(0)):
            empty.add_(1)

    assert all(not step.memory for step in mode.steps)


def test_an_operation_that_returns_both_what_it_wrote_and_something_new_is_refused() -> None:
    """Its new result needs memory and its written one has it: no operator of torch does this."""
    with torch.library._scoped_library("graphguard_tests", "FRAGMENT") as library:
        library.define("both(Tensor(a!) x) -> (Tensor(a!), Tensor)")
        library.impl("both", lambda x: (x.add_(1), x * 2), "CompositeExplicitAutograd")
        library.impl("both", lambda x: (x, torch.empty_like(x)), "Meta")
        x = torch.zeros(2)
        with pytest.raises(OperationNotRecordable, match="both"), capture(EmulatedGraph()):
            torch.ops.graphguard_tests.both(x)

    assert torch.equal(x, torch.zeros(2))
