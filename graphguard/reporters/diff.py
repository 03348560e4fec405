"""How two recordings differ: a table with details for people, and JSON for programs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from graphguard.audit.differences import Differences, OnRanks, SettingChange
from graphguard.audit.differences_calls import CallsDifference, Edit
from graphguard.audit.differences_graphs import Change, GraphDifference
from graphguard.audit.differences_nodes import NodeChange, NodesDifference
from graphguard.audit.differences_tensors import TensorChange
from graphguard.audit.findings import agree, ranks_text
from graphguard.nodes import GraphNode
from graphguard.printable import printable
from graphguard.reporters import json, table

SCHEMA = "graphguard.diff"
VERSION = 1
COLUMNS = ("graph", "ranks", "change", "collectives", "nodes", "tensors", "memory")

MAX_SHOWN = 5
"""Edits, lines of an edit, nodes and tensors of a graph, and graphs in a list, that are shown."""

MAX_TEXT = 200
"""Characters of a line that are shown. Names of kernels are long."""

_NOTHING = "-"


def render(differences: Differences, names: tuple[str, str]) -> str:
    """Return the differences as text.

    Args:
        differences: What differs.
        names: What the two recordings are called.
    """
    title = f"{names[0]} → {names[1]}"
    rows = [_row(on) for on in differences.graphs]
    parts = [table.render(title, COLUMNS, rows) if rows else f"{printable(title)}\n"]
    parts += [f"{_line(line)}\n" for line in (*_details(differences), *_settings(differences))]
    return "".join([*parts, f"{_summary(differences)}\n"])


def render_json(differences: Differences, names: tuple[str, str]) -> str:
    """Return the differences as JSON. Fields may be added; what is there keeps its meaning."""
    return json.document(
        {
            "schema": SCHEMA,
            "version": VERSION,
            "before": names[0],
            "after": names[1],
            "different": differences.any,
            **msgspec.to_builtins(differences),
        }
    )


def _row(on: OnRanks) -> tuple[str, ...]:
    graph = on.difference
    ranks = ranks_text(on.ranks).partition(" ")[2]
    if graph.change is not Change.CHANGED:
        return graph.graph, ranks, str(graph.change), str(graph.collectives), "", "", ""
    return (
        graph.graph,
        ranks,
        str(graph.change),
        "" if graph.calls is None else _arrow(*graph.calls.counts),
        _nodes_cell(graph.nodes),
        f"{len(graph.tensors):,} differ" if graph.tensors else "",
        "" if graph.memory_bytes is None else _arrow(*graph.memory_bytes),
    )


def _nodes_cell(nodes: NodesDifference | None) -> str:
    if nodes is None:
        return ""
    return _arrow(*nodes.counts) if nodes.changes else "differ"


def _details(differences: Differences) -> Iterator[str]:
    """Tell in what graphs have changed; what many graphs have in common only once."""
    alike: dict[tuple[str, ...], list[OnRanks]] = {}
    for on in differences.graphs:
        if on.difference.change is Change.CHANGED:
            alike.setdefault(tuple(_changes(on.difference)), []).append(on)
    for lines, changed in alike.items():
        named = [f"{on.difference.graph} ({ranks_text(on.ranks)})" for on in changed]
        yield f"{', '.join(named[:MAX_SHOWN])}{_more(named)}"
        yield from (f"  {line}" for line in lines)
        yield ""


def _changes(graph: GraphDifference) -> Iterator[str]:
    if graph.calls is not None:
        yield from _calls(graph.calls)
    if graph.nodes is not None:
        yield from _nodes(graph.nodes)
    yield from _tensors(graph.tensors)
    if graph.memory_bytes is not None:
        yield f"memory: {_arrow(*graph.memory_bytes)} bytes reserved by the capture"
    if graph.graph_kind is not None:
        before, after = graph.graph_kind
        yield f"kind of graph: {before or _NOTHING} → {after or _NOTHING}"


def _calls(calls: CallsDifference) -> Iterator[str]:
    first = calls.edits[0]
    what = "the same in another order" if calls.reordered else _arrow(*calls.counts)
    yield f"collectives: {what}; the first difference is at call {first.position}, counted from 0"
    if calls.recorders is not None:
        yield (
            f"  seen by {calls.recorders[0]} and by {calls.recorders[1]}: only operation, count, "
            "dtype and communicator were compared"
        )
    for edit in calls.edits[:MAX_SHOWN]:
        yield from (f"  {line}" for line in _edit(edit))
    if rest := calls.edits[MAX_SHOWN:]:
        yield f"  and {len(rest):,} more places (--json lists all)"


def _edit(edit: Edit) -> Iterator[str]:
    yield f"call {edit.position} → call {edit.other_position}"
    for sign, texts, number in (("-", edit.gone, edit.num_gone), ("+", edit.added, edit.num_added)):
        yield from (f"  {sign} {text}" for text in texts[:MAX_SHOWN])
        if len(texts) > MAX_SHOWN:
            yield f"  {sign} … of {number:,} calls"


def _nodes(nodes: NodesDifference) -> Iterator[str]:
    if not nodes.changes:
        yield "nodes: their digest differs; the nodes themselves were not recorded in both"
        return
    yield f"nodes: {_arrow(*nodes.counts)}"
    for change in nodes.changes[:MAX_SHOWN]:
        yield from _node(change)
    if rest := nodes.changes[MAX_SHOWN:]:
        yield f"  and {len(rest):,} more kinds of nodes (--json lists all)"


def _node(change: NodeChange) -> Iterator[str]:
    yield from (f"  - {_node_text(node)}" for node in change.before[:MAX_SHOWN])
    yield from (f"  + {_node_text(node)}" for node in change.after[:MAX_SHOWN])


def _node_text(node: GraphNode) -> str:
    sizes = sum(node.parameter_bytes)
    return f"{node}{f', {sizes:,} bytes of parameters' if sizes else ''}"


def _tensors(tensors: Sequence[TensorChange]) -> Iterator[str]:
    for change in tensors[:MAX_SHOWN]:
        yield f"{change.name}: {change.before or 'not there'} → {change.after or 'not there'}"
    if rest := tensors[MAX_SHOWN:]:
        yield f"and {len(rest):,} more tensors (--json lists all)"


def _settings(differences: Differences) -> Iterator[str]:
    changes: Iterable[SettingChange] = (*differences.settings, *differences.versions)
    for change in changes:
        yield f"{change.what}: {change.before or _NOTHING} → {change.after or _NOTHING}"
    for ranks, where in ((differences.gone, "first"), (differences.added, "second")):
        if ranks:
            is_are = agree(ranks, "is", "are")
            yield f"{ranks_text(ranks)} {is_are} in the {where} recording only, and not compared"
    if unknown := differences.nodes_unknown:
        graphs = agree(range(unknown), "graph", "graphs")
        yield f"{unknown:,} {graphs}: nodes not recorded in both, so not compared"


def _summary(differences: Differences) -> str:
    counts = dict.fromkeys(Change, 0)
    for on in differences.graphs:
        counts[on.difference.change] += len(on.ranks)
    told = ", ".join(f"{number:,} {change}" for change, number in counts.items() if number)
    on_ranks = f"on {ranks_text(differences.ranks)}" if differences.ranks else "on no rank"
    return f"graphs {on_ranks}: {differences.alike:,} the same{f', {told}' if told else ''}"


def _arrow(before: int | None, after: int | None) -> str:
    return f"{_number(before)} → {_number(after)}"


def _number(number: int | None) -> str:
    return "?" if number is None else f"{number:,}"


def _more(items: Sequence[object]) -> str:
    return f" and {len(items) - MAX_SHOWN:,} more" if len(items) > MAX_SHOWN else ""


def _line(text: str) -> str:
    text = printable(text)
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 3] + "..."
