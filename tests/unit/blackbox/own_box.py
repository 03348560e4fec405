"""A black box for the process of the tests, which has none otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from graphguard.blackbox import writer


@pytest.fixture
def own_box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The directory of the black box that this process has during a test."""
    monkeypatch.setenv("GRAPHGUARD_DIR", str(tmp_path))
    monkeypatch.setenv("GRAPHGUARD_RING_ENTRIES", "64")
    process = writer._ProcessBox()
    monkeypatch.setattr(writer, "_process", process)
    yield tmp_path
    if (box := process.box()) is not None:
        box.disown()
