"""``LLM(...)`` in a process of its own, asked to generate by the test."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from tests.vllm.engine.emulation.settings import Emulation, Fault
from tests.vllm.engine.processes import EngineProcesses
from tests.vllm.engine.running import (
    ARGUMENTS,
    GENERATE_SECONDS,
    START_SECONDS,
    EngineFailed,
    Run,
    directory_with_model,
    running,
)

_REPLIES = "replies.jsonl"
_POLL_SECONDS = 0.02


class EngineRun(Run):
    """An offline engine that runs."""

    def __init__(self, directory: Path, processes: EngineProcesses) -> None:
        super().__init__(directory, processes)
        self._read = 0

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        max_tokens: int | Sequence[int] = 16,
        timeout: float = GENERATE_SECONDS,
    ) -> list[list[int]]:
        """Generate greedily, all prompts at once, and return the tokens of each.

        Raises:
            EngineFailed: If the engine raises, ends, or does not answer in time.
        """
        self.begin(prompts, max_tokens)
        return self.finish(timeout)

    def begin(self, prompts: Sequence[Sequence[int]], max_tokens: int | Sequence[int] = 16) -> None:
        """Ask for tokens and do not wait for them; :meth:`finish` does."""
        each = [max_tokens] * len(prompts) if isinstance(max_tokens, int) else list(max_tokens)
        self._ask({"call": "generate", "prompts": [list(p) for p in prompts], "max_tokens": each})

    def finish(self, timeout: float = GENERATE_SECONDS) -> list[list[int]]:
        """Wait for the tokens that were asked for last.

        Raises:
            EngineFailed: If the engine raises, ends, or does not answer in time.
        """
        tokens: list[list[int]] = self._answer(timeout)
        return tokens

    def rpc(self, method: str, *arguments: Any, timeout: float = 60.0) -> list[Any]:
        """Call a method of every worker, as ``LLM.collective_rpc`` does."""
        self._ask({"call": "rpc", "method": method, "arguments": arguments})
        answers: list[Any] = self._answer(timeout)
        return answers

    def metrics(self, timeout: float = 30.0) -> dict[str, float]:
        """Return the counters and gauges of ``LLM.get_metrics``."""
        self._ask({"call": "metrics"})
        values: dict[str, float] = self._answer(timeout)
        return values

    def wait_until_ready(self, timeout: float = START_SECONDS) -> None:
        """Wait until the engine has started."""
        self._answer(timeout)

    def _ask(self, request: dict[str, Any]) -> None:
        pipe = self.processes.leader.stdin
        if pipe is None:
            raise RuntimeError("the engine was started without an input")
        try:
            pipe.write(msgspec.json.encode(request) + b"\n")
            pipe.flush()
        except BrokenPipeError as error:
            raise EngineFailed("ended", "the engine has ended", self.log) from error

    def _answer(self, timeout: float) -> Any:
        deadline = time.monotonic() + timeout
        while not (line := self._next_line()):
            code = self.processes.leader.poll()
            if code is not None and not (line := self._next_line()):
                raise EngineFailed("ended", f"the engine ended with {code}", self.log)
            if time.monotonic() > deadline:
                raise EngineFailed("timeout", f"no answer in {timeout:.0f} s", self.log)
            time.sleep(_POLL_SECONDS)
        reply = msgspec.json.decode(line)
        if "error" in reply:
            raise EngineFailed(reply["error"], reply["message"], self.log)
        return reply["answer"]

    def _next_line(self) -> bytes:
        with (self.directory / _REPLIES).open("rb") as replies:
            replies.seek(self._read)
            line = replies.readline()
        if not line.endswith(b"\n"):
            return b""
        self._read += len(line)
        return line


@contextmanager
def engine(
    *,
    emulate: Emulation | bool = True,
    graphguard: str | None = None,
    faults: Sequence[Fault] = (),
    step_seconds: int = 30,
    extra_environment: dict[str, str] | None = None,
    under: Sequence[str] = (),
    wait: bool = True,
    niceness: int = 5,
    **arguments: Any,
) -> Iterator[EngineRun]:
    """Start an engine, and end it and all that it left behind.

    Args:
        emulate: The graphs; True for FULL_AND_PIECEWISE, False for the eager engine.
        graphguard: The mode of graphguard's plugin, or None for an engine without it.
        faults: What goes wrong.
        step_seconds: VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS.
        extra_environment: More variables; they win over the harness's own.
        under: A command that runs the engine, given after it.
        wait: Whether to wait until it has started.
        niceness: How far its processes stand back for others.
        **arguments: More arguments of ``LLM``; they win over the harness's own.

    Raises:
        EngineFailed: If it does not start.
    """
    with directory_with_model() as directory:
        (directory / _REPLIES).touch()
        with running(
            [*under, *_command(directory, arguments)],
            directory,
            emulate=emulate,
            graphguard=graphguard,
            faults=faults,
            step_seconds=step_seconds,
            extra_environment=extra_environment,
            gently=30.0,
            niceness=niceness,
        ) as processes:
            run = EngineRun(directory, processes)
            if wait:
                run.wait_until_ready()
            yield run


def _command(directory: Path, arguments: dict[str, Any]) -> list[str]:
    everything = ARGUMENTS | {
        "model": str(directory / "model"),
        "skip_tokenizer_init": True,
        "disable_log_stats": False,
    }
    return [
        sys.executable,
        "-m",
        "tests.vllm.engine.program",
        str(directory / _REPLIES),
        msgspec.json.encode(everything | arguments).decode(),
    ]
