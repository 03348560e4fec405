"""The command line: one small class for each command, whose docstring is its help."""

from __future__ import annotations

import argparse
import importlib
import inspect
import io
import os
import sys
from collections.abc import Sequence
from typing import Protocol

from graphguard.errors import CommandError, GraphguardError
from graphguard.printable import printable
from graphguard.version import __version__

FINE = 0
FOUND = 1
COULD_NOT_RUN = 2
INTERRUPTED = 130
BROKEN_PIPE = 141

COMMANDS = {
    "audit": "AuditCommand",
    "show": "ShowCommand",
    "blackbox": "BlackboxCommand",
    "demo": "DemoCommand",
    "doctor": "DoctorCommand",
    "diagnose": "DiagnoseCommand",
    "run": "RunCommand",
    "diff": "DiffCommand",
    "watch": "WatchCommand",
}
"""Each command, which is a module of this package, and its class there."""

_EXIT_CODES = "exit codes: 0 nothing found, 1 something found, 2 could not run"


class Command(Protocol):
    """One command. The docstring of its class is its help text."""

    def prepare_parser(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments of the command."""

    def run(self, args: argparse.Namespace) -> int:
        """Run the command and return the exit code."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        argv: The arguments, without the name of the program; those of the process if None.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A name that the terminal's encoding lacks must not end a report half-way.
            stream.reconfigure(errors="backslashreplace")
    try:
        code = _run(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
    except GraphguardError as error:
        sys.stderr.write(_message(error))
        return error.exit_code if isinstance(error, CommandError) else COULD_NOT_RUN
    except BrokenPipeError:
        _discard_output()
        return BROKEN_PIPE
    except KeyboardInterrupt:
        return INTERRUPTED
    return code


def _run(argv: Sequence[str]) -> int:
    # Only the command that is asked for is imported; the overview needs the help of all.
    names = [argv[0]] if argv and argv[0] in COMMANDS else list(COMMANDS)
    commands = {name: _command(name) for name in names}
    args = _parser(commands).parse_args(argv)
    return commands[args.command].run(args)


def _command(name: str) -> Command:
    module = importlib.import_module(f"{__name__}.{name}")
    command: Command = getattr(module, COMMANDS[name])()
    return command


def _parser(commands: dict[str, Command]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="graphguard",
        description="Checks that all ranks captured CUDA graphs with the same collectives.",
        epilog=_EXIT_CODES,
    )
    parser.add_argument("--version", action="version", version=f"graphguard {__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in commands.items():
        text = inspect.getdoc(type(command)) or ""
        command.prepare_parser(
            subparsers.add_parser(
                name,
                help=text.partition("\n")[0],
                description=text,
                epilog=_EXIT_CODES,
                formatter_class=argparse.RawDescriptionHelpFormatter,
            )
        )
    return parser


def _message(error: GraphguardError) -> str:
    hint = f"  Hint: {printable(error.hint)}\n" if error.hint else ""
    return f"graphguard: {printable(error.message)}\n{hint}"


def _discard_output() -> None:
    """Send what is still buffered nowhere, or the interpreter complains about it when it ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
