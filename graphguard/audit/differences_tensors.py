"""How the static tensors of a graph differ between two recordings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import msgspec

from graphguard.signature import Signature, TensorSpec

MAX_LISTED = 1_000
"""Tensors of one graph that are listed. A file may claim many more."""


class TensorChange(msgspec.Struct, frozen=True):
    """A static tensor that is not the same in both graphs.

    Attributes:
        name: ``input tokens``, ``output 0``; with a number where several have that name.
        before: What it is in the first graph, or None if it is not there.
        after: The same in the second graph.
    """

    name: str
    before: str | None
    after: str | None


def tensor_changes(ours: Signature, theirs: Signature) -> tuple[TensorChange, ...]:
    """Return the tensors that differ in more than their address, which every run chooses anew."""
    before, after = dict(_named(ours)), dict(_named(theirs))
    names = [*before, *(name for name in after if name not in before)]
    changed = (
        TensorChange(name, before.get(name), after.get(name))
        for name in names
        if before.get(name) != after.get(name)
    )
    return tuple(change for change, _ in zip(changed, range(MAX_LISTED)))  # noqa: B905 - the first


def _named(signature: Signature) -> Iterable[tuple[str, str]]:
    seen: Counter[str] = Counter()
    for position, tensor in enumerate(signature.tensors):
        side = "input" if position < signature.num_inputs else "output"
        name = f"{side} {tensor.name}"
        seen[name] += 1
        yield (f"{name} #{seen[name]}" if seen[name] > 1 else name), _told(tensor)


def _told(tensor: TensorSpec) -> str:
    shape = "x".join(map(str, tensor.shape)) or "scalar"
    stride = ", ".join(map(str, tensor.stride))
    return f"{shape} {tensor.dtype} on {tensor.device}, stride ({stride}), {tensor.nbytes:,} bytes"
