"""Graphs of the V2 runner and its speculator that are captured again, in vLLM's own classes.

None of it was seen in a running engine: that needs Triton and a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from graphguard.errors import CaptureError, ConfigurationError
from graphguard.vllm.recapture import recapture
from tests.vllm.v2 import speculators
from tests.vllm.v2.check_drafter import DECODING as DRAFTED
from tests.vllm.v2.check_drafter import Engine as Drafting
from tests.vllm.v2.check_runner import DECODING, Engine, expected
from tests.vllm.v2.conftest import Arm


@pytest.fixture(autouse=True)
def _without_kernels() -> Iterator[None]:
    with speculators.without_kernels():
        yield


def graph_of(guard: Any, name: str) -> int:
    return [str(s) for s in guard.signatures].index(name)


def full_graphs(manager: Any) -> dict[Any, int]:
    return {desc: id(graph) for desc, graph in manager.graphs.items()}


@pytest.fixture
def engine(arm: Arm) -> Engine:
    engine = Engine(arm, "enforce")
    engine.runner.execute_model_state = None
    return engine


def test_one_full_graph_of_the_target_is_captured_again(engine: Engine) -> None:
    graph = graph_of(engine.guard, "target/full 8x2")
    kept = list(engine.runner.cudagraph_manager.graphs.values())
    before = full_graphs(engine.runner.cudagraph_manager)
    engine.guard.quarantined.add(graph)

    text = recapture(engine.runner, engine.worker, "target", graph)

    after = full_graphs(engine.runner.cudagraph_manager)
    assert text == "target/full 8x2"
    assert len(kept) == 5
    assert {d.num_tokens for d in after if after[d] != before[d]} == {16}
    assert len(engine.guard.signatures) == 10
    assert engine.guard.quarantined == set()
    assert len(engine.guard.signatures[graph].collectives) == 2
    assert engine.worker.sealed
    assert engine.run([DECODING] * 8) == ("FULL", 16)
    assert str(engine.guard.last_verdict) == "replay (exact)"
    assert torch.equal(engine.hidden_states[:16], expected(16))


def test_one_piecewise_graph_of_the_target_is_captured_again(engine: Engine) -> None:
    graph = graph_of(engine.guard, "target/piecewise 8t")
    pieces = engine.runner.model.pieces
    before = [dict(piece.concrete_cudagraph_entries) for piece in pieces]

    recapture(engine.runner, engine.worker, "target", graph)

    for piece, entries in zip(pieces, before, strict=True):
        after = piece.concrete_cudagraph_entries
        assert after.keys() == entries.keys()
        assert {d.num_tokens for d in after if after[d] is not entries[d]} == {8}
    assert len(engine.guard.signatures[graph].collectives) == 2
    assert engine.run([(0, 40)] * 2, 4) == ("PIECEWISE", 8)
    assert torch.equal(engine.hidden_states[:8], expected(8))


def test_the_descriptors_of_the_manager_are_what_they_were(engine: Engine) -> None:
    descriptors = engine.runner.cudagraph_manager._capture_descs

    recapture(engine.runner, engine.worker, "target", 0)

    assert engine.runner.cudagraph_manager._capture_descs is descriptors


@pytest.mark.parametrize(
    "name",
    ["drafter/full/prefill 4x3", "drafter/full/decode 12x1", "drafter/piecewise/prefill 12t"],
)
def test_one_graph_of_the_drafter_is_captured_again(arm: Arm, name: str) -> None:
    engine = Drafting(arm, "enforce")
    engine.runner.execute_model_state = None
    drafter = engine.drafter
    graph = graph_of(engine.guard, name)
    signatures = len(engine.guard.signatures)
    managers = (drafter.prefill_cudagraph_manager, drafter.decode_cudagraph_manager)
    kept = [list(manager.graphs.values()) for manager in managers]
    before = {d: g for manager in managers for d, g in full_graphs(manager).items()}
    target = full_graphs(engine.runner.cudagraph_manager)

    assert recapture(engine.runner, engine.worker, "drafter", graph) == name

    assert kept
    after = {d: g for manager in managers for d, g in full_graphs(manager).items()}
    assert len([d for d in after if after[d] != before[d]]) == (1 if "full" in name else 0)
    assert full_graphs(engine.runner.cudagraph_manager) == target
    assert len(engine.guard.signatures) == signatures
    assert engine.run([DRAFTED] * 12) in {"FULL", "PIECEWISE"}
    assert engine.agreed[1] == "12x1 -> drafter/full/decode 12x1"


def test_a_graph_that_is_not_captured_again_is_quarantined(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = graph_of(engine.guard, "target/full 8x2")
    monkeypatch.setattr(type(engine.runner.cudagraph_manager), "capture", lambda *_, **__: None)

    with pytest.raises(CaptureError, match="vLLM did not capture"):
        recapture(engine.runner, engine.worker, "target", graph)

    assert engine.guard.quarantined == {graph}
    assert engine.run([DECODING] * 8) == ("PIECEWISE", 16)


def test_what_cannot_be_captured_alone_is_said_and_left_as_it_is(engine: Engine) -> None:
    graph = graph_of(engine.guard, "target/full 8x2")
    before = full_graphs(engine.runner.cudagraph_manager)
    engine.runner.lora_config = object()

    with pytest.raises(ConfigurationError, match="dummies in place of the LoRAs"):
        recapture(engine.runner, engine.worker, "target", graph)
    engine.runner.lora_config = None
    with pytest.raises(ConfigurationError, match="there is no graph 99"):
        recapture(engine.runner, engine.worker, "target", 99)
    engine.runner.execute_model_state = object()
    with pytest.raises(ConfigurationError, match="not finished"):
        recapture(engine.runner, engine.worker, "target", graph)

    assert full_graphs(engine.runner.cudagraph_manager) == before
    assert engine.guard.quarantined == set()
