"""A diff of two recordings of 8 ranks x 100 graphs x 500 collectives, beside reading them."""

from __future__ import annotations

from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.test_audit import GRAPHS, RANKS, signature
from graphguard import manifest
from graphguard.audit import load
from graphguard.audit.differences import Differences, compare
from graphguard.manifest import Manifest


def written(directory: Path, odd: bool) -> Path:
    for rank in range(RANKS):
        graphs = tuple(signature(rank, graph, odd) for graph in range(GRAPHS))
        manifest.write(Manifest(rank, RANKS, graphs), directory)
    return directory


@pytest.fixture(scope="module", params=["equal", "every graph differs"])
def recordings(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("recordings")
    odd = request.param != "equal"
    return written(folder / "before", odd=False), written(folder / "after", odd=odd)


def read_and_compare(directories: tuple[Path, Path]) -> Differences:
    before, after = (load([directory]).manifests for directory in directories)
    return compare(before, after)


def read(directories: tuple[Path, Path]) -> int:
    return sum(len(load([directory]).manifests) for directory in directories)


@pytest.mark.benchmark(group="diff of 2 x 8 x 100 x 500")
def test_diff_of_two_recordings(benchmark: BenchmarkFixture, recordings: tuple[Path, Path]) -> None:
    differences = benchmark(read_and_compare, recordings)
    assert len(differences.graphs) in {0, GRAPHS}


@pytest.mark.benchmark(group="diff of 2 x 8 x 100 x 500")
def test_baseline_reading_the_same_manifests(
    benchmark: BenchmarkFixture, recordings: tuple[Path, Path]
) -> None:
    assert benchmark(read, recordings) == 2 * RANKS
