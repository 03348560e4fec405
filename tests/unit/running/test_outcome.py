from __future__ import annotations

from pathlib import Path

import pytest

from graphguard import manifest
from graphguard.manifest import Manifest
from graphguard.running.outcome import Outcome, outcome
from graphguard.running.place import prepare
from tests.unit.audit.jobs import call, graph
from tests.unit.blackbox.rings import EAGER, open_ranks


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return prepare(tmp_path / "run")


def write(directory: Path, *counts: int) -> None:
    for rank, count in enumerate(counts):
        calls = (call(count=count, group="0[0-1]", size=2),)
        manifest.write(Manifest(rank, len(counts), (graph(*calls),)), directory)


def seen(directory: Path) -> Outcome:
    return outcome(0, directory)


def test_a_run_that_left_nothing_has_nothing_to_find(directory: Path) -> None:
    left = seen(directory)
    assert (left.manifests, left.findings, left.timeline) == ((), (), None)
    assert not left.found


def test_ranks_that_differ_are_found(directory: Path) -> None:
    write(directory, 1, 1)
    assert not seen(directory).found
    write(directory, 1, 2)
    assert [finding.rule for finding in seen(directory).findings] == ["collective-count"]
    assert seen(directory).found


def test_a_manifest_that_cannot_be_read_is_found(directory: Path) -> None:
    write(directory, 1, 1)
    (directory / "manifest.rank1.json").write_bytes(b"\xff")
    assert {finding.rule for finding in seen(directory).findings} == {
        "unreadable-manifest",
        "missing-rank",
    }


def test_no_manifest_that_can_be_read_is_found_and_is_no_error_of_the_run(directory: Path) -> None:
    (directory / "manifest.rank0.json").write_bytes(b"\xff")
    left = seen(directory)
    assert [finding.rule for finding in left.findings] == ["unreadable-manifest"]
    assert left.found


def test_a_difference_in_the_black_boxes_is_found(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = open_ranks(directory, 2, monkeypatch)
    one.run(1)
    other.run(1)
    assert not seen(directory).found

    one.run(2)
    other.run(2, EAGER)

    left = seen(directory)
    assert left.found
    assert left.timeline is not None
    assert left.timeline.first_difference is not None
    assert left.timeline.first_difference.step == 2


def test_what_a_rank_saw_of_another_is_found(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, _ = open_ranks(directory, 2, monkeypatch)
    one.diverge(1, 1, 1)
    assert seen(directory).found


def test_a_black_box_that_cannot_be_read_is_found(directory: Path) -> None:
    (directory / "blackbox.rank0.7.ring").write_bytes(b"no ring" * 1_000)
    left = seen(directory)
    assert left.boxes is not None
    assert len(left.boxes.unreadable) == 1
    assert left.found
