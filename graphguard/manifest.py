"""Manifests: every signature of one process, as a file that any later version can read.

The file is JSON. Equal collective calls are written once, in ``calls``, and each graph lists
positions in it; a model with a hundred layers repeats the same few calls. The same goes for equal
nodes, in ``graph_nodes``. A manifest holds shapes, names and addresses, never the content of a
tensor.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta

from graphguard.batch import BatchDescriptor
from graphguard.errors import DescriptorError, ManifestError
from graphguard.files import read_bounded, write_private
from graphguard.nodes import GraphNode
from graphguard.signature import (
    CollectiveCall,
    Digests,
    GraphKey,
    Name,
    Natural,
    Signature,
    TensorSpec,
)

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA = "graphguard.manifest"
VERSION = 1
MAX_BYTES = 64 * 2**20
MAX_CALLS = 5_000_000
MAX_NODES = 5_000_000
MAX_DISAGREEMENTS = 1_000
FILE_PATTERN = "manifest.rank*.json"

Sentence = Annotated[str, Meta(max_length=4_096)]
Disagreements = Annotated[tuple[Sentence, ...], Meta(max_length=MAX_DISAGREEMENTS)]


def file_name(rank: int) -> str:
    """Return the name of the manifest of one rank."""
    return f"manifest.rank{rank}.json"


class Manifest(msgspec.Struct, frozen=True):
    """All signatures of one process.

    Attributes:
        rank: Global rank of the process.
        world_size: Number of processes of the job.
        signatures: One for each captured graph, in the order of capture.
        query_lens: For each role, the query tokens of a request in a uniform decode step (1 + k
            with k drafted tokens), where the program said so.
        mode: What the guard was told to do: ``off``, ``observe`` or ``enforce``.
        host: Name of the machine.
        pid: Process id on that machine.
        created: When the manifest was written, in UTC, ISO 8601.
        versions: Versions of graphguard and of what it ran with.
        written_digests: The digests as the file gives them, one for each signature; empty for a
            manifest that was not read from a file.
    """

    rank: int
    world_size: int
    signatures: tuple[Signature, ...]
    query_lens: dict[str, int] = {}
    mode: str = ""
    host: str = ""
    pid: int = 0
    created: str = ""
    versions: dict[str, str] = {}
    written_digests: tuple[Digests, ...] = ()


class _Graph(msgspec.Struct, omit_defaults=True):
    key: GraphKey
    batch: Name
    shared_digest: Name
    local_digest: Name
    calls: Annotated[tuple[Natural, ...], Meta(max_length=MAX_CALLS)] = ()
    tensors: Annotated[tuple[TensorSpec, ...], Meta(max_length=65_536)] = ()
    num_inputs: Natural = 0
    graph_kind: Name = ""
    nodes: Name = ""
    memory_bytes: Natural = 0
    graph_nodes: Annotated[tuple[Natural, ...], Meta(max_length=MAX_NODES)] = ()
    disagreements: Disagreements = ()


class _Document(msgspec.Struct, omit_defaults=True):
    schema: Name
    version: Natural
    rank: Natural
    world_size: Natural
    mode: Name
    host: Name
    pid: Natural
    created: Name
    versions: Annotated[dict[Name, Name], Meta(max_length=1_000)]
    query_lens: Annotated[dict[Name, Natural], Meta(max_length=10_000)]
    calls: Annotated[tuple[CollectiveCall, ...], Meta(max_length=MAX_CALLS)]
    graphs: Annotated[tuple[_Graph, ...], Meta(max_length=1_000_000)]
    graph_nodes: Annotated[tuple[GraphNode, ...], Meta(max_length=MAX_NODES)] = ()


class _Header(msgspec.Struct):
    schema: Name
    version: Natural


def encode(manifest: Manifest) -> bytes:
    """Return a manifest as the bytes of its file."""
    positions: dict[CollectiveCall, int] = {}
    places: dict[GraphNode, int] = {}
    graphs = tuple(_graph(signature, positions, places) for signature in manifest.signatures)
    document = _Document(
        schema=SCHEMA,
        version=VERSION,
        rank=manifest.rank,
        world_size=manifest.world_size,
        mode=manifest.mode,
        host=manifest.host,
        pid=manifest.pid,
        created=manifest.created,
        versions=manifest.versions,
        query_lens=manifest.query_lens,
        calls=tuple(positions),
        graphs=graphs,
        graph_nodes=tuple(places),
    )
    return msgspec.json.encode(document) + b"\n"


def decode(content: bytes, source: str = "the manifest") -> Manifest:
    """Read a manifest from the bytes of its file.

    Args:
        content: What the file holds. It may come from another machine and is not trusted.
        source: How errors call it.

    Raises:
        ManifestError: If it is no manifest, is cut off, was written by a newer version, or
            contradicts itself.
    """
    try:
        header = msgspec.json.decode(content, type=_Header)
        _require_known(header, source)
        document = msgspec.json.decode(content, type=_Document)
        return _manifest(document, source)
    except msgspec.ValidationError as error:
        raise ManifestError(
            f"{source} is not a valid manifest: {error}", hint="was it edited by hand?"
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ManifestError(
            f"{source} is not JSON, or is cut off: {error}",
            hint="copy the file again; graphguard itself never leaves half a manifest",
        ) from error


def read(path: Path) -> Manifest:
    """Read a manifest file.

    Raises:
        ManifestError: If it cannot be read or is not a manifest.
    """
    return decode(read_bounded(path, MAX_BYTES), str(path))


def write(manifest: Manifest, directory: Path) -> Path:
    """Write a manifest into a directory as ``manifest.rank<N>.json`` and return its path.

    A manifest of the same rank that is there already is replaced.

    Raises:
        ManifestError: If the directory is not private or cannot be written to.
    """
    path = directory / file_name(manifest.rank)
    write_private(path, encode(manifest))
    return path


def _graph(
    signature: Signature, positions: dict[CollectiveCall, int], places: dict[GraphNode, int]
) -> _Graph:
    calls = tuple(positions.setdefault(call, len(positions)) for call in signature.collectives)
    return _Graph(
        key=signature.key,
        batch=str(signature.batch),
        shared_digest=signature.shared_digest,
        local_digest=signature.local_digest,
        calls=calls,
        tensors=signature.tensors,
        num_inputs=signature.num_inputs,
        graph_kind=signature.graph_kind,
        nodes=signature.nodes,
        memory_bytes=signature.memory_bytes,
        graph_nodes=tuple(places.setdefault(n, len(places)) for n in signature.graph_nodes),
        disagreements=signature.disagreements,
    )


def _require_known(header: _Header, source: str) -> None:
    if header.schema != SCHEMA:
        raise ManifestError(
            f"{source} is not a manifest: its schema is {header.schema!r}",
            hint=f"graphguard writes {FILE_PATTERN} with the schema {SCHEMA!r}",
        )
    if not 1 <= header.version <= VERSION:
        raise ManifestError(
            f"{source} has version {header.version}; this graphguard reads 1 to {VERSION}",
            hint="read it with the graphguard that wrote it, or a newer one",
        )


def _manifest(document: _Document, source: str) -> Manifest:
    if sum(len(graph.calls) for graph in document.graphs) > MAX_CALLS:
        raise ManifestError(
            f"{source} lists more than {MAX_CALLS:,} collective calls",
            hint="is it a manifest of one process?",
        )
    if sum(len(graph.graph_nodes) for graph in document.graphs) > MAX_NODES:
        raise ManifestError(
            f"{source} lists more than {MAX_NODES:,} different nodes of graphs",
            hint="is it a manifest of one process?",
        )
    return Manifest(
        rank=document.rank,
        world_size=document.world_size,
        signatures=tuple(_signatures(document, source)),
        query_lens=document.query_lens,
        mode=document.mode,
        host=document.host,
        pid=document.pid,
        created=document.created,
        versions=document.versions,
        written_digests=tuple(Digests(g.shared_digest, g.local_digest) for g in document.graphs),
    )


def _signatures(document: _Document, source: str) -> Iterable[Signature]:
    for number, graph in enumerate(document.graphs):
        yield _signature(graph, document, f"{source}, graph {number} ({graph.key})")


def _signature(graph: _Graph, document: _Document, source: str) -> Signature:
    try:
        return Signature(
            key=graph.key,
            batch=BatchDescriptor.parse(graph.batch),
            tensors=graph.tensors,
            num_inputs=graph.num_inputs,
            collectives=tuple(map(document.calls.__getitem__, graph.calls)),
            graph_kind=graph.graph_kind,
            nodes=graph.nodes,
            memory_bytes=graph.memory_bytes,
            graph_nodes=tuple(map(document.graph_nodes.__getitem__, graph.graph_nodes)),
            disagreements=graph.disagreements,
        )
    except (DescriptorError, IndexError) as error:
        raise ManifestError(f"{source}: {_reason(error)}", hint="was it edited by hand?") from error


def _reason(error: Exception) -> str:
    if isinstance(error, DescriptorError):
        return error.message
    return "it lists a collective call or a node that the manifest does not hold"
