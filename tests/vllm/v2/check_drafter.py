"""The hooks of the V2 runner's speculators in vLLM's own ones, from the proposal to the launch.

None of it was seen in a running engine: that needs Triton and a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from graphguard.verdict import Reason
from tests.vllm.v2 import speculators, stand_ins
from tests.vllm.v2.conftest import Arm

DECODING, FRESH = (9, 5), (0, 3)
QUERY_LEN = 3


@pytest.fixture(autouse=True)
def _without_kernels() -> Iterator[None]:
    with speculators.without_kernels():
        yield


class Engine:
    """A runner with a speculator of two drafts a step, captured and compared."""

    def __init__(self, arm: Arm, mode: str) -> None:
        self.worker = arm(mode)
        self.runner = stand_ins.runner(query_len=QUERY_LEN)
        self.drafter = speculators.speculator(self.runner.vllm_config, QUERY_LEN - 1)
        self.runner.speculator = self.drafter
        self.runner.capture_model()
        self.worker.seal(self.runner)
        self.guard = self.worker.drafter.guard
        self.agreed: list[str] = []
        agree = self.guard.agree

        def noted(verdict: Any, graph: int | None, batch: Any) -> Any:
            name = "eager" if graph is None else str(self.guard.signatures[graph])
            self.agreed.append(f"{batch} -> {name}")
            return agree(verdict, graph, batch)

        self.guard.agree = noted

    def run(self, requests: list[tuple[int, int]]) -> str:
        """Run a step of the target and the drafts for it; return how the target ran."""
        names = self.runner.req_states.set(requests)
        self.runner.execute_model(stand_ins.scheduled(dict.fromkeys(names, QUERY_LEN)))
        descriptor = self.runner.descriptors[-1]
        decodes = FRESH not in requests
        batch = speculators.input_batch(
            len(requests), QUERY_LEN, descriptor.num_tokens, decodes=decodes
        )
        self.agreed.clear()
        speculators.propose(self.drafter, batch)
        return str(descriptor.cg_mode.name)


def test_the_captures_of_both_managers_are_told_apart(arm: Arm) -> None:
    engine = Engine(arm, "enforce")

    sizes = (1, 2, 4, 8, 16)
    names = list(map(str, engine.guard.signatures))
    assert {n for n in names if "decode" not in n} == {
        *(f"drafter/full/prefill {n}x3" for n in sizes),
        *(f"drafter/piecewise/prefill {n * 3}t" for n in sizes),
    }
    decodes = [n for n in names if "decode" in n]
    assert {"drafter/full/decode 3x1", "drafter/full/decode 12x1"} <= set(decodes)
    assert all(len(s.collectives) >= 2 for s in engine.guard.signatures)
    assert all(str(s).startswith("target/") for s in engine.worker.target.guard.signatures)


@pytest.mark.parametrize("mode", ["observe", "enforce"])
def test_each_pass_is_a_step_of_its_own(arm: Arm, mode: str) -> None:
    engine = Engine(arm, mode)

    assert engine.run([DECODING] * 8) == "FULL"

    assert engine.agreed == [
        "8x3 -> drafter/full/prefill 8x3",
        "8x1 -> drafter/full/decode 12x1",
    ]


def test_the_first_pass_runs_what_the_target_ran_without_its_padding(arm: Arm) -> None:
    engine = Engine(arm, "enforce")

    engine.run([DECODING] * 12)

    first, second = engine.agreed
    assert first.startswith("12x3 -> drafter/")
    assert second == "12x1 -> drafter/full/decode 12x1"


def test_a_prefill_of_the_length_of_a_decode_is_kept_out_of_the_drafters_graph(arm: Arm) -> None:
    engine = Engine(arm, "enforce")

    assert engine.run([FRESH] * 8) == "PIECEWISE"

    assert engine.agreed == [
        "8x3:prefill -> drafter/piecewise/prefill 24t",
        "8x1 -> drafter/full/decode 12x1",
    ]


def test_the_first_pass_follows_a_target_that_was_kept_out_of_its_graph(arm: Arm) -> None:
    engine = Engine(arm, "enforce")
    target = engine.worker.target.guard
    graph = [str(s) for s in target.signatures].index("target/full 8x3")
    target.quarantined.add(graph)

    assert engine.run([DECODING] * 8) == "PIECEWISE"
    assert target.last_verdict.reason is Reason.QUARANTINED
    assert engine.agreed[0] == "8x3 -> drafter/piecewise/prefill 24t"

    assert engine.run([DECODING] * 16) == "FULL"
    assert engine.agreed[0] == "16x3 -> drafter/full/prefill 16x3"


def test_a_graph_of_another_pass_is_never_adopted(arm: Arm) -> None:
    engine = Engine(arm, "enforce")
    steps = engine.worker.drafter
    names = list(map(str, engine.guard.signatures))
    prefill = names.index("drafter/piecewise/prefill 12t")
    decode = names.index("drafter/full/decode 12x1")

    engine.run([DECODING] * 12)

    # The decode pass was the last one.
    batch = steps.batch(12, 1, 12, 0)
    assert engine.guard._fits(decode, batch, None) is not None
    assert engine.guard._fits(prefill, batch, None) is None


def test_dummy_proposals_are_not_checked(arm: Arm) -> None:
    engine = Engine(arm, "enforce")
    engine.run([DECODING] * 8)
    engine.agreed.clear()

    batch = speculators.input_batch(8, QUERY_LEN, 24, decodes=True)
    speculators.propose(engine.drafter, batch, dummy_run=True)

    assert engine.agreed == []


def test_every_launch_is_marked_and_its_end_too(arm: Arm) -> None:
    engine = Engine(arm, "enforce")
    marks: list[str] = []
    for model in engine.worker.models:
        role = model.guard.key.role
        model.guard.launching = lambda role=role: marks.append(f"{role} begins")
        model.guard.launched = lambda role=role: marks.append(f"{role} ends")

    for requests in ([DECODING] * 8, [FRESH] * 8, [(0, 40)]):
        marks.clear()
        engine.run(requests)

        assert marks[:2] == ["target begins", "target ends"]
        assert marks[2:] == ["drafter begins", "drafter ends"] * 2


@pytest.mark.parametrize("proposes", [True, False])
def test_a_drafter_that_is_left_out_is_published(
    arm: Arm, monkeypatch: pytest.MonkeyPatch, *, proposes: bool
) -> None:
    from vllm.v1.worker.gpu.model_runner import GPUModelRunner

    def sample_tokens(runner: Any, grammar_output: Any) -> None:
        """Stand for vLLM's, which needs a sampler, and which always proposes."""
        if proposes:
            batch = speculators.input_batch(8, QUERY_LEN, 24, decodes=True)
            speculators.propose(runner.speculator, batch)

    monkeypatch.setattr(GPUModelRunner, "sample_tokens", sample_tokens)
    engine = Engine(arm, "enforce")
    left_out: list[str] = []
    monkeypatch.setattr(engine.guard, "leave_out", lambda batch: left_out.append(str(batch)))
    engine.run([DECODING] * 8)

    engine.runner.sample_tokens(None)

    assert left_out == ([] if proposes else ["8x3"])


def test_an_unknown_speculator_is_said_not_to_be_guarded(arm: Arm) -> None:
    from graphguard.vllm import armed

    worker = arm("enforce")
    runner = stand_ins.runner()
    runner.speculator = object()
    worker.seal(runner)

    status = next(s for s in armed.statuses() if s.part == "v2-drafter")
    assert not status.armed
    assert status.reasons == ("the speculator object is not known",)
    assert worker.drafter is None
