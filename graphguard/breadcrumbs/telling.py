"""Saying once why a graph goes without marks."""

from __future__ import annotations

from graphguard.log import logger

_told: set[str] = set()


def tell(topic: str, reason: str) -> None:
    """Say why marks are missing, the first time for its topic."""
    if topic not in _told:
        _told.add(topic)
        logger().warning("breadcrumbs are missing: %s; said once", reason)
