"""graphguard's plugin in a running engine: the same tokens, and each fault told or kept away.

The engine is vLLM's own on the CPU, with emulated graphs in it; ``engine/README.md`` says what is
real. Each engine serves several tests; the last of them may leave it dead.
"""

from __future__ import annotations

import importlib.util
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.vllm.boxes import black_boxes
from tests.vllm.engine import EngineFailed, EngineRun, Fault, FaultKind, engine

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("vllm") is None,
        reason="vLLM is not installed here: see tests/vllm/engine/README.md",
    ),
    pytest.mark.timeout(900),
]

RANKS = (0, 1)
TOKENS = 16
EXTENSION = "graphguard.vllm.worker.GuardedWorker"

_random = random.Random(7)  # noqa: S311
PADDED = [[_random.randrange(3, 512) for _ in range(3 + i)] for i in range(15)]
# As long as the query of a step that verifies one draft.
FRESH = [[5 + i, 9 + i] for i in range(3)]

Outputs = list[list[list[int]]]


def answers(run: EngineRun) -> Outputs:
    return [run.generate(PADDED, TOKENS), run.generate(FRESH, TOKENS)]


def reports(run: EngineRun) -> list[dict[str, Any]]:
    """What each worker says of its guard, by rank."""
    return sorted(run.rpc("graphguard_report"), key=lambda report: report["rank"])


def divergences(run: EngineRun) -> list[list[str]]:
    """What each rank has found, in words."""
    return [report["models"][0]["divergences"] for report in reports(run)]


@pytest.fixture(scope="module")
def unguarded() -> Outputs:
    """What the engine answers with its plugin off."""
    with engine(graphguard="off", worker_extension_cls=EXTENSION) as run:
        outputs = answers(run)
        assert [report["models"] for report in reports(run)] == [[], []]
        assert [report["parts"] for report in reports(run)] == [[], []]
    return outputs


@pytest.fixture(scope="module")
def observed() -> Iterator[EngineRun]:
    with engine(graphguard="observe", worker_extension_cls=EXTENSION) as run:
        yield run


@pytest.fixture(scope="module")
def enforced() -> Iterator[EngineRun]:
    with engine(graphguard="enforce", worker_extension_cls=EXTENSION) as run:
        yield run


@pytest.mark.parametrize("mode", ["observed", "enforced"])
def test_the_tokens_are_those_of_the_unguarded_engine(
    mode: str, unguarded: Outputs, request: pytest.FixtureRequest
) -> None:
    run: EngineRun = request.getfixturevalue(mode)

    assert answers(run) == unguarded
    assert divergences(run) == [[], []]


def test_every_graph_is_recorded_with_its_collectives_on_every_rank(observed: EngineRun) -> None:
    for report in reports(observed):
        target, drafter = report["models"]
        assert target["graphs"] == [f"target/full {n}x2" for n in (16, 8, 4, 2, 1)]
        assert drafter["graphs"] == [f"drafter/piecewise {2 * n}t" for n in (16, 8, 4, 2, 1)]
        # One all-reduce for the embedding and two for each layer: two layers, and the drafter's.
        assert (target["collectives"], drafter["collectives"]) == (5 * 5, 5 * 3)
        assert target["compared_with"] == drafter["compared_with"] == ["tp:0[0-1]"]
        assert {part["part"] for part in report["parts"] if part["armed"]} >= {
            "v1-target",
            "v1-drafter",
        }
    manifests = [observed.graphguard / f"manifest.rank{rank}.json" for rank in RANKS]
    assert all(manifest.stat().st_mode & 0o777 == 0o600 for manifest in manifests)


def test_each_worker_says_in_one_line_what_it_guards(observed: EngineRun) -> None:
    lines = [line for line in observed.log.splitlines() if " is guarded (graphguard " in line]

    assert len(lines) == len(RANKS)
    for line in lines:
        assert "target: 5 graphs, 25 collective calls by shm" in line
        assert "drafter: 5 graphs, 15 collective calls by shm" in line
        assert "compared with the ranks of tp:0[0-1]" in line


def test_the_black_boxes_agree_on_every_step_and_show_both_roles(observed: EngineRun) -> None:
    records, summary = black_boxes(observed)

    assert summary["ranks"] == list(RANKS)
    assert summary["first_difference"] is None
    assert summary["damaged"] == 0
    checks = [record for record in records if record["event"] == "check"]
    assert {record["role"] for record in checks} == {"target", "drafter"}
    by_rank = [
        [(r["step"], r["role"], r["verdict"]) for r in checks if r["rank"] == rank]
        for rank in RANKS
    ]
    assert by_rank[0] == by_rank[1]
    assert len(by_rank[0]) > 2 * TOKENS


def test_a_prefill_that_replays_the_verify_graph_is_told_where_it_is_only_observed(
    observed: EngineRun,
) -> None:
    observed.generate(FRESH[:1], 1)

    assert "vLLM chose target/full " in observed.log
    assert ":prefill: the only graphs of this shape were recorded for another" in observed.log
    before = observed.step(0)
    observed.generate(FRESH[:1], 1)
    replays = [e for e in observed.trace(0).of("replay") if e.step > before]
    assert (replays[0].mode, replays[0].num_tokens) == ("FULL", 2)


def test_a_prefill_that_would_replay_the_verify_graph_is_run_without_it(
    enforced: EngineRun,
) -> None:
    before = enforced.step(0)
    enforced.generate(FRESH[:1], 1)

    for rank in RANKS:
        events = [e for e in enforced.trace(rank).events if e.step == before + 1]
        assert "FULL" not in {e.mode for e in events if e.kind == "replay" and e.role == "target"}
    assert divergences(enforced) == [[], []]


@pytest.mark.parametrize("rank", RANKS)
def test_a_rank_that_decides_eager_alone_is_found_within_a_second(
    rank: int, observed: EngineRun, unguarded: Outputs
) -> None:
    before = [len(found) for found in divergences(observed)]
    observed.inject(Fault(kind=FaultKind.EAGER, rank=rank, num_reqs=15, num_tokens=30))
    began = time.monotonic()

    assert observed.generate(PADDED, TOKENS) == unguarded[0]

    new = [found[n:] for found, n in zip(divergences(observed), before, strict=True)]
    (text, *_) = new[0] or new[1]
    assert "ranks differ at step" in text
    assert f"rank {rank}: eager run of target/full 15x2" in text
    assert f"rank {1 - rank}: replay of target/full 16x2 for 15x2" in text
    records, _ = black_boxes(observed)
    found = [r for r in records if r["event"] == "divergence" and r["step"] > 0]
    checks = [r for r in records if r["event"] == "check" and r["step"] == found[-1]["step"]]
    assert found[-1]["time_ns"] - min(r["time_ns"] for r in checks) < 1e9
    assert time.monotonic() - began < 60


@pytest.mark.parametrize("kind", [FaultKind.EAGER, FaultKind.LARGER_GRAPH])
@pytest.mark.parametrize("rank", RANKS)
def test_ranks_that_would_differ_do_the_same_and_the_tokens_are_right(
    kind: FaultKind, rank: int, enforced: EngineRun, unguarded: Outputs
) -> None:
    steps = [enforced.step(r) for r in RANKS]
    size = 15 if kind is FaultKind.EAGER else 7
    prompts = PADDED[:size]
    expected = unguarded[0][:size]
    fault = Fault(kind=kind, rank=rank, num_reqs=size, num_tokens=2 * size)
    before = [len(found) for found in divergences(enforced)]
    enforced.inject(fault)

    outputs = enforced.generate(prompts, TOKENS)

    assert len(enforced.trace(rank).of("fault")) >= 1
    new = [found[n:] for found, n in zip(divergences(enforced), before, strict=True)]
    assert any("follows rank" in text for found in new for text in found)
    launched = []
    for r in RANKS:
        events = [e for e in enforced.trace(r).events if e.step > steps[r]]
        launched.append([(e.kind, e.role, e.mode, e.num_tokens) for e in events if e.role])
    graphs = [
        [entry for entry in own if entry[0] == "replay" and entry[1] == "target"]
        for own in launched
    ]
    assert graphs[0] == graphs[1]
    assert outputs == expected or size != 15


def test_live_padding_is_found_where_it_is_only_observed(observed: EngineRun) -> None:
    observed.inject(Fault(kind=FaultKind.LIVE_PADDING, rank=0, num_reqs=15, num_tokens=30))

    observed.generate(PADDED, TOKENS)

    (found, none) = divergences(observed)
    texts = [text for text in found if "padded slot" in text]
    assert texts
    assert texts[0].startswith("target: padded slot")
    assert not [text for text in none if "padded slot" in text]


def test_a_graph_is_captured_again_on_all_ranks_and_replayed(
    enforced: EngineRun, unguarded: Outputs
) -> None:
    before = [enforced.trace(rank).counts("capture")["target", "FULL", 32, 16] for rank in RANKS]

    assert enforced.rpc("graphguard_recapture", "target", 0) == ["target/full 16x2"] * 2

    after = [enforced.trace(rank).counts("capture")["target", "FULL", 32, 16] for rank in RANKS]
    assert after == [count + 1 for count in before]
    assert enforced.generate(PADDED, TOKENS) == unguarded[0]


def test_a_quarantined_graph_is_used_by_no_rank(enforced: EngineRun, unguarded: Outputs) -> None:
    """From some steps on, the same on both ranks; the tokens are right before and after."""
    graphs = reports(enforced)[0]["models"][0]["graphs"]
    enforced.rpc("graphguard_quarantine", "target", graphs.index("target/full 16x2"))
    for _ in range(4):
        assert enforced.generate(PADDED, TOKENS) == unguarded[0]
    before = [enforced.step(rank) for rank in RANKS]

    assert enforced.generate(PADDED, TOKENS) == unguarded[0]

    for rank in RANKS:
        replays = [e for e in enforced.trace(rank).of("replay", "target") if e.step > before[rank]]
        assert ("FULL", 32) not in {(event.mode, event.num_tokens) for event in replays}
    assert all(report["models"][0]["quarantined"] == [0] for report in reports(enforced))
    # For the tests that come: what was captured again is not quarantined any more.
    enforced.rpc("graphguard_recapture", "target", 0)


def test_live_padding_is_a_named_error_at_once(enforced: EngineRun) -> None:
    """Last: the engine is dead when it ends."""
    enforced.inject(Fault(kind=FaultKind.LIVE_PADDING, rank=0, num_reqs=15, num_tokens=30))
    began = time.monotonic()

    with pytest.raises(EngineFailed) as caught:
        enforced.generate(PADDED, TOKENS, timeout=60)

    assert time.monotonic() - began < 20
    assert "PaddingMismatch: rank 0: target: padded slot" in caught.value.log


def decisions(folder: Path) -> dict[int, list[dict[str, Any]]]:
    """What each rank has decided, by the log of decisions."""
    lines = [
        msgspec.json.decode(line)
        for path in folder.glob("decisions.rank*.jsonl")
        for line in path.read_bytes().splitlines()
    ]
    return {rank: [line for line in lines if line["rank"] == rank] for rank in RANKS}


@pytest.mark.parametrize("mode", ["observe", "enforce"])
def test_a_drafter_that_one_rank_skips_is_named(mode: str, tmp_path: Path) -> None:
    with engine(
        graphguard=mode,
        worker_extension_cls=EXTENSION,
        step_seconds=15,
        extra_environment={"GRAPHGUARD_DECISIONS": f"{tmp_path}/"},
    ) as run:
        run.inject(Fault(kind=FaultKind.SKIPPED_DRAFTER, rank=1, num_reqs=15, num_tokens=30))
        began = time.monotonic()

        with pytest.raises(EngineFailed) as caught:
            run.generate(PADDED, TOKENS, timeout=90)

        took = time.monotonic() - began
        _, summary = black_boxes(run)
    assert "drafter/full" in caught.value.log
    assert summary["first_difference"] is not None
    if mode == "enforce":
        assert "RanksDiverged: rank" in caught.value.log
        assert took < 14
    for written in decisions(tmp_path).values():
        target = next(w for w in written if (w["role"], w["batch"]) == ("target", "15x2"))
        assert (target["action"], target["reason"]) == ("pad", "padded")
        assert (target["graph"], target["group"]) == ("target/full 16x2", "tp:0[0-1]")
        assert target["step"] > 1
        # The prefills before it run without a graph.
        assert {line["reason"] for line in written} >= {"padded", "no_graph"}
