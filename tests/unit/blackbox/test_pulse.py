"""What a process is doing right now, read from its black box by another one."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphguard import _core
from graphguard.blackbox.events import Event
from graphguard.blackbox.pulse import ActivityKind, Pulse, read_pulse
from graphguard.blackbox.writer import BlackBox, open_box
from graphguard.errors import BlackBoxError
from graphguard.verdict import Action, Phase, Reason

_PULSE_OFFSET, _PULSE_END = 512, 512 + 128 + 16 * 64


@pytest.fixture
def box(tmp_path: Path) -> Iterator[BlackBox]:
    opened = open_box(tmp_path, 64)
    yield opened
    opened.close()


def pulse_of(box: BlackBox) -> Pulse:
    pulse = read_pulse(box.path)
    assert pulse is not None
    return pulse


def check(box: BlackBox, role: str, step: int) -> None:
    box.ring.check(
        box.name(role),
        box.name("tp:0"),
        step,
        0xABC,
        15,
        2,
        30,
        Phase.DECODE,
        Action.PAD,
        Reason.PADDED,
        0,
    )


def test_a_launch_is_under_way_from_its_begin_to_its_end(box: BlackBox) -> None:
    check(box, "target", 7)
    box.ring.mark(Event.REPLAY_BEGIN)

    (activity,) = pulse_of(box).activities
    assert (activity.kind, activity.name, activity.group) == ("replay", "target", "tp:0")
    assert (activity.step, activity.digest, activity.batch) == (7, 0xABC, "15x2")
    assert activity.thread == threading.get_native_id()

    box.ring.mark(Event.REPLAY_END)
    assert pulse_of(box).activities == ()
    assert pulse_of(box).ended == 1


def test_its_age_is_that_of_the_clock(box: BlackBox) -> None:
    check(box, "target", 1)
    before = time.monotonic_ns()
    box.ring.mark(Event.EAGER_BEGIN)
    time.sleep(0.2)
    least = time.monotonic_ns() - before

    (activity,) = pulse_of(box).activities
    assert activity.kind == "eager"
    most = time.monotonic_ns() - before
    assert least * 0.99 - 2e6 <= activity.age_ns <= most * 1.01 + 2e6


def test_a_launch_within_a_step_shows_beside_it_and_the_older_comes_first(box: BlackBox) -> None:
    box.ring.begin_activity(ActivityKind.STEP, box.name("execute_model"), 0)
    time.sleep(0.002)
    check(box, "drafter", 3)
    box.ring.mark(Event.REPLAY_BEGIN)

    assert [a.name for a in pulse_of(box).activities] == ["execute_model", "drafter"]


def test_launches_of_two_roles_do_not_hide_each_other(box: BlackBox) -> None:
    for role in ("target", "drafter"):
        check(box, role, 3)
        box.ring.mark(Event.REPLAY_BEGIN)

    assert {a.name for a in pulse_of(box).activities} == {"target", "drafter"}


def test_the_end_of_another_one_does_not_end_it(box: BlackBox) -> None:
    outer, inner = box.name("outer"), box.name("inner")
    box.ring.begin_activity(ActivityKind.STEP, outer, 0)
    box.ring.end_activity(ActivityKind.STEP, inner)

    assert [a.name for a in pulse_of(box).activities] == ["outer"]


def test_a_launch_that_an_error_has_left_gives_way_to_the_next(box: BlackBox) -> None:
    for step in (1, 2):
        check(box, "target", step)
        box.ring.mark(Event.REPLAY_BEGIN)

    assert [a.step for a in pulse_of(box).activities] == [2]


@pytest.mark.parametrize("kind", [0, ActivityKind.REPLAY, ActivityKind.EAGER, 8, 255])
def test_launches_and_unknown_kinds_cannot_be_begun_by_hand(box: BlackBox, kind: int) -> None:
    with pytest.raises(ValueError, match="no such kind"):
        box.ring.begin_activity(kind, 0, 0)


def test_an_extension_runs_out(box: BlackBox) -> None:
    box.ring.extend(0.1, box.name("compiling"))
    pulse = pulse_of(box)
    assert pulse.extended_why == "compiling"
    assert 0 < pulse.extended_ns <= 100_000_000

    time.sleep(0.11)
    assert pulse_of(box).extended_ns == 0


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf"), 86_401.0])
def test_an_extension_is_of_seconds_up_to_a_day(box: BlackBox, seconds: float) -> None:
    with pytest.raises(ValueError, match="extension"):
        box.ring.extend(seconds, 0)


def test_where_stacks_are_written_is_told(box: BlackBox) -> None:
    assert (pulse_of(box).stack_signal, pulse_of(box).stacks_path) == (0, "")

    box.ring.set_stacks(40, box.name("stacks.rank0.1.txt"))

    assert (pulse_of(box).stack_signal, pulse_of(box).stacks_path) == (40, "stacks.rank0.1.txt")


def test_no_watchdog_has_no_beat(box: BlackBox) -> None:
    pulse = pulse_of(box)
    assert pulse.beat_age_ns is None
    assert (pulse.stall_ns, pulse.stalls, pulse.missed_ns) == (0, 0, 0)


def test_what_a_killed_process_was_in_stays(tmp_path: Path) -> None:
    program = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from graphguard.blackbox.writer import open_box\n"
        "box = open_box(Path(sys.argv[1]), 64)\n"
        "box.ring.begin_activity(3, box.name('execute_model'), 9)\n"
        "box.ring.extend(600.0, box.name('compiling'))\n"
        "print(box.path, flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        path = process.stdout.readline().strip()
        process.send_signal(signal.SIGKILL)
    pulse = read_pulse(path)

    assert pulse is not None
    assert [(a.name, a.step) for a in pulse.activities] == [("execute_model", 9)]
    # Nobody was there to say when that was.
    assert (pulse.activities[0].age_ns, pulse.extended_ns) == (0, 0)


def test_a_child_after_a_fork_does_not_touch_the_pulse(box: BlackBox) -> None:
    name = box.name("step")
    child = os.fork()
    if child == 0:
        box.ring.begin_activity(ActivityKind.STEP, name, 0)
        box.ring.extend(5.0, name)
        os._exit(0)
    os.waitpid(child, 0)

    pulse = pulse_of(box)
    assert (pulse.activities, pulse.extended_ns) == ((), 0)


def test_a_forked_child_tells_its_own_thread(tmp_path: Path) -> None:
    open_box(tmp_path, 64)  # so that the thread is known before the fork
    child = os.fork()
    if child == 0:
        box = open_box(tmp_path / "child", 64)
        box.ring.begin_activity(ActivityKind.STEP, box.name("step"), 0)
        os._exit(0)
    os.waitpid(child, 0)

    (ring,) = (tmp_path / "child").glob("*.ring")
    pulse = read_pulse(ring)
    assert pulse is not None
    assert [a.thread for a in pulse.activities] == [child]


def test_a_ring_of_before_has_no_pulse(box: BlackBox, tmp_path: Path) -> None:
    old = bytearray(box.path.read_bytes())
    old[_PULSE_OFFSET:4096] = bytes(4096 - _PULSE_OFFSET)
    (tmp_path / "old.ring").write_bytes(old)

    assert read_pulse(tmp_path / "old.ring") is None


@pytest.mark.parametrize("size", [0, 1, 511, 512, 4095])
def test_what_is_too_short_has_no_pulse(box: BlackBox, tmp_path: Path, size: int) -> None:
    (tmp_path / "short.ring").write_bytes(box.path.read_bytes()[:size])

    assert read_pulse(tmp_path / "short.ring") is None


def test_what_is_not_there_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(BlackBoxError, match=r"cannot read .*No such file"):
        read_pulse(tmp_path / "none.ring")


def test_an_activity_that_changed_between_the_two_copies_is_left_out(box: BlackBox) -> None:
    box.ring.begin_activity(ActivityKind.STEP, box.name("a"), 1)
    first = box.path.read_bytes()[: _core.PULSE_BYTES]
    box.ring.begin_activity(ActivityKind.STEP, box.name("b"), 2)
    second = box.path.read_bytes()[: _core.PULSE_BYTES]

    found = _core.read_pulse(first, second, True)
    assert found is not None
    assert found[0] == []
    again = _core.read_pulse(second, second, True)
    assert again is not None
    assert len(again[0]) == 1


@given(
    page=st.binary(min_size=_PULSE_END - _PULSE_OFFSET, max_size=_PULSE_END - _PULSE_OFFSET),
    live=st.booleans(),
)
def test_no_page_is_too_strange_to_be_read(page: bytes, live: bool) -> None:
    data = bytearray(_core.PULSE_BYTES)
    data[_PULSE_OFFSET:_PULSE_END] = page
    struct.pack_into("<Q", data, _PULSE_OFFSET, 0x3145534C55504747)

    found = _core.read_pulse(bytes(data), bytes(data), live)

    assert found is not None
    activities, names, head = found
    assert len(activities) <= 16
    assert names == []
    assert all(number is None or number >= 0 for number in head)
    for *_, age, _watched in activities:
        assert 0 <= age < 2**63
