"""What this process covers of vLLM, and what not."""

from __future__ import annotations

from typing import Any

import msgspec

from graphguard.log import logger


class PartStatus(msgspec.Struct, frozen=True):
    """Whether a part of the plugin is in place.

    Attributes:
        part: Its name: ``v1-target``.
        armed: Whether its hooks are in place.
        reasons: Why not, a sentence each.
    """

    part: str
    armed: bool
    reasons: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.part if self.armed else f"not {self.part} ({'; '.join(self.reasons)})"


_parts: dict[str, PartStatus] = {}


def armed(part: str) -> None:
    """Note that the hooks of a part are in place."""
    _parts[part] = PartStatus(part, True)
    logger().debug("the hooks of vLLM's %s are in place", part)


def not_armed(part: str, reasons: list[str]) -> None:
    """Note, and say, that a part stays out of the way."""
    status = PartStatus(part, False, tuple(reasons))
    if _parts.get(part) != status:
        _parts[part] = status
        logger().warning("vLLM's %s is not guarded: %s", part, "; ".join(reasons))


def is_armed(part: str) -> bool:
    """Whether the hooks of a part are in place."""
    return part in _parts and _parts[part].armed


def statuses() -> tuple[PartStatus, ...]:
    """Return the parts that this process has come to, in their order."""
    return tuple(_parts.values())


def report() -> dict[str, Any]:
    """Return what is covered in this process as plain data."""
    return {"parts": [msgspec.to_builtins(status) for status in _parts.values()]}


def forget_all() -> None:
    """Forget all of it. For tests."""
    _parts.clear()
