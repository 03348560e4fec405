from __future__ import annotations

import pytest

from graphguard.audit import LoadedManifest, Severity, audit
from graphguard.manifest import Manifest
from tests.unit.audit.jobs import call, graph, job, loaded, rules


def versioned(*versions: dict[str, str]) -> list[LoadedManifest]:
    return [
        LoadedManifest(f"rank{rank}.json", Manifest(rank, len(versions), (), versions=version))
        for rank, version in enumerate(versions)
    ]


def test_complete_job_gives_no_finding() -> None:
    assert audit(job([], [], [])) == []


def test_ranks_without_manifest_are_named() -> None:
    (finding,) = audit([loaded(rank, 8) for rank in (0, 2, 3, 6)])
    assert (finding.rule, finding.ranks) == ("missing-rank", (1, 4, 5, 7))
    assert "1, 4-5, 7" in finding.what


def test_missing_last_rank_is_named() -> None:
    (finding,) = audit([loaded(0, 2)])
    assert finding.ranks == (1,)


def test_world_of_absurd_size_is_told_without_listing_it() -> None:
    (finding,) = audit([loaded(0, 2**63 - 1)])
    assert finding.rule == "missing-rank"
    assert len(finding.ranks) == 1024
    assert f"1-{2**63 - 2}" in finding.what


def test_two_files_of_one_rank_are_named() -> None:
    twice = [LoadedManifest(name, Manifest(0, 1, ())) for name in ("b", "a")]
    (finding,) = audit(twice)
    assert (finding.rule, finding.ranks, finding.evidence) == ("duplicate-rank", (0,), ("a", "b"))


def test_first_of_two_files_of_a_rank_is_compared() -> None:
    def claim(path: str, rank: int, count: int) -> LoadedManifest:
        return LoadedManifest(path, Manifest(rank, 2, (graph(call(count=count)),)))

    assert rules(audit([claim("a", 0, 1), claim("b", 0, 2), claim("c", 1, 1)])) == [
        "duplicate-rank"
    ]


def test_rank_with_another_world_size_is_blamed() -> None:
    findings = audit([loaded(0, 3), loaded(1, 3), loaded(2, 4)])
    assert [(f.rule, f.ranks) for f in findings] == [("world-size-differs", (2,))]


def test_rank_beyond_the_world_size_is_named() -> None:
    findings = audit([loaded(0, 1), loaded(5, 1)])
    assert [(f.rule, f.ranks) for f in findings] == [("rank-outside-world", (5,))]


@pytest.mark.parametrize("name", ["graphguard", "torch", "nccl"])
def test_other_version_on_one_rank_is_a_warning(name: str) -> None:
    (finding,) = audit(versioned({name: "1"}, {name: "1"}, {name: "2"}))
    assert (finding.rule, finding.ranks) == ("versions-differ", (2,))
    assert finding.severity is Severity.WARNING
    assert name in finding.what


def test_versions_without_a_majority_blame_nobody() -> None:
    (finding,) = audit(versioned({"nccl": "1"}, {"nccl": "2"}))
    assert finding.ranks == (0, 1)
    assert [side.text for side in finding.sides] == ["1", "2"]


def test_version_that_was_not_recorded_is_not_a_difference() -> None:
    assert rules(audit(versioned({"torch": "1"}, {}))) == []


def test_no_manifests_give_no_finding() -> None:
    assert audit([]) == []


def test_a_rank_whose_guard_goes_further_is_named() -> None:
    manifests = [
        LoadedManifest(str(rank), Manifest(rank, 3, (), mode=mode))
        for rank, mode in enumerate(["observe", "enforce", "observe"])
    ]
    (finding,) = audit(manifests)
    assert (finding.rule, finding.ranks) == ("modes-differ", (1,))


def test_a_mode_that_was_not_recorded_is_not_a_difference() -> None:
    manifests = [
        LoadedManifest("a", Manifest(0, 2, (), mode="observe")),
        LoadedManifest("b", Manifest(1, 2, ())),
    ]
    assert audit(manifests) == []
