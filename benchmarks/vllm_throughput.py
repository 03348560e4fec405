"""Tokens per second of vLLM's CPU engine, with the plugin off, observing and enforcing.

    python -m benchmarks.vllm_throughput [--rounds 10] [--json FILE]

Needs the environment of ``make vllm-env``. The three engines are started one after the other and
live together; all but the one that is measured are stopped (SIGSTOP); they take turns.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import msgspec

from tests.vllm.engine import EngineRun, engine

MODES = ("off", "observe", "enforce")
PROMPTS = [[3 + i] * (4 + i) for i in range(15)]
TOKENS = 512


def main() -> int:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--eager", action="store_true", help="without emulated graphs")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with ExitStack() as stack:
        runs = {}
        for mode in MODES:
            runs[mode] = stack.enter_context(engine(graphguard=mode, emulate=not args.eager))
            _measure(runs[mode])
            _signal(runs[mode], signal.SIGSTOP)
        seconds: dict[str, list[float]] = {mode: [] for mode in MODES}
        for number in range(args.rounds):
            # Each mode comes first, second and third equally often.
            for place in range(len(MODES)):
                mode = MODES[(number + place) % len(MODES)]
                _signal(runs[mode], signal.SIGCONT)
                seconds[mode].append(_measure(runs[mode]))
                _signal(runs[mode], signal.SIGSTOP)
            print(f"round {number + 1} of {args.rounds}", file=sys.stderr)
        for run in runs.values():
            _signal(run, signal.SIGCONT)
    _tell(seconds)
    if args.json:
        args.json.write_bytes(msgspec.json.encode({"eager": args.eager, "seconds": seconds}))
    return 0


def _measure(run: EngineRun) -> float:
    began = time.perf_counter()
    run.generate(PROMPTS, TOKENS)
    return time.perf_counter() - began


def _signal(run: EngineRun, number: int) -> None:
    for pid in run.processes.pids():
        os.kill(pid, number)


def _tell(seconds: dict[str, list[float]]) -> None:
    tokens = len(PROMPTS) * TOKENS
    for mode, measured in seconds.items():
        pairs = [own / off for own, off in zip(measured, seconds["off"], strict=True)]
        quartiles = statistics.quantiles(pairs, n=4)
        print(
            f"{mode:8} {tokens / statistics.median(measured):8.1f} tokens/s; time against off, "
            f"median of {len(pairs)} pairs {statistics.median(pairs):.4f} "
            f"(quartiles {quartiles[0]:.4f} to {quartiles[2]:.4f})"
        )


if __name__ == "__main__":
    sys.exit(main())
