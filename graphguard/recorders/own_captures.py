"""Captures that somebody in graphguard records already, so that nobody records them twice.

A guard and vLLM's plugin know what a graph is for. What records every graph of the process does
not, and stays away from captures that are made while one of them records on the same thread.
"""

from __future__ import annotations

import threading


class _Claims(threading.local):
    def __init__(self) -> None:
        self.held = 0


_claims = _Claims()


def claim() -> None:
    """Say that captures on this thread are recorded from now on."""
    _claims.held += 1


def release() -> None:
    """Take back one :func:`claim`."""
    _claims.held = max(0, _claims.held - 1)


def claimed() -> bool:
    """Whether captures on this thread are recorded already."""
    return _claims.held > 0
