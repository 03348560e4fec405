"""What the tests of the spine are given. The module that runs them gives the ``library``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from graphguard import Session
from graphguard.blackbox.writer import BlackBox, open_box
from graphguard.environment import Mode
from graphguard.installation import Installation
from graphguard.program_graphs import ProgramGraphs
from tests.unit.recorders.graph_libraries import Library

Install = Callable[..., Installation]


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BlackBox:
    opened = open_box(tmp_path / "boxes", 256)
    monkeypatch.setattr("graphguard.blackbox.writer.process_box", lambda: opened)
    return opened


@pytest.fixture
def install(library: Library, session: Session) -> Iterator[Install]:
    installed: list[Installation] = []

    def install(mode: Mode = Mode.OBSERVE) -> Installation:
        program, adapter = ProgramGraphs(mode, session), library.adapter()
        adapter.install(program)
        installation = Installation(program)
        installation.adapters.append(adapter)
        installed.append(installation)
        return installed[-1]

    yield install
    for installation in installed:
        installation.uninstall()
    assert _get_current_dispatch_mode_stack() == [], "a recorder is still on"


def launches(graph: Any) -> int | None:
    """How often a graph was launched, where the stand-in for C++ counts it."""
    count: int | None = getattr(graph, "launches", None)
    return count
