"""The example with vLLM runs as a file, with the plugin, and shows what it says it shows."""

from __future__ import annotations

import importlib.util
import os
import sys
import time
from pathlib import Path

import pytest

from tests.vllm.engine.environment import REPOSITORY
from tests.vllm.engine.processes import EngineProcesses

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("vllm") is None,
        reason="vLLM is not installed here: see tests/vllm/engine/README.md",
    ),
    pytest.mark.timeout(900),
]

SECONDS = 600.0


def test_vllm_mtp_generates_and_both_ranks_say_what_they_have_compared(tmp_path: Path) -> None:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("GRAPHGUARD_")}
    variables = {
        "PYTHONPATH": os.pathsep.join(
            filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")])
        ),
        "GRAPHGUARD_MODE": "observe",
        "GRAPHGUARD_DIR": str(tmp_path / "graphguard"),
        "VLLM_PLUGINS": "graphguard",
        "VLLM_CPU_OMP_THREADS_BIND": "0|1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        # vLLM's own switch for tests on the CPU: no compiler.
        "VLLM_CPU_CI_ENV": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    command = [sys.executable, str(REPOSITORY / "examples" / "vllm_mtp.py")]
    log = tmp_path / "example.log"
    processes = EngineProcesses(command, inherited | variables, log, tmp_path)
    try:
        deadline = time.monotonic() + SECONDS
        while processes.leader.poll() is None and time.monotonic() < deadline:
            time.sleep(0.2)
        code = processes.leader.poll()
    finally:
        processes.end()

    said = processes.text()
    assert code == 0, said[-4000:]
    assert "480 tokens" in said
    for rank in range(2):
        for role in ("target", "drafter"):
            line = f"rank {rank}, {role}: 0 graphs, compared with ['tp:0[0-1]']: no divergence"
            assert line in said
    manifests = sorted(path.name for path in (tmp_path / "graphguard").glob("manifest.*"))
    assert manifests == ["manifest.rank0.json", "manifest.rank1.json"]
