from __future__ import annotations

import msgspec
import pytest
from msgspec.json import decode

from graphguard.audit.differences import Differences, compare
from graphguard.nodes import GraphNode, counted, nodes_digest
from graphguard.reporters import diff
from graphguard.signature import Signature
from tests.unit.audit.jobs import call, graph, job, tensor

NAMES = ("old", "new")


def told(ours: list[Signature], theirs: list[Signature]) -> str:
    return diff.render(compare(job(ours, ours), job(theirs, theirs)), NAMES)


def kernels(*names: str) -> Signature:
    nodes = counted(GraphNode("kernel", name, (1, 1, 1), (32, 1, 1)) for name in names)
    return msgspec.structs.replace(graph(), nodes=nodes_digest(nodes), graph_nodes=nodes)


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")


def test_recordings_that_are_the_same_are_one_sentence() -> None:
    assert told([kernels("a")], [kernels("a")]).splitlines() == [
        "old → new",
        "graphs on ranks 0-1: 2 the same",
    ]


def test_the_table_has_a_line_for_each_graph_and_the_sentence_counts_them_on_all_ranks() -> None:
    before = [graph(call(), batch="16x2"), graph(batch="8x2"), graph(batch="1x2")]
    after = [graph(call(), call(), batch="16x2"), graph(batch="4x2"), graph(batch="1x2")]

    text = told(before, after)

    rows = [line.split() for line in text.splitlines() if line.startswith("  target/full")]
    assert rows == [
        ["target/full", "16x2", "0-1", "changed", "1", "→", "2"],
        ["target/full", "8x2", "0-1", "gone", "0"],
        ["target/full", "4x2", "0-1", "added", "0"],
    ]
    assert text.splitlines()[-1] == ("graphs on ranks 0-1: 2 the same, 2 added, 2 gone, 2 changed")


def test_the_first_difference_of_the_calls_is_shown_with_both_sides() -> None:
    text = told([graph(call(), call(count=7))], [graph(call(), call(count=9))])
    assert "collectives: 2 → 2; the first difference is at call 1, counted from 0" in text
    assert "      - all_reduce(7 bfloat16) on 0[0-3]\n" in text
    assert "      + all_reduce(9 bfloat16) on 0[0-3]\n" in text


def test_calls_in_another_order_are_said_to_be_the_same() -> None:
    text = told([graph(call(count=1), call(count=2))], [graph(call(count=2), call(count=1))])
    assert "collectives: the same in another order" in text


def test_what_many_graphs_have_in_common_is_told_once() -> None:
    before = [graph(call(), batch=f"{n}x1") for n in range(1, 11)]
    after = [graph(call("all_gather"), batch=f"{n}x1") for n in range(1, 11)]
    text = told(before, after)
    assert text.count("the first difference is at call 0") == 1
    assert "target/full 5x1 (ranks 0-1) and 5 more" in text


def test_the_kernels_that_differ_are_named() -> None:
    text = told([kernels("gemm", "norm", "norm")], [kernels("gemm", "norm_v2")])
    assert "  nodes: 3 → 2\n" in text
    assert "    - 2 × kernel norm (grid 1x1x1, block 32x1x1)\n" in text
    assert "    + kernel norm_v2 (grid 1x1x1, block 32x1x1)\n" in text
    assert "gemm" not in text


def test_nodes_that_were_not_recorded_are_said_not_to_be_compared() -> None:
    assert "2 graphs: nodes not recorded in both, so not compared" in told(
        [kernels("a")], [graph()]
    )
    other = msgspec.structs.replace(graph(), nodes="ab")
    assert "their digest differs" in told([kernels("a")], [other])


def test_tensors_are_shown_as_they_were_and_are() -> None:
    before, after = (graph(tensors=(tensor(0, size, "x"),), num_inputs=1) for size in (8, 16))
    assert "input x: 8 uint8 on cuda:0, stride (1), 8 bytes → 16 uint8" in told([before], [after])
    assert "output x: not there → " in told([graph()], [graph(tensors=(tensor(0, 8, "x"),))])


def test_long_lists_are_cut_and_the_rest_is_counted() -> None:
    before = graph(tensors=tuple(tensor(0, 8, str(n)) for n in range(9)))
    assert "and 4 more tensors (--json lists all)" in told([before], [graph()])
    text = told([kernels(*map(str, range(9)))], [kernels("other")])
    assert "and 5 more kinds of nodes (--json lists all)" in text


def test_a_name_from_a_file_does_not_reach_the_terminal_as_it_is() -> None:
    text = told([kernels("a\x1b[2J")], [kernels("b" * 500)])
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= diff.MAX_TEXT


def test_json_has_every_difference() -> None:
    differences = compare(
        job([graph(call()), kernels("a")]), job([graph(call(count=1)), kernels("b")])
    )
    document = decode(diff.render_json(differences, NAMES))

    assert (document["schema"], document["version"]) == ("graphguard.diff", 1)
    assert (document["before"], document["after"], document["different"]) == ("old", "new", True)
    assert msgspec.convert(document, Differences) == differences
