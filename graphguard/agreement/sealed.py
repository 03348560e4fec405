"""What a rank posts about the graphs that it captured.

It comes from other processes, so every length has a bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta

from graphguard.errors import AgreementError
from graphguard.signature import POINT_TO_POINT, Groups, Name, Natural, Signature

MAX_GRAPHS = 100_000
MAX_FAILURE = 4_000

Digest = Annotated[str, Meta(pattern="^[0-9a-f]{32}$")]
Key = Annotated[str, Meta(max_length=1_024)]
Post = TypeVar("Post")


class SealedGraph(msgspec.Struct, frozen=True, array_like=True):
    """One captured graph.

    Attributes:
        batch: The descriptor that it was captured for, as text.
        digest: Its shared digest.
        calls: How many communications it holds.
    """

    batch: Name
    digest: Digest
    calls: Natural


class Sealed(msgspec.Struct, frozen=True, dict=True):
    """What one rank captured under a key.

    Attributes:
        mode: The mode of its guard.
        key: The family of graphs, as text.
        graphs: In the order of capture.
        communicators: Those that the collective calls of its graphs use, each once.
        failure: What failed while this rank captured, or nothing.
    """

    mode: Name
    key: Key
    graphs: Annotated[tuple[SealedGraph, ...], Meta(max_length=MAX_GRAPHS)] = ()
    communicators: Annotated[tuple[Groups, ...], Meta(max_length=MAX_GRAPHS)] = ()
    failure: Annotated[str, Meta(max_length=MAX_FAILURE)] = ""

    @cached_property
    def digests(self) -> dict[str, str]:
        """The shared digests by descriptor, in the order of capture."""
        return {graph.batch: graph.digest for graph in self.graphs}


def sealed(key: str, signatures: Sequence[Signature], mode: str, failure: str) -> Sealed:
    """Return what a rank posts about its signatures."""
    communicators = dict.fromkeys(
        call.group
        for signature in signatures
        for call in signature.collectives
        if call.operation not in POINT_TO_POINT
    )
    return Sealed(
        mode=mode,
        key=key,
        graphs=tuple(
            SealedGraph(graph_text(key, s), s.shared_digest, len(s.collectives)) for s in signatures
        ),
        communicators=tuple(communicators),
        failure=failure[:MAX_FAILURE],
    )


def graph_text(key: str, signature: Signature) -> str:
    """Return what tells a graph apart among those that are sealed under a key.

    That is its descriptor; for a graph of another family, which is sealed together with them, its
    whole name.
    """
    return str(signature.batch) if str(signature.key) == key else str(signature)


def graph_name(key: str, text: str) -> str:
    """Return the whole name of a graph that :func:`graph_text` has told apart."""
    return text if " " in text else f"{key} {text}"


def encode(post: object) -> bytes:
    """Return a post as bytes."""
    return msgspec.msgpack.encode(post)


def decode(posts: Sequence[bytes], kind: type[Post], ranks: Sequence[int]) -> dict[int, Post]:
    """Return the posts of all ranks by global rank.

    Args:
        posts: In the order of the group.
        kind: What each of them has to be.
        ranks: The global ranks of the group.

    Raises:
        AgreementError: If one of them is something else.
    """
    return {rank: _decode(post, kind, rank) for rank, post in zip(ranks, posts, strict=True)}


def _decode(post: bytes, kind: type[Post], rank: int) -> Post:
    try:
        return msgspec.msgpack.decode(post, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise AgreementError(
            f"what rank {rank} posted about its captures cannot be read: {error}",
            hint="do all ranks run the same version of graphguard?",
        ) from error
