from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from graphguard.audit import LoadedManifest
from graphguard.audit.differences import Differences, SettingChange, compare
from graphguard.manifest import Manifest
from graphguard.signature import Signature
from tests.unit.audit.jobs import call, graph, job, loaded, tensor

GRAPHS = st.lists(
    st.builds(
        lambda counts, batch, size: graph(
            *(call(count=n) for n in counts), batch=batch, tensors=(tensor(0, size),)
        ),
        st.lists(st.integers(1, 3), max_size=4),
        st.sampled_from(["1x2", "2x2", "4t"]),
        st.integers(1, 2),
    ),
    max_size=4,
)


def changes(differences: Differences) -> list[tuple[str, str, tuple[int, ...]]]:
    return [(str(on.difference.change), on.difference.graph, on.ranks) for on in differences.graphs]


def of(rank: int, signatures: Sequence[Signature] = (), **fields: Any) -> LoadedManifest:
    return LoadedManifest("", Manifest(rank, fields.pop("world", 2), tuple(signatures), **fields))


def test_a_recording_is_the_same_as_itself_wherever_its_tensors_lie() -> None:
    ranks = [[graph(call(), tensors=(tensor(address, 8),))] for address in (0, 64)]
    differences = compare(job(*ranks), job(*ranks[::-1]))
    assert not differences.any
    assert (differences.ranks, differences.alike) == ((0, 1), 2)


def test_graphs_that_came_and_went_are_told_in_the_order_of_capture() -> None:
    before = [graph(call(), batch=batch) for batch in ("16x2", "8x2", "4x2")]
    after = [graph(call(), batch=batch) for batch in ("16x2", "4x2", "2x2", "1x2")]

    differences = compare(job(before, before), job(after, after))

    assert changes(differences) == [
        ("gone", "target/full 8x2", (0, 1)),
        ("added", "target/full 2x2", (0, 1)),
        ("added", "target/full 1x2", (0, 1)),
    ]
    assert [on.difference.collectives for on in differences.graphs] == [1, 1, 1]
    assert (differences.alike, differences.any) == (4, True)


def test_a_graph_that_was_captured_twice_is_compared_capture_by_capture() -> None:
    once, twice = [graph(call())], [graph(call()), graph(call(count=1))]
    differences = compare(job(once), job(twice))
    assert changes(differences) == [("added", "target/full 16x2 (capture 2)", (0,))]


def test_a_difference_of_some_ranks_is_told_of_them() -> None:
    same, other = [graph(call())], [graph(call(count=1))]
    differences = compare(job(same, same, same), job(same, other, other))
    assert changes(differences) == [("changed", "target/full 16x2", (1, 2))]
    assert differences.alike == 1


def test_every_part_of_a_graph_is_compared() -> None:
    base = graph(call(), tensors=(tensor(0, 8),))
    for fields, part in (
        ({"collectives": ()}, "calls"),
        ({"tensors": ()}, "tensors"),
        ({"graph_kind": "emulated"}, "graph_kind"),
    ):
        other = msgspec.structs.replace(base, **fields)
        (on,) = compare(job([base]), job([other])).graphs
        told = msgspec.to_builtins(on.difference)
        parts = ("calls", "tensors", "nodes", "graph_kind", "memory_bytes")
        assert [name for name in parts if told[name]] == [part]


def test_memory_that_a_capture_reserved_is_compared() -> None:
    before, after = (msgspec.structs.replace(graph(), memory_bytes=n) for n in (0, 2**21))
    (on,) = compare(job([before]), job([after])).graphs
    assert on.difference.memory_bytes == (0, 2**21)
    assert not compare(job([after]), job([after])).any


def test_graphs_whose_nodes_one_recording_has_not_are_counted() -> None:
    digest = msgspec.structs.replace(graph(), nodes="ab")
    differences = compare(job([digest]), job([graph()]))
    assert (differences.any, differences.nodes_unknown) == (False, 1)


def test_ranks_that_came_and_went_and_settings_are_differences() -> None:
    differences = compare(
        [of(0, mode="observe", query_lens={"target": 2}), of(1, mode="observe")],
        [of(0, world=1, mode="enforce", query_lens={"drafter": 2}), of(5, world=1)],
    )
    assert (differences.ranks, differences.gone, differences.added) == ((0,), (1,), (5,))
    assert differences.settings == (
        SettingChange("world size", "2", "1"),
        SettingChange("mode", "observe", "enforce"),
        SettingChange("query length of drafter", None, "2"),
        SettingChange("query length of target", "2", None),
    )
    assert differences.any


def test_versions_are_told_once_and_are_no_difference() -> None:
    old, new = {"torch": "2.13", "python": "3.11"}, {"torch": "2.14", "python": "3.11"}
    differences = compare(
        [of(0, versions=old), of(1, versions=old)], [of(0, versions=new), of(1, versions=new)]
    )
    assert differences.versions == (SettingChange("version of torch", "2.13", "2.14"),)
    assert not differences.any


def test_two_single_processes_are_compared_whichever_ranks_they_are() -> None:
    same = [graph(call())]
    assert compare([loaded(0, 2, *same)], [loaded(1, 2, *same)]).ranks == (0,)
    assert compare(job(same, same), [loaded(7, 8, *same)]).ranks == ()


@given(st.lists(GRAPHS, min_size=1, max_size=3), st.lists(GRAPHS, min_size=1, max_size=3))
def test_what_is_added_one_way_is_gone_the_other(
    ours: list[list[Signature]], theirs: list[list[Signature]]
) -> None:
    there, back = compare(job(*ours), job(*theirs)), compare(job(*theirs), job(*ours))

    turned = {"added": "gone", "gone": "added", "changed": "changed"}
    assert sorted((turned[change], *rest) for change, *rest in changes(there)) == sorted(
        changes(back)
    )
    assert there.any == back.any
    assert (there.alike, there.gone) == (back.alike, back.added)
    assert not compare(job(*ours), job(*ours)).any
