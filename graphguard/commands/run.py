"""The command ``graphguard run``."""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import redirect_stdout
from pathlib import Path

from graphguard.environment import Mode
from graphguard.errors import CommandError
from graphguard.printable import printable
from graphguard.reporters import run as report
from graphguard.running import place, processes, program, variables
from graphguard.running.outcome import outcome

REPORT_FILE = "report.json"
COULD_NOT_READ = 2
_STANDARD_ERROR = 2


class RunCommand:
    """Run a program that was not changed, record its graphs, and audit them when it has ended.

    Every Python process that the program starts loads graphguard, through its environment. What
    they record goes to a new directory: manifests and black boxes, which are there even if the
    program hangs and is killed. The report goes to standard error, and to report.json there.

    Signals are passed on to the program. The exit code is that of the program, 128 + N if signal N
    ended it; if that is 0, it is 1 where something was found, and 2 where what was recorded cannot
    be read. 126 and 127: the program could not be started.

    Example: graphguard run --output run1 -- torchrun --nproc-per-node 2 serve.py
    """

    def prepare_parser(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments of the command."""
        parser.add_argument(
            "--output",
            type=Path,
            metavar="DIR",
            help="where everything goes (default: graphguard-DATE-TIME-PID, here)",
        )
        parser.add_argument(
            "--mode",
            choices=[mode.value for mode in Mode],
            help="mode of the guards that name none (default: GRAPHGUARD_MODE, or observe)",
        )
        parser.add_argument(
            "--interpose",
            action="store_true",
            help="load the NCCL interposer into every process, too (LD_PRELOAD): it sees "
            "reductions, buffers and peers, which the profiler plugin is not told",
        )
        parser.add_argument(
            "--json",
            action="store_true",
            help="print the report as JSON; the program's standard output goes to standard error",
        )
        parser.add_argument(
            "program", nargs=argparse.REMAINDER, metavar="-- PROGRAM", help="and its arguments"
        )

    def run(self, args: argparse.Namespace) -> int:
        """Run the program and print what was recorded; its exit code, or 1 for findings."""
        command = args.program[1:] if args.program[:1] == ["--"] else args.program
        if not command:
            raise CommandError(
                "no program was named", hint="graphguard run [options] -- python serve.py"
            )
        directory = place.prepare(args.output or Path(place.default_name()))
        given = variables.variables(
            os.environ,
            output=directory,
            processes=directory / processes.DIRECTORY,
            mode=Mode(args.mode) if args.mode else None,
            interpose=args.interpose,
        )
        _say(f"recording in {directory}")
        sys.stdout.flush()
        output = _STANDARD_ERROR if args.json else None
        return _finish(program.run(command, given, output=output), directory, args.json)


def _finish(code: int, directory: Path, as_json: bool) -> int:
    try:
        seen = outcome(code, directory)
    except OSError as error:
        _say(f"the program ended with {code}; what it recorded cannot be read: {error}")
        return code or COULD_NOT_READ
    rendered = report.render_json(seen)
    _write(directory / REPORT_FILE, rendered)
    if as_json:
        sys.stdout.write(rendered)
    else:
        # Whether it may have colours depends on where it goes.
        with redirect_stdout(sys.stderr):
            sys.stdout.write(report.render(seen))
    return code or int(seen.found)


def _write(path: Path, content: str) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with open(os.open(path, flags, 0o600), "w", encoding="utf-8") as file:
            file.write(content)
    except OSError as error:
        # The report is printed all the same.
        _say(f"cannot write {path}: {error.strerror}")


def _say(sentence: str) -> None:
    sys.stderr.write(f"graphguard: {printable(sentence)}\n")
    sys.stderr.flush()
