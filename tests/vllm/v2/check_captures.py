"""Captures of vLLM's own graph managers, and what becomes of those that it throws away."""

from __future__ import annotations

from typing import Any

import pytest

from graphguard.vllm import capturing
from tests.vllm.v2 import stand_ins
from tests.vllm.v2.conftest import Arm


def outputs(worker: Any) -> set[int]:
    """Where the full graphs of the target write to."""
    signatures = [s for s in worker.target.guard.signatures if "/full" in str(s)]
    return {t.address for s in signatures for t in s.tensors[s.num_inputs :]}


def test_captures_of_a_manager_that_was_made_again_are_those_of_the_new_one(arm: Arm) -> None:
    from vllm.compilation.cuda_graph import CUDAGraphWrapper

    worker, runner = arm("enforce"), stand_ins.runner()
    runner.capture_model()
    profiled = runner.cudagraph_manager
    CUDAGraphWrapper.clear_all_graphs()
    runner.new_manager()
    runner.capture_model()

    worker.seal(runner)

    assert len(worker.target.guard.signatures) == 10
    assert outputs(worker) == {runner.cudagraph_manager.hidden_states.data_ptr()}
    assert profiled.hidden_states is not runner.cudagraph_manager.hidden_states
    assert all(len(s.collectives) == 2 for s in worker.target.guard.signatures)


def test_released_graphs_are_forgotten_and_captured_again(arm: Arm) -> None:
    worker, runner = arm("enforce"), stand_ins.runner()
    manager = runner.cudagraph_manager
    if not hasattr(manager, "release_graphs"):
        pytest.skip("this version never releases its graphs")
    runner.capture_model()
    worker.seal(runner)
    before = dict(worker.target._passes[""].ids)

    manager.release_graphs()
    # Kept, so that the new ones get another address.
    released, manager.hidden_states = manager.hidden_states, None
    runner.capture_model()
    assert manager.hidden_states is not released
    assert not worker.sealed
    worker.seal(runner)

    after = worker.target._passes[""].ids
    assert before.keys() == after.keys()
    changed = {d.cg_mode.name for d in after if after[d] != before[d]}
    assert changed == {"FULL"}
    newest = [worker.target.guard.signatures[graph] for graph in after.values()]
    assert all(len(signature.collectives) == 2 for signature in newest)
    assert {t.address for s in newest for t in s.tensors[s.num_inputs :]} >= {
        manager.hidden_states.data_ptr()
    }


def test_a_model_without_pieces_has_no_piecewise_graphs_and_runs_as_vllm_lets_it(
    arm: Arm,
) -> None:
    worker = arm("enforce")
    runner = stand_ins.runner(make_model=Plain)
    runner.capture_model()
    worker.seal(runner)

    assert {str(s) for s in worker.target.guard.signatures} == {
        f"target/full {n}x2" for n in (1, 2, 4, 8, 16)
    }
    names = runner.req_states.set([(0, 3)])
    runner.execute_model(stand_ins.scheduled(dict.fromkeys(names, 3)))
    assert (runner.descriptors[-1].cg_mode.name, runner.descriptors[-1].num_tokens) == (
        "PIECEWISE",
        4,
    )
    assert str(worker.target.guard.last_verdict) == "eager (no_graph)"


class Plain(stand_ins.Model):
    """A model that is not compiled: nothing of it captures piecewise graphs."""

    def __init__(self, vllm_config: Any) -> None:
        super().__init__(vllm_config)
        self.pieces = [self.first, self.second]


def test_a_capture_that_cannot_be_recorded_stays_a_capture(
    arm: Arm, monkeypatch: pytest.MonkeyPatch
) -> None:
    from graphguard.vllm import captures_v2

    def failing(*_: Any) -> Any:
        raise ValueError("no nodes")

    arm("observe")
    monkeypatch.setattr(captures_v2, "piece_of", failing)
    runner = stand_ins.runner("FULL_DECODE_ONLY")

    runner.capture_model()

    assert len(runner.cudagraph_manager.graphs) == 5
    assert len(capturing.failures()) == 5
    assert "ValueError: no nodes" in capturing.failures()[0]
