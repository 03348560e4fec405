"""A watchdog of a process that is bound to one core: vLLM does that to its workers on a CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

BOUND = """
import os
from pathlib import Path
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
from graphguard.watch import watchdog
assert watchdog.start()
import time
for _ in range(200):
    threads = {p.parent.name: p.read_text().strip() for p in Path("/proc/self/task").glob("*/comm")}
    found = [int(tid) for tid, name in threads.items() if name == "graphguard-dog"]
    if found and len(os.sched_getaffinity(found[0])) > 1:
        break
    time.sleep(0.05)
print(len(os.sched_getaffinity(0)), len(os.sched_getaffinity(found[0])))
"""


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="there is only one core here")
def test_the_watchdog_is_not_bound_with_it(tmp_path: Path) -> None:
    settings = {"GRAPHGUARD_DIR": str(tmp_path), "GRAPHGUARD_RING_ENTRIES": "64"}
    done = subprocess.run(
        [sys.executable, "-c", BOUND],
        env=os.environ | settings,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    of_process, of_watchdog = map(int, done.stdout.split())
    assert of_process == 1
    assert of_watchdog == len(os.sched_getaffinity(0))
