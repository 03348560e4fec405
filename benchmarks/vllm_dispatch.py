"""What the guard adds to a step on vLLM's V1 runner, beside vLLM's own dispatch in the same run.

    python -m benchmarks.vllm_dispatch [--json FILE]

Needs the environment of ``make vllm-env``. Two ranks are two guards in this process, and the other
one has published when a step is timed. What is timed is everything that the hooks do: the phase of
the batch, its descriptor, the check, the ledger, the black box, the marks around the launch.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np

from graphguard.agreement.group import Agreement
from graphguard.agreement.store import GroupMembers
from graphguard.blackbox.writer import process_box
from graphguard.environment import Mode
from graphguard.vllm.steps_v1 import StepsV1
from tests.unit.agreement.ranks import all_at_once, memory
from tests.vllm import dispatchers

STEPS = 3_000
BATCHES = {
    "target 15x2": (15, 2, True),
    "target 16x2": (16, 2, True),
    "drafter 30t": (15, 2, False),
}


class Ranks:
    """Two ranks of one model, which take every step alike."""

    def __init__(self, mode: str, role: str) -> None:
        store = memory()
        self.dispatcher = dispatchers.dispatcher(
            "FULL_AND_PIECEWISE" if role == "target" else "PIECEWISE"
        )
        self.steps = [dispatchers.steps(self.dispatcher, mode, role) for _ in range(2)]
        agreements = [
            Agreement(store, GroupMembers(r, (0, 1), "tp:0[0-1]"), Mode(mode), seconds=20.0)
            for r in range(2)
        ]

        def sealing(rank: int) -> Callable[[], None]:
            return lambda: self.steps[rank].guard.seal([agreements[rank]], process_box())

        assert all_at_once([sealing(rank) for rank in range(2)]) == [None, None]
        arrays = SimpleNamespace(
            num_computed_tokens_cpu=np.full(64, 100, dtype=np.int32),
            num_prompt_tokens=np.full(64, 10, dtype=np.int32),
        )
        for steps in self.steps:
            steps.read_phases_of(arrays)

    def dispatch(self, rank: int, reqs: int, query_len: int, arguments: dict[str, Any]) -> None:
        """Do what vLLM does by itself."""
        del rank, reqs, query_len
        self.dispatcher.dispatch(**arguments)

    def step(self, rank: int, reqs: int, query_len: int, arguments: dict[str, Any]) -> None:
        """Do what the hooks do in a step of one rank."""
        steps: StepsV1 = self.steps[rank]
        sizes = reqs, query_len, reqs * query_len, steps.phase(reqs)
        dispatch = self.dispatcher.dispatch
        # Nothing is dispatched again here: all steps fit.
        steps.dispatched(sizes, dispatch(**arguments), dispatch)
        steps.guard.launching()
        steps.guard.launched()


def main() -> int:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows = []
    for name, (reqs, query_len, uniform) in BATCHES.items():
        for mode in ("observe", "enforce"):
            ranks = Ranks(mode, name.partition(" ")[0])
            arguments = {"num_tokens": reqs * query_len, "uniform_decode": uniform}
            bare, guarded = _times(ranks, reqs, query_len, arguments)
            added = statistics.median(guarded) - statistics.median(bare)
            rows.append(
                {
                    "batch": name,
                    "mode": mode,
                    "dispatch_ns": statistics.median(bare),
                    "guarded_ns": statistics.median(guarded),
                    "added_ns": added,
                    "added_p99_ns": sorted(guarded)[len(guarded) * 99 // 100]
                    - sorted(bare)[len(bare) * 99 // 100],
                }
            )
            print(
                f"{name:12} {mode:8} dispatch {statistics.median(bare):6.0f} ns, guarded "
                f"{statistics.median(guarded):6.0f} ns: {added:+6.0f} ns"
            )
    if args.json:
        args.json.write_bytes(msgspec.json.encode(rows))
    return 0


def _times(
    ranks: Ranks, reqs: int, query_len: int, arguments: dict[str, Any]
) -> tuple[list[int], list[int]]:
    """Time vLLM's dispatch and a guarded step in turn."""
    bare, guarded = [], []
    clock = time.perf_counter_ns
    for number in range(STEPS + 200):
        began = clock()
        ranks.dispatch(0, reqs, query_len, arguments)
        between = clock()
        ranks.step(1, reqs, query_len, arguments)
        other = clock()
        ranks.step(0, reqs, query_len, arguments)
        ended = clock()
        if number >= 200:
            bare.append(between - began)
            guarded.append(ended - other)
    return bare, guarded


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        import os

        os.environ.setdefault("GRAPHGUARD_DIR", directory)
        sys.exit(main())
