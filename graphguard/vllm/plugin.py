"""The entry point that vLLM calls in each of its processes."""

from __future__ import annotations


def register() -> None:
    """Arm this process."""
