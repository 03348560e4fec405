"""The faults of the matrix."""

from __future__ import annotations

from tests.faults import at_capture, at_launch, damage, pace, processes
from tests.faults.expected import Fault


def _by_key(*rooms: list[Fault]) -> dict[str, Fault]:
    return {fault.key: fault for room in rooms for fault in room}


FAULTS = _by_key(at_capture.FAULTS, at_launch.FAULTS, processes.FAULTS, damage.FAULTS, pace.FAULTS)
SOUND = _by_key(pace.SOUND)
"""Runs without a fault, of which nothing may be said."""

UNGUARDED = _by_key(at_capture.UNGUARDED, at_launch.UNGUARDED, processes.UNGUARDED)
"""What some of the faults do to programs that nothing guards."""

ALL = {**FAULTS, **SOUND, **UNGUARDED}
