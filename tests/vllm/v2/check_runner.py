"""The hooks of the V2 runner in vLLM's own one, from the scheduler's output to the replay.

None of it was seen in a running engine: that needs Triton and a GPU.
"""

from __future__ import annotations

import logging
import random
from typing import Any

import numpy as np
import pytest
import torch

from graphguard import _core
from graphguard.verdict import Action, Reason
from graphguard.vllm import capturing
from tests.vllm.v2 import stand_ins
from tests.vllm.v2.conftest import Arm

DECODING = (9, 5)
"""Computed and prompt tokens of a request that is past its prompt."""
FRESH = (0, 2)
CHUNKED = (4, 6)
EXTENDED = (5, 6)


class Engine:
    """A runner whose graphs are captured and compared."""

    def __init__(self, arm: Arm, mode: str, cudagraph_mode: str = "FULL_AND_PIECEWISE") -> None:
        self.worker = arm(mode)
        self.runner = stand_ins.runner(cudagraph_mode)
        self.runner.capture_model()
        self.worker.seal(self.runner)
        self.guard = self.worker.target.guard

    def run(
        self, requests: list[tuple[int, int]], query_len: int = 2, drafts: int = 0, **more: Any
    ) -> tuple[str, int]:
        """Run one step; return the mode and the tokens that it was dispatched with."""
        names = self.runner.req_states.set(requests)
        lengths = dict.fromkeys(names, query_len)
        output = stand_ins.scheduled(lengths, dict.fromkeys(names, drafts))
        ids = torch.arange(len(names) * query_len, dtype=torch.int32)
        self.runner.input_buffers.input_ids[: len(ids)] = ids
        self.runner.execute_model(output, **more)
        descriptor = self.runner.descriptors[-1]
        return descriptor.cg_mode.name, descriptor.num_tokens

    @property
    def hidden_states(self) -> torch.Tensor:
        hidden: torch.Tensor = self.runner.execute_model_state.hidden_states
        return hidden


def expected(tokens: int) -> torch.Tensor:
    """What the model makes of ``arange(tokens)``."""
    ids = torch.arange(tokens, dtype=torch.float32)
    return ((ids * 2 + 1) * 3)[:, None].expand(-1, stand_ins.WIDTH)


@pytest.fixture(params=["observe", "enforce"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_every_capture_becomes_a_signature_with_its_collectives(arm: Arm) -> None:
    engine = Engine(arm, "enforce")

    assert sorted(map(str, engine.guard.signatures)) == sorted(
        [f"target/full {n}x2" for n in (1, 2, 4, 8, 16)]
        + [f"target/piecewise {n}t" for n in (2, 4, 8, 16, 32)]
    )
    for signature in engine.guard.signatures:
        tokens = signature.batch.num_tokens
        assert [(c.operation, c.count) for c in signature.collectives] == [
            ("all_reduce", tokens * stand_ins.WIDTH)
        ] * 2
        assert signature.tensors
        assert signature.nodes
    assert capturing.failures() == []


def test_a_full_graph_has_its_static_buffers(arm: Arm) -> None:
    engine = Engine(arm, "enforce")
    signature = next(s for s in engine.guard.signatures if str(s) == "target/full 16x2")

    inputs = {t.name: t for t in signature.tensors[: signature.num_inputs]}
    assert {name: t.shape for name, t in inputs.items()} == {
        "input_ids": (32,),
        "positions": (32,),
        "query_start_loc": (17,),
        "seq_lens": (16,),
    }
    buffers = engine.runner.input_buffers
    assert inputs["input_ids"].address == buffers.input_ids.data_ptr()
    outputs = signature.tensors[signature.num_inputs :]
    hidden = engine.runner.cudagraph_manager.hidden_states
    assert [t.address for t in outputs] == [hidden.data_ptr()]


def test_exact_and_padded_decodes_are_vllms_own_choice(arm: Arm, mode: str) -> None:
    engine = Engine(arm, mode)

    assert engine.run([DECODING] * 16) == ("FULL", 32)
    assert str(engine.guard.last_verdict) == "replay (exact)"
    assert engine.run([DECODING] * 15) == ("FULL", 32)
    assert str(engine.guard.last_verdict) == "pad (padded)"
    assert torch.equal(engine.hidden_states[:30], expected(30))


def test_a_prefill_of_the_length_of_a_decode_goes_to_a_piecewise_graph(arm: Arm) -> None:
    engine = Engine(arm, "enforce")

    for requests in ([FRESH] * 3, [DECODING, DECODING, FRESH], [CHUNKED] * 3):
        assert engine.run(requests) == ("PIECEWISE", 8)
        assert torch.equal(engine.hidden_states[:6], expected(6))


def test_the_reason_is_the_phase_where_vllm_looks_at_the_shape_alone(arm: Arm) -> None:
    engine = Engine(arm, "enforce")

    engine.run([FRESH] * 3)

    verdict = engine.guard.last_verdict
    assert verdict.action is Action.PAD
    by_phase = hasattr(engine.runner, "gather_batch_req_state") and _knows_phases()
    assert verdict.reason is (Reason.PADDED if by_phase else Reason.WRONG_PHASE)


def _knows_phases() -> bool:
    from vllm.v1.worker.gpu.model_runner import GPUModelRunner

    return "gather_batch_req_state" in vars(GPUModelRunner)


def test_without_piecewise_graphs_such_a_prefill_runs_eagerly(arm: Arm) -> None:
    engine = Engine(arm, "enforce", "FULL_DECODE_ONLY")
    eager_runs = engine.runner.model.eager_runs

    assert engine.run([FRESH] * 4) == ("NONE", 8)
    assert engine.runner.model.eager_runs == eager_runs + 1
    assert torch.equal(engine.hidden_states, expected(8))


def test_observe_says_once_that_a_prefill_replays_the_graph_of_decodes(
    arm: Arm, caplog: pytest.LogCaptureFixture
) -> None:
    engine = Engine(arm, "observe")
    caplog.clear()

    with caplog.at_level(logging.WARNING, "graphguard"):
        dispatched = [engine.run([FRESH] * 4) for _ in range(2)]

    if _knows_phases():
        assert dispatched == [("PIECEWISE", 8)] * 2
        assert caplog.records == []
        return
    assert dispatched == [("FULL", 8)] * 2
    assert [record.message for record in caplog.records] == [
        "rank 0: vLLM chose target/full 4x2 for 4x2:prefill: the only graphs of this shape were "
        "recorded for another phase; this is said once"
    ]


def test_one_new_token_over_computed_ones_is_a_prefill_that_newer_versions_run_as_a_decode(
    arm: Arm,
) -> None:
    engine = Engine(arm, "enforce")

    dispatched = engine.run([EXTENDED, DECODING], drafts=1)

    assert str(engine.worker.batch) == "2x2:mixed"
    verdict = engine.guard.last_verdict
    if _knows_phases():
        assert dispatched == ("FULL", 4)
        assert str(verdict) == "replay (exact)"
    else:
        assert dispatched == ("PIECEWISE", 4)
        assert verdict.reason is Reason.WRONG_PHASE


def test_observe_says_nothing_of_prefills_that_vllm_runs_as_decodes_on_purpose(
    arm: Arm, caplog: pytest.LogCaptureFixture
) -> None:
    engine = Engine(arm, "observe")
    caplog.clear()

    with caplog.at_level(logging.WARNING, "graphguard"):
        assert engine.run([EXTENDED] * 4, drafts=1) == ("FULL", 8)
        # That it was so does not stick to the next step.
        engine.run([FRESH] * 4)

    said = [record.message.partition(":")[0] for record in caplog.records]
    assert said == ([] if _knows_phases() else ["rank 0"])


def test_two_new_tokens_over_computed_ones_run_as_no_decode(arm: Arm) -> None:
    from graphguard.vllm.runner_v2 import runs_as_decodes

    engine = Engine(arm, "observe")
    states = engine.runner.req_states
    names = states.set([EXTENDED, DECODING])
    lengths = dict.fromkeys(names, 2)

    assert runs_as_decodes(states, stand_ins.scheduled(lengths, dict.fromkeys(names, 1)))
    assert not runs_as_decodes(states, stand_ins.scheduled(lengths))
    states.set([(0, 1), DECODING])
    assert not runs_as_decodes(states, stand_ins.scheduled(lengths, dict.fromkeys(names, 1)))


@pytest.mark.parametrize("seed", range(50))
def test_the_phase_is_that_of_the_v1_runner(seed: int) -> None:
    from graphguard.vllm.runner_v2 import phase_of

    chosen = random.Random(seed)  # noqa: S311 - numbers, no secrets
    count = chosen.randint(1, stand_ins.MAX_REQS)
    requests = [(chosen.randint(0, 40), chosen.randint(1, 40)) for _ in range(count)]
    states = stand_ins.States()
    names = states.set(requests)
    computed, prompts = (np.array(it, dtype=np.int32) for it in zip(*requests, strict=True))

    phase = phase_of(states, stand_ins.scheduled(dict.fromkeys(names, 2)))

    assert phase == _core.phase_of(computed, prompts, len(names))


def test_a_new_request_is_a_prefill_even_if_its_prompt_is_one_token(arm: Arm) -> None:
    engine = Engine(arm, "enforce")

    assert engine.run([(0, 1), DECODING], drafts=1) == ("PIECEWISE", 4)

    assert str(engine.worker.batch) == "2x2:mixed"


def test_the_batch_is_the_schedulers(arm: Arm, mode: str) -> None:
    engine = Engine(arm, mode)
    names = engine.runner.req_states.set([DECODING, FRESH, (4, 40)])

    engine.runner.execute_model(
        stand_ins.scheduled(dict(zip(names, (2, 2, 20), strict=True)), {"r0": 1})
    )

    assert str(engine.worker.batch) == "3x20/24:mixed"
    assert engine.runner.descriptors[-1].num_tokens == 32


def test_dummy_runs_are_not_checked(arm: Arm) -> None:
    engine = Engine(arm, "enforce")
    engine.runner.descriptors.append(None)
    before = engine.guard.last_verdict
    engine.runner.kv_cache_config = None

    with pytest.raises(AttributeError):
        # It fails after it was dispatched: a dummy batch needs more of vLLM than is here.
        engine.run([FRESH] * 4, dummy_run=True)

    assert engine.guard.last_verdict is before
    assert not engine.worker.target.in_step


def test_without_the_workers_word_graphs_are_compared_in_the_first_step_of_a_real_request(
    arm: Arm, caplog: pytest.LogCaptureFixture
) -> None:
    worker, runner = arm("enforce"), stand_ins.runner()
    runner.capture_model()
    names = runner.req_states.set([DECODING] * 2)
    places = dict(zip(("_warmup_0_", "_v2_mixed_warmup_prefill_"), (15, 14), strict=True))
    runner.req_states.req_id_to_index |= places

    runner.execute_model(stand_ins.scheduled(dict.fromkeys(places, 2)))
    assert not worker.started
    with caplog.at_level(logging.WARNING, "graphguard"):
        runner.execute_model(stand_ins.scheduled(dict.fromkeys(names, 2)))

    assert worker.sealed
    assert str(worker.target.guard.last_verdict) == "replay (exact)"
    said = [r.message for r in caplog.records if r.name.startswith("graphguard")]
    assert said == [
        "the end of vLLM's start-up was not seen: ranks compare their graphs in the first step"
    ]


def test_in_observe_no_fault_of_a_step_reaches_the_engine(
    arm: Arm, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    engine = Engine(arm, "observe")

    def failing(*_: Any) -> Any:
        raise ValueError("no verdict")

    monkeypatch.setattr(engine.guard, "check", failing)
    with caplog.at_level(logging.WARNING, "graphguard"):
        assert engine.run([DECODING] * 16) == ("FULL", 32)
    assert "is not checked: ValueError('no verdict')" in caplog.text
