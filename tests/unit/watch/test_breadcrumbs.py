"""What is read of breadcrumbs, of files that are whole, hostile, or left by the dead."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from graphguard import _core
from graphguard.breadcrumbs.process import Breadcrumbs, open_breadcrumbs
from graphguard.errors import BlackBoxError, BlackBoxNotReady
from graphguard.watch.breadcrumbs import CrumbState, beside, breadcrumbs_in, read_breadcrumbs

KERNEL, EMULATED = 0, 4
GRAPHS, TEXTS, MARKS = 8192, 2048, 65536
NUMBERS = 983_040


@pytest.fixture
def crumbs(tmp_path: Path) -> Breadcrumbs:
    return open_breadcrumbs(tmp_path)


def add(crumbs: Breadcrumbs, *texts: str, kind: int = EMULATED) -> _core.GraphMarks:
    marks = crumbs.native.add(texts, kind, 0)
    assert marks is not None
    return marks


def only(crumbs: Breadcrumbs) -> CrumbState:
    (state,) = read_breadcrumbs(crumbs.path)
    return state


def test_the_file_says_whose_it_is(crumbs: Breadcrumbs, monkeypatch: pytest.MonkeyPatch) -> None:
    found = breadcrumbs_in(crumbs.path)
    assert (found.rank, found.world_size, found.pid) == (0, 1, os.getpid())
    assert found.host == os.uname().nodename
    assert (found.graphs, found.refused, found.damaged) == ((), 0, 0)
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "8")
    other = open_breadcrumbs(crumbs.path.parent)
    assert other.path.name == f"breadcrumbs.rank3.{os.getpid()}.crumbs"
    assert (breadcrumbs_in(other.path).rank, breadcrumbs_in(other.path).world_size) == (3, 8)


def test_a_graph_that_was_never_launched_is_nowhere(crumbs: Breadcrumbs) -> None:
    add(crumbs, "first", "second")
    state = only(crumbs)
    assert (state.launched, state.finished, state.reached, state.positions) == (0, 0, 0, 2)
    assert (state.graph, state.digest, state.next_call) == ("", 0, "")
    assert state.kind == "emulated"


def test_a_replay_is_followed_from_call_to_call(crumbs: Breadcrumbs) -> None:
    marks = add(crumbs, "first", "second", "third")
    marks.describe("target/full 4x2", 2**64 - 1, ["all_reduce", "broadcast", "send"])
    seen = []
    marks.launch()
    for mark in range(3):
        seen.append(only(crumbs))
        marks.passed(mark)
    assert [(s.reached, s.next_call) for s in seen] == [
        (0, "all_reduce"),
        (1, "broadcast"),
        (2, "send"),
    ]
    assert {(s.graph, s.digest, s.finished) for s in seen} == {("target/full 4x2", 2**64 - 1, 0)}
    assert (only(crumbs).finished, only(crumbs).in_flight) == (1, 0)
    assert str(only(crumbs)) == "target/full 4x2: 1 replays, none in flight"


def test_graphs_that_nobody_replays_can_be_left_out(crumbs: Breadcrumbs) -> None:
    add(crumbs, "idle")
    add(crumbs, "busy").launch()
    (state,) = read_breadcrumbs(crumbs.path, in_flight=True)
    assert state.next_call == "busy"
    assert len(read_breadcrumbs(crumbs.path)) == 2


def test_texts_that_are_not_one_for_each_mark_leave_what_was_known(crumbs: Breadcrumbs) -> None:
    marks = add(crumbs, "first", "second")
    marks.describe("name", 1, [])
    marks.launch()
    assert (only(crumbs).graph, only(crumbs).next_call) == ("name", "first")


def test_launches_that_nobody_counted_are_seen_by_their_marks(crumbs: Breadcrumbs) -> None:
    marks = add(crumbs, "first", "second")
    for _ in range(3):
        marks.passed(0)
    state = only(crumbs)
    assert (state.launched, state.finished, state.reached, state.next_call) == (3, 0, 1, "second")


def test_a_launch_that_is_taken_back_is_none(crumbs: Breadcrumbs) -> None:
    marks = add(crumbs, "first")
    marks.launch()
    marks.withdraw()
    assert only(crumbs).in_flight == 0


def test_a_replay_that_failed_is_over(crumbs: Breadcrumbs) -> None:
    marks = add(crumbs, "first", "second")
    marks.launch()
    marks.passed(0)
    marks.settle()
    assert (only(crumbs).launched, only(crumbs).finished, only(crumbs).in_flight) == (1, 1, 0)


@given(steps=st.lists(st.integers(0, 4), max_size=60), marks=st.integers(1, 4))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_where_a_replay_is_never_depends_on_the_order_of_marks(
    steps: list[int], marks: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    crumbs = open_breadcrumbs(tmp_path_factory.mktemp("crumbs"))
    native = add(crumbs, *(f"call {mark}" for mark in range(marks)))
    launched, passed = 0, [0] * marks
    for step in steps:
        # The last number launches. No mark is passed before its launch, and any before another.
        if step >= marks:
            native.launch()
            launched += 1
        elif passed[step] < launched:
            native.passed(step)
            passed[step] += 1
        state = only(crumbs)
        finished = min(passed)
        assert (state.launched, state.finished) == (launched, finished)
        ahead = [mark for mark in range(marks) if passed[mark] > finished]
        assert state.reached == (len(ahead) if launched > finished else 0)
        behind = [mark for mark in range(marks) if mark not in ahead]
        assert state.next_call == (f"call {behind[0]}" if launched > finished else "")
    os.unlink(crumbs.path)


def test_a_graph_that_is_gone_is_not_told_and_its_place_is_used_again(crumbs: Breadcrumbs) -> None:
    first = add(crumbs, "a", "b")
    add(crumbs, "kept")
    first.launch()
    first.passed(0)
    first.passed(1)
    first.retire()
    assert [state.positions for state in read_breadcrumbs(crumbs.path)] == [1]
    again = add(crumbs, "c", "d")
    again.launch()
    found = read_breadcrumbs(crumbs.path)
    assert [(s.launched, s.finished, s.next_call) for s in found] == [(1, 0, "c"), (0, 0, "")]


@pytest.mark.parametrize("leave", ["in flight", "abandoned", "constant"])
def test_a_place_that_may_be_written_to_is_not_used_again(crumbs: Breadcrumbs, leave: str) -> None:
    marks = add(crumbs, "a", kind=1 if leave == "constant" else KERNEL)
    if leave == "in flight":
        marks.launch()
    marks.abandon() if leave == "abandoned" else marks.retire()
    other = add(crumbs, "b", kind=KERNEL)
    marks.passed(0)
    other.launch()
    assert (only(crumbs).finished, only(crumbs).next_call) == (0, "b")


def test_more_graphs_than_there_is_room_for_are_counted(crumbs: Breadcrumbs) -> None:
    for _ in range(GRAPHS):
        add(crumbs, "call")
    assert crumbs.native.add(["one more"], EMULATED, 0) is None
    found = breadcrumbs_in(crumbs.path)
    assert (len(found.graphs), found.refused, found.damaged) == (GRAPHS, 1, 0)


def test_more_marks_than_there_is_room_for_are_refused_whole(crumbs: Breadcrumbs) -> None:
    assert crumbs.native.add(["call"] * (MARKS + 1), EMULATED, 0) is None
    large = add(crumbs, *["call"] * (MARKS - 1))
    assert crumbs.native.add(["call"] * 2, EMULATED, 0) is None
    add(crumbs, "the last")
    large.launch()
    large.passed(MARKS - 2)
    assert [s.reached for s in read_breadcrumbs(crumbs.path)] == [1, 0]
    assert breadcrumbs_in(crumbs.path).refused == 2


def test_more_texts_than_there_is_room_for_are_left_out(crumbs: Breadcrumbs) -> None:
    marks = add(crumbs, *(f"call {number}" for number in range(TEXTS + 1)))
    marks.launch()
    for mark in range(TEXTS):
        if mark % 512 == 0:
            assert only(crumbs).next_call == f"call {mark}"
        marks.passed(mark)
    assert (only(crumbs).reached, only(crumbs).next_call) == (TEXTS, "")
    assert "a call that is not known" in str(only(crumbs))


def test_long_texts_are_cut_where_a_character_ends(crumbs: Breadcrumbs) -> None:
    marks = add(crumbs, "ü" * 100)
    marks.launch()
    assert only(crumbs).next_call == "ü" * 58 + "…"


def test_a_mark_that_there_is_not_is_not_passed(crumbs: Breadcrumbs) -> None:
    first, second = add(crumbs, "a"), add(crumbs, "b")
    first.passed(1)
    first.passed(2**31)
    assert [state.launched for state in read_breadcrumbs(crumbs.path)] == [0, 0]
    assert len(second) == 1


# --- files that are not what they should be


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    crumbs = open_breadcrumbs(tmp_path_factory.mktemp("whole"))
    for texts in (("a", "b"), ("c",), ("d", "e", "f")):
        marks = add(crumbs, *texts)
        marks.describe(f"graph {texts[0]}", 7, texts)
        marks.launch()
        marks.passed(0)
    return crumbs.path.read_bytes()


@pytest.mark.parametrize("size", [1, 255, 4095, 4096, 500_000, NUMBERS, NUMBERS + 524_287])
def test_a_file_that_is_cut_is_an_error(tmp_path: Path, whole: bytes, size: int) -> None:
    path = tmp_path / "cut.crumbs"
    path.write_bytes(whole[:size])
    with pytest.raises(BlackBoxError, match="holds no breadcrumbs"):
        read_breadcrumbs(path)


def test_a_file_that_is_longer_is_an_error(tmp_path: Path, whole: bytes) -> None:
    path = tmp_path / "long.crumbs"
    path.write_bytes(whole + b"\0")
    with pytest.raises(BlackBoxError, match="1507329 bytes"):
        read_breadcrumbs(path)


def test_a_file_that_is_being_opened_is_not_ready(tmp_path: Path) -> None:
    path = tmp_path / "new.crumbs"
    for size in (0, 10, _core.BREADCRUMB_BYTES):
        path.write_bytes(bytes(size))
        with pytest.raises(BlackBoxNotReady):
            read_breadcrumbs(path)


def test_neither_links_nor_fifos_nor_directories_are_read(tmp_path: Path, whole: bytes) -> None:
    target = tmp_path / "target.crumbs"
    target.write_bytes(whole)
    (tmp_path / "link").symlink_to(target)
    os.mkfifo(tmp_path / "fifo")
    for name in ("link", "fifo", ".", "none"):
        with pytest.raises(BlackBoxError):
            read_breadcrumbs(tmp_path / name)


_INTERESTING = st.one_of(
    st.integers(0, 300),
    st.integers(4096, 4096 + 64 * 4),
    st.integers(528_384, 528_384 + 1024),
    st.integers(790_528, 790_540),
    st.integers(NUMBERS, NUMBERS + 64),
)


@given(changes=st.lists(st.tuples(_INTERESTING, st.binary(min_size=1, max_size=9)), max_size=6))
@settings(max_examples=300, deadline=None)
def test_any_bytes_give_states_or_an_error(
    changes: list[tuple[int, bytes]], whole: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = bytearray(whole)
    for place, change in changes:
        content[place : place + len(change)] = change
    _read_parts(bytes(content))


_PLACES = st.one_of(st.integers(0, 8), st.integers(MARKS - 2, MARKS + 2), st.integers(0, 2**32 - 1))


@given(
    places=st.tuples(_PLACES, _PLACES, _PLACES),
    state=st.integers(0, 3),
    kind=st.integers(0, 6),
    text=st.integers(0, 2**16 - 1),
)
@settings(max_examples=300, deadline=None)
def test_graphs_with_a_right_checksum_are_bounded_too(
    whole: bytes, places: tuple[int, int, int], state: int, kind: int, text: int
) -> None:
    first, marks, used = places
    content = bytearray(whole)
    content[256:280] = struct.pack("<QQQ", 1, 2**64 - 1, used)
    slot = struct.pack("<QQQIIHBBIQQQ", 2, 7, 9, first, marks, text, state, kind, 0, 1, 0, 0)
    # What a hostile writer does to be believed.
    content[4096:4160] = slot[:56] + _checksum(slot).to_bytes(8, "little")
    told, damaged = _read_parts(bytes(content))
    gone = state == 2
    possible = state == 1 and kind <= EMULATED and marks > 0 and first + marks <= min(used, MARKS)
    assert (told, damaged) == (int(possible), int(not possible and not gone))


def _read_parts(content: bytes) -> tuple[int, int]:
    """Read what may be anything; return how many graphs are told of, and how many damaged."""
    header = content[:4096]
    problem, regions = _core.breadcrumb_regions(header, len(content))
    if problem:
        return 0, 0
    graphs_of, texts, of_marks, numbers = (
        content[offset : offset + nbytes] for offset, nbytes in regions
    )
    parts = (graphs_of, texts, of_marks, numbers)
    assert [len(part) for part in parts] == [nbytes for _, nbytes in regions]
    _, _, graphs, _, damaged = _core.read_breadcrumbs(header, graphs_of, texts, of_marks, numbers)
    assert len(graphs) + damaged <= GRAPHS
    for _, _, launched, finished, reached, marks, _, kind, _, _ in graphs:
        assert finished <= launched
        assert reached <= marks <= MARKS
        assert 0 <= kind <= EMULATED
    # Parts that were cut off while they were copied.
    half = tuple(part[: len(part) // 2] for part in parts)
    _core.read_breadcrumbs(header, half[0], half[1], half[2], half[3])
    _core.read_breadcrumbs(header, b"", b"", b"", b"")
    assert _core.read_breadcrumbs(b"", graphs_of, texts, of_marks, numbers)[0]
    return len(graphs), damaged


_MASK = 2**64 - 1


def _checksum(slot: bytes) -> int:
    """Return the checksum of csrc/core/ring_format.h, as breadcrumb_format.h sums a graph."""
    words = [int.from_bytes(slot[i : i + 8], "little") for i in range(0, 64, 8)]
    words[2] = words[7] = 0
    total = len(words)
    for i in range(0, len(words), 2):
        wide = (words[i] ^ 0xA0761D6478BD642F) * (words[i + 1] ^ 0xE7037ED1A0B428DB)
        folded = (wide ^ wide >> 64) & _MASK
        turn = i * 11 % 64
        total += (folded << turn | folded >> (64 - turn)) & _MASK
    total &= _MASK
    return (total ^ total >> 32) & 0xFFFFFFFF


def test_the_checksum_of_the_tests_is_that_of_the_file(whole: bytes) -> None:
    for slot in (whole[4096:4160], whole[4160:4224]):
        assert int.from_bytes(slot[56:], "little") == _checksum(slot)


# --- other processes

_WRITER = """
import sys, pathlib
from graphguard.breadcrumbs.process import open_breadcrumbs
crumbs = open_breadcrumbs(pathlib.Path(sys.argv[1]))
marks = crumbs.native.add([f"call {n}" for n in range(8)], 4, 0)
marks.describe("target", 5, [])
print(crumbs.path, flush=True)
while True:
    marks.launch()
    for n in range(8):
        marks.passed(n)
"""


@contextmanager
def _writer(directory: Path) -> Iterator[Path]:
    """Start a process that writes, and kill it."""
    with subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(directory)], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            yield Path(process.stdout.readline().strip())
        finally:
            process.send_signal(signal.SIGKILL)


def test_a_writer_that_is_killed_leaves_a_file_that_can_be_read(tmp_path: Path) -> None:
    for _ in range(3):
        with _writer(tmp_path) as path:
            while not read_breadcrumbs(path)[0].launched > 100:
                pass
        (state,) = read_breadcrumbs(path)
        assert state.graph == "target"
        # It ended somewhere within a replay, or between two.
        assert 0 <= state.in_flight <= 1
        assert state.next_call == (f"call {state.reached}" if state.in_flight else "")


def test_two_readers_see_what_can_be_while_one_writes(tmp_path: Path) -> None:
    wrong: list[CrumbState] = []

    def read(path: Path) -> None:
        last = 0
        for _ in range(400):
            (state,) = read_breadcrumbs(path)
            # The numbers are copied after the launches, one after the other: replays that began
            # meanwhile make more in flight than one, and never fewer than have finished before.
            if state.finished < last or state.launched < state.finished or state.positions != 8:
                wrong.append(state)
            last = state.finished

    with _writer(tmp_path) as path:
        readers = [threading.Thread(target=read, args=(path,)) for _ in range(2)]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join(timeout=60)
    assert wrong == []


def test_a_forked_child_leaves_the_marks_of_its_parent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = """
import os
from graphguard.breadcrumbs.process import process_breadcrumbs
crumbs = process_breadcrumbs()
marks = crumbs.native.add(["a", "b"], 4, 0)
marks.launch()
pid = os.fork()
if pid == 0:
    marks.launch(); marks.passed(0); marks.settle(); marks.describe("child", 9, []); marks.retire()
    own = process_breadcrumbs()
    assert own is not None and own.path != crumbs.path
    own.native.add(["c"], 4, 0).launch()
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
print(crumbs.path)
"""
    monkeypatch.setenv("GRAPHGUARD_DIR", str(tmp_path))
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    (state,) = read_breadcrumbs(done.stdout.strip())
    assert (state.graph, state.launched, state.finished) == ("", 1, 0)
    assert len(list(tmp_path.glob("*.crumbs"))) == 2


def test_the_file_of_a_ring_is_found_by_its_process(tmp_path: Path) -> None:
    ring = tmp_path / "blackbox.rank3.77.ring"
    assert beside(ring) is None
    for name in ("breadcrumbs.rank3.78.crumbs", "breadcrumbs.rank3.770.crumbs", "blackbox.x"):
        (tmp_path / name).touch()
    assert beside(ring) is None
    # Opened before the process knew its rank.
    (tmp_path / "breadcrumbs.rank0.77.crumbs").touch()
    assert beside(ring) == tmp_path / "breadcrumbs.rank0.77.crumbs"
    (tmp_path / "breadcrumbs.rank3.77.crumbs").touch()
    (tmp_path / "breadcrumbs.rank9.77.crumbs").symlink_to(ring)
    assert beside(ring) == tmp_path / "breadcrumbs.rank3.77.crumbs"
    assert beside(tmp_path / "manifest.json") is None
