"""The padded slots of what a FULL graph reads: what must hold in them before it is replayed.

vLLM pads a batch of 15 requests of 2 tokens to its graph of 16 × 2. The kernels in the graph run
for all 16, so the metadata of the sixteenth decides whether they end. What must hold there:

| invariant | rule | what it guards against |
|---|---|---|
| ``descriptor`` | the padding fits the graph: whole requests, never fewer than none | 28015 |
| ``seq-len`` | the length of a padded request is 0 | 43682 |
| ``query-start`` | padded requests start at the number of tokens: starts never decrease | |
| ``context-length`` | length minus query length is not negative | 51593, flashinfer 5015 |
| ``derived-length`` | lengths that a backend computes of these are not negative | 51593, 41189 |
| ``block-table`` | the row of a padded request is the null block, 0, throughout | 43682 |
| ``slot-mapping`` | the slot of a padded token is -1, where nothing is written | |
| ``position`` | the position of a padded token is within the model's length | |

Which of these the CPU sees is in :mod:`graphguard.vllm.padding_views`.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any, NamedTuple

import msgspec

Values = Any
"""A numpy array, or a torch tensor where a view is not for looking at but for sampling."""

NULL_BLOCK_ID = 0
PAD_SLOT_ID = -1
_ZERO, _MINUS_ONE = b"\0", b"\xff"
_MANY_BYTES = 1024


class Invariant(str, Enum):
    """What must hold in padded slots."""

    DESCRIPTOR = "descriptor"
    SEQ_LEN = "seq-len"
    QUERY_START = "query-start"
    CONTEXT_LENGTH = "context-length"
    DERIVED_LENGTH = "derived-length"
    BLOCK_TABLE = "block-table"
    SLOT_MAPPING = "slot-mapping"
    POSITION = "position"

    def __str__(self) -> str:
        return self.value


class Tail(msgspec.Struct, frozen=True, gc=False):
    """The padded part of one tensor.

    Attributes:
        name: What vLLM calls the tensor.
        values: One entry, or one row, for each padded slot.
        first: The slot of the first entry.
    """

    name: str
    values: Values
    first: int


class MetadataView(msgspec.Struct, gc=False):
    """What is seen of the padded slots of one step. What is not seen is left empty.

    Attributes:
        num_reqs: Requests of the batch.
        num_reqs_padded: Requests of the graph.
        num_tokens: Query tokens of the batch.
        num_tokens_padded: Query tokens of the graph.
        query_len: Query tokens of each request in a uniform graph, 0 for any other graph.
        device: Where the tensors are.
        max_model_len: The longest sequence of the model, 0 if unknown.
        lengths: Sequence lengths, by padded request.
        query_start: Where the queries start: for each padded request, and the end of the last one.
        block_tables: Rows of the block tables, by padded request.
        slot_mappings: Slots of the cache, by padded token.
        positions: Positions in their sequences, by padded token.
        derived: Lengths that the attention backend computed, by padded request or token.
    """

    num_reqs: int
    num_reqs_padded: int
    num_tokens: int
    num_tokens_padded: int
    query_len: int = 0
    device: str = "cpu"
    max_model_len: int = 0
    lengths: tuple[Tail, ...] = ()
    query_start: Tail | None = None
    block_tables: tuple[Tail, ...] = ()
    slot_mappings: tuple[Tail, ...] = ()
    positions: Tail | None = None
    derived: tuple[Tail, ...] = ()


class PaddingFinding(msgspec.Struct, frozen=True, kw_only=True):
    """One tensor in whose padded slots something does not hold.

    Attributes:
        invariant: What does not hold.
        tensor: What vLLM calls the tensor; ``batch`` where it is about none.
        slot: The first such slot: the index of a request, or of a token.
        value: What is in it.
        expected: What should be.
        explanation: What a kernel may do with it.
        issues: Threads in which such a value did harm. That it does so here is not said by that.
        repeats: In how many slots.
        seen: ``cpu``, or the device whose memory was sampled.
        batch: The batch and its graph.
    """

    invariant: Invariant
    tensor: str
    slot: int
    value: int
    expected: str
    explanation: str
    issues: tuple[str, ...]
    repeats: int
    seen: str
    batch: str

    def __str__(self) -> str:
        more = f" (and {self.repeats - 1} more)" if self.repeats > 1 else ""
        return (
            f"padded slot {self.slot} of {self.tensor} holds {self.value} and not "
            f"{self.expected}{more}: {self.explanation}; {self.batch}"
        )


class _Words(NamedTuple):
    explanation: str
    issues: tuple[str, ...]


_WORDS = {
    Invariant.DESCRIPTOR: _Words(
        "the graph was not captured for padding of this kind", ("vllm#28015", "vllm#28207")
    ),
    Invariant.SEQ_LEN: _Words(
        "attention reads keys for a request that does not exist, from whatever its row names",
        ("vllm#43682",),
    ),
    Invariant.QUERY_START: _Words(
        "kernels take query lengths from the differences, and need them not to be negative", ()
    ),
    Invariant.CONTEXT_LENGTH: _Words(
        "read as an unsigned number a negative length is huge, and thread blocks that disagree "
        "about it wait for each other for ever",
        ("vllm#51593", "flashinfer#5015"),
    ),
    Invariant.DERIVED_LENGTH: _Words(
        "read as an unsigned number a negative length is huge, and thread blocks that disagree "
        "about it wait for each other for ever",
        ("vllm#51593", "vllm#41189", "flashinfer#5015"),
    ),
    Invariant.BLOCK_TABLE: _Words(
        "the row names a block that belongs to another request", ("vllm#43682",)
    ),
    Invariant.SLOT_MAPPING: _Words(
        "the cache is written at a slot that belongs to another request", ()
    ),
    Invariant.POSITION: _Words("tables that are indexed by position are read outside", ()),
}


def violations(view: MetadataView) -> list[PaddingFinding]:
    """Return what does not hold in the padded slots. Reads nothing else, and nothing from a GPU."""
    reqs = view.num_reqs_padded - view.num_reqs
    tokens = view.num_tokens_padded - view.num_tokens
    if reqs == 0 and tokens == 0:
        return []
    if reqs < 0 or tokens < 0 or (view.query_len and reqs * view.query_len != tokens):
        return [_misfit(view)]
    findings: list[PaddingFinding] = []
    for tail in view.lengths:
        if tail.values.tobytes().strip(_ZERO):
            _tell(findings, view, Invariant.SEQ_LEN, tail, expected="0", is_bad=bool)
    start, end = view.query_start, view.num_tokens
    if start is not None and start.values.tolist().count(end) != reqs + 1:
        _tell(findings, view, Invariant.QUERY_START, start, expected=f"{end}", is_bad=end.__ne__)
    if findings:
        _tell_contexts(findings, view)
    for tail in view.block_tables:
        rows = tail.values
        if rows.any() if rows.nbytes > _MANY_BYTES else rows.tobytes().strip(_ZERO):
            _tell(findings, view, Invariant.BLOCK_TABLE, tail, expected="0", is_bad=bool)
    for tail in view.slot_mappings:
        if tail.values.tobytes().strip(_MINUS_ONE):
            _tell(
                findings,
                view,
                Invariant.SLOT_MAPPING,
                tail,
                expected="-1",
                is_bad=PAD_SLOT_ID.__ne__,
            )
    _check_rest(findings, view)
    return findings


def _check_rest(findings: list[PaddingFinding], view: MetadataView) -> None:
    """Check what has bounds rather than one sound value."""
    tail, bound = view.positions, view.max_model_len
    if tail is not None and bound:
        values = tail.values.tolist()
        if values and not 0 <= min(values) <= max(values) < bound:
            text = f"at least 0 and below {bound}"
            _tell(
                findings,
                view,
                Invariant.POSITION,
                tail,
                expected=text,
                is_bad=lambda value: not 0 <= value < bound,
            )
    for tail in view.derived:
        if (tail.values < 0).any():
            _tell(
                findings,
                view,
                Invariant.DERIVED_LENGTH,
                tail,
                expected="0 or more",
                is_bad=lambda value: value < 0,
            )


def _tell(
    findings: list[PaddingFinding],
    view: MetadataView,
    invariant: Invariant,
    tail: Tail,
    *,
    expected: str,
    is_bad: Callable[[int], bool],
) -> None:
    """Add what is wrong with a tail: its first slot, and how many there are."""
    bad: list[tuple[int, int]] = []
    for index, entry in enumerate(tail.values.tolist()):
        row = entry if isinstance(entry, list) else [entry]
        value = next((value for value in row if is_bad(value)), None)
        if value is not None:
            bad.append((tail.first + index, value))
    if bad:
        findings.append(_finding(view, invariant, tail.name, bad, expected))


def _tell_contexts(findings: list[PaddingFinding], view: MetadataView) -> None:
    """Add negative context lengths. There are none where lengths and starts are as they should."""
    if view.query_start is None:
        return
    starts = view.query_start.values.tolist()
    for tail in view.lengths:
        lengths = tail.values.tolist()
        contexts = [
            length - (end - start)
            for length, start, end in zip(lengths, starts, starts[1:], strict=False)
        ]
        bad = [(tail.first + index, value) for index, value in enumerate(contexts) if value < 0]
        if bad:
            name = f"{tail.name} - query lengths"
            findings.append(_finding(view, Invariant.CONTEXT_LENGTH, name, bad, "0 or more"))


def _misfit(view: MetadataView) -> PaddingFinding:
    """Return the finding of a batch that the graph cannot have been padded for."""
    expected = f"{view.num_reqs_padded} requests and {view.num_tokens_padded} tokens at most"
    if view.query_len:
        expected = f"{view.query_len} tokens for each padded request"
    bad = [(view.num_reqs, view.num_tokens_padded - view.num_tokens)]
    return _finding(view, Invariant.DESCRIPTOR, "batch", bad, expected)


def _finding(
    view: MetadataView,
    invariant: Invariant,
    tensor: str,
    bad: list[tuple[int, int]],
    expected: str,
) -> PaddingFinding:
    words = _WORDS[invariant]
    return PaddingFinding(
        invariant=invariant,
        tensor=tensor,
        slot=bad[0][0],
        value=bad[0][1],
        expected=expected,
        explanation=words.explanation,
        issues=words.issues,
        repeats=len(bad),
        seen=view.device,
        batch=f"{view.num_reqs} of {view.num_reqs_padded} requests and {view.num_tokens} of "
        f"{view.num_tokens_padded} tokens are the batch's own",
    )
