"""A stall on several nodes: what the first rank of each node writes of all of them."""

import json
from pathlib import Path

import pytest

from tests.distributed.ranks import run

LOOKS = {"GRAPHGUARD_STALL_SECONDS": "60", "GRAPHGUARD_RING_ENTRIES": "1024"}


def test_nodes_tell_each_other_whom_they_blame(tmp_path: Path) -> None:
    results = run(
        "node_stall_programs:nodes_that_stall", 2, tmp_path, FOLDER=str(tmp_path), **LOOKS
    )

    for found in results:
        assert (found["group"], found["stall_class"]) == ("0[0-1]", "host-stuck")
        assert found["ranks"] == [1]
        assert [each["seen"] for each in found["nodes"]] == ["stall", "stall"]
        ranks = [each["node"].partition(" ")[2] for each in found["nodes"]]
        assert ranks == ["(ranks 0)", "(ranks 1)"]
        assert [each["steps"] for each in found["nodes"]] == [[[0, 2]], [[1, 2]]]
        assert found["behind"] == []
        assert found["sentence"].endswith("rank 1 is blamed (host-stuck)")
    for rank in (0, 1):
        assert "STALL on several nodes" in (tmp_path / f"stderr.{rank}").read_text()


def test_a_node_that_is_gone_is_named_as_not_known(tmp_path: Path) -> None:
    told = tmp_path / "told"
    # No rank leaves a result: all end at once, as those do that crash.
    with pytest.raises(FileNotFoundError):
        run(
            "node_stall_programs:a_node_that_ends",
            2,
            tmp_path,
            FOLDER=str(tmp_path),
            TOLD=str(told),
            **LOOKS,
        )

    found = json.loads(told.read_text())
    assert [each["seen"] for each in found["nodes"]] == ["stall", "not known"]
    assert "(ranks 1) nothing is known (it " in found["sentence"]
