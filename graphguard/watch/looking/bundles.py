"""The bundles of stalls that lie in a directory, as far as who looks at many of them wants to know.

A bundle is made by other processes, and may be of an older or a newer version, half written, or
something else that has its name. Nothing of it is trusted.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from typing import Annotated

import msgspec
from msgspec import Meta

from graphguard.blackbox.directory import is_held

MAX_BUNDLES = 16
"""The newest ones that are looked at."""

MAX_VERDICT_BYTES = 2**18

VERDICT = "verdict.json"
NODES = "nodes.json"
AFTERWARDS = ("afterwards.jsonl", "later.jsonl")
"""What became of the stall, a line for each thing."""

_NAME = re.compile(r"stall-[0-9A-Za-z][\w.+:-]{0,200}", re.ASCII)
_LOCK = re.compile(r"stall-([\w.+:-]{1,200})\.lock", re.ASCII)
_NUMBER = re.compile(r"\.\d{1,2}$", re.ASCII)
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]", re.ASCII)
_ENDS = ("recovered", "gone")
_MAX_LATER = 1_000
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK

_Line = Annotated[str, Meta(max_length=4096)]
_Number = Annotated[int, Meta(ge=0, le=2**63 - 1)]
_Ranks = Annotated[tuple[_Number, ...], Meta(max_length=65_536)]
_Seconds = Annotated[float, Meta(ge=0, le=1e12)]


class ToldVerdict(msgspec.Struct, frozen=True):
    """What is said of a stall, of which anything may be missing.

    Attributes:
        stall_class: Its class: ``host-stuck``.
        ranks: Those that are blamed.
        waiting: Those that wait.
        group: The group of ranks.
        step: The step in it.
        role: The role of the graph.
        graph: What is under way.
        batch: The batch descriptor.
        seconds: For how long it was under way when the verdict was made.
        since: When it began, as ISO 8601 in UTC.
        where: The call that a blamed rank is in.
        sentence: All of it in words.
    """

    stall_class: Annotated[str, Meta(max_length=64)] = ""
    ranks: _Ranks = ()
    waiting: _Ranks = ()
    group: _Line = ""
    step: _Number = 0
    role: _Line = ""
    graph: _Line = ""
    batch: _Line = ""
    seconds: _Seconds = 0.0
    since: Annotated[str, Meta(max_length=64)] = ""
    where: _Line = ""
    sentence: _Line = ""


class _Later(msgspec.Struct, frozen=True):
    event: Annotated[str, Meta(max_length=64)] = ""
    what: _Line = ""
    seconds: _Seconds | None = None
    stall_class: Annotated[str, Meta(max_length=64)] = ""
    ranks: _Ranks = ()
    sentence: _Line = ""

    @property
    def kind(self) -> str:
        return self.event or self.what


class _Nodes(msgspec.Struct, frozen=True):
    sentence: _Line = ""


class Bundle(msgspec.Struct, frozen=True):
    """The bundle of one stall.

    Attributes:
        path: Its directory.
        made_ns: When it was made, in nanoseconds since the epoch.
        examined: Whether its examiner is still at it.
        verdict: What it says, or None.
        problem: Why it says nothing, if it does not.
        over: How it ended, if it did: ``recovered``, or ``gone`` with its processes.
        over_seconds: After how long, where that is known.
        nodes: What all nodes together say of it, where the ranks are on several.
    """

    path: str
    made_ns: int
    examined: bool
    verdict: ToldVerdict | None
    problem: str = ""
    over: str = ""
    over_seconds: float | None = None
    nodes: str = ""

    @property
    def name(self) -> str:
        """The name of its directory."""
        return os.path.basename(self.path)

    def is_of(self, job: str) -> bool:
        """Whether it is one of a job: its name ends with the beginning of the job's."""
        return _is_of(self.name, job)


def bundles(directory: str | os.PathLike[str], since_ns: int = 0) -> tuple[Bundle, ...]:
    """Return the bundles in a directory, newest first, at most ``MAX_BUNDLES``.

    Args:
        directory: The one of the rings.
        since_ns: Only those that were made then or later.
    """
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return ()
    try:
        found = sorted(_found(descriptor, since_ns), reverse=True)[:MAX_BUNDLES]
        held = _held_jobs(descriptor) if found else ()
        return tuple(
            _bundle(descriptor, os.fspath(directory), name, made_ns, held)
            for made_ns, name in found
        )
    finally:
        os.close(descriptor)


def _found(directory: int, since_ns: int) -> Iterator[tuple[int, str]]:
    for name in os.listdir(directory):
        if _NAME.fullmatch(name) is None or name.endswith(".lock"):
            continue
        with suppress(OSError):
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode) and status.st_mtime_ns >= since_ns:
                yield status.st_mtime_ns, name


def _held_jobs(directory: int) -> tuple[str, ...]:
    """Return the jobs of which a stall is being examined."""
    jobs = []
    for name in os.listdir(directory):
        match = _LOCK.fullmatch(name)
        if match is None:
            continue
        with suppress(OSError):
            descriptor = os.open(name, _FLAGS, dir_fd=directory)
            try:
                if is_held(descriptor):
                    jobs.append(match[1])
            finally:
                os.close(descriptor)
    return tuple(jobs)


def _bundle(directory: int, path: str, name: str, made_ns: int, held: tuple[str, ...]) -> Bundle:
    verdict: ToldVerdict | None = None
    problem = ""
    later: list[_Later] = []
    nodes = _Nodes()
    try:
        bundle = os.open(name, _FLAGS | os.O_DIRECTORY, dir_fd=directory)
    except OSError as error:
        return Bundle(f"{path}/{name}", made_ns, False, None, f"cannot be read: {error.strerror}")
    try:
        verdict = msgspec.json.decode(_content(bundle, VERDICT), type=ToldVerdict)
    except FileNotFoundError:
        problem = "there is no verdict yet"
    except OSError as error:
        problem = f"its verdict cannot be read: {error.strerror}"
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        problem = f"its verdict cannot be read: {error}"
    else:
        later = _later(bundle)
        verdict = _as_changed(verdict, later)
        with suppress(OSError, msgspec.DecodeError, ValueError, RecursionError):
            nodes = msgspec.json.decode(_content(bundle, NODES), type=_Nodes)
    finally:
        os.close(bundle)
    ends = [line for line in later if line.kind in _ENDS]
    return Bundle(
        path=f"{path}/{name}",
        made_ns=made_ns,
        examined=any(_is_of(name, job) for job in held),
        verdict=verdict,
        problem=problem,
        over=ends[-1].kind if ends else "",
        over_seconds=ends[-1].seconds if ends else None,
        nodes=nodes.sentence,
    )


def _later(bundle: int) -> list[_Later]:
    found: list[_Later] = []
    for name in AFTERWARDS:
        try:
            lines = _content(bundle, name).splitlines()[-_MAX_LATER:]
        except (OSError, ValueError):
            continue
        for line in lines:
            with suppress(msgspec.DecodeError, ValueError, RecursionError):
                found.append(msgspec.json.decode(line, type=_Later))
    return found


def _as_changed(verdict: ToldVerdict, later: list[_Later]) -> ToldVerdict:
    """Return what is said now: a rank that was stuck may have died since."""
    for line in later:
        if line.kind == "changed" and line.stall_class and line.sentence:
            verdict = msgspec.structs.replace(
                verdict,
                stall_class=line.stall_class,
                ranks=line.ranks,
                sentence=line.sentence,
            )
    return verdict


def _is_of(name: str, job: str) -> bool:
    return _NUMBER.sub("", name).endswith("-" + _UNSAFE.sub("-", job)[:8])


def _content(directory: int, name: str) -> bytes:
    descriptor = os.open(name, _FLAGS, dir_fd=directory)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("it is not a regular file")
        content = os.read(descriptor, MAX_VERDICT_BYTES + 1)
    finally:
        os.close(descriptor)
    if len(content) > MAX_VERDICT_BYTES:
        raise ValueError(f"it has more than {MAX_VERDICT_BYTES:,} bytes")
    return content
