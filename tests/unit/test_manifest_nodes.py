"""The nodes of graphs in a manifest."""

from __future__ import annotations

import msgspec
import pytest

from graphguard import manifest
from graphguard.batch import BatchDescriptor
from graphguard.errors import ManifestError
from graphguard.manifest import Manifest, decode, encode
from graphguard.nodes import GraphNode
from graphguard.signature import GraphKey, Signature

SMALL = Manifest(0, 1, (Signature(GraphKey("target"), BatchDescriptor.of(4, 2)),))


def refusal(content: bytes) -> ManifestError:
    with pytest.raises(ManifestError) as caught:
        decode(content, "the file")
    assert caught.value.hint
    return caught.value


def with_nodes(*nodes: GraphNode) -> Manifest:
    signature = msgspec.structs.replace(SMALL.signatures[0], graph_nodes=nodes)
    return msgspec.structs.replace(SMALL, signatures=(signature, signature))


KERNEL = GraphNode("kernel", "add", (8, 1, 1), (128, 1, 1), count=3)


def test_equal_nodes_are_written_once_and_are_one_object_when_read() -> None:
    content = encode(with_nodes(KERNEL, GraphNode("empty")))
    assert len(msgspec.json.decode(content)["graph_nodes"]) == 2
    first, second = decode(content).signatures
    assert first.graph_nodes == second.graph_nodes == (KERNEL, GraphNode("empty"))
    assert first.graph_nodes[0] is second.graph_nodes[0]


def test_manifest_without_nodes_is_written_as_before_there_were_any() -> None:
    document = msgspec.json.decode(encode(SMALL))
    assert "graph_nodes" not in document
    assert "graph_nodes" not in document["graphs"][0]


@pytest.mark.parametrize(
    "damage",
    [
        {"kind": "x" * 65},
        {"name": "x" * 513},
        {"name": None},
        {"grid": [1, 2]},
        {"grid": [1, 2, -1]},
        {"block": [1, 2, 2**63]},
        {"parameter_bytes": [-1]},
        {"parameter_bytes": [1] * 4097},
        {"count": -1},
        {"count": 2**63},
    ],
    ids=str,
)
def test_node_out_of_bounds_is_refused(damage: dict[str, object]) -> None:
    document = msgspec.json.decode(encode(with_nodes(KERNEL)))
    document["graph_nodes"][0].update(damage)
    assert "graph_nodes" in refusal(msgspec.json.encode(document)).message


@pytest.mark.parametrize("position", [1, 2**62])
def test_node_that_the_manifest_does_not_hold_is_refused(position: int) -> None:
    document = msgspec.json.decode(encode(with_nodes(KERNEL)))
    document["graphs"][1]["graph_nodes"] = [position]
    error = refusal(msgspec.json.encode(document))
    assert "graph 1" in error.message
    assert "does not hold" in error.message


def test_nodes_that_expand_beyond_the_bound_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "MAX_NODES", 1)
    assert "more than 1 different nodes" in refusal(encode(with_nodes(KERNEL))).message
