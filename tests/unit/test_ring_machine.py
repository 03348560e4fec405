"""Whatever is written into a ring, and whatever damages it, what is read is what a model says."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from graphguard import _core
from tests.unit.ring_file import CLOCK, RingFile
from tests.unit.ring_model import (
    HEADER_BYTES,
    NAME_BYTES,
    NAME_SLOTS,
    RECORD_BYTES,
    RECORDS_OFFSET,
    Record,
    record_bytes,
)

CHECK, CLOSED = 3, 12
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=50)

u8, u16 = st.integers(0, 2**8 - 1), st.integers(0, 2**16 - 1)
u32, u64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
events = st.integers(2, CLOSED)
any_record = st.builds(Record, u64, u64, u32, u32, u32, u16, u16, events, u8, u8, u8, u16, u16, u32)


class Ring(RuleBasedStateMachine):
    """A native ring beside what it must hold, by number."""

    @initialize(capacity=st.sampled_from([1, 2, 4, 8, 32]))
    def open(self, capacity: int) -> None:
        self.capacity = capacity
        self.file = RingFile(capacity)
        self.box = self.file.open()
        self.asked: dict[int, Record] = {}
        self.written = self.box.written
        self.damaged: set[int] = set()  # slots
        self.names: list[str] = []
        self.damaged_names: set[int] = set()
        self.context = Record(event=0)
        self.disowned = False

    def teardown(self) -> None:
        if hasattr(self, "file"):
            self.file.close()

    def expect(self, record: Record) -> None:
        """What was just written has the highest number; a clock record may have come before."""
        if self.disowned:
            assert self.box.written == self.written
            return
        before, self.written = self.written, self.box.written
        assert before < self.written <= before + 3
        self.asked[self.written] = record
        self.damaged -= {(n - 1) % self.capacity for n in range(before + 1, self.written + 1)}

    @rule(record=any_record)
    def record(self, record: Record) -> None:
        self.box.record(*record.arguments)
        self.expect(record)

    @rule(record=any_record)
    def check(self, record: Record) -> None:
        numbers, batch = (record.role, record.group, record.step, record.digest), record[2:5]
        verdict = (record.phase, record.action, record.reason, record.flags)
        self.box.check(*numbers, *batch, *verdict)
        self.context = record._replace(event=CHECK, peer=0xFFFF, detail=0)
        self.expect(self.context)

    @rule(event=events)
    def mark(self, event: int) -> None:
        self.box.mark(event)
        self.context = self.context._replace(event=event)
        self.expect(self.context)

    @rule(rounds=st.integers(1, 3))
    def go_round(self, rounds: int) -> None:
        for step in range(rounds * self.capacity):
            record = Record(step=step)
            self.box.record(*record.arguments)
            self.expect(record)

    @rule(text=TEXT)
    def name(self, text: str) -> None:
        index = self.box.name(text)
        if self.disowned:
            assert index == 0xFFFF
        elif text in self.names:
            assert index == self.names.index(text)
        else:
            assert index == len(self.names)
            self.names.append(text)

    @rule(data=st.data(), offset=st.integers(0, RECORD_BYTES - 1), mask=st.integers(1, 255))
    def damage(self, data: st.DataObject, offset: int, mask: int) -> None:
        slot = data.draw(st.integers(0, self.capacity - 1))
        # A second change could undo the first.
        if slot in self.damaged:
            return
        at = RECORDS_OFFSET + slot * RECORD_BYTES + offset
        self.file.write(at, bytes([self.file.data()[at] ^ mask]))
        self.damaged.add(slot)

    @rule(record=any_record, words=st.integers(1, 7))
    def tear(self, record: Record, words: int) -> None:
        """What a writer leaves that is killed in the middle of the next record."""
        slot = self.written % self.capacity
        torn = record_bytes(self.written + 1, 1, record)[: 8 * words]
        self.file.write(RECORDS_OFFSET + slot * RECORD_BYTES, torn)
        self.damaged.add(slot)

    @precondition(lambda self: self.names)
    @rule(data=st.data(), offset=st.integers(0, NAME_BYTES - 1), mask=st.integers(1, 255))
    def damage_name(self, data: st.DataObject, offset: int, mask: int) -> None:
        index = data.draw(st.integers(0, len(self.names) - 1))
        if index in self.damaged_names:
            return
        at = HEADER_BYTES + index * NAME_BYTES + offset
        self.file.write(at, bytes([self.file.data()[at] ^ mask]))
        self.damaged_names.add(index)

    @precondition(lambda self: self.written > 40)
    @rule()
    def disown(self) -> None:
        self.box.disown()
        self.disowned = True

    @invariant()
    def what_is_read_is_what_was_written(self) -> None:
        error, identity, names, records, damaged = _core.read_ring(self.file.data())
        assert error == ""
        assert identity[4] == self.capacity
        assert identity[6] == self.written
        assert damaged == len(self.damaged) + len(self.damaged_names)
        self.compare_names(names)

        kept = range(max(1, self.written - self.capacity + 1), self.written + 1)
        whole = [n for n in kept if (n - 1) % self.capacity not in self.damaged]
        assert [record[0] for record in records] == whole
        for number, _, *fields in records:
            record = Record(*fields)
            if number in self.asked:
                assert record == self.asked[number]
            else:
                assert record.event == CLOCK

    def compare_names(self, read: list[str | None]) -> None:
        assert len(self.names) <= NAME_SLOTS
        expected = [
            None if index in self.damaged_names else cut(name)
            for index, name in enumerate(self.names)
        ]
        while expected and expected[-1] is None:
            expected.pop()
        assert read == expected


def cut(name: str) -> str:
    """A name as it is kept: at most 120 bytes of UTF-8, the last three of them "…" if cut."""
    if len(name.encode()) <= 120:
        return name
    return name.encode()[:117].decode(errors="ignore") + "…"


TestRing = Ring.TestCase
TestRing.settings = settings(
    max_examples=150, stateful_step_count=40, derandomize=True, database=None, deadline=None
)
