"""A real engine with tensor parallelism, both of its ranks on one device.

``python -m tests.gpu.suite.stages.vllm_ranks SETTINGS VERSION``

vLLM's own executors give each local rank a device of its own. With ``external_launcher`` it takes
the rank and the device from the environment, as under torchrun, so two ranks may name one device,
if NCCL lets them (``v1/executor/uniproc_executor.py`` and ``v1/worker/gpu_worker.py`` of 0.20.1 and
0.26.0).
"""

from __future__ import annotations

import os
import socket
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.gpu.suite import engines, needs
from tests.gpu.suite.engines import Engine, EngineError
from tests.gpu.suite.lines import Claim, NotRun, tell
from tests.gpu.suite.program import run_stage
from tests.gpu.suite.ranks import RANKS
from tests.gpu.suite.settings import Settings

MODES = ("off", "enforce")
MODEL, CUDAGRAPH_MODE, DRAFTS = "mimo", "FULL_DECODE_ONLY", 1
START_SECONDS = 120.0
ANSWER_SECONDS = 60.0
TOKENS = 32
PROMPTS = [[3 + number] * (4 + number) for number in range(15)]
WORDS_OF_FINDINGS = ("padded slot", "ranks differ", "PaddingMismatch", "RanksDiverged", "STALL")


class EngineRanks:
    """The ranks of one engine. They are asked together, for each waits for the other.

    Args:
        settings: Of the stage.
        version: Of vLLM.
        mode: Of graphguard.
        folder: For what they write.
        stack: Ends them.
    """

    def __init__(
        self, settings: Settings, version: str, mode: str, folder: Path, stack: ExitStack
    ) -> None:
        self.boxes = folder / "boxes"
        self.ranks: list[Engine] = []
        shared = _for_two_ranks(settings) | {
            "WORLD_SIZE": str(RANKS),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(_free_port()),
            "GRAPHGUARD_DIR": str(self.boxes),
            "GLOO_SOCKET_IFNAME": "lo",
            "VLLM_USE_V2_MODEL_RUNNER": "1" if version == "0.26.0" else "0",
            # Both reach for the other's device by other ways than NCCL.
            "VLLM_ALLREDUCE_USE_SYMM_MEM": "0",
            "VLLM_ALLREDUCE_USE_FLASHINFER": "0",
        }
        for rank in range(RANKS):
            more = shared | {"RANK": str(rank), "LOCAL_RANK": "0"}
            given = _arguments(settings.device)
            engine = Engine(settings.vllm[version], given, mode, folder / f"rank{rank}", more)
            stack.callback(engine.close)
            self.ranks.append(engine)

    def started(self, seconds: float) -> None:
        """Wait until all have started.

        Raises:
            EngineError: If one does not.
        """
        self._answers(seconds)

    def generate(self) -> list[list[list[int]]]:
        """Generate greedily, and return the tokens of each rank.

        Raises:
            EngineError: If one does not answer.
        """
        for rank in self.ranks:
            rank.send(call="generate", prompts=PROMPTS, tokens=TOKENS)
        return self._answers(ANSWER_SECONDS)

    def reports(self) -> list[dict[str, Any]]:
        """Return what graphguard says of each rank.

        Raises:
            EngineError: If one does not answer.
        """
        for rank in self.ranks:
            rank.send(call="rpc", method="graphguard_report")
        return [report for (report,) in self._answers(ANSWER_SECONDS)]

    def findings(self) -> list[str]:
        """Return the lines of the logs that tell a finding."""
        lines = [line for rank in self.ranks for line in rank.log().splitlines()]
        return [line for line in lines if any(word in line for word in WORDS_OF_FINDINGS)]

    def _answers(self, seconds: float) -> list[Any]:
        deadline = time.monotonic() + seconds
        return [rank.answer(max(1.0, deadline - time.monotonic())) for rank in self.ranks]


def run_version(settings: Settings, version: str) -> None:
    """Serve the same prompts without graphguard and enforced, one after the other."""
    deadline = time.monotonic() + settings.seconds
    about = f"vLLM {version}, TP=2 on one device"
    without: list[list[int]] | None = None
    for mode in MODES:
        left = deadline - time.monotonic()
        if left < 30:
            tell(NotRun(f"{about}, {mode}", "no time was left to start it"))
            continue
        with ExitStack() as stack:
            tokens = _served(settings, version, mode, left, stack)
        if mode == "off":
            without = tokens
            if tokens is None:
                tell(NotRun(f"{about}, enforced", "it does not serve without graphguard either"))
                return
        elif tokens is not None and without is not None:
            differ = sum(a != b for a, b in zip(tokens, without, strict=True))
            what = f"{about}: the tokens in enforce are those without graphguard"
            tell(Claim(what, not differ, f"{differ} of {len(PROMPTS)} requests differ"))


def _served(
    settings: Settings, version: str, mode: str, seconds: float, stack: ExitStack
) -> list[list[int]] | None:
    """Start the ranks, serve, and compare; return the tokens of rank 0, or None."""
    about = f"vLLM {version}, TP=2 on one device, {mode}"
    ranks = EngineRanks(settings, version, mode, Path(settings.scratch, mode), stack)
    try:
        ranks.started(min(START_SECONDS, seconds))
        tokens = ranks.generate()
        what = f"{about}: both ranks serve the same tokens"
        tell(Claim(what, all(each == tokens[0] for each in tokens), ""))
        if mode != "off":
            _compare(ranks, about)
    except EngineError as error:
        # Without graphguard it is NCCL's and vLLM's to say whether this can be done.
        held = None if mode == "off" else False
        tell(Claim(f"{about}: both ranks start and serve", held, str(error)[:1_500]))
        return None
    return tokens[0]


def _compare(ranks: EngineRanks, about: str) -> None:
    from graphguard.audit import audit, load
    from graphguard.audit.findings import Severity

    for report in ranks.reports():
        graphs = {m["role"]: len(m["graphs"]) for m in report["models"]}
        calls = sum(m["collectives"] for m in report["models"])
        held = report["sealed"] and bool(graphs.get("target")) and calls > 0
        seen = f"graphs: {graphs}; collectives in them: {calls}; world: {report['world_size']}"
        what = f"{about}: rank {report['rank']} has graphs, with their collectives"
        tell(Claim(what, held, seen))
    manifests = load([ranks.boxes]).manifests
    found = [f for f in audit(manifests) if f.severity is Severity.ERROR]
    seen = "; ".join(f"{f.rule}: {f.what}" for f in found[:3])
    what = f"{about}: the audit passes the manifests of both ranks"
    tell(Claim(what, len(manifests) == RANKS and not found, seen or f"{len(manifests)} manifests"))
    lines = ranks.findings()
    what = f"{about}: no finding in an engine without a fault"
    tell(Claim(what, not lines, lines[0][-500:] if lines else ""))


def _for_two_ranks(settings: Settings) -> dict[str, str]:
    wanted = needs.two_rank_environment(settings)
    return {name: value for name, value in wanted.items() if os.environ.get(name) != value}


def _arguments(device: str) -> dict[str, Any]:
    given = engines.arguments(MODEL, CUDAGRAPH_MODE, DRAFTS) | {
        "tensor_parallel_size": RANKS,
        "distributed_executor_backend": "external_launcher",
        "disable_custom_all_reduce": True,
        # What is free changes under a rank that measures it, while the other allocates.
        "kv_cache_memory_bytes": 256 * 2**20,
    }
    if device == "cpu":
        # Shows that this program works; nothing of it is a result.
        del given["attention_backend"], given["compilation_config"]
        given["enforce_eager"] = True
    return given


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port


def main() -> None:
    """Run the version that the command line names."""
    version = sys.argv[2] if len(sys.argv) > 2 else "0.20.1"
    run_stage(
        f"vLLM {version}, TP=2",
        (needs.vllm(version), needs.two_ranks),
        lambda settings: run_version(settings, version),
    )


NEEDS = (needs.vllm("0.20.1"), needs.two_ranks)

if __name__ == "__main__":
    main()
