"""The black boxes of an engine, as ``graphguard blackbox --json`` prints them."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import msgspec

from tests.vllm.engine.running import Run


def black_boxes(run: Run) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return every record of an engine's black boxes, and the summary."""
    ended = subprocess.run(
        [sys.executable, "-m", "graphguard", "blackbox", str(run.graphguard), "--json"],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert ended.returncode in (0, 1), ended.stderr
    *records, summary = (msgspec.json.decode(line) for line in ended.stdout.splitlines())
    return records, summary
