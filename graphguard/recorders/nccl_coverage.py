"""Which recorders of NCCL's own calls this process is set up to have."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from graphguard import environment
from graphguard.errors import ConfigurationError
from graphguard.recorders import nccl_interposer, nccl_plugin


class Coverage(NamedTuple):
    """Whether calls of NCCL are recorded whoever makes them, and by what, or why not."""

    whole: bool
    why: str


def coverage() -> Coverage:
    """Tell by which recorders NCCL's calls are seen, as settings and loaded libraries are now."""
    try:
        by = list(_recorders())
        if by:
            return Coverage(True, f"recorded by {' and '.join(by)}")
        nccl_plugin.library()
    except ConfigurationError as error:
        return Coverage(False, error.message)
    return Coverage(False, f"with {environment.NCCL_PLUGIN.name}=1 NCCL's plugin records all")


def _recorders() -> Iterator[str]:
    if nccl_interposer.loaded() is not None or environment.interposer_wanted():
        yield "the interposer"
    given = os.environ.get(nccl_plugin.PLUGIN_VARIABLE, "")
    if environment.plugin_wanted() or Path(given).name == nccl_plugin.FILE:
        yield "NCCL's profiler plugin (NCCL 2.28 and newer)"
