"""The start-up hook in real interpreters, that it runs in before anything else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from graphguard.running import processes
from graphguard.running.variables import HOOK

LOADED = "import sys; print('graphguard' in sys.modules)"


def python(
    code: str, notes: Path | None, *paths: Path | str, options: tuple[str, ...] = (), **more: str
) -> subprocess.CompletedProcess[str]:
    """Run code in a Python that has the hook, and these paths after it."""
    own = {"GRAPHGUARD_RUN": str(notes)} if notes is not None else {}
    path = os.pathsep.join(map(str, (HOOK, *paths, os.environ.get("PYTHONPATH", ""))))
    return subprocess.run(
        [sys.executable, *options, "-c", code],
        env={**os.environ, **own, "PYTHONPATH": path, **more},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def module(directory: Path, name: str, code: str) -> Path:
    directory.mkdir(exist_ok=True)
    (directory / f"{name}.py").write_text(code)
    return directory


def test_a_process_loads_graphguard_and_says_so(tmp_path: Path) -> None:
    ended = python(LOADED, tmp_path)

    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "True\n", "")
    assert processes.read(tmp_path) == processes.Reached(1)
    (note,) = tmp_path.iterdir()
    assert note.stat().st_mode & 0o777 == 0o600


def test_children_load_it_too_however_they_are_started(tmp_path: Path) -> None:
    code = (
        "import multiprocessing, subprocess, sys\n"
        "def child(): pass\n"
        "if __name__ == '__main__':\n"
        "    subprocess.run([sys.executable, '-c', ''], check=True)\n"
        "    spawned = multiprocessing.get_context('spawn').Process(target=len, args=('',))\n"
        "    spawned.start(); spawned.join()\n"
    )
    assert python(code, tmp_path).returncode == 0
    # The program, its two children, and the resource tracker of multiprocessing.
    assert processes.read(tmp_path).loaded >= 3


def test_a_process_of_no_run_does_not_load_it() -> None:
    ended = python(LOADED, None)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "False\n", "")


def test_a_graphguard_that_cannot_be_loaded_is_said_and_the_program_runs(tmp_path: Path) -> None:
    broken = module(tmp_path / "broken", "msgspec", "raise ImportError('not\\nthis one')")
    notes = tmp_path / "notes"
    notes.mkdir()

    ended = python("print('runs')", notes, broken)

    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "runs\n", "")
    (refusal,) = processes.read(notes).refused
    assert refusal == processes.Refusal(sys.executable, "ImportError: not this one", 1)


def test_the_program_runs_when_the_directory_of_the_run_is_gone(tmp_path: Path) -> None:
    ended = python("print('runs')", tmp_path / "gone")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "runs\n", "")


def test_the_hook_of_the_machine_is_run_and_is_what_the_program_imports(tmp_path: Path) -> None:
    own = module(tmp_path / "own", "sitecustomize", "import sys; WORD = 'machine'; sys.flag = 1")
    notes = tmp_path / "notes"
    notes.mkdir()

    ended = python("import sys, sitecustomize; print(sitecustomize.WORD, sys.flag)", notes, own)

    assert (ended.stdout, ended.stderr) == ("machine 1\n", "")
    assert processes.read(notes).loaded == 1


def test_the_hook_of_the_machine_may_add_to_the_path_and_children_still_get_this_one(
    tmp_path: Path,
) -> None:
    own = module(tmp_path / "own", "sitecustomize", "import sys; sys.path.insert(0, '/added')")
    code = f"import sys; print('/added' in sys.path, sys.path.count({str(HOOK)!r}))"

    assert python(code, tmp_path, own).stdout == "True 1\n"


@pytest.mark.parametrize("code", ["import absent_module", "raise RuntimeError('broken')"])
def test_a_broken_hook_of_the_machine_fails_as_it_would_alone(code: str, tmp_path: Path) -> None:
    own = module(tmp_path / "own", "sitecustomize", code)
    notes = tmp_path / "notes"
    notes.mkdir()
    alone = subprocess.run(
        [sys.executable, "-c", LOADED],
        env={**os.environ, "PYTHONPATH": str(own)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    ended = python(LOADED, notes, own)

    assert (ended.returncode, ended.stderr) == (alone.returncode, alone.stderr)
    assert processes.read(notes).loaded == 1


def test_modules_are_found_where_they_are_without_the_hook(tmp_path: Path) -> None:
    mine = module(tmp_path / "mine", "mine", "HERE = True")
    assert python("import mine; print(mine.HERE)", tmp_path, mine).stdout == "True\n"


@pytest.mark.parametrize("option", ["-I", "-E", "-S"])
def test_a_python_that_leaves_the_environment_out_is_not_reached(
    option: str, tmp_path: Path
) -> None:
    ended = python(LOADED, tmp_path, options=(option,))
    assert ended.stdout == "False\n"
    assert processes.read(tmp_path) == processes.Reached(0)
