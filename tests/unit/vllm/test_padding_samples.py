"""Samples of padded slots. The GPU is played here; tests/gpu has a real one."""

from __future__ import annotations

import pytest
import torch

from graphguard.vllm import padding_samples
from graphguard.vllm.padding import Invariant, MetadataView, Tail
from graphguard.vllm.padding_samples import MAX_WAITING, PaddingSamples
from graphguard.vllm.padding_views import V1Metadata
from tests.unit.vllm.padded_steps import SEEDS_STEP, v1_runner


def test_a_sample_keeps_the_values_of_its_step() -> None:
    runner = v1_runner("cpu")
    runner.seq_lens[15] = 3
    samples = PaddingSamples()
    assert samples.take(V1Metadata(runner).tensors(SEEDS_STEP))
    runner.seq_lens[15] = 0
    assert [f.value for f in samples.findings() if f.invariant is Invariant.SEQ_LEN] == [3]
    assert samples.findings() == []


def test_one_padded_step_of_so_many_is_sampled() -> None:
    samples = PaddingSamples(every=3)
    assert [samples.due() for _ in range(7)] == [True, False, False, True, False, False, True]
    every = PaddingSamples(every=1)
    assert [every.due() for _ in range(3)] == [True] * 3


class Event:
    """An event of a GPU that is done when the test says so."""

    def __init__(self) -> None:
        self.done = False

    def query(self) -> bool:
        return self.done


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[Event]:
    made: list[Event] = []

    def event() -> Event:
        made.append(Event())
        return made[-1]

    monkeypatch.setattr(padding_samples, "_event", event)
    monkeypatch.setattr(padding_samples, "_is_capturing", lambda: False)
    return made


def gpu_view(length: int) -> MetadataView:
    lengths = torch.tensor([length], dtype=torch.int32)
    return MetadataView(15, 16, 30, 32, 2, "cuda:0", lengths=(Tail("seq_lens", lengths, 15),))


def test_samples_of_a_gpu_are_looked_at_in_order_when_they_are_there(events: list[Event]) -> None:
    samples = PaddingSamples()
    for length in (1, 2):
        assert samples.take(gpu_view(length))
    events[1].done = True
    assert samples.findings() == []
    events[0].done = True
    found = samples.findings()
    assert [(f.value, f.seen) for f in found] == [(1, "cuda:0"), (2, "cuda:0")]


def test_no_more_samples_are_taken_of_a_gpu_that_is_far_behind(events: list[Event]) -> None:
    samples = PaddingSamples()
    taken = [samples.take(gpu_view(0)) for _ in range(MAX_WAITING + 2)]
    assert taken == [True] * MAX_WAITING + [False] * 2
    assert (samples.taken, samples.left_out, len(events)) == (MAX_WAITING, 2, MAX_WAITING)


def test_nothing_is_copied_into_a_graph_that_is_being_captured(
    events: list[Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(padding_samples, "_is_capturing", lambda: True)
    samples = PaddingSamples()
    assert not samples.take(gpu_view(0))
    assert (samples.left_out, events) == (1, [])
