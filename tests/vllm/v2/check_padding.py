"""The padded slots of the V2 runner's steps, sound and damaged, in vLLM's own runner.

What its kernels would write is written by a stand-in: they need Triton and a GPU. Tensors are on
the CPU, where samples are there at once.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from graphguard.errors import PaddingMismatch
from graphguard.vllm import padding_v2
from tests.vllm.v2 import speculators
from tests.vllm.v2.check_drafter import Engine as Drafting
from tests.vllm.v2.check_runner import DECODING, FRESH, Engine, expected
from tests.vllm.v2.conftest import Arm


@pytest.fixture(autouse=True)
def _without_kernels() -> Iterator[None]:
    with speculators.without_kernels():
        yield


def bad_bound(batch: Any) -> None:
    """Leave a length in the first padded slot of what the CPU sees."""
    batch.seq_lens_cpu_upper_bound[batch.num_reqs :][:1] = 1


def bad_start(batch: Any) -> None:
    batch.query_start_loc_np[batch.num_reqs + 1 :] = 0


def test_sound_padding_is_no_finding(arm: Arm, caplog: pytest.LogCaptureFixture) -> None:
    engine = Engine(arm, "enforce")
    caplog.clear()

    with caplog.at_level(logging.WARNING, "graphguard"):
        for reqs in (15, 15, 9, 3, 13):
            assert engine.run([DECODING] * reqs)[0] == "FULL"
            assert torch.equal(engine.hidden_states[: 2 * reqs], expected(2 * reqs))

    assert caplog.records == []


@pytest.mark.parametrize("damage", [bad_bound, bad_start])
def test_a_padded_slot_that_the_cpu_sees_stops_the_launch(arm: Arm, damage: Any) -> None:
    engine = Engine(arm, "enforce")
    engine.runner.damage = damage
    launched: list[str] = []
    engine.guard.launching = lambda: launched.append("launched")

    with pytest.raises(PaddingMismatch, match="padded slot"):
        engine.run([DECODING] * 15)

    assert launched == []
    # Nothing is padded here.
    assert engine.run([DECODING] * 16) == ("FULL", 32)
    assert engine.run([FRESH] * 15) == ("PIECEWISE", 32)


def test_observe_tells_of_it_and_launches(arm: Arm, caplog: pytest.LogCaptureFixture) -> None:
    engine = Engine(arm, "observe")
    engine.runner.damage = bad_bound

    with caplog.at_level(logging.WARNING, "graphguard"):
        assert engine.run([DECODING] * 15) == ("FULL", 32)

    assert torch.equal(engine.hidden_states[:30], expected(30))
    assert "padded slot 15 of seq_lens_cpu_upper_bound holds 1 and not 0" in caplog.text


class Metadata:
    """The metadata of a layer whose backend has computed a length of -1 for a padded request."""

    def __init__(self) -> None:
        lengths = torch.full((16,), 9, dtype=torch.int32)
        lengths[15] = -1
        self.decode = SimpleNamespace(seq_lens=lengths)


def live_block(runner: Any) -> None:
    runner.block_tables.input_block_tables[0][15, 0] = 7


def live_slot(runner: Any) -> None:
    runner.block_tables.slot_mappings[0, 31] = 7


def live_length(runner: Any) -> None:
    def damage(batch: Any) -> None:
        runner.input_buffers.seq_lens[15] = 7

    runner.damage = damage


def negative_derived_length(runner: Any) -> None:
    runner.model_state.attn_metadata = {"layers.0.attn": Metadata()}


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (live_block, r"padded slot 15 of input_block_tables\[0\] holds 7"),
        (live_slot, r"padded slot 31 of slot_mappings\[0\] holds 7"),
        (live_length, "padded slot 15 of seq_lens holds 7"),
        (negative_derived_length, "padded slot 15 of Metadata.decode.seq_lens holds -1"),
    ],
)
def test_what_only_a_gpu_holds_is_told_of_a_sample(arm: Arm, damage: Any, text: str) -> None:
    engine = Engine(arm, "enforce")
    damage(engine.runner)

    # The first padded step is sampled; a later one finds the sample done.
    assert engine.run([DECODING] * 15) == ("FULL", 32)
    with pytest.raises(PaddingMismatch, match=text):
        engine.run([DECODING] * 3)


def test_nothing_of_a_step_is_kept_after_it(arm: Arm) -> None:
    engine = Engine(arm, "enforce")
    engine.runner.model_state.attn_metadata = {"layers.0.attn": object()}

    engine.run([DECODING] * 15)

    assert padding_v2._prepared.batch is None
    assert padding_v2._prepared.attn_metadata is None


def test_one_ranks_part_of_a_batch_is_not_looked_at(arm: Arm) -> None:
    engine = Engine(arm, "enforce")

    def partition(batch: Any) -> None:
        bad_bound(batch)
        batch.pcp = object()

    engine.runner.damage = partition
    assert engine.run([DECODING] * 15) == ("FULL", 32)

    del vars(engine.runner.cudagraph_manager)[padding_v2.LOOK]
    engine.runner.pcp_manager = object()
    padding_v2.look_at_target(engine.runner, engine.guard)
    assert padding_v2.LOOK not in vars(engine.runner.cudagraph_manager)


def test_micro_batches_have_their_metadata_elsewhere(arm: Arm) -> None:
    engine = Engine(arm, "enforce")
    engine.runner.damage = bad_bound
    look = vars(engine.runner.cudagraph_manager)[padding_v2.LOOK]
    prepared: list[Any] = []
    engine.guard.launching = lambda: prepared.append(padding_v2._prepared.batch)
    vars(engine.runner.cudagraph_manager)[padding_v2.LOOK] = lambda desc, extent: look(
        SimpleNamespace(uniform_token_count=2, num_ubatches=2), extent
    )

    assert engine.run([DECODING] * 15) == ("FULL", 32)
    assert prepared != [None]


def test_a_fault_in_looking_does_not_reach_the_engine(
    arm: Arm, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    engine = Engine(arm, "observe")
    monkeypatch.setattr(padding_v2, "view_of_v2", lambda *_: 1 / 0)

    with caplog.at_level(logging.WARNING, "graphguard"):
        assert engine.run([DECODING] * 15) == ("FULL", 32)

    assert "padded slots are not checked: ZeroDivisionError" in caplog.text


def test_sound_padding_of_a_drafters_decodes_is_no_finding(arm: Arm) -> None:
    engine = Drafting(arm, "enforce")

    for reqs in (11, 5, 7, 11):
        engine.run([DECODING] * reqs)

    assert engine.agreed[1] == "11x1 -> drafter/full/decode 12x1"


def test_the_padded_lengths_of_a_drafters_decodes_are_sampled(arm: Arm) -> None:
    engine = Drafting(arm, "enforce")
    drafter = engine.drafter
    looked: list[Any] = []
    look = vars(drafter.decode_cudagraph_manager)[padding_v2.LOOK]

    def looking(desc: Any, extent: Any) -> None:
        looked.append(extent)
        drafter.input_buffers.seq_lens[11] = 1
        look(desc, extent)

    vars(drafter.decode_cudagraph_manager)[padding_v2.LOOK] = looking

    # 11 requests go to the drafter's graph of 12.
    engine.run([DECODING] * 11)
    assert [tuple(extent) for extent in looked] == [(11, 12, 11, 12, 1)]
    with pytest.raises(PaddingMismatch, match="padded slot 11 of seq_lens holds 1 and not 0"):
        engine.run([DECODING] * 11)
