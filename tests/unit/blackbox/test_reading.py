from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphguard._core import BlackBox as Ring
from graphguard._core import read_ring, ring_bytes
from graphguard.batch import BatchDescriptor
from graphguard.blackbox.events import NO_NAME, NOT_SET, DivergenceKind, Event
from graphguard.blackbox.reading import MAX_BYTES, glance, read
from graphguard.blackbox.records import Record
from graphguard.blackbox.writer import BlackBox, open_box
from graphguard.errors import BlackBoxError, BlackBoxNotReady
from graphguard.verdict import Action, Phase, Reason, Verdict

RECORDS = 4096 + 128 * 128


def box_with(directory: Path, *texts: str, entries: int = 64) -> BlackBox:
    box = open_box(directory, entries)
    for text in texts:
        box.note(text)
    return box


def notes(path: Path) -> list[str]:
    return [record.note for record in read(path).records]


def damage(path: Path, number: int, content: bytes = b"\xff") -> None:
    with path.open("r+b") as file:
        file.seek(RECORDS + (number - 1) * 64 + 17)
        file.write(content)


def ring_of(path: Path, host: str) -> Ring:
    """Return a ring that was written on a machine of some name."""
    path.touch(mode=0o600)
    with path.open("r+b") as file:
        os.truncate(file.fileno(), ring_bytes(64))
        return Ring(file.fileno(), ring_bytes(64), 1, 2, 4242, host, 64)


def record(**fields: int | str) -> Record:
    given: dict[str, int | str] = dict.fromkeys(Record.__struct_fields__, 0)
    given.update(name="", group="", action=NOT_SET, reason=NOT_SET, phase=NOT_SET, peer=NO_NAME)
    return Record(**{**given, **fields})  # type: ignore[arg-type]


def test_records_of_the_clock_are_left_out(tmp_path: Path) -> None:
    box = box_with(tmp_path, "a", "b")
    seen = read(box.path)
    assert notes(box.path) == ["a", "b"]
    assert seen.written == box.ring.written > len(seen.records)


def test_records_that_were_overwritten_are_known_to_be_lost(tmp_path: Path) -> None:
    box = box_with(tmp_path, *(f"{n % 50}" for n in range(100)))
    seen = read(box.path)
    assert [r.note for r in seen.records][-2:] == ["48", "49"]
    assert seen.lost == ((1, box.ring.written - 64),)
    assert not seen.writing


def test_damaged_record_is_counted_and_skipped(tmp_path: Path) -> None:
    box = box_with(tmp_path, "a", "b", "c")
    number = read(box.path).records[1].number
    damage(box.path, number)
    seen = read(box.path)
    assert [record.note for record in seen.records] == ["a", "c"]
    assert (seen.damaged, seen.lost) == (1, ((number, number),))


def test_record_that_was_only_begun_is_known(tmp_path: Path) -> None:
    box = box_with(tmp_path, "a", "b")
    number = read(box.path).records[-1].number
    with box.path.open("r+b") as file:
        file.seek(RECORDS + (number - 1) * 64)
        file.write(bytes(64))
    seen = read(box.path)
    assert (seen.writing, seen.damaged, seen.lost[-1]) == (True, 0, (number, number))


def test_ring_that_was_damaged_only_while_it_was_written_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = box_with(tmp_path, "a")
    looks: list[bytes] = []

    def torn_at_first(content: bytes) -> tuple[object, ...]:
        looks.append(content)
        torn = bytearray(content)
        torn[RECORDS + 17] ^= 0xFF if len(looks) == 1 else 0
        return read_ring(torn)

    monkeypatch.setattr("graphguard.blackbox.reading.read_ring", torn_at_first)
    assert read(box.path).damaged == 0
    assert len(looks) == 2


def test_damage_that_stays_is_not_looked_at_for_ever(tmp_path: Path) -> None:
    box = box_with(tmp_path, "a")
    damage(box.path, 1)
    assert read(box.path).damaged == 1


def test_glance_changes_with_every_record(tmp_path: Path) -> None:
    box = box_with(tmp_path)
    before = glance(box.path)
    assert glance(box.path) == before
    box.note("a")
    assert glance(box.path).written == before.written + 1
    box.disown()
    assert (before.held, glance(box.path).held) == (True, False)


def test_process_of_another_machine_may_run_or_not(tmp_path: Path) -> None:
    ring_of(tmp_path / "blackbox.rank1.4242.ring", "elsewhere")
    seen = read(tmp_path / "blackbox.rank1.4242.ring")
    assert (seen.host, seen.running, seen.ended) == ("elsewhere", None, False)


def test_ring_is_read_whole_while_threads_write_it(tmp_path: Path) -> None:
    box = open_box(tmp_path, 128)
    done = threading.Event()

    def write() -> None:
        while not done.is_set():
            box.ring.mark(Event.NOTE)

    threads = [threading.Thread(target=write) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(50):
            seen = read(box.path)
            numbers = [record.number for record in seen.records]
            assert numbers == sorted(set(numbers))
            assert {record.event for record in seen.records} <= {Event.NOTE}
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert read(box.path).damaged == 0


def test_empty_file_is_no_box_yet(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "zeros").write_bytes(bytes(ring_bytes(64)))
    for name in ("empty", "zeros"):
        with pytest.raises(BlackBoxNotReady, match="is not a black box yet"):
            read(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"x", "fewer than the header"),
        (b"x" * ring_bytes(64), "does not begin as a black box does"),
        (b'{"schema": "graphguard.manifest"}', "fewer than the header"),
    ],
)
def test_other_file_is_no_box(tmp_path: Path, content: bytes, problem: str) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(BlackBoxError, match=problem) as caught:
        read(tmp_path / "file")
    assert not isinstance(caught.value, BlackBoxNotReady)
    assert str(tmp_path / "file") in caught.value.message
    assert "blackbox.rank*.ring" in caught.value.hint


def test_truncated_box_is_none(tmp_path: Path) -> None:
    content = box_with(tmp_path, "a").path.read_bytes()
    (tmp_path / "cut").write_bytes(content[:-64])
    with pytest.raises(BlackBoxError, match="bytes, and a box of 64 records has"):
        read(tmp_path / "cut")


def test_file_larger_than_any_box_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(BlackBoxError, match="no black box has more than"):
        read(tmp_path / "large")


@pytest.mark.parametrize("name", ["absent", "directory", "loop", "fifo", "x" * 300])
def test_what_cannot_be_read_is_an_error_with_a_reason(tmp_path: Path, name: str) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    os.mkfifo(tmp_path / "fifo")
    before = len(os.listdir("/proc/self/fd"))
    for look in (read, glance):
        with pytest.raises(BlackBoxError) as caught:
            look(tmp_path / name)
        assert str(tmp_path / name) in caught.value.message
        assert caught.value.hint
    assert len(os.listdir("/proc/self/fd")) == before


def test_name_that_is_damaged_is_told_by_its_number(tmp_path: Path) -> None:
    box = box_with(tmp_path, "first", "second")
    with box.path.open("r+b") as file:
        file.seek(4096 + 128 + 20)
        file.write(b"\xff")
    assert notes(box.path) == ["first", "name 1"]
    assert read(box.path).damaged == 1


def test_numbers_without_a_word_are_kept() -> None:
    odd = record(event=77, action=78, reason=79, phase=9, num_reqs=2, query_len=1, num_tokens=2)
    assert (odd.event_name, odd.verdict) == ("event 77", "action 78 (reason 79)")
    assert (odd.action_name, odd.reason_name) == ("action 78", "reason 79")
    assert odd.batch == "2x1:phase 9"
    assert record(flags=1 | 0x100).flag_names == ("adopted", "flags 0x100")
    assert record(event=Event.DIVERGENCE, detail=99).divergence == "divergence 99"


def test_every_event_and_divergence_has_a_word() -> None:
    assert [record(event=event).event_name for event in Event] == [str(event) for event in Event]
    told = [record(event=Event.DIVERGENCE, detail=kind).divergence for kind in DivergenceKind]
    assert told == [str(kind) for kind in DivergenceKind]
    assert record(event=Event.NOTE, detail=1).divergence == ""


@given(
    st.integers(1, 2**20),
    st.integers(1, 2**10),
    st.integers(0, 2**10),
    st.sampled_from(Phase),
)
def test_batch_reads_as_the_descriptor_does(
    num_reqs: int, query_len: int, fewer: int, phase: Phase
) -> None:
    num_tokens = max(query_len, num_reqs * query_len - fewer)
    uniform = num_tokens == num_reqs * query_len
    described = BatchDescriptor(num_reqs, query_len, num_tokens, uniform, phase)
    shown = record(num_reqs=num_reqs, query_len=query_len, num_tokens=num_tokens, phase=phase)
    assert shown.batch == str(described)


def test_batch_of_a_piecewise_graph_is_its_tokens() -> None:
    assert record(num_tokens=32, phase=Phase.MIXED).batch == str(BatchDescriptor.tokens(32))


@pytest.mark.parametrize("action", Action)
@pytest.mark.parametrize("reason", Reason)
def test_verdict_reads_as_the_verdict_does(action: Action, reason: Reason) -> None:
    assert record(action=action, reason=reason).verdict == str(Verdict(action, reason))
