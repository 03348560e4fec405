"""Whether vLLM would load the plugin here, and which of its parts would be guarded."""

from __future__ import annotations

import os
from importlib import metadata

import msgspec

from graphguard.vllm.contract import Part, known_version, missing, variant, vllm_version

GROUP, NAME = "vllm.general_plugins", "graphguard"
ENABLED = "VLLM_PLUGINS"
"""vLLM's variable with the names of the plugins that it loads; without it, it loads all."""


class PartCheck(msgspec.Struct, frozen=True):
    """Whether a part of the plugin can be armed.

    Attributes:
        part: Its name.
        holds: Whether vLLM looks as the part needs it.
        why: Which shape of vLLM was found, or what is missing.
    """

    part: str
    holds: bool
    why: str


class Checkup(msgspec.Struct, frozen=True):
    """What was found of vLLM.

    Attributes:
        version: Of vLLM, or None if it is not installed.
        known: Whether the plugin was written for that version.
        problems: Why vLLM would not load the plugin.
        parts: Its parts.
    """

    version: str | None
    known: bool
    problems: tuple[str, ...]
    parts: tuple[PartCheck, ...]


def checkup() -> Checkup:
    """Look at the vLLM that is installed. It is imported, which takes seconds; no GPU is used."""
    version = vllm_version()
    if version is None:
        return Checkup(None, False, ("vLLM is not installed with this Python",), ())
    return Checkup(version, known_version(), tuple(_problems()), tuple(map(_check, Part)))


def _check(part: Part) -> PartCheck:
    lacks = missing(part)
    return PartCheck(part.value, not lacks, "; ".join(lacks) or variant(part) or "")


def _problems() -> list[str]:
    problems = []
    if not any(entry.name == NAME for entry in metadata.entry_points(group=GROUP)):
        problems.append(
            f"graphguard has no entry point {GROUP}: it is on the path, and not installed"
        )
    enabled = os.environ.get(ENABLED)
    if enabled is not None and NAME not in enabled.split(","):
        problems.append(f"{ENABLED}={enabled} leaves {NAME} out")
    return problems
