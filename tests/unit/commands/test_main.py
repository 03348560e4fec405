from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from graphguard import commands, manifest
from graphguard.commands import COMMANDS, main
from graphguard.commands.audit import AuditCommand
from graphguard.errors import CommandError, GraphguardError, ManifestError
from graphguard.manifest import Manifest


def fails_with(error: BaseException) -> Callable[[AuditCommand, argparse.Namespace], int]:
    def run(_self: AuditCommand, _args: argparse.Namespace) -> int:
        raise error

    return run


def python(code: str, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *args], capture_output=True, text=True, check=False, timeout=60
    )


def test_help_lists_every_command_with_its_first_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    told = " ".join(capsys.readouterr().out.split())
    for name in COMMANDS:
        assert f" {name} " in told
    assert "Show the graphs that one process captured." in told


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_is_its_docstring(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([name, "--help"])
    assert caught.value.code == 0
    told = capsys.readouterr().out
    assert f"usage: graphguard {name}" in told
    assert "exit codes: 0 nothing found, 1 something found, 2 could not run" in told


def test_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith("graphguard 0.")


@pytest.mark.parametrize("argv", [[], ["absent"], ["audit"], ["show", "a", "b"], ["doctor", "-x"]])
def test_wrong_arguments_end_with_2(argv: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == 2


@pytest.mark.parametrize("kind", [GraphguardError, ManifestError, CommandError])
def test_error_is_a_message_and_a_hint_and_ends_with_2(
    kind: type[GraphguardError],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    error = kind("it \x1b[2J broke", hint="mend it")
    monkeypatch.setattr(AuditCommand, "run", fails_with(error))
    assert main(["audit", "path"]) == 2
    captured = capsys.readouterr()
    assert captured.err == "graphguard: it \\x1b[2J broke\n  Hint: mend it\n"
    assert captured.out == ""


def test_interrupt_ends_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AuditCommand, "run", fails_with(KeyboardInterrupt()))
    assert main(["audit", "path"]) == 130


def test_closed_pipe_ends_quietly(tmp_path: Path) -> None:
    path = manifest.write(Manifest(0, 2, ()), tmp_path / "run")
    command = f"{sys.executable} -m graphguard audit {path}; echo $? >&2"
    ended = subprocess.run(
        ["sh", "-c", f"({command}) | true; sleep 0.1"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ended.stderr.strip() == str(commands.BROKEN_PIPE)


def test_output_that_the_terminal_cannot_encode_is_escaped(tmp_path: Path) -> None:
    path = manifest.write(Manifest(0, 1, (), host="größe"), tmp_path / "run")
    ended = subprocess.run(
        [sys.executable, "-m", "graphguard", "show", str(path)],
        env={"PYTHONIOENCODING": "ascii"},
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert ended.returncode == 0
    assert b"gr\\xf6\\xdfe" in ended.stdout


@pytest.mark.parametrize(("world_size", "code"), [(1, 0), (2, 1)])
def test_exit_code_reaches_the_shell(tmp_path: Path, world_size: int, code: int) -> None:
    path = manifest.write(Manifest(0, world_size, ()), tmp_path / "run")
    ended = subprocess.run(
        [sys.executable, "-m", "graphguard", "audit", str(path)],
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert (ended.returncode, ended.stderr) == (code, b"")


@pytest.mark.parametrize("name", ["audit", "show", "doctor", "--help"])
def test_commands_never_import_torch_and_rich_only_for_tables(tmp_path: Path, name: str) -> None:
    path = str(manifest.write(Manifest(0, 1, ()), tmp_path / "run"))
    ended = python(
        "import sys\n"
        "from graphguard.commands import main\n"
        "try:\n"
        "    main(sys.argv[1:])\n"
        "except SystemExit:\n"
        "    pass\n"
        "print(sorted({'torch', 'rich', 'numpy'} & sys.modules.keys()))\n",
        *([name] if name in {"doctor", "--help"} else [name, path]),
    )
    expected = "[]" if name in {"audit", "--help"} else "['rich']"
    assert ended.stdout.splitlines()[-1] == expected
