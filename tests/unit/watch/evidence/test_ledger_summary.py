"""What a ledger says, read from a copy of a real one, and from files that are none."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphguard import _core
from graphguard.agreement.segment import Segment
from graphguard.watch.evidence import ledger_summary
from graphguard.watch.evidence.ledger_summary import Ledger, LedgerUnreadable
from tests.unit.agreement.ledgers import Place

SHAPE = (4, 2, 8, 0)


@pytest.fixture
def segment() -> Iterator[Segment]:
    made = Segment.create(2)
    yield made
    made.remove_name()
    made.close()


def inherited(segment: Segment) -> Ledger:
    text = f"{segment.descriptor}:{segment.size}:tp:0:4=1000,5=1001"
    return ledger_summary.parse_inherited(text)


def test_the_size_is_that_of_the_core() -> None:
    for ranks in (1, 2, 8, 512):
        assert ledger_summary.ledger_bytes(ranks) == _core.ledger_bytes(ranks)
    assert ledger_summary.SLOTS == _core.LEDGER_SLOTS


def test_how_far_each_rank_came_and_with_what(segment: Segment) -> None:
    first, second = (Place(segment, rank, enforces=False) for rank in range(2))
    for _ in range(6):
        assert first.propose(first.graphs[0], SHAPE) == 0
        assert second.propose(second.graphs[0], SHAPE) == 0
    first.propose(first.eager, (3, 1, 3, 0))
    ledger = inherited(segment)
    seen = ledger_summary.summarise(ledger_summary.copy(ledger), ledger.group, ledger.ranks)
    assert (seen.group, seen.num_ranks, seen.trouble) == ("tp:0", 2, None)
    assert [rank.passed for rank in seen.ranks] == [7, 6]
    assert [rank.rank for rank in seen.ranks] == [4, 5]
    assert [rank.pid for rank in seen.ranks] == [100, 101]
    assert seen.behind == (1,)
    last = seen.ranks[0].launches[-1]
    assert (last.step, last.kind, last.num_reqs, last.num_tokens) == (7, "eager", 3, 3)
    assert last.whole
    before = seen.ranks[1].launches[-1]
    assert (before.step, before.kind, before.query_len, before.phase) == (6, "replay", 2, "decode")
    assert before.digest == f"{1:016x}{1:016x}"
    assert len(seen.ranks[0].launches) == ledger_summary.KEPT_STEPS


def test_a_launch_that_was_being_written_is_told_as_such(segment: Segment) -> None:
    Place(segment, 0, enforces=False).propose(0, SHAPE)
    content = bytearray(ledger_summary.copy(inherited(segment)))
    # The digest of step 1 in the slots of rank 0, which come after the two ranks' lines.
    offset = ledger_summary._RANKS + 2 * 128 + 64 + 8
    content[offset] ^= 1
    seen = ledger_summary.summarise(bytes(content))
    assert [launch.whole for launch in seen.ranks[0].launches] == [False]


@pytest.mark.parametrize(
    "text", ["", "3", "3:4", "x:1:g:0=1", "3:4:g:0=", "3:4:g:0=1,", "-1:4:g:", "9" * 40]
)
def test_an_argument_that_names_no_ledger_is_refused(text: str) -> None:
    with pytest.raises(LedgerUnreadable, match="names no ledger"):
        ledger_summary.parse_inherited(text)


def test_an_argument_without_ranks_is_read() -> None:
    assert ledger_summary.parse_inherited("3:4:tp:0:") == Ledger(3, 4, "tp:0")


def test_a_descriptor_that_is_no_ledger_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "short"
    path.write_bytes(b"x" * 10)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with pytest.raises(LedgerUnreadable, match="10 bytes"):
            ledger_summary.copy(Ledger(descriptor, 11, "g"))
    finally:
        os.close(descriptor)
    with pytest.raises(LedgerUnreadable):
        ledger_summary.copy(Ledger(descriptor, 11, "g"))
    reading, writing = os.pipe()
    try:
        with pytest.raises(LedgerUnreadable, match="no ledger"):
            ledger_summary.copy(Ledger(reading, 11, "g"))
    finally:
        os.close(reading)
        os.close(writing)


@given(st.binary(max_size=300))
def test_bytes_that_are_no_ledger_are_refused(content: bytes) -> None:
    with pytest.raises(LedgerUnreadable):
        ledger_summary.summarise(content)
    with pytest.raises(LedgerUnreadable):
        ledger_summary.summarise(content.ljust(ledger_summary.ledger_bytes(1), b"\0"))


@given(st.data())
def test_a_damaged_ledger_is_read_or_refused(data: st.DataObject) -> None:
    content = bytearray(ledger_summary.ledger_bytes(2))
    header = (ledger_summary._MAGIC, 1, 2, 1024, 256, len(content), 5)
    ledger_summary._HEADER.pack_into(content, 0, *header)
    for _ in range(data.draw(st.integers(0, 30))):
        begin = data.draw(st.integers(0, len(content) - 8))
        content[begin : begin + 8] = data.draw(st.binary(min_size=8, max_size=8))
    try:
        seen = ledger_summary.summarise(bytes(content), "g", (0, 1))
    except LedgerUnreadable:
        return
    assert seen.num_ranks == 2
    assert all(len(rank.launches) <= ledger_summary.KEPT_STEPS for rank in seen.ranks)
