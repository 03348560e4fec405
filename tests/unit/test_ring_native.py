"""The black box's writer: what is written is what is read back."""

from __future__ import annotations

import mmap
import os
import sys
import threading
import time
from collections.abc import Callable
from itertools import repeat

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphguard import _core
from tests.unit import ring_model
from tests.unit.ring_file import CLOCK, ring_file
from tests.unit.ring_model import Record

SECOND = 10**9
CHECK, BEGIN, NOTE = 3, 4, 10

u8, u16 = st.integers(0, 2**8 - 1), st.integers(0, 2**16 - 1)
u32, u64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
events = st.integers(2, 255)
records = st.builds(Record, u64, u64, u32, u32, u32, u16, u16, events, u8, u8, u8, u16, u16, u32)


@settings(derandomize=True, database=None, deadline=None)
@given(records)
def test_a_record_is_read_back_as_it_was_written(record: Record) -> None:
    with ring_file(4) as file:
        file.open().record(*record.arguments)
        assert file.records() == [record]


@settings(derandomize=True, database=None, deadline=None)
@given(records)
def test_the_bytes_of_a_record_are_those_of_the_format(record: Record) -> None:
    with ring_file(64) as file:
        file.open().record(*record.arguments)
        at = ring_model.RECORDS_OFFSET + ring_model.RECORD_BYTES
        written = file.data()[at : at + ring_model.RECORD_BYTES]
        number, ticks = (
            int.from_bytes(written[:8], "little"),
            int.from_bytes(written[8:16], "little"),
        )
        assert number == 2
        assert written == ring_model.record_bytes(number, ticks, record)


def test_the_header_is_that_of_the_format() -> None:
    with ring_file(8) as file:
        before = time.time_ns()
        file.open(rank=3, world=5, host="a" * 70)
        data = file.data()
        fields = ring_model.Header(*ring_model.HEADER.unpack_from(data))
        assert data.startswith(ring_model.header_bytes(fields))
        assert fields == ring_model.Header(
            capacity=8,
            rank=3,
            world_size=5,
            pid=os.getpid(),
            host=b"a" * 64,
            ticks=fields.ticks,
            monotonic_ns=fields.monotonic_ns,
            realtime_ns=fields.realtime_ns,
        )
        assert before - SECOND < fields.realtime_ns < time.time_ns() + SECOND
        assert 0 < fields.monotonic_ns < time.monotonic_ns()


def test_a_box_says_who_wrote_it() -> None:
    with ring_file(8) as file:
        box = file.open(rank=3, world=5, host="höst")
        _, identity, *_ = _core.read_ring(file.data())
        assert identity[:5] == (3, 5, os.getpid(), "höst", 8)
        assert identity[6] == box.written


def test_checks_are_remembered_for_the_marks_that_follow() -> None:
    with ring_file(16) as file:
        box = file.open()
        box.check(1, 2, 3, 4, 5, 6, 30, 0, 1, 2, 7)
        box.mark(BEGIN)
        box.record(NOTE, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
        box.mark(BEGIN + 1)
        check = Record(3, 4, 5, 6, 30, 1, 2, CHECK, 1, 2, 0, 0xFFFF, 7, 0)
        marked = [check._replace(event=event) for event in (CHECK, BEGIN, BEGIN + 1)]
        assert [record for record in file.records() if record.event != NOTE] == marked


def test_another_writer_of_the_ring_remembers_a_check_of_its_own() -> None:
    with ring_file(16) as file:
        one = file.open()
        other = one.another()
        one.check(1, 2, 3, 4, 5, 6, 30, 0, 1, 2, 7)
        other.check(2, 2, 3, 4, 5, 6, 30, 0, 1, 2, 7)
        one.mark(BEGIN)
        other.mark(BEGIN)
        assert [record.role for record in file.records()] == [1, 2, 1, 2]
        assert other.name("target") == one.name("target") == 0
        del one
        other.mark(BEGIN)
        assert len(file.records()) == 5


@pytest.mark.parametrize("capacity", [1, 2, 4, 64, 2048])
def test_the_newest_records_are_kept_and_a_clock_record_among_them(capacity: int) -> None:
    with ring_file(capacity) as file:
        box = file.open()
        for step in range(5 * capacity):
            box.record(*Record(step=step).arguments)
            if step % max(1, capacity // 16):
                continue
            _, identity, _, found, damaged = _core.read_ring(file.data())
            written = identity[6]
            oldest = max(1, written - capacity + 1)
            assert [record[0] for record in found] == [*range(oldest, written + 1)]
            assert damaged == 0
            assert found[-1][2] == step
            assert capacity == 1 or CLOCK in {record[9] for record in found}


def test_a_clock_record_comes_once_in_1024_records() -> None:
    with ring_file(8192) as file:
        box = file.open()
        for step in range(7000):
            box.record(*Record(step=step).arguments)
        clocks = [r[0] for r in _core.read_ring(file.data())[3] if r[9] == CLOCK]
        assert {1, *range(1024, 7000, 1024)} <= set(clocks)
        assert [record.step for record in file.records()] == [*range(7000)]


def test_who_writes_seldom_writes_a_clock_record_once_a_second() -> None:
    with ring_file(8192) as file:
        box = file.open()
        box.record(*Record().arguments)
        time.sleep(1.1)
        box.record(*Record().arguments)
        events = [record[9] for record in _core.read_ring(file.data())[3]]
        assert len(events) < 10
        assert events[-2:] == [CLOCK, NOTE]
        assert events.count(CLOCK) >= 2


def test_times_are_those_of_the_clock_on_the_wall() -> None:
    with ring_file(64) as file:
        before = time.time_ns()
        box = file.open()
        for step in range(20):
            box.record(*Record(step=step).arguments)
        _, identity, _, found, _ = _core.read_ring(file.data())
        times = [record[1] for record in found if record[9] != CLOCK]
        assert times == sorted(times)
        # Seconds, because the clock may be set meanwhile; an error of the rate would be years.
        assert before - SECOND < identity[5] < time.time_ns() + SECOND
        assert all(before - SECOND < each < time.time_ns() + SECOND for each in times)


def test_names_are_given_once_and_cut_where_they_are_too_long() -> None:
    with ring_file(4) as file:
        box = file.open()
        names = ["target", "", "é" * 60, "é" * 61, "x" * 119 + "é", "x" * 120, "a\0b"]
        assert [box.name(name) for name in names] == [*range(7)]
        assert [box.name(name) for name in reversed(names)] == [*reversed(range(7))]
        kept = [*names[:3], "é" * 58 + "…", "x" * 117 + "…", *names[5:]]
        error, _, read, _, damaged = _core.read_ring(file.data())
        assert (error, read, damaged) == ("", kept, 0)
        words = ring_model.name_bytes(kept[3].encode())
        at = ring_model.HEADER_BYTES + 3 * ring_model.NAME_BYTES
        assert file.data()[at : at + ring_model.NAME_BYTES] == words


def test_a_name_for_which_there_is_no_room_has_no_index() -> None:
    with ring_file(4) as file:
        box = file.open()
        assert [box.name(f"role {i}") for i in range(128)] == [*range(128)]
        assert box.name("one more") == 0xFFFF
        assert box.name("role 127") == 127
        assert _core.read_ring(file.data())[2] == [f"role {i}" for i in range(128)]


def test_a_box_that_was_disowned_writes_nothing() -> None:
    with ring_file(16) as file:
        box = file.open()
        box.check(1, 2, 3, 4, 5, 6, 30, 0, 1, 2, 7)
        other = box.another()
        before = file.data()
        box.disown()
        for writer in (box, other):
            writer.record(*Record().arguments)
            writer.check(1, 2, 3, 4, 5, 6, 30, 0, 1, 2, 7)
            writer.mark(BEGIN)
            assert writer.name("target") == 0xFFFF
        assert file.data() == before


# Python 3.12 warns of forks in programs that have threads, which other tests may have left.
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_that_disowns_the_box_leaves_it_to_its_parent() -> None:
    with ring_file(16) as file:
        box = file.open()
        box.check(1, 2, 3, 4, 5, 6, 30, 0, 1, 2, 7)
        child = os.fork()
        if child == 0:
            try:
                box.disown()
                box.mark(BEGIN)
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        box.mark(BEGIN + 1)
        assert [record.event for record in file.records()] == [CHECK, BEGIN + 1]


def test_several_threads_may_write() -> None:
    with ring_file(4096) as file:
        box = file.open()

        def write(role: int) -> None:
            for step in range(500):
                box.record(*Record(step=step, role=role).arguments)

        threads = [threading.Thread(target=write, args=(role,)) for role in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for role in range(4):
            steps = [record.step for record in file.records() if record.role == role]
            assert steps == [*range(500)]


def test_writing_makes_no_python_object() -> None:
    with ring_file(64) as file:
        box = file.open()
        arguments = Record(step=2**40, digest=2**63).arguments
        calls: tuple[Callable[[], None], ...] = (
            lambda: box.record(*arguments),
            lambda: box.check(1, 2, 3, 4, 5, 6, 30, 0, 1, 2, 7),
            lambda: box.mark(BEGIN),
        )
        for call in calls:
            call()
            before = sys.getallocatedblocks()
            for _ in repeat(None, 5000):
                call()
            assert sys.getallocatedblocks() - before < 50


def test_a_box_needs_its_descriptor_only_to_be_opened() -> None:
    with ring_file(16) as file:
        other = os.dup(file.fd)
        box = _core.BlackBox(other, file.bytes, 0, 1, 1, "host", 16)
        os.close(other)
        box.record(*Record(step=7).arguments)
        assert [record.step for record in file.records()] == [7]


def test_a_ring_can_be_read_where_it_is_mapped_while_it_is_written() -> None:
    with ring_file(16) as file, mmap.mmap(file.fd, file.bytes, access=mmap.ACCESS_READ) as mapped:
        box = file.open()
        for step in range(40):
            box.record(*Record(step=step).arguments)
            assert _core.read_ring(mapped)[3][-1][2] == step


@pytest.mark.parametrize("capacity", [0, 3, 1000, 2**24 + 1, 2**25, 2**32 - 1])
def test_a_capacity_that_is_no_power_of_two_is_refused(capacity: int) -> None:
    with pytest.raises(ValueError, match=r"power of two"):
        _core.ring_bytes(capacity)
    with ring_file(4) as file, pytest.raises(ValueError, match="power of two"):
        _core.BlackBox(file.fd, file.bytes, 0, 1, 1, "", capacity)


def test_a_file_that_cannot_hold_the_ring_is_refused() -> None:
    with ring_file(4) as file:
        with pytest.raises(ValueError, match="size"):
            _core.BlackBox(file.fd, file.bytes - 8, 0, 1, 1, "", 4)
        with pytest.raises(OSError, match="smaller"):
            _core.BlackBox(file.fd, _core.ring_bytes(8), 0, 1, 1, "", 8)
        with pytest.raises(OSError, match="smaller"):
            _core.BlackBox(file.fd, 0, 0, 1, 1, "", 4)
        file.open()
        with pytest.raises(ValueError, match="already"):
            file.open()


def test_what_the_system_refuses_is_an_error_of_the_system(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with pytest.raises(OSError, match="Bad file descriptor"):
        _core.BlackBox(-1, _core.ring_bytes(4), 0, 1, 1, "", 4)
    path = tmp_path_factory.mktemp("ring") / "read-only"
    path.write_bytes(bytes(_core.ring_bytes(4)))
    fd = os.open(path, os.O_RDONLY)
    with pytest.raises(PermissionError):
        _core.BlackBox(fd, _core.ring_bytes(4), 0, 1, 1, "", 4)
    os.close(fd)


def test_values_that_do_not_fit_their_field_are_refused() -> None:
    with ring_file(4) as file:
        box = file.open()
        written = box.written
        for field, value in [("event", 256), ("step", -1), ("digest", 2**64), ("role", 2**16)]:
            with pytest.raises(TypeError):
                box.record(*Record()._replace(**{field: value}).arguments)
        with pytest.raises(TypeError):
            box.mark(256)
        assert box.written == written
