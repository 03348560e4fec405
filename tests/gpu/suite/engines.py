"""An engine of vLLM in a process of its own, which answers one request after the other."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

POLL_SECONDS = 0.02
DEATH_SECONDS = 20.0
MODELS = Path(__file__).parent / "models"
NO_NETWORK = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    # The engine in its own process's main thread: a hang is one process.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_USE_FLASHINFER_SAMPLER": "0",
    "VLLM_USE_DEEP_GEMM": "0",
    "VLLM_MLA_DISABLE": "1",
}


class EngineError(Exception):
    """An engine did not start, or did not answer."""


def arguments(model: str, cudagraph_mode: str, drafts: int) -> dict[str, Any]:
    """Return the arguments of ``vllm.LLM`` for a tiny model of random weights."""
    compilation: dict[str, Any] = {"cudagraph_mode": cudagraph_mode}
    if cudagraph_mode == "FULL_DECODE_ONLY":
        # Without the compiler, which a machine may not have what it needs for.
        compilation["mode"] = 0
    return {
        "model": str(MODELS / model),
        "load_format": "dummy",
        "skip_tokenizer_init": True,
        "max_model_len": 512,
        "max_num_seqs": 16,
        "max_num_batched_tokens": 512,
        # Three of them live on the device together.
        "gpu_memory_utilization": 0.15,
        "attention_backend": "TRITON_ATTN",
        "speculative_config": {"method": "mtp", "num_speculative_tokens": drafts},
        "compilation_config": compilation,
        "worker_extension_cls": "graphguard.vllm.worker.GuardedWorker",
    }


class Engine:
    """One engine; closed, it and its process are gone.

    Args:
        vllm: The folder that holds it.
        given: Arguments of ``vllm.LLM``.
        mode: Of graphguard.
        folder: For its log, its replies, its manifests and its decisions.
        more: More variables.
    """

    def __init__(
        self, vllm: str, given: dict[str, Any], mode: str, folder: Path, more: Mapping[str, str]
    ) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self._replies = folder / "replies"
        self._replies.touch()
        self._read = 0
        program = "tests.gpu.suite.programs.engine"
        text = msgspec.json.encode(given).decode()
        with (folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", program, str(self._replies), text],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=_environment(vllm, mode, folder, more),
            )

    def answer(self, seconds: float) -> Any:
        """Return the next answer.

        Raises:
            EngineError: If it says that it failed, ends, or does not answer in time.
        """
        deadline = time.monotonic() + seconds
        while True:
            ended = self._process.poll() is not None
            line, newline, _ = self._replies.read_bytes()[self._read :].partition(b"\n")
            if newline:
                self._read += len(line) + 1
                reply = msgspec.json.decode(line, type=dict[str, Any])
                if "error" in reply:
                    raise EngineError(f"{reply['error']}: {reply.get('message', '')}"[:600])
                return reply.get("answer")
            if ended:
                raise EngineError(f"it ended with {self._process.returncode}: {self.log()[-600:]}")
            if time.monotonic() > deadline:
                raise EngineError(f"no answer within {seconds:.0f} s: {self.log()[-300:]}")
            time.sleep(POLL_SECONDS)

    def send(self, **request: Any) -> None:
        """Ask for something; :meth:`answer` has what comes of it."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(msgspec.json.encode(request) + b"\n")
            self._process.stdin.flush()

    def ask(self, seconds: float, **request: Any) -> Any:
        """Ask for something and wait for the answer.

        Raises:
            EngineError: As :meth:`answer`.
        """
        self.send(**request)
        return self.answer(seconds)

    def generate(
        self, prompts: Sequence[Sequence[int]], tokens: int, seconds: float
    ) -> list[list[int]]:
        """Generate greedily.

        Raises:
            EngineError: As :meth:`answer`.
        """
        given = [list(prompt) for prompt in prompts]
        answer: list[list[int]] = self.ask(seconds, call="generate", prompts=given, tokens=tokens)
        return answer

    def log(self) -> str:
        """Return what it has printed."""
        return (self.folder / "log").read_text(errors="replace")

    def decisions(self) -> list[dict[str, Any]]:
        """Return the decisions that were not to replay the graph of exactly the batch."""
        found = []
        for path in (self.folder / "decisions").glob("*.jsonl"):
            for line in path.read_bytes().splitlines():
                with suppress(msgspec.DecodeError):
                    found.append(msgspec.json.decode(line, type=dict[str, Any]))
        return found

    def close(self) -> None:
        """End it."""
        if self._process.poll() is None:
            self._process.kill()
        if self._process.stdin is not None:
            with suppress(OSError):
                self._process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(DEATH_SECONDS)


def _environment(vllm: str, mode: str, folder: Path, more: Mapping[str, str]) -> dict[str, str]:
    (folder / "decisions").mkdir(mode=0o700)
    paths = [vllm, str(Path(__file__).parents[3]), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        **NO_NETWORK,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "VLLM_CACHE_ROOT": str(folder.parent / "vllm-cache"),
        "GRAPHGUARD_MODE": mode,
        "GRAPHGUARD_DIR": str(folder / "boxes"),
        "GRAPHGUARD_DECISIONS": str(folder / "decisions"),
        **more,
    }
