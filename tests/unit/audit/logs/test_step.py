from __future__ import annotations

import pytest

from graphguard.audit.logs.configuration import Configuration
from graphguard.audit.logs.dump import ScheduledStep
from graphguard.audit.logs.lines import take_apart
from graphguard.audit.logs.model import Step
from graphguard.audit.logs.step import step_of


def step(
    scheduled: tuple[int, ...],
    *,
    mode: str = "<CUDAGraphMode.FULL_AND_PIECEWISE: (2, 1)>",
    sizes: str = "1, 2, 4, 8, 16, 24, 32",
    drafts: int = 1,
    output: tuple[int, ...] | None = None,
    new: int = 0,
) -> Step:
    told = Configuration()
    text = f"with config: num_spec_tokens={drafts}, 'cudagraph_mode': {mode}, "
    told.take(take_apart(1, f"{text}'cudagraph_capture_sizes': [{sizes}]".encode()))
    started = output if output is not None else (7,) * (len(scheduled) - new)
    dump = ScheduledStep(
        scheduled=scheduled,
        total=sum(scheduled),
        new=new,
        cached=len(scheduled) - new,
        output_tokens=started,
    )
    return step_of(dump, told, ())


@pytest.mark.parametrize(
    ("requests", "tokens", "graph", "padded"),
    [(15, 2, 32, 1), (16, 2, 32, 0), (1, 2, 2, 0), (9, 2, 24, 3), (3, 2, 8, 1)],
)
def test_a_decode_step_is_padded_to_the_next_graph(
    requests: int, tokens: int, graph: int, padded: int
) -> None:
    read = step((tokens,) * requests)
    assert (read.num_reqs, read.num_tokens, read.uniform) == (requests, requests * tokens, True)
    assert (read.phase, read.graph_tokens, read.padded_slots) == ("decode", graph, padded)


def test_sizes_are_rounded_up_to_whole_requests() -> None:
    read = step((3, 3, 3, 3), drafts=2)
    assert (read.graph_tokens, read.padded_slots) == (18, 2)


def test_a_step_larger_than_every_graph_runs_eagerly() -> None:
    read = step((2,) * 17)
    assert (read.graph_tokens, read.padded_slots) == (None, 0)
    assert "eagerly" in read.words[1]


def test_piecewise_graphs_pad_tokens_and_not_requests() -> None:
    read = step((2,) * 15, mode="<CUDAGraphMode.PIECEWISE: 1>")
    assert (read.graph_tokens, read.padded_slots) == (32, None)


def test_a_step_that_is_not_uniform_takes_piecewise_graphs() -> None:
    read = step((2, 2, 9), output=(5, 5), new=1)
    assert (read.uniform, read.phase, read.query_len) == (False, "mixed", 9)
    assert "piecewise" in read.words[1]


@pytest.mark.parametrize(
    ("output", "new", "phase"),
    [((5, 5), 0, "decode"), ((5, 0), 0, "mixed"), ((0, 0), 0, "prefill"), ((), 2, "prefill")],
)
def test_phase_is_decode_only_if_all_requests_are_past_their_prompt(
    output: tuple[int, ...], new: int, phase: str
) -> None:
    assert step((2, 2), output=output, new=new).phase == phase


def test_a_list_of_sizes_that_was_shortened_is_completed_by_defaults_and_that_is_said() -> None:
    read = step((2,) * 15, sizes="1, 2, 4, 8, 16, 24, ...")
    assert (read.graph_tokens, read.padded_slots) == (32, 1)
    assert "default" in read.words[1]
    other = step((2,) * 15, sizes="3, 5, ...")
    assert other.padded_slots in (0, None)
    assert other.graph_tokens is None


def test_nothing_is_said_of_graphs_where_the_log_says_nothing() -> None:
    dump = ScheduledStep(scheduled=(2, 2), total=4, new=0, cached=2, output_tokens=(1, 1))
    read = step_of(dump, Configuration(), ())
    assert (read.padded_slots, read.graph_tokens) == (None, None)
    assert read.words == ("2 requests × 2 tokens = 4 tokens, decode, uniform",)
