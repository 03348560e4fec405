"""torch.distributed on real ranks: what is recorded, and what a replay does."""

from pathlib import Path

import pytest

from graphguard import audit
from tests.distributed.ranks import run


def expected_calls(rank: int, ranks: int) -> list[str]:
    world, pair = f"0[0-{ranks - 1}]", rank // 2 * 2
    size, peer = 4 * ranks, rank ^ 1
    in_pair = f"{rank // 2 + 1}[{pair}-{pair + 1}]"
    first, second = ("send", "recv") if rank < peer else ("recv", "send")
    return [
        f"all_reduce({size} float32, sum) on {world}",
        f"all_reduce({size} float32, max) on {world}",
        f"reduce({size} float32, product, root {ranks - 1}) on {world}",
        f"broadcast({size} float32, root 1) on {world}",
        f"all_reduce(3 float64, sum) on {in_pair}",
        f"all_reduce({size} float32, sum, coalesced) on {world}",
        f"all_reduce(2 float32, sum, coalesced) on {world}",
        f"barrier(0 uint8) on {world}",
        f"all_gather(4 float32) on {world}",
        f"all_gather(4 float32) on {world}",
        f"reduce_scatter(4 float32, sum) on {world}",
        f"gather(4 float32, root 0) on {world}",
        f"scatter(4 float32, root 0) on {world}",
        f"all_to_all(4 float32) on {world}",
        f"all_to_all_v(? float32) on {world}",
        f"{first}(2 float32, peer {peer}) on {world}",
        f"{second}(2 float32, peer {peer}) on {world}",
        f"send(3 float32, peer {peer}) on {world}",
        f"recv(3 float32, peer {peer}) on {world}",
        f"all_reduce({size} float32, avg) on {world}",
        f"all_gather(2 float32) on {world}",
        f"reduce_scatter(4 float32, sum) on {world}",
        f"all_reduce({size} float32, max, coalesced) on {world}",
        f"all_reduce(1 float32, max, coalesced) on {world}",
        # The functional form always names splits, even ones.
        f"all_to_all_v(? float32) on {world}",
        f"broadcast({size} float32, root 0) on {world}",
    ]


@pytest.mark.parametrize("ranks", [2, 4])
def test_every_collective_is_recorded_in_order_and_replayed(ranks: int, tmp_path: Path) -> None:
    for rank, result in enumerate(run("every_collective", ranks, tmp_path)):
        assert result["failures"] == []
        assert result["captured"] == expected_calls(rank, ranks)
        assert result["eager"] == result["captured"]
        assert result["equal"] == [True, True]
        # Rows of two elements: rank r sends r + 1 rows to everyone.
        sent, received = result["splits"][0]
        assert sent == [2 * (rank + 1)] * ranks
        assert received == [2 * (other + 1) for other in range(ranks)]


@pytest.mark.parametrize("ranks", [2, 4])
def test_manifests_of_equal_ranks_pass_the_audit(ranks: int, tmp_path: Path) -> None:
    manifests = tmp_path / "manifests"
    run("manifest_of_every_collective", ranks, tmp_path, MANIFESTS=str(manifests))

    loaded = audit.load([manifests])

    assert len(loaded.manifests) == ranks
    assert loaded.manifests[0].manifest.signatures[0].collectives
    assert audit.audit(loaded.manifests) == []


def test_the_audit_names_the_call_that_one_rank_has_too_many(tmp_path: Path) -> None:
    manifests = tmp_path / "manifests"
    run("one_rank_reduces_more", 4, tmp_path, MANIFESTS=str(manifests))

    findings = audit.audit(audit.load([manifests]).manifests)

    assert [finding.rule for finding in findings] == ["collective-missing"]
    assert findings[0].ranks == (1,)
    assert findings[0].position == 2
    assert findings[0].graph == "target/full 4x2"


@pytest.mark.parametrize("attempt", range(2))
def test_a_graph_does_not_keep_its_process_group_alive(attempt: int, tmp_path: Path) -> None:
    """Otherwise gloo aborts the process when it ends, most of the times."""
    for told in run("graph_that_outlives_its_group", 4, tmp_path):
        assert "process group '0' was destroyed" in told


def test_groups_are_named_by_what_all_their_ranks_share(tmp_path: Path) -> None:
    results = run("group_names", 4, tmp_path)

    assert results[0] == ["0[0-3]", "1[0-3]", "2[0,2-3]"]
    assert results[1] == ["0[0-3]", "1[0-3]"]
    assert results[2] == results[3] == results[0]
