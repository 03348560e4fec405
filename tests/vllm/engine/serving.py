"""``vllm serve`` as a test sees it: a server on a port of its own."""

from __future__ import annotations

import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from tests.vllm.engine.emulation.settings import Emulation, Fault
from tests.vllm.engine.processes import EngineProcesses, wait_until
from tests.vllm.engine.running import (
    ARGUMENTS,
    GENERATE_SECONDS,
    START_SECONDS,
    EngineFailed,
    Run,
    directory_with_model,
    running,
)

_NAME = "tiny"
_HOST = "127.0.0.1"


class ServerRun(Run):
    """A server that runs."""

    def __init__(self, directory: Path, processes: EngineProcesses, port: int) -> None:
        super().__init__(directory, processes)
        self.address = f"http://{_HOST}:{port}"

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        max_tokens: int = 16,
        timeout: float = GENERATE_SECONDS,
        rank: int | None = None,
    ) -> list[list[int]]:
        """Send a request for each prompt, all at once, and return the tokens of each.

        Args:
            prompts: The prompts.
            max_tokens: How many tokens each gets.
            timeout: How long to wait for each.
            rank: The data-parallel rank that serves all of them, or None for vLLM's own choice.

        Raises:
            EngineFailed: If a request fails, or is not answered in time.
        """
        with ThreadPoolExecutor(len(prompts)) as pool:
            return list(pool.map(lambda p: self._complete(p, max_tokens, timeout, rank), prompts))

    def get(self, path: str, timeout: float = 10.0) -> str:
        """Return what the server says at a path: ``/metrics``, ``/health``.

        Raises:
            OSError: If it does not answer, or not with success.
        """
        with urllib.request.urlopen(self.address + path, timeout=timeout) as answer:  # noqa: S310
            text: str = answer.read().decode()
            return text

    def is_ready(self) -> bool:
        """Whether the server says that it is well."""
        try:
            self.get("/health", timeout=2.0)
        except OSError:
            return False
        return True

    def wait_until_ready(self, timeout: float = START_SECONDS) -> None:
        """Wait until the server answers.

        Raises:
            EngineFailed: If it ends, or does not answer in time.
        """
        leader = self.processes.leader
        wait_until(lambda: leader.poll() is not None or self.is_ready(), timeout, interval=0.5)
        if not self.is_ready():
            kind = "timeout" if leader.poll() is None else "ended"
            raise EngineFailed(kind, "the server did not get ready", self.log)

    def _complete(
        self, prompt: Sequence[int], max_tokens: int, timeout: float, rank: int | None
    ) -> list[int]:
        body = {
            "model": _NAME,
            "prompt": list(prompt),
            "max_tokens": max_tokens,
            "temperature": 0,
            "ignore_eos": True,
            "return_token_ids": True,
        }
        request = urllib.request.Request(  # noqa: S310 - the address is our own
            f"{self.address}/v1/completions",
            data=msgspec.json.encode(body),
            headers={"Content-Type": "application/json"}
            | ({} if rank is None else {"X-data-parallel-rank": str(rank)}),
        )
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:  # noqa: S310
                tokens: list[int] = msgspec.json.decode(answer.read())["choices"][0]["token_ids"]
                return tokens
        except TimeoutError as error:
            raise EngineFailed("timeout", f"no answer in {timeout:.0f} s", self.log) from error
        except urllib.error.HTTPError as error:
            said = error.read().decode(errors="replace")
            raise EngineFailed(f"HTTP {error.code}", said, self.log) from error
        except OSError as error:
            raise EngineFailed("ended", str(error), self.log) from error


@contextmanager
def server(
    *,
    emulate: Emulation | bool = True,
    graphguard: str | None = None,
    faults: Sequence[Fault] = (),
    step_seconds: int = 30,
    extra_environment: dict[str, str] | None = None,
    experts: bool = False,
    **arguments: Any,
) -> Iterator[ServerRun]:
    """Start a server, and end it and all that it left behind. The arguments are those of engine().

    With ``experts`` it serves the model that has them.

    Raises:
        EngineFailed: If it does not start.
    """
    with directory_with_model(experts=experts) as directory:
        port = _free_port()
        with running(
            _command(directory, port, arguments),
            directory,
            emulate=emulate,
            graphguard=graphguard,
            faults=faults,
            step_seconds=step_seconds,
            extra_environment=extra_environment,
            gently=0.0,
        ) as processes:
            run = ServerRun(directory, processes, port)
            run.wait_until_ready()
            yield run


def _command(directory: Path, port: int, arguments: dict[str, Any]) -> list[str]:
    command = [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve"]
    command += [str(directory / "model"), "--served-model-name", _NAME]
    command += ["--host", _HOST, "--port", str(port)]
    for name, value in (ARGUMENTS | arguments).items():
        option = name.replace("_", "-")
        if isinstance(value, bool):
            command.append(f"--{option}" if value else f"--no-{option}")
        else:
            text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
            command += [f"--{option}", text]
    return command


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind((_HOST, 0))
        port: int = listener.getsockname()[1]
        return port
