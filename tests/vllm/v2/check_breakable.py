"""vLLM's own breakable graphs: recorded as one step, replayed, and thrown away.

None of it was seen in a running engine: that needs Triton and a GPU.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from graphguard.vllm import capturing
from tests.vllm.v2 import stand_ins
from tests.vllm.v2.check_runner import FRESH, expected
from tests.vllm.v2.conftest import Arm

pytest.importorskip("vllm.compilation.breakable_cudagraph", reason="not in this version")


@pytest.fixture(autouse=True)
def _breakable(monkeypatch: pytest.MonkeyPatch) -> None:
    from graphguard.vllm import breakable

    monkeypatch.setenv("VLLM_USE_BREAKABLE_CUDAGRAPH", "1")
    breakable.install()


class Broken(stand_ins.Model):
    """A model that breaks its graph between the pieces, for attention with a collective in it."""

    def __init__(self, vllm_config: Any) -> None:
        from vllm.compilation.breakable_cudagraph import eager_break_during_capture

        super().__init__(vllm_config)
        self.attention = eager_break_during_capture(self.attend)

    def attend(self, hidden: torch.Tensor) -> None:
        self.eager_runs += 1
        self.tensors.reduced(hidden[:1])
        hidden.add_(1)

    def forward(self, input_ids: Any, positions: Any, **_: Any) -> torch.Tensor:
        hidden = self.first(input_ids)
        self.attention(hidden)
        return self.second(hidden)


class Engine:
    """A runner with breakable graphs, captured and compared."""

    def __init__(self, arm: Arm) -> None:
        self.worker = arm("enforce")
        self.runner = stand_ins.runner(make_model=Broken)
        assert self.runner.cudagraph_manager.use_breakable_cg
        self.runner.capture_model()

    def signature(self, name: str) -> Any:
        return next(s for s in self.worker.target.guard.signatures if str(s) == name)


def test_the_segments_of_a_capture_are_one_signature(arm: Arm) -> None:
    engine = Engine(arm)

    engine.worker.seal(engine.runner)

    names = sorted(map(str, engine.worker.target.guard.signatures))
    assert names == sorted(
        [f"target/full {n}x2" for n in (1, 2, 4, 8, 16)]
        + [f"target/piecewise {n}t" for n in (2, 4, 8, 16, 32)]
    )
    signature = engine.signature("target/piecewise 8t")
    inputs = [t.name for t in signature.tensors[: signature.num_inputs]]
    assert "input_ids" in inputs
    assert [t.shape for t in signature.tensors[signature.num_inputs :]] == [(8, stand_ins.WIDTH)]
    assert capturing.failures() == []


def test_collectives_of_the_code_between_segments_are_left_out(arm: Arm) -> None:
    engine = Engine(arm)

    engine.worker.seal(engine.runner)

    broken, whole = engine.signature("target/piecewise 8t"), engine.signature("target/full 4x2")
    assert [call.count for call in broken.collectives] == [8 * stand_ins.WIDTH] * 2
    assert [call.count for call in whole.collectives] == [
        8 * stand_ins.WIDTH,
        stand_ins.WIDTH,
        8 * stand_ins.WIDTH,
    ]


def test_a_replay_runs_segments_and_the_code_between_them(arm: Arm) -> None:
    engine = Engine(arm)
    engine.worker.seal(engine.runner)
    runner = engine.runner
    names = runner.req_states.set([FRESH] * 3)
    runner.input_buffers.input_ids[:6] = torch.arange(6, dtype=torch.int32)
    eager_runs = runner.model.eager_runs

    runner.execute_model(stand_ins.scheduled(dict.fromkeys(names, 2)))

    assert runner.descriptors[-1].cg_mode.name == "PIECEWISE"
    assert runner.model.eager_runs == eager_runs + 1
    assert torch.equal(runner.execute_model_state.hidden_states[:6], expected(6))
    assert engine.worker.target.guard.last_verdict.graph is not None


def test_segments_are_captured_again(arm: Arm) -> None:
    from graphguard.vllm.recapture import recapture

    engine = Engine(arm)
    engine.worker.seal(engine.runner)
    engine.runner.execute_model_state = None
    entries = engine.runner.cudagraph_manager.breakable_cg_runner.entries
    before = dict(entries)
    graph = engine.worker.target.guard.signatures.index(engine.signature("target/piecewise 8t"))

    recapture(engine.runner, engine.worker, "target", graph)

    changed = [key for key in entries if entries[key] is not before[key]]
    assert entries.keys() == before.keys()
    assert [entries[key].batch_descriptor.num_tokens for key in changed] == [8]
    names = engine.runner.req_states.set([FRESH] * 3)
    engine.runner.input_buffers.input_ids[:6] = torch.arange(6, dtype=torch.int32)
    engine.runner.execute_model(stand_ins.scheduled(dict.fromkeys(names, 2)))
    assert torch.equal(engine.runner.execute_model_state.hidden_states[:6], expected(6))


def test_cleared_graphs_are_forgotten(arm: Arm) -> None:
    from vllm.compilation.breakable_cudagraph import BreakableCUDAGraphWrapper

    engine = Engine(arm)

    BreakableCUDAGraphWrapper.clear_all_graphs()
    engine.worker.seal(engine.runner)

    assert {str(s) for s in engine.worker.target.guard.signatures} == {
        f"target/full {n}x2" for n in (1, 2, 4, 8, 16)
    }
