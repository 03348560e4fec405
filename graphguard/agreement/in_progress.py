"""Whether this process is in a launch right now, seen from another thread.

Nothing is written down for it in a guard's step: the threads' stacks say it. Where an engine
launches by itself, its integration says so in ``Agreement.launches``. A launch of a CUDA graph
returns at once and is not seen here, however long the device takes.
"""

from __future__ import annotations

import sys
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from graphguard.agreement.group import Agreement

# Rooms above this one, which must not be imported here.
_LAUNCHING, _DECIDING = "graphguard.launching", "graphguard.enforced_steps"


def in_launch(agreement: Agreement) -> bool:
    """Whether a thread of this process is in a launch that was agreed on by these ranks."""
    if any(launches.in_flight for launches in agreement.launches):
        return True
    return any(_launches(frame, agreement) for frame in sys._current_frames().values())


def _launches(top: FrameType, agreement: Agreement) -> bool:
    launching = False
    frame: FrameType | None = top
    while frame is not None:
        module = frame.f_globals.get("__name__")
        launching = launching or module == _LAUNCHING
        if launching and module == _DECIDING:
            group = getattr(frame.f_locals.get("self"), "group", None)
            return getattr(group, "agreement", None) is agreement
        frame = frame.f_back
    return False
