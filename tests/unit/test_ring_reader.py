"""Reading a black box that is damaged, cut short or made up."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphguard import _core
from tests.unit.ring_model import (
    HEADER_BYTES,
    NAME_BYTES,
    NEXT_OFFSET,
    RECORD_BYTES,
    RECORDS_OFFSET,
    Header,
    Record,
    checksum,
    file_bytes,
    header_bytes,
    record_bytes,
)

CLOCK = 1

u64 = st.integers(0, 2**64 - 1)


def patched(data: bytes, offset: int, patch: bytes) -> bytes:
    return data[:offset] + patch + data[offset + len(patch) :]


def flipped(data: bytes, offset: int, mask: int = 1) -> bytes:
    return patched(data, offset, bytes([data[offset] ^ mask]))


def steps(data: bytes) -> list[int]:
    error, _, _, records, _ = _core.read_ring(data)
    assert error == ""
    return [record[2] for record in records]


def damaged(data: bytes) -> int:
    return _core.read_ring(data)[4]


def full(capacity: int = 4, first: int = 1) -> bytes:
    """A ring that was written from record ``first`` on until it was full."""
    numbers = range(first, first + capacity)
    by_slot = sorted(numbers, key=lambda number: (number - 1) % capacity)
    records = [record_bytes(number, number, Record(step=number)) for number in by_slot]
    return file_bytes(Header(capacity=capacity), records, [b"target"], first + capacity - 1)


def test_a_file_made_from_the_description_of_the_format_is_read() -> None:
    record = Record(*range(1, 15))
    names = [b"target", b"", b"drafter"]
    header = Header(rank=2, world_size=3, pid=2**40, realtime_ns=5, host=b"x" * 64)
    data = file_bytes(header, [record_bytes(1, 9, record)], names, next_number=7)
    assert _core.read_ring(data) == (
        "",
        (2, 3, 2**40, "x" * 64, 4, 5, 7),
        ["target", "", "drafter"],
        [(1, 0, *record)],
        0,
    )


def test_records_come_in_the_order_of_their_numbers() -> None:
    assert steps(full(first=1)) == [1, 2, 3, 4]
    assert steps(full(first=7)) == [7, 8, 9, 10]


def test_where_the_bytes_lie_does_not_matter() -> None:
    data = full()
    for shift in range(1, 8):
        moved = memoryview(bytes(shift) + data)[shift:]
        assert _core.read_ring(moved) == _core.read_ring(bytearray(data))


def test_what_lends_no_bytes_is_refused() -> None:
    not_bytes: Any
    for not_bytes in ("text", None, 7, memoryview(full())[::2]):
        with pytest.raises((TypeError, BufferError)):
            _core.read_ring(not_bytes)


@settings(max_examples=500, derandomize=True, database=None, deadline=None)
@given(st.data())
def test_any_change_to_a_record_is_seen_and_costs_no_other_record(data: st.DataObject) -> None:
    slot = data.draw(st.integers(0, 3))
    change = data.draw(
        st.dictionaries(st.integers(0, RECORD_BYTES - 1), st.integers(1, 255), min_size=1)
    )
    box = full()
    for offset, mask in change.items():
        box = flipped(box, RECORDS_OFFSET + slot * RECORD_BYTES + offset, mask)
    assert steps(box) == [step for step in range(1, 5) if step != slot + 1]
    assert damaged(box) == 1


@pytest.mark.parametrize("words", range(1, 8))
def test_a_record_of_which_some_words_were_written_is_damaged(words: int) -> None:
    new = record_bytes(5, 5, Record(step=5, digest=1, num_reqs=1, role=1, event=2, detail=1))
    box = patched(full(), RECORDS_OFFSET, new[: 8 * words])
    assert steps(box) == [2, 3, 4]
    assert damaged(box) == 1
    # The first record of a slot leaves zeros instead of a record before it.
    empty = patched(file_bytes(Header()), RECORDS_OFFSET, new[: 8 * words])
    assert (steps(empty), damaged(empty)) == ([], 1)


@pytest.mark.parametrize(("slot", "number"), [(0, 3), (0, 2), (2, 1), (0, 2**64 - 1), (3, 0)])
def test_a_record_whose_number_belongs_to_another_slot_is_damaged(slot: int, number: int) -> None:
    record = record_bytes(number, 1, Record(step=9))
    box = patched(full(), RECORDS_OFFSET + slot * RECORD_BYTES, record)
    assert steps(box) == [step for step in range(1, 5) if step != slot + 1]
    assert damaged(box) == 1


def test_a_name_that_is_damaged_is_none_and_its_neighbours_stay() -> None:
    data = file_bytes(Header(), [], [b"a", b"b", b"c"])
    for offset in (0, 1, 3, 4, 8, NAME_BYTES - 1):
        box = flipped(data, HEADER_BYTES + NAME_BYTES + offset)
        error, _, names, _, damage = _core.read_ring(box)
        assert (error, names, damage) == ("", ["a", None, "c"], 1)


@pytest.mark.parametrize("length", [121, 128, 2**16, 2**32 - 1])
def test_a_name_that_says_it_is_longer_than_its_slot_is_damaged(length: int) -> None:
    start, text = struct.pack("<I", length), b"a" * 120
    slot = start + struct.pack("<I", checksum(start + bytes(4) + text)) + text
    error, _, names, _, damage = _core.read_ring(patched(full(), HEADER_BYTES, slot))
    assert (error, names, damage) == ("", [], 1)


def test_text_that_is_no_utf8_is_shown_as_far_as_it_can_be() -> None:
    box = file_bytes(Header(host=b"h\xff"), [], [b"\xc3"])
    _, identity, names, _, damage = _core.read_ring(box)
    assert (identity[3], names, damage) == ("h�", ["�"], 0)


@pytest.mark.parametrize("size", [0, 1, HEADER_BYTES, RECORDS_OFFSET - 1])
def test_a_file_shorter_than_what_comes_before_the_records_is_refused(size: int) -> None:
    error, _, names, records, _ = _core.read_ring(full()[:size])
    assert error == f"it has {size} bytes, fewer than the header of a black box"
    assert (names, records) == ([], [])


@pytest.mark.parametrize("change", [-64, -1, 1, 64])
def test_a_file_of_another_size_than_its_header_says_is_refused(change: int) -> None:
    box = full()
    error, *_ = _core.read_ring((box + bytes(64))[: len(box) + change])
    assert error == (f"it has {len(box) + change} bytes, and a box of 4 records has {len(box)}")


@pytest.mark.parametrize("offset", [0, 7, 20, 32, 40, 48, 72, 135, 136, 139])
def test_a_header_of_which_a_bit_changed_is_refused(offset: int) -> None:
    error, *_ = _core.read_ring(flipped(full(), offset))
    assert error == (
        "it does not begin as a black box does"
        if offset < 8
        else "its header is damaged: the checksum does not match"
    )


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("magic", b"GGBLKBOY", "does not begin as a black box does"),
        ("version", 2, "it has version 2 of the format, and only version 1 can be read"),
        ("version", 0, "version 0"),
        ("header_bytes", 0, "sizes that version 1 does not have"),
        ("header_bytes", 2**32 - 1, "sizes"),
        ("record_bytes", 0, "sizes"),
        ("record_bytes", 2**31, "sizes"),
        ("name_slots", 2**32 - 1, "sizes"),
        ("name_slot_bytes", 2**32 - 1, "sizes"),
        ("capacity", 0, "holds 0 records, which is no power of two up to 2^24"),
        ("capacity", 3, "no power of two"),
        ("capacity", 2**25, "no power of two"),
        ("capacity", 2**31, "no power of two"),
        ("capacity", 2**32 - 1, "no power of two"),
        ("capacity", 2**24, "a box of 16777216 records has 1073762304"),
        ("capacity", 1, "a box of 1 records has"),
    ],
)
def test_a_header_that_lies_is_refused_though_its_checksum_is_right(
    field: str, value: Any, says: str
) -> None:
    header = Header()._replace(**{field: value})
    box = patched(full(), 0, header_bytes(header))
    error, _, names, records, damage = _core.read_ring(box)
    assert says in error
    assert (names, records, damage) == ([], [], 0)


def test_a_version_that_is_not_known_is_named_whatever_its_checksum() -> None:
    box = patched(full(), 8, struct.pack("<I", 9))
    assert "version 9" in _core.read_ring(box)[0]


def clock(number: int, ticks: int, monotonic_ns: int, realtime_ns: int) -> bytes:
    return record_bytes(number, ticks, Record(step=monotonic_ns, digest=realtime_ns, event=CLOCK))


def times(header: Header, *records: bytes) -> list[int]:
    box = file_bytes(header._replace(capacity=8), records)
    return [record[1] for record in _core.read_ring(box)[3]]


def test_ticks_become_time_along_the_line_through_header_and_newest_clock_record() -> None:
    header = Header(ticks=1000, monotonic_ns=500, realtime_ns=10**18)
    assert times(
        header,
        clock(1, 2000, 10**6, 0),
        record_bytes(2, 1000, Record()),
        record_bytes(3, 2000, Record()),
        clock(4, 3000, 4500, 10**18 + 4000),
        record_bytes(5, 3500, Record()),
        record_bytes(6, 500, Record()),
    ) == [10**18 + each for each in (2000, 0, 2000, 4000, 5000, -1000)]


def test_a_clock_that_is_set_moves_all_times_and_stretches_none() -> None:
    header = Header(ticks=1000, monotonic_ns=500, realtime_ns=10**18)
    hour = 3600 * 10**9
    assert times(
        header, record_bytes(1, 2000, Record()), clock(2, 3000, 4500, 10**18 + hour + 4000)
    ) == [10**18 + hour + 2000, 10**18 + hour + 4000]


@pytest.mark.parametrize(
    "clocks",
    [
        (),
        (clock(2, 1000, 600, 10**18),),
        (clock(2, 999, 600, 10**18),),
        (clock(2, 2000, 500, 10**18),),
        (clock(2, 2000, 600, 2**64 - 1),),
    ],
    ids=["none", "no ticks", "ticks back", "no time", "year 2554"],
)
def test_without_two_moments_that_make_sense_no_time_is_told(clocks: tuple[bytes, ...]) -> None:
    header = Header(ticks=1000, monotonic_ns=500, realtime_ns=10**18)
    found = times(header, record_bytes(1, 1500, Record()), *clocks)
    assert found == [0] * (1 + len(clocks))


@pytest.mark.parametrize("ticks", [0, 9_000_000, 11_000_000, 2**63, 2**64 - 1])
def test_a_time_beyond_all_bounds_is_not_told(ticks: int) -> None:
    header = Header(ticks=10**7, monotonic_ns=0, realtime_ns=10**18)
    # A tick is 2^43 ns: a million of them are nearly 300 years.
    slow = clock(2, 10**7 + 1, 2**43, 10**18)
    near = record_bytes(3, 10**7 + 2, Record())
    assert times(header, record_bytes(1, ticks, Record()), slow, near) == [
        0,
        10**18,
        10**18 + 2**43,
    ]


@settings(max_examples=300, derandomize=True, database=None, deadline=None)
@given(st.data())
def test_whatever_the_bytes_are_reading_ends_with_an_answer(data: st.DataObject) -> None:
    box = full()
    header = data.draw(
        st.tuples(st.sampled_from([1, 2, 4, 8, 2**24]), u64, u64, u64).map(
            lambda drawn: Header(
                capacity=drawn[0], ticks=drawn[1], monotonic_ns=drawn[2], realtime_ns=drawn[3]
            )
        )
    )
    box = patched(box, 0, header_bytes(header))
    for _ in range(data.draw(st.integers(0, 4))):
        patch = data.draw(st.binary(min_size=1, max_size=80))
        at = data.draw(st.sampled_from([0, 144, NEXT_OFFSET, HEADER_BYTES, RECORDS_OFFSET]))
        box = patched(box, at + data.draw(st.integers(0, 300)), patch)
    box = box[: data.draw(st.sampled_from([len(box), len(full()), 100, RECORDS_OFFSET + 64]))]
    error, _, names, records, damage = _core.read_ring(box)
    assert error == "" or (names, records, damage) == ([], [], 0)
    numbers = [record[0] for record in records]
    assert numbers == sorted(set(numbers))
    assert all(0 <= record[1] < 2**63 for record in records)
