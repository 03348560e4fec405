"""``graphguard run`` with small programs that record what is made up: they need no torch."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from msgspec.json import decode

from graphguard.commands import main

ROOT = Path(__file__).parents[3]
RECORDS = """
import os, sys
from graphguard import default_session
from tests.unit.audit.jobs import call, graph

def record(count):
    default_session.record(graph(call(count=count, group="0[0-1]", size=2)))

def ranks(*counts):
    os.environ["WORLD_SIZE"] = str(len(counts))
    for rank, count in enumerate(counts):
        pid = os.fork()
        if pid == 0:
            os.environ["RANK"] = str(rank)
            record(count)
            sys.exit()
        os.waitpid(pid, 0)
"""


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "graphguard", "run", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def python(code: str) -> list[str]:
    return ["--", sys.executable, "-c", RECORDS + code]


def report(directory: Path) -> dict[str, Any]:
    told: dict[str, Any] = decode((directory / "report.json").read_bytes())
    return told


def test_ranks_that_agree_end_with_0_and_the_audit_is_told_on_standard_error(
    tmp_path: Path,
) -> None:
    directory = tmp_path / "run"
    ended = run("--output", str(directory), *python("ranks(8, 8); print('its own')"))

    assert (ended.returncode, ended.stdout) == (0, "its own\n")
    assert "2 ranks, 1 graph, 2 collective calls: no difference found" in ended.stderr
    assert f"recorded in {directory}" in ended.stderr
    assert report(directory)["audit"]["ranks"] == [0, 1]
    assert (directory / "report.json").stat().st_mode & 0o777 == 0o600


def test_ranks_that_differ_end_with_1(tmp_path: Path) -> None:
    ended = run("--output", str(tmp_path / "run"), *python("ranks(8, 9)"))

    assert ended.returncode == 1
    assert "error: collective-count" in ended.stderr
    assert report(tmp_path / "run")["found"] is True


@pytest.mark.parametrize(
    ("end", "code"), [("sys.exit(5)", 5), ("os.kill(os.getpid(), 9)", 128 + signal.SIGKILL)]
)
def test_the_exit_code_of_the_program_is_kept_whatever_was_found(
    end: str, code: int, tmp_path: Path
) -> None:
    ended = run("--output", str(tmp_path / "run"), *python(f"ranks(8, 9); {end}"))

    assert ended.returncode == code
    assert report(tmp_path / "run")["exit_code"] == code
    assert report(tmp_path / "run")["audit"]["summary"]["errors"] == 1


def test_json_is_all_that_is_printed_and_the_program_prints_elsewhere(tmp_path: Path) -> None:
    command = python("ranks(8, 8); print('its own')")
    ended = run("--json", "--output", str(tmp_path / "run"), *command)

    assert decode(ended.stdout) == report(tmp_path / "run")
    assert "its own" in ended.stderr


def test_what_follows_the_program_is_its_own(tmp_path: Path) -> None:
    shown = [sys.executable, "-c", "import sys; print(sys.argv[1:])", "--json", "--", "-x", "--"]
    for separator in ([], ["--"]):
        directory = tmp_path / f"run{len(separator)}"
        ended = run("--output", str(directory), *separator, *shown)
        assert ended.stdout == "['--json', '--', '-x', '--']\n", ended.stderr


def test_a_program_that_records_nothing_is_said_and_ends_with_0(tmp_path: Path) -> None:
    ended = run("--output", str(tmp_path / "a"), "--", sys.executable, "-c", "")
    assert ended.returncode == 0
    assert "1 Python process loaded graphguard" in ended.stderr
    assert "nothing that was captured was recorded" in ended.stderr

    ended = run("--output", str(tmp_path / "b"), "--", "true")
    assert ended.returncode == 0
    assert "no Python process was reached" in ended.stderr


def test_a_python_without_graphguard_is_named_and_its_program_runs(tmp_path: Path) -> None:
    (tmp_path / "msgspec.py").write_text("raise ImportError('not here')")
    child = f'PYTHONPATH="$PYTHONPATH:{tmp_path}" exec {sys.executable} -c "print(1)"'

    ended = run("--output", str(tmp_path / "run"), "--", "sh", "-c", child)

    assert (ended.returncode, ended.stdout) == (0, "1\n")
    refused = f"1 Python process of {sys.executable} could not load it: ImportError: not here"
    assert refused in ended.stderr


def test_without_a_name_the_directory_is_new_and_here(tmp_path: Path) -> None:
    for _ in range(2):
        ended = subprocess.run(
            [sys.executable, "-m", "graphguard", "run", "true"],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            cwd=tmp_path,
            check=False,
            timeout=60,
            stderr=subprocess.DEVNULL,
        )
        assert ended.returncode == 0
    assert [path.name[:13] for path in tmp_path.iterdir()] == ["graphguard-20"] * 2


def test_what_cannot_be_run_ends_as_in_a_shell_and_leaves_the_name_free(tmp_path: Path) -> None:
    directory = str(tmp_path / "run")
    assert run("--output", directory, "--", "no-such-program").returncode == 127
    assert run("--output", directory, "--", str(tmp_path)).returncode == 126
    assert run("--output", directory, "--", "true").returncode == 0


def test_a_directory_of_another_run_is_refused_before_anything_is_run(tmp_path: Path) -> None:
    directory = str(tmp_path / "run")
    assert run("--output", directory, *python("ranks(8, 8)")).returncode == 0

    ended = run("--output", directory, *python("print('ran')"))

    assert (ended.returncode, ended.stdout) == (2, "")
    assert "another run" in ended.stderr


@pytest.mark.parametrize(("end", "code"), [("0", 2), ("5", 5)])
def test_a_directory_that_the_program_removes_does_not_hide_its_exit_code(
    end: str, code: int, tmp_path: Path
) -> None:
    directory = tmp_path / "run"
    ended = run("--output", str(directory), "--", "sh", "-c", f"rm -r {directory}; exit {end}")
    assert ended.returncode == code
    assert "cannot be read" in ended.stderr


def test_a_report_that_goes_to_a_file_has_no_colours_though_the_program_has_a_terminal(
    tmp_path: Path,
) -> None:
    terminal, its_end = pty.openpty()
    try:
        ended = subprocess.run(
            [
                *(sys.executable, "-m", "graphguard", "run", "--output", str(tmp_path / "run")),
                *("--", sys.executable, "-c"),
                "from graphguard.blackbox.writer import process_box; process_box()",
            ],
            env={**os.environ, "PYTHONPATH": str(ROOT), "GRAPHGUARD_RING_ENTRIES": "64"},
            stdout=its_end,
            stderr=subprocess.PIPE,
            check=False,
            timeout=60,
        )
    finally:
        os.close(terminal)
        os.close(its_end)
    assert b"before newest" in ended.stderr
    assert b"\x1b" not in ended.stderr


@pytest.mark.parametrize("argv", [["run"], ["run", "--"], ["run", "--json", "--"]])
def test_no_program_ends_with_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    assert "no program was named" in capsys.readouterr().err


def test_the_mode_is_passed_on(tmp_path: Path) -> None:
    command = ["--", sys.executable, "-c", "import os; print(os.environ['GRAPHGUARD_MODE'])"]
    modes = [
        run("--output", str(tmp_path / str(number)), *options, *command, **environment).stdout
        for number, (options, environment) in enumerate(
            [
                ([], {}),
                ([], {"GRAPHGUARD_MODE": "off"}),
                (["--mode", "enforce"], {"GRAPHGUARD_MODE": "off"}),
            ]
        )
    ]
    assert modes == ["observe\n", "off\n", "enforce\n"]
