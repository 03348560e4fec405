"""What came out of a run of the suite, as a file of JSON."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from tests.gpu.suite.lines import Claim, Figure, NotRun, Told
from tests.gpu.suite.machine import Machine

FORMAT = 1
MAX_FILE_BYTES = 32 * 1024 * 1024


class ResultError(Exception):
    """A file holds no results."""


class StageResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """What came out of one stage.

    Attributes:
        title: Number and name.
        about: What it shows.
        status: ``passed``, ``failed``, ``timed out`` or ``not run``.
        why: Why it is not ``passed``.
        seconds: How long it ran.
        figures: What it measured.
        claims: What it saw.
        not_run: What it left out.
        garbled: Lines of it that could not be read.
        left_behind: Processes it had left behind, which were killed.
        log_tail: The end of its log, if it did not pass.
    """

    title: str
    about: str
    status: str
    why: str = ""
    seconds: float = 0.0
    figures: tuple[Figure, ...] = ()
    claims: tuple[Claim, ...] = ()
    not_run: tuple[NotRun, ...] = ()
    garbled: int = 0
    left_behind: int = 0
    log_tail: str = ""

    @property
    def wrong(self) -> bool:
        """Whether it failed, or something that is claimed was seen not to hold."""
        failed = self.status in ("failed", "timed out")
        return failed or any(claim.held is False for claim in self.claims)


class Result(msgspec.Struct, frozen=True):
    """What came out of a run.

    Attributes:
        machine: Where it ran, and with what.
        began: When, in UTC.
        stages: In the order of the catalogue.
        format: Of the file.
    """

    machine: Machine
    began: str
    stages: tuple[StageResult, ...]
    format: int = FORMAT

    @property
    def wrong(self) -> bool:
        """Whether any stage is."""
        return any(stage.wrong for stage in self.stages)


def stage_result(title: str, about: str, told: Told, **known: object) -> StageResult:
    """Return the result of a stage that has told something."""
    return msgspec.convert(
        {
            "title": title,
            "about": about,
            "figures": told.figures,
            "claims": told.claims,
            "not_run": told.not_run,
            "garbled": told.garbled,
            **known,
        },
        StageResult,
    )


def write(result: Result, path: Path) -> None:
    """Write results so that a reader sees all of them or none."""
    content = msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.new")
    beside.write_bytes(content)
    beside.replace(path)


def read(path: Path) -> Result:
    """Return the results of a file.

    Raises:
        ResultError: If it cannot be read or holds none.
    """
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ResultError(f"{path} is larger than {MAX_FILE_BYTES} bytes")
        result = msgspec.json.decode(path.read_bytes(), type=Result)
    except OSError as error:
        raise ResultError(f"cannot read {path}: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ResultError(f"{path} holds no results: {error}") from error
    if result.format != FORMAT:
        raise ResultError(f"{path} has format {result.format}, and this is format {FORMAT}")
    return result


def added(earlier: Result, later: Result) -> Result:
    """Return the results of two runs on one machine as one: a later stage replaces its namesake.

    A stage that the later run did not get to keeps what the earlier one says.

    Raises:
        ResultError: If they are of different machines.
    """
    if msgspec.structs.replace(earlier.machine, hostname="") != msgspec.structs.replace(
        later.machine, hostname=""
    ):
        raise ResultError("the results are of different machines or versions; keep them apart")
    stages = {stage.title: stage for stage in earlier.stages}
    for stage in later.stages:
        if stage.status != "not run" or stage.title not in stages:
            stages[stage.title] = stage
    order = sorted(stages.values(), key=lambda stage: stage.title)
    return Result(earlier.machine, earlier.began, tuple(order))


def file_stem(machine: Machine, date: str) -> str:
    """Return the name of the files of results: ``gpu-2026-11-21-nvidia-h200``."""
    gpu = re.sub(r"[^a-z0-9]+", "-", machine.gpu.lower()).strip("-") or "no-gpu"
    return f"gpu-{date}-{gpu[:40]}"
