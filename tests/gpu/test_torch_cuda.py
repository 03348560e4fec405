"""The decorator with real CUDA graphs."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from graphguard import (
    BatchDescriptor,
    CaptureError,
    GuardMismatch,
    NestedCapture,
    OperationNotRecordable,
    Phase,
    Session,
    graphs,
    manifest,
    record,
)
from tests.gpu.step import HIDDEN, MAX_TOKENS, Step

OF = BatchDescriptor.of


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture
def step() -> Step:
    step = Step()
    step.hidden.normal_()
    return step


@pytest.mark.parametrize(
    ("batch", "verdict"),
    [
        (OF(16, 2), "replay (exact)"),
        (OF(15, 2), "pad (padded)"),
        (OF(15, 1), "eager (query_length)"),
        (OF(1, 2, Phase.PREFILL), "eager (wrong_phase)"),
        (OF(17, 2), "eager (too_many_requests)"),
    ],
)
def test_outputs_equal_those_of_an_eager_run(
    step: Step, session: Session, batch: BatchDescriptor, verdict: str
) -> None:
    guarded = step.guarded(session, unpad="tokens")

    for _ in range(3):
        step.hidden.normal_()
        out = guarded(batch)
        torch.testing.assert_close(out, step.forward(batch))

    assert str(guarded.last_verdict) == verdict
    assert session.signatures[0].graph_kind == "torch.cuda"


def test_a_missing_descriptor_is_captured_once(step: Step, session: Session) -> None:
    guarded = step.guarded(session, on_divergence="recapture")

    for _ in range(2):
        step.hidden.normal_()
        torch.testing.assert_close(guarded(OF(15, 1)), step.forward(OF(15, 1)))

    assert step.captures[5:] == [OF(15, 1)]
    assert str(guarded.last_verdict) == "replay (exact)"


def test_a_step_can_be_refused(step: Step, session: Session) -> None:
    guarded = step.guarded(session, on_divergence="raise")

    with pytest.raises(GuardMismatch, match="target/full cannot replay 15x1"):
        guarded(OF(15, 1))


def test_a_moved_input_is_refused(step: Step, session: Session) -> None:
    guarded = step.guarded(session, check_inputs="address")
    guarded(OF(2, 2))
    step.hidden.data = torch.zeros(MAX_TOKENS, HIDDEN, device="cuda")

    with pytest.raises(GuardMismatch, match="has moved"):
        guarded(OF(2, 2))


def test_addresses_stay_where_they_were_recorded(step: Step, session: Session) -> None:
    guarded = step.guarded(session)

    for _ in range(10):
        out = guarded(OF(16, 2))

    recorded = {spec.name: spec.address for spec in session.signatures[4].tensors}
    assert recorded == {"hidden": step.hidden.data_ptr(), "output": out.data_ptr()}


def test_a_forbidden_operation_is_named(step: Step) -> None:
    graph = graphs.new()
    with (
        pytest.raises(OperationNotRecordable, match="CUDA refused an operation while capturing"),
        graphs.capture(graph),
    ):
        step.hidden.sum().item()
    torch.cuda.synchronize()

    assert torch.equal(step.hidden + 0, step.hidden)


def test_captures_do_not_nest(step: Step) -> None:
    with (
        pytest.raises(NestedCapture),
        graphs.capture(graphs.new()),
        graphs.capture(graphs.new()),
    ):
        step.hidden.add_(1)


def test_an_error_in_the_capture_function_keeps_its_cause(session: Session) -> None:
    class Failing(Step):
        def forward(self, batch: BatchDescriptor) -> torch.Tensor:
            raise ValueError("no such kernel")

    with pytest.raises(CaptureError, match="no such kernel"):
        Failing().guarded(session)


def test_memory_that_recaptures_reserve_is_counted(session: Session) -> None:
    step = Step()
    guarded = step.guarded(session, "1x1", on_divergence="recapture", max_recapture_bytes=1)
    for num_reqs in range(2, 40):
        guarded(OF(num_reqs, 1))

    # Once captures have reserved anything, later steps run eagerly.
    assert step.captures[1:] + step.eager_runs == [OF(n, 1) for n in range(2, 40)]


def test_a_thousand_graphs_are_checked_and_replayed(session: Session) -> None:
    step = Step(num_layers=1)
    step.hidden.normal_()
    shapes = [(n, q) for q in range(1, 65) for n in range(1, 65) if n * q <= MAX_TOKENS]
    batches = [OF(n, q, phase) for n, q in shapes for phase in Phase]
    irregular = [[1, *[q] * n] for q in (2, 3, 4) for n in range(1, 64) if 1 + n * q <= MAX_TOKENS]
    batches += [BatchDescriptor.ragged(lens, phase) for lens in irregular for phase in Phase]
    guarded = step.guarded(session, *map(str, batches))
    assert len(guarded.batches) >= 1000

    for batch in guarded.batches:
        torch.testing.assert_close(guarded(batch), step.forward(batch))
        assert str(guarded.last_verdict) == "replay (exact)"


def test_collectives_of_nccl_are_recorded_in_a_capture(session: Session, tmp_path: Path) -> None:
    import torch.distributed as dist

    dist.init_process_group(
        "nccl", init_method=f"file://{tmp_path / 'rendezvous'}", rank=0, world_size=1
    )
    try:
        x = torch.ones(64, device="cuda")
        dist.all_reduce(x)
        graph = graphs.new()
        with record("target", OF(16, 2), session=session) as recording:
            with graphs.capture(graph):
                dist.all_reduce(x)
                dist.broadcast(x, src=0)
            recording.captured(graph, inputs={"x": x})
        graph.replay()
        torch.cuda.synchronize()
        path = session.write_manifest(tmp_path / "manifests")
    finally:
        dist.destroy_process_group()

    assert [str(call) for call in recording.signature.collectives] == [
        "all_reduce(64 float32, sum) on 0[0]",
        "broadcast(64 float32, root 0) on 0[0]",
    ]
    assert manifest.read(path).versions["nccl"]
