from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from graphguard.errors import ProgramNotStarted
from graphguard.running.program import run

TIMEOUT_SECONDS = 60
RUNS = "import os, sys; from graphguard.running.program import run; sys.exit(run(sys.argv[1:], os.environ))"  # noqa: E501
# Ends by itself after the first signal, or when nobody ends it at all.
COUNTS = """
import signal, sys, time
seen = []
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
    signal.signal(number, lambda number, frame: seen.append(signal.Signals(number).name))
print("ready", flush=True)
deadline = time.monotonic() + 30
while not seen and time.monotonic() < deadline:
    time.sleep(0.02)
time.sleep(0.3)
print(*seen, flush=True)
sys.exit(7)
"""


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


@contextmanager
def runner(*command: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [*python(RUNS), *command], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=TIMEOUT_SECONDS)


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.parametrize(
    ("script", "code"),
    [("exit 0", 0), ("exit 3", 3), ("kill -9 $$", 137), ("kill -TERM $$", 143), ("exit 255", 255)],
)
def test_the_exit_code_is_that_of_a_shell(script: str, code: int) -> None:
    assert run(["sh", "-c", script], os.environ) == code


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1"])
def test_a_signal_to_the_runner_reaches_the_program_once_and_does_not_end_the_runner(
    name: str,
) -> None:
    with runner(*python(COUNTS)) as process:
        assert first_line(process) == "ready"
        process.send_signal(getattr(signal, name))
        output, _ = process.communicate(timeout=TIMEOUT_SECONDS)

    assert output.split() == [name]
    assert process.returncode == 7


def test_a_program_that_a_passed_on_signal_ends_gives_128_and_its_number() -> None:
    with runner("sh", "-c", "echo ready; exec sleep 30") as process:
        assert first_line(process) == "ready"
        process.send_signal(signal.SIGHUP)
        process.communicate(timeout=TIMEOUT_SECONDS)

    assert process.returncode == 128 + signal.SIGHUP


def test_what_the_terminal_sends_reaches_the_program_once() -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [*python(RUNS), *python(COUNTS)])  # noqa: S606
    output = b""
    try:
        while b"ready" not in output:
            output += os.read(terminal, 4096)
        os.write(terminal, b"\x03")
        while b"SIGINT" not in output:
            output += os.read(terminal, 4096)
        _, status = os.waitpid(pid, 0)
    except OSError as error:
        pytest.fail(f"the program wrote {output!r} and ended: {error}")
    finally:
        os.close(terminal)

    assert output.split(b"^C")[-1].split() == [b"SIGINT"]
    assert os.waitstatus_to_exitcode(status) == 7


def test_the_program_has_the_signals_that_it_would_have_without_the_runner(tmp_path: Path) -> None:
    status = tmp_path / "status"
    with status.open("wb") as file:
        assert run(["cat", "/proc/self/status"], os.environ, output=file.fileno()) == 0

    masks = dict(line.split(":\t", 1) for line in status.read_text().splitlines())
    ignored = {n for n in range(1, 32) if int(masks["SigIgn"], 16) >> (n - 1) & 1}
    assert int(masks["SigBlk"], 16) == 0
    # What pytest's own parent ignores, such as SIGINT in a background job, is ignored here, too.
    assert not ignored & {signal.SIGPIPE, signal.SIGXFSZ, signal.SIGTERM}


def test_the_signals_of_the_runner_are_as_before() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    run(["true"], os.environ)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


def test_a_runner_whose_parent_ignores_its_children_still_learns_how_the_program_ended() -> None:
    code = f"import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN); {RUNS}"
    ended = subprocess.run(
        [*python(code), "sh", "-c", "exit 5"], check=False, timeout=TIMEOUT_SECONDS
    )
    assert ended.returncode == 5


def test_the_program_has_the_environment_that_it_is_given(tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as file:
        run(["sh", "-c", "echo $WORD$HOME"], {"WORD": "so"}, output=file.fileno())
    assert (tmp_path / "out").read_text() == "so\n"


def test_a_program_that_is_not_there_gives_127_and_one_that_cannot_run_126(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("no program")
    for command, code in ((["no-such-program"], 127), ([str(text)], 126), ([str(tmp_path)], 126)):
        with pytest.raises(ProgramNotStarted) as caught:
            run(command, os.environ)
        assert caught.value.exit_code == code
        assert repr(command[0]) in caught.value.message


def test_an_argument_that_the_system_cannot_pass_is_refused() -> None:
    with pytest.raises(ProgramNotStarted, match="null"):
        run(["echo", "a\0b"], os.environ)
