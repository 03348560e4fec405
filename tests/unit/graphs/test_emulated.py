"""The emulated graph keeps the contract of a CUDA graph."""

from collections.abc import Callable

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from graphguard import graphs
from graphguard.errors import CaptureError, NestedCapture, OperationNotRecordable
from graphguard.graphs.emulated import EmulatedGraph, capture, is_capturing


def captured(function: Callable[[], torch.Tensor]) -> tuple[EmulatedGraph, torch.Tensor]:
    graph = EmulatedGraph()
    with capture(graph):
        result = function()
    return graph, result


def test_capturing_runs_nothing() -> None:
    counter = torch.zeros(3)

    graph, _ = captured(lambda: counter.add_(1))

    assert torch.equal(counter, torch.zeros(3))
    graph.replay()
    assert torch.equal(counter, torch.ones(3))


def test_python_code_does_not_run_again_at_replay() -> None:
    runs = []
    x = torch.arange(4.0)

    def function() -> torch.Tensor:
        runs.append("run")
        return x * 2

    graph, result = captured(function)
    for _ in range(3):
        graph.replay()

    assert runs == ["run"]
    assert torch.equal(result, x * 2)


def test_a_replay_reads_what_is_in_the_static_inputs_now() -> None:
    x = torch.zeros(4)
    graph, result = captured(lambda: torch.relu(x + 1))

    x.copy_(torch.tensor([1.0, -5.0, 2.0, -0.5]))
    graph.replay()

    assert torch.equal(result, torch.tensor([2.0, 0.0, 3.0, 0.5]))


def test_replays_write_to_the_same_memory() -> None:
    x = torch.randn(8, 8)
    graph, result = captured(lambda: x @ x)
    address = result.data_ptr()

    graph.replay()
    first = result.clone()
    x.mul_(2)
    graph.replay()

    assert result.data_ptr() == address
    assert torch.allclose(result, 4 * first)


def test_addresses_are_frozen_when_a_tensor_is_given_other_memory() -> None:
    x = torch.ones(4)
    old_memory = x.detach()
    graph, result = captured(lambda: x + 1)

    x.data = torch.full((4,), 100.0)
    graph.replay()

    assert torch.equal(result, old_memory + 1)


def test_python_numbers_are_frozen() -> None:
    x, factor = torch.ones(2), [3]
    graph, result = captured(lambda: x * factor[0])

    factor[0] = 5
    graph.replay()

    assert torch.equal(result, torch.full((2,), 3.0))


def test_a_captured_branch_stays_taken() -> None:
    x, double = torch.ones(2), [True]
    graph, result = captured(lambda: x * 2 if double[0] else x)

    double[0] = False
    graph.replay()

    assert torch.equal(result, torch.full((2,), 2.0))


def test_views_share_memory_with_what_they_are_views_of() -> None:
    x = torch.zeros(2, 3)

    def function() -> torch.Tensor:
        y = x + 1
        y[0].mul_(10)
        y.view(-1)[4] = 7
        return y.t()

    graph, result = captured(function)
    graph.replay()

    assert torch.equal(result, torch.tensor([[10.0, 1.0], [10.0, 7.0], [10.0, 1.0]]))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.softmax(x.view(2, 2, 4).transpose(0, 1) @ torch.ones(4, 3), -1),
        lambda x: torch.cat(torch.split(x, 2)).sum(),
        lambda x: x.max(dim=1).indices,
        lambda x: torch.nn.functional.layer_norm(x, (4,)),
        lambda x: torch.nn.functional.scaled_dot_product_attention(x[None], x[None], x[None]),
        lambda x: torch.where(x > 0, x, -x).cumsum(0),
        lambda x: torch.zeros(4, 4).index_copy_(0, torch.tensor([3, 1, 0, 2]), x),
        lambda x: torch.nn.functional.embedding(torch.tensor([1, 3]), x),
        lambda x: torch.arange(4.0) + x.to(torch.float64),
        lambda x: torch._foreach_add([x, x], 1.0)[1],
        lambda x: torch.topk(x, 2).values,
    ],
)
def test_a_replay_gives_what_an_eager_run_gives(
    function: Callable[[torch.Tensor], torch.Tensor],
) -> None:
    x = torch.randn(4, 4)
    graph, result = captured(lambda: function(x))

    for _ in range(2):
        x.copy_(torch.randn(4, 4))
        graph.replay()
        assert torch.equal(result, function(x))


def test_a_backward_pass_can_be_part_of_the_graph() -> None:
    layer, x = torch.nn.Linear(3, 2), torch.randn(4, 3)

    def gradient() -> torch.Tensor:
        return torch.autograd.grad(layer(x).pow(2).sum(), [layer.weight])[0]

    graph, result = captured(gradient)
    graph.replay()

    assert torch.allclose(result, gradient())


def test_random_numbers_are_new_in_each_replay() -> None:
    graph, result = captured(lambda: torch.rand(64))
    graph.replay()
    first = result.clone()
    graph.replay()

    assert not torch.equal(result, first)


def test_state_that_an_operation_updates_is_updated_by_a_replay() -> None:
    norm, x = torch.nn.BatchNorm1d(3), torch.randn(8, 3)
    graph, _ = captured(lambda: norm(x))
    assert norm.num_batches_tracked == 0

    graph.replay()

    assert norm.num_batches_tracked == 1
    assert norm.running_mean is not None
    assert not torch.equal(norm.running_mean, torch.zeros(3))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.sum().item(),
        lambda x: bool((x > 0).any()),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        torch.unique,
        lambda x: torch.equal(x, x),
        lambda x: x.resize_(3),
        lambda x: torch.add(x, x, out=torch.empty(0)),
        lambda x: x.set_(torch.ones(3)),
    ],
)
def test_what_needs_the_host_or_other_memory_cannot_be_recorded(
    function: Callable[[torch.Tensor], object],
) -> None:
    graph = EmulatedGraph()
    with (
        pytest.raises(OperationNotRecordable, match=r"aten::\w+.* cannot be recorded") as raised,
        capture(graph),
    ):
        function(torch.randn(4))

    assert "CUDA graph" in raised.value.hint
    assert not is_capturing()


def test_a_capture_that_failed_leaves_an_empty_graph() -> None:
    x = torch.ones(2)
    graph, _ = captured(lambda: x + 1)

    with pytest.raises(OperationNotRecordable), capture(graph):
        x.sum().item()

    with pytest.raises(CaptureError, match="holds no capture"):
        graph.replay()


def test_captures_do_not_nest() -> None:
    outer = EmulatedGraph()
    with capture(outer):
        with pytest.raises(NestedCapture), capture(EmulatedGraph()):
            pass
        result = torch.ones(2) + 1
    outer.replay()

    assert torch.equal(result, torch.full((2,), 2.0))


def test_a_graph_cannot_be_replayed_during_a_capture() -> None:
    graph, _ = captured(lambda: torch.ones(2) + 1)

    with pytest.raises(CaptureError, match="during a capture"), capture(EmulatedGraph()):
        graph.replay()


def test_a_reset_graph_cannot_be_replayed() -> None:
    graph, _ = captured(lambda: torch.ones(2) + 1)
    graph.reset()

    assert len(graph) == 0
    with pytest.raises(CaptureError):
        graph.replay()


def test_nodes_differ_when_operations_or_shapes_do() -> None:
    x = torch.ones(4)
    digests = {
        captured(lambda: x + 1)[0].nodes,
        captured(lambda: x * 2)[0].nodes,
        captured(lambda: x[:2] + 1)[0].nodes,
        captured(lambda: x + 1 + 1)[0].nodes,
    }

    assert len(digests) == 4
    assert captured(lambda: x + 1)[0].nodes in digests


def test_a_replay_ignores_dispatch_modes_of_the_caller() -> None:
    x = torch.ones(3, 3)
    graph, result = captured(lambda: x @ x)

    with FlopCounterMode(display=False) as counting:
        graph.replay()

    assert counting.get_total_flops() == 0
    assert torch.equal(result, x @ x)


def test_a_new_graph_is_emulated_where_there_is_no_cuda() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA: tests/gpu covers it")
    graph = graphs.new()
    with graphs.capture(graph):
        result = torch.ones(2) + 1
    graph.replay()

    assert graphs.kind_of(graph) == "emulated"
    assert isinstance(graph, graphs.Graph)
    assert torch.equal(result, torch.full((2,), 2.0))
