"""Whatever a ring holds can be told. Files come from anywhere."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.json import decode

from graphguard.blackbox.choosing import Chosen
from graphguard.blackbox.events import Event
from graphguard.blackbox.merge import merge
from graphguard.blackbox.reading import Box, read
from graphguard.blackbox.writer import open_box
from graphguard.errors import BlackBoxError
from graphguard.reporters import blackbox, blackbox_json, trace


def number(bits: int) -> st.SearchStrategy[int]:
    return st.one_of(st.integers(0, 3), st.just(2**bits - 1), st.integers(0, 2**bits - 1))


RECORDS = st.lists(
    st.tuples(
        st.one_of(st.sampled_from([int(event) for event in Event]), number(8)),
        number(16),
        number(16),
        number(64),
        number(64),
        number(32),
        number(32),
        number(32),
        number(8),
        number(8),
        number(8),
        number(16),
        number(16),
        number(32),
    ),
    max_size=20,
)
NAMES = st.lists(st.text(max_size=20), max_size=4)
FLIPS = st.lists(st.tuples(st.integers(0, 4096 + 128 * 128 + 64 * 64 - 1), st.integers(0, 255)))


def box_of(directory: Path, records: list[tuple[int, ...]], names: list[str]) -> Path:
    box = open_box(directory, 64)
    for name in names:
        box.ring.name(name)
    for record in records:
        box.ring.record(*record)
    box.disown()
    return box.path


def tell(boxes: list[Box]) -> None:
    timeline = merge(boxes)
    chosen = Chosen(tuple(boxes))
    for last in (0, 3):
        told = blackbox.render(timeline, chosen, last)
        assert told.replace("\n", "").isprintable()
        shown = blackbox_json.records(timeline.boxes, timeline.records(last))
        assert shown.replace("\n", "").isprintable()
        assert all(decode(line)["rank"] == 0 for line in shown.splitlines())
    assert decode(blackbox_json.summary(timeline, chosen))["summary"] is True
    assert all(event["ts"] >= 0 for event in decode(trace.render(boxes))["traceEvents"])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(RECORDS, NAMES), min_size=1, max_size=3))
def test_any_records_can_be_told(contents: list[tuple[list[tuple[int, ...]], list[str]]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        tell([read(box_of(Path(directory), *content)) for content in contents])


@settings(max_examples=60, deadline=None)
@given(RECORDS, NAMES, FLIPS)
def test_damaged_ring_is_told_or_refused(
    records: list[tuple[int, ...]], names: list[str], flips: list[tuple[int, int]]
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = box_of(Path(directory), records, names)
        content = bytearray(path.read_bytes())
        for place, value in flips:
            content[place] ^= value
        path.write_bytes(content)
        try:
            box = read(path)
        except BlackBoxError:
            return
        tell([box])
