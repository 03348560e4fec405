"""An audit of 8 ranks x 100 graphs x 500 collectives, beside a plain reading of the same bytes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from graphguard import manifest
from graphguard.audit import Finding, audit, load
from graphguard.batch import BatchDescriptor
from graphguard.manifest import Manifest
from graphguard.signature import CollectiveCall, GraphKey, Signature, TensorSpec

RANKS, GRAPHS, COLLECTIVES, TENSORS = 8, 100, 500, 8
OPERATIONS = ("all_reduce", "all_gather", "reduce_scatter")


def collective(rank: int, position: int, count: int) -> CollectiveCall:
    operation = OPERATIONS[position % len(OPERATIONS)]
    reduction = None if operation == "all_gather" else "sum"
    group = f"0[0-{RANKS - 1}]"
    return CollectiveCall(
        operation, count, "bfloat16", reduction, None, None, group, RANKS, group_rank=rank
    )


def signature(rank: int, graph: int, odd: bool) -> Signature:
    batch = BatchDescriptor.of(graph + 1, 2)
    last = COLLECTIVES - 1
    return Signature(
        GraphKey("target"),
        batch,
        tensors=tuple(
            TensorSpec(f"t{n}", (batch.num_tokens,), "int64", (1,), "cuda:0", n << 30, 4096)
            for n in range(TENSORS)
        ),
        num_inputs=TENSORS - 1,
        collectives=tuple(
            collective(rank, n, batch.num_tokens * 4096 + (odd and n == last))
            for n in range(COLLECTIVES)
        ),
        graph_kind="torch.cuda",
    )


@pytest.fixture(scope="module", params=["equal", "one rank differs"])
def job(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("job")
    for rank in range(RANKS):
        odd = request.param != "equal" and rank == RANKS - 1
        graphs = tuple(signature(rank, graph, odd) for graph in range(GRAPHS))
        manifest.write(Manifest(rank, RANKS, graphs), directory)
    return directory


def read_and_audit(directory: Path) -> list[Finding]:
    return audit(load([directory]).manifests)


def parse(directory: Path) -> list[object]:
    return [json.loads(path.read_bytes()) for path in directory.iterdir()]


@pytest.mark.benchmark(group="audit of 8 x 100 x 500")
def test_audit_of_a_job(benchmark: BenchmarkFixture, job: Path) -> None:
    findings = benchmark(read_and_audit, job)
    assert len(findings) in {0, GRAPHS}


@pytest.mark.benchmark(group="audit of 8 x 100 x 500")
def test_baseline_json_loads_of_the_same_bytes(benchmark: BenchmarkFixture, job: Path) -> None:
    assert len(benchmark(parse, job)) == RANKS
