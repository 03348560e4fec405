"""``python -m tests.gpu.suite [--stages 1,3] [--minutes 9] [--vllm VERSION=FOLDER] [--nccl FILE]``.

Ends with 0 if nothing went wrong, 1 if a stage failed or a claim was seen not to hold, 2 if the
command is wrong. What could not be run is no failure; it is in the table with its reason.
"""

from __future__ import annotations

import argparse
import datetime
import signal
import sys
import tempfile
from pathlib import Path

import msgspec

from tests.gpu.suite import bounded, machine, result, table
from tests.gpu.suite.catalogue import STAGES
from tests.gpu.suite.result import Result, ResultError, StageResult
from tests.gpu.suite.runner import Budget, run_stages
from tests.gpu.suite.settings import Settings
from tests.gpu.suite.stage import Stage, chosen

REPOSITORY = Path(__file__).parents[3]
RESULTS = REPOSITORY / "benchmarks" / "results"


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    options = _parser().parse_args(arguments)
    try:
        catalogue = _catalogue(options.catalogue)
        stages = chosen(catalogue, options.stages)
        earlier = result.read(options.onto) if options.onto else None
    except (ValueError, OSError, ResultError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if options.list:
        for stage in stages:
            print(f"{stage.title:26} {stage.seconds:4.0f} s  {stage.about}")
        return 0
    signal.signal(signal.SIGTERM, _interrupt)
    bounded.adopt_orphans()
    with tempfile.TemporaryDirectory(prefix="graphguard-gpu-") as scratch:
        return _run(stages, options, earlier, Path(scratch))


def _run(
    stages: list[Stage], options: argparse.Namespace, earlier: Result | None, scratch: Path
) -> int:
    budget = Budget(options.minutes * 60 if options.minutes else None)
    given = Settings(str(scratch), vllm=dict(options.vllm), nccl=options.nccl or "")
    given.write(scratch / "settings.json")
    if any(stage.needs_device for stage in stages):
        here = machine.ask(scratch / "settings.json")
    else:
        here = machine.Machine(no_device="none is needed")
    print(f"on {here.gpu or 'no device: ' + here.no_device}", flush=True)
    now = datetime.datetime.now(datetime.timezone.utc)
    found: list[StageResult] = []
    out = Output(options, here, now, earlier)
    try:
        for one in run_stages(stages, here, given, budget, scratch / "stages"):
            found.append(one)
            print(f"{one.status:9} {one.title} ({one.seconds:.0f} s) {one.why}", flush=True)
            # After each one: whoever ends this program shall not take the results with it.
            out.write(found)
    except KeyboardInterrupt:
        print("interrupted; what was found until now is kept", file=sys.stderr)
        out.write(found)
        return 1
    final = out.write(found)
    print(table.markdown(final))
    print(out.said)
    return 1 if any(one.wrong for one in found) else 0


class Output:
    """The files that results go to; none where there is no device and no folder was named."""

    def __init__(
        self,
        options: argparse.Namespace,
        here: machine.Machine,
        now: datetime.datetime,
        earlier: Result | None,
    ) -> None:
        self._machine, self._earlier = here, earlier
        self._began = now.strftime("%Y-%m-%dT%H:%M:%SZ")
        stem = result.file_stem(here, now.strftime("%Y-%m-%d"))
        self._path: Path | None
        if options.onto:
            self._path = options.onto
        elif options.out is None and here.no_device:
            self._path = None
        else:
            self._path = _free(Path(options.out or RESULTS), stem)

    def write(self, found: list[StageResult]) -> Result:
        """Write what was found until now, and return it."""
        whole = Result(self._machine, self._began, tuple(found))
        if self._earlier is not None:
            whole = result.added(self._earlier, whole)
        if self._path is not None:
            result.write(whole, self._path)
            self._path.with_suffix(".md").write_text(table.markdown(whole))
        return whole

    @property
    def said(self) -> str:
        """Where the results are."""
        if self._path is None:
            return "Nothing was written: without a device there are no results."
        return f"Written to {self._path} and {self._path.with_suffix('.md').name}."


def _free(folder: Path, stem: str) -> Path:
    """Return a file that is not there: results stay as they came."""
    number, path = 1, folder / f"{stem}.json"
    while path.exists():
        number += 1
        path = folder / f"{stem}-{number}.json"
    return path


def _catalogue(file: Path | None) -> tuple[Stage, ...]:
    if file is None:
        return STAGES
    try:
        return msgspec.json.decode(file.read_bytes(), type=tuple[Stage, ...])
    except msgspec.DecodeError as error:
        raise ValueError(f"{file} holds no stages: {error}") from error


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _brought(text: str) -> tuple[str, str]:
    version, equals, folder = text.partition("=")
    if not (version and equals and folder):
        raise argparse.ArgumentTypeError("use VERSION=FOLDER")
    return version, str(Path(folder).absolute())


def _library(text: str) -> str:
    path = Path(text).absolute()
    if not path.is_file() or any(character in str(path) for character in ": \t\n"):
        raise argparse.ArgumentTypeError("name a file, without blanks or colons in its path")
    return str(path)


def _minutes(text: str) -> float:
    value = float(text)
    if not 0 < value <= 24 * 60:
        raise argparse.ArgumentTypeError("give minutes above 0 and up to a day")
    return value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.gpu.suite", description=__doc__)
    parser.add_argument("--stages", default="", help="numbers, or number:name; all without it")
    parser.add_argument("--minutes", type=_minutes, help="what does not fit is not started")
    parser.add_argument("--vllm", type=_brought, action="append", default=[], metavar="VERSION=DIR")
    parser.add_argument("--nccl", type=_library, help="a libnccl.so.2 from 2.30 on")
    parser.add_argument("--out", type=Path, help="folder of the results (benchmarks/results)")
    parser.add_argument("--onto", type=Path, help="a file of results that these are added to")
    parser.add_argument("--catalogue", type=Path, help="a JSON file of other stages")
    parser.add_argument("--list", action="store_true", help="list the stages and end")
    return parser


if __name__ == "__main__":
    sys.exit(main())
