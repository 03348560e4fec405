"""Reading one log: from its bytes to a diagnosis."""

from __future__ import annotations

import codecs
import io
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from graphguard.audit.logs import known_threads, reasoning, signs, timeline
from graphguard.audit.logs.advice import advise
from graphguard.audit.logs.bundle import Bundle
from graphguard.audit.logs.collecting import Collected, quote
from graphguard.audit.logs.model import Diagnosis, Evidence
from graphguard.audit.logs.scanning import scan
from graphguard.audit.logs.situation import Situation
from graphguard.audit.logs.step import step_of
from graphguard.errors import CommandError

STANDARD_INPUT = "-"


def read_log(path: Path, bundle: Bundle | None = None) -> Diagnosis:
    """Read the log of an engine, of any size.

    Args:
        path: The log; a regular file or a pipe.
        bundle: What was recorded beside it, which decides more than a log can.

    Raises:
        CommandError: If it cannot be read.
    """
    try:
        if stat.S_ISDIR(os.stat(path).st_mode):
            raise CommandError(f"{path} is a directory", hint="name the log itself")
        with open(path, "rb", buffering=0) as stream:
            return read_stream(stream, str(path), bundle)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise CommandError(
            f"cannot read {path}: {reason}", hint="check the path and its permissions"
        ) from error


def read_bytes(content: bytes, path: str = "", bundle: Bundle | None = None) -> Diagnosis:
    """Read a log that is in memory."""
    return read_stream(io.BytesIO(content), path, bundle)


def read_stream(stream: BinaryIO, path: str, bundle: Bundle | None = None) -> Diagnosis:
    """Read a log from a stream of bytes."""
    told = Collected()
    told.finish(scan(_Decoded(stream).read, told.take, lambda: told.configuration.engine))
    return _diagnose(told, path, bundle)


class _Decoded:
    """A stream as UTF-8, where it begins with the mark of UTF-16, as tools on Windows write it."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._decoder: codecs.IncrementalDecoder | None = None
        self._begun = False

    def read(self, size: int = -1) -> bytes:
        """Return at least a byte, and nothing at the end."""
        block = self._stream.read(size)
        if not self._begun:
            self._begun = True
            # A pipe may give a single byte, and the mark has two.
            block += self._stream.read(1) if len(block) == 1 else b""
            if block.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                self._decoder = codecs.getincrementaldecoder("utf-16")("replace")
        if self._decoder is None or not block:
            return block
        return self._decoder.decode(block).encode("utf-8", "replace") or self.read(size)


def _diagnose(told: Collected, path: str, bundle: Bundle | None) -> Diagnosis:
    situation = Situation(told)
    configuration = told.configuration
    step = None
    if told.dump is not None:
        step = step_of(told.dump, configuration, tuple(told.dump_lines))
        step = step if step.words else None
    readings = reasoning.reason(situation, step)
    if bundle is not None:
        readings = bundle.decided(readings)
    shown = signs.signs_of(situation, step, reasoning.wrong_phase(situation, step))
    for thread, line in told.named.items():
        shown[f"names {thread}"] = (Evidence(line.number, thread),)
    return Diagnosis(
        path=path,
        engine=configuration.engine,
        version=configuration.version.value if configuration.version else None,
        fatal=timeline.fatal(situation),
        step=step,
        supported=readings.supported,
        excluded=readings.excluded,
        undecided=readings.undecided,
        timeline=timeline.timeline(situation),
        known_threads=known_threads.matches(shown, configuration) if situation.causes else (),
        first_cause=timeline.first_cause(situation),
        try_next=advise(situation, step, readings),
        configuration=configuration.settings,
        notes=tuple(_notes(situation, bundle)),
        lines=told.lines,
    )


def _notes(situation: Situation, bundle: Bundle | None) -> Iterator[str]:
    told = situation.told
    if situation.start_up:
        last = situation.start_up[-1].line.number
        yield (
            f"{len(situation.start_up)} warning(s) of the queue up to line {last} are from "
            "start-up, which ended well: graphs were captured or weights loaded meanwhile"
        )
    if situation.passed:
        last = situation.passed[-1].line.number
        count = len(situation.passed)
        yield f"{count} warning(s) of the queue up to line {last} passed: steps ended after"
    if situation.idle:
        count, last = len(situation.idle), situation.idle[-1].line.number
        yield f"{count} warning(s) of the queue up to line {last} came while no request was running"
    errors = told.count("exception")
    if errors and not situation.raised and not situation.queue and not situation.causes:
        line = quote(told.of("exception")[0].line)
        yield f"{errors} exception(s), the first on line {line.line}, ended no engine: {line.text}"
    if told.dump is not None and any("step_counter=0" in each.text for each in told.dump_lines):
        yield "step_counter counts data-parallel waves and is always 0 without them; it is no sign"
    if told.lines and told.configuration.engine is None:
        yield "no line of vLLM, SGLang, TensorRT-LLM or PyTorch's NCCL was recognised"
    if not told.lines:
        yield "the log is empty"
    if bundle is not None:
        yield from bundle.notes


def as_json(diagnosis: Diagnosis) -> dict[str, object]:
    """Return a diagnosis as what its JSON holds."""
    content: dict[str, object] = msgspec.to_builtins(diagnosis)
    return content
