"""The watchdog: what it has examined, what it leaves alone, and what it starts for that."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from graphguard.blackbox.pulse import Pulse, read_pulse
from graphguard.blackbox.reading import read
from graphguard.errors import ConfigurationError
from graphguard.watch import watchdog
from tests.unit.watch.watched import LIMIT, Place


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def pulse_in(place: Place) -> Pulse:
    (ring,) = place.directory.glob("*.ring")
    pulse = read_pulse(ring)
    assert pulse is not None
    return pulse


STEP = "with activity.during(ActivityKind.STEP, 'execute_model'):\n    "


def test_what_takes_longer_than_the_limit_is_examined_once(place: Place) -> None:
    place.run(f"watchdog.start()\n{STEP}time.sleep(3 * {LIMIT})\n", STAYS="4")

    (examined,) = place.examined()
    assert examined.option("--lane") == "3"
    assert LIMIT * 1000 <= int(examined.option("--watched-ms")) < LIMIT * 1000 + 1000
    assert examined.option("--job") == examined.option("--pid")
    assert examined.option("--directory") == str(place.directory)
    (ring,) = place.directory.glob("*.ring")
    assert examined.option("--ring") == str(ring)
    assert read(ring).rank == int(examined.option("--rank"))


def test_what_is_over_in_time_is_not(place: Place) -> None:
    place.run(f"watchdog.start()\nfor _ in range(10):\n  {STEP}  time.sleep(0.3 * {LIMIT})\n")

    assert place.examined() == []


def test_idling_is_no_stall(place: Place) -> None:
    place.run(f"watchdog.start()\n{STEP}pass\ntime.sleep(3 * {LIMIT})\n")

    assert place.examined() == []


def test_a_thread_that_holds_the_interpreter_does_not_hold_the_watchdog(place: Place) -> None:
    place.run(f"watchdog.start()\n{STEP}ctypes.PyDLL(None).usleep({int(2.5 * LIMIT * 1e6)})\n")

    assert len(place.examined()) == 1


def test_time_in_which_the_process_was_stopped_does_not_count(place: Place) -> None:
    code = f"watchdog.start()\n{STEP}say('in'); sys.stdin.readline()\n"
    with place.started(
        code + "say('out')\nsys.stdin.readline()\n", GRAPHGUARD_STALL_SECONDS="4"
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.send_signal(signal.SIGSTOP)
        time.sleep(5)
        process.send_signal(signal.SIGCONT)
        until = time.monotonic() + 3
        while pulse_in(place).missed_ns == 0 and time.monotonic() < until:
            time.sleep(0.05)
        assert pulse_in(place).missed_ns > 3e9
        print(file=process.stdin, flush=True)
        assert process.stdout.readline() == "out\n"
        print(file=process.stdin, flush=True)

    assert place.examined() == []


def test_what_is_said_to_be_slow_is_examined_when_that_time_is_over(place: Place) -> None:
    code = f"watchdog.start()\nsay(time.monotonic())\n{STEP}\n"
    code += f"  with graphguard.slow('compiling', 2.5 * {LIMIT}): time.sleep(4 * {LIMIT})\n"
    began = float(place.run(code).stdout)

    (examined,) = place.examined()
    assert examined.at - began >= 2.5 * LIMIT


def test_what_is_slow_and_ends_is_not_examined(place: Place) -> None:
    code = f"watchdog.start()\n{STEP}\n"
    place.run(code + f"  with graphguard.slow('compiling', 60): time.sleep(2.5 * {LIMIT})\n")

    assert place.examined() == []


@pytest.mark.parametrize("kind", ["STARTUP", "CAPTURE"])
def test_a_start_has_a_limit_of_its_own(place: Place, kind: str) -> None:
    code = f"watchdog.start()\nwith activity.during(ActivityKind.{kind}, 'load'):\n"
    code += f"    time.sleep(2 * {LIMIT})\n"
    place.run(code)
    assert place.examined() == []

    place.run(code, GRAPHGUARD_STALL_STARTUP_SECONDS="1")
    assert len(place.examined()) == 1


def test_a_launch_is_watched_as_a_step_is(place: Place) -> None:
    code = (
        "from graphguard.blackbox.writer import process_box\n"
        "watchdog.start()\nring = process_box().ring\n"
        "ring.check(0xFFFF, 0xFFFF, 5, 1, 1, 1, 1, 0, 0, 0, 0)\nring.mark(4)\n"
        f"time.sleep(2.5 * {LIMIT})\n"
    )
    place.run(code)

    (examined,) = place.examined()
    assert examined.option("--lane") == "1"


LEDGER = """
from graphguard import _core
size = _core.ledger_bytes(2)
memory = os.memfd_create("ledger")
os.posix_fallocate(memory, 0, size)
"""


def test_the_ranks_of_a_job_are_examined_once(place: Place) -> None:
    code = f"{LEDGER}watchdog.watch_ledger(memory, size, 'tp:0', [4, 5], 'one-job')\n"
    code += f"say('in')\n{STEP}time.sleep(60)\n"
    with place.started(code, STAYS="30") as first, place.started(code, STAYS="30") as second:
        examined = place.examined(least=1)
        time.sleep(2 * LIMIT)
        assert len(place.examined()) == 1
        assert examined[0].option("--job") == "one-job"
        assert int(examined[0].option("--pid")) in {first.pid, second.pid}
    os.kill(examined[0].pid, signal.SIGKILL)


def test_when_the_examiner_is_gone_another_rank_starts_one(place: Place) -> None:
    code = f"{LEDGER}watchdog.watch_ledger(memory, size, 'tp:0', [4, 5], 'one-job')\n"
    code += f"say('in')\n{STEP}time.sleep(60)\n"
    with place.started(code, STAYS="30"), place.started(code, STAYS="30"):
        (first,) = place.examined(least=1)
        os.kill(first.pid, signal.SIGKILL)
        second = place.examined(least=2)[1]
        os.kill(second.pid, signal.SIGKILL)
    assert second.option("--pid") != first.option("--pid")


def test_the_examiner_is_told_the_ranks_and_given_the_ledger(place: Place) -> None:
    code = f"""{LEDGER}
watchdog.watch_ledger(memory, size, "tp:0", [4, 5], "one-job")
say(memory)
{STEP}time.sleep(2 * {LIMIT})
"""
    place.run(code)

    (examined,) = place.examined()
    number, size, rest = examined.option("--ledger").split(":", 2)
    name, _, pids = rest.rpartition(":")
    assert name == "tp:0"
    assert [pair.split("=")[0] for pair in pids.split(",")] == ["4", "5"]
    assert "memfd:ledger" in examined.files[number]
    assert int(size) > 0
    assert examined.files[examined.option("--lock-fd")].endswith("stall-one-job.lock")


def test_starting_it_leaves_the_lock_that_says_that_the_rank_is_alive(place: Place) -> None:
    code = f"""
from graphguard.agreement.segment import Segment
segment = Segment.create(1)
segment.hold(0)
watchdog.watch_ledger(segment.descriptor, segment.size, "tp:0", [0], segment.job)
{STEP}time.sleep(2 * {LIMIT})
segment.remove_name()
child = os.fork()
if child == 0:
    os._exit(0 if segment.held(0) else 1)
say(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    done = place.run(code)

    assert len(place.examined()) == 1
    assert done.stdout == "0\n"


def test_what_would_mislead_the_examiner_is_kept_from_it(place: Place) -> None:
    place.run(
        f"watchdog.start()\n{STEP}time.sleep(2 * {LIMIT})\n",
        GRAPHGUARD_RUN=str(place.directory),
        NCCL_PROFILER_PLUGIN="some",
    )

    (examined,) = place.examined()
    assert not {"GRAPHGUARD_RUN", "NCCL_PROFILER_PLUGIN"} & set(examined.environment)
    assert {"GRAPHGUARD_DIR", "PYTHONPATH", "PATH"} <= set(examined.environment)


def test_it_has_a_group_of_its_own_in_the_same_session_and_blocks_no_signal(place: Place) -> None:
    code = "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})\n"
    place.run(f"{code}watchdog.start()\n{STEP}time.sleep(2 * {LIMIT})\n")

    (examined,) = place.examined()
    # Linux shares the cores out by sessions: one of its own may get none for seconds.
    assert examined.session == os.getsid(0)
    assert examined.group == examined.pid
    assert int(examined.blocked, 16) == 0


def test_a_link_in_the_place_of_the_lock_is_not_followed(place: Place) -> None:
    precious = place.directory / "precious"
    precious.write_text("x")
    lock = f"{str(place.directory)!r} + f'/stall-{{os.getpid()}}.lock'"
    code = f"os.symlink({str(precious)!r}, {lock})\n"
    place.run(f"{code}watchdog.start()\n{STEP}time.sleep(2 * {LIMIT})\n")

    (examined,) = place.examined()
    assert "--lock-fd" not in examined.argv
    assert precious.read_text() == "x"


def test_the_thread_ends_with_the_program(place: Place) -> None:
    began = time.monotonic()
    place.run("watchdog.start()\n")
    assert time.monotonic() - began < 20
    assert pulse_in(place).beat_age_ns is None


def test_a_forked_child_starts_one_of_its_own(place: Place) -> None:
    code = (
        "watchdog.start()\nchild = os.fork()\nif child == 0:\n  watchdog.start()\n"
        f"  {STEP}  time.sleep(2 * {LIMIT})\n  os._exit(0)\nos.waitpid(child, 0)\nsay(child)\n"
    )
    child = place.run(code).stdout.strip()

    (examined,) = place.examined()
    assert examined.option("--pid") == child


def test_it_beats_and_tells_its_limits(place: Place) -> None:
    with place.started("watchdog.start()\nsay('in')\ntime.sleep(60)\n"):
        time.sleep(0.5)
        pulse = pulse_in(place)

    assert pulse.beat_age_ns is not None
    assert pulse.beat_age_ns < 5e9
    assert (pulse.stall_ns, pulse.startup_ns) == (LIMIT * 1e9, 60e9)


@pytest.mark.parametrize("setting", ["GRAPHGUARD_STALL_SECONDS", "GRAPHGUARD_RING_ENTRIES"])
def test_it_can_be_left_out(place: Place, setting: str) -> None:
    code = f"say(watchdog.start())\n{STEP}time.sleep(2 * {LIMIT})\n"

    assert place.run(code, **{setting: "0"}).stdout == "False\n"
    assert place.examined() == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GRAPHGUARD_STALL_SECONDS", "soon"),
        ("GRAPHGUARD_STALL_SECONDS", "-1"),
        ("GRAPHGUARD_STALL_SECONDS", "nan"),
        ("GRAPHGUARD_STALL_STARTUP_SECONDS", "0"),
        ("GRAPHGUARD_SLOW_SECONDS", "1e9"),
        ("GRAPHGUARD_ON_STALL", "signal:"),
        ("GRAPHGUARD_ON_STALL", "panic"),
    ],
)
def test_a_setting_that_cannot_be_meant_is_told_at_the_start(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)

    with pytest.raises(ConfigurationError, match=name):
        watchdog._ProcessWatchdog().start()


def test_a_watchdog_that_cannot_be_started_is_told_and_does_without(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails() -> None:
        raise RuntimeError("no more of it")

    monkeypatch.setattr(watchdog, "_started", fails)
    process = watchdog._ProcessWatchdog()

    assert process.start() is None
    assert process.start() is None
    assert caplog.text.count("stalls are not looked for: RuntimeError('no more of it')") == 1
