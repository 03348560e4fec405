"""Why this process may not read the memory of another one, and what would let it."""

from __future__ import annotations

import os

_CAP_SYS_PTRACE = 19
_YAMA = "/proc/sys/kernel/yama/ptrace_scope"
_SCOPES = {
    "1": "only the parents of a process may read it",
    "2": "only the administrator may read a process",
    "3": "no process may be read",
}


def why_refused(pid: int) -> str:
    """Return the reason for which the system refused to let a process be read, with a hint."""
    if _has_capability():
        return "the system does not let it be read, although CAP_SYS_PTRACE is there"
    owner = _owner(pid)
    if owner is not None and owner != os.geteuid():
        return (
            f"it belongs to user {owner} and this is user {os.geteuid()}: run as the same user, or "
            "with CAP_SYS_PTRACE"
        )
    return _by_yama() or (
        "the system does not let it be read: give the container CAP_SYS_PTRACE "
        "(docker run --cap-add=SYS_PTRACE)"
    )


def why_refused_here() -> str:
    """Return why this process may read no other process of its user; nothing if it may."""
    return "" if _has_capability() else _by_yama()


def looks_refused(text: str) -> bool:
    """Return whether what an engine said means that it was not permitted."""
    lowered = text.lower()
    return any(
        sign in lowered
        for sign in ("permission denied", "operation not permitted", "os error 1)", "eperm")
    )


def _by_yama() -> str:
    what = _SCOPES.get(scope := _scope())
    if what is None:
        return ""
    return (
        f"kernel.yama.ptrace_scope is {scope}: {what}; allow it with sysctl "
        "kernel.yama.ptrace_scope=0, or give the container CAP_SYS_PTRACE "
        "(docker run --cap-add=SYS_PTRACE)"
    )


def _has_capability() -> bool:
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as file:
            line = next((line for line in file if line.startswith("CapEff:")), "CapEff: 0")
        return bool(int(line.split()[1], 16) >> _CAP_SYS_PTRACE & 1)
    except (OSError, ValueError, IndexError):
        return False


def _owner(pid: int) -> int | None:
    try:
        return os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return None


def _scope() -> str:
    try:
        with open(_YAMA, encoding="ascii", errors="replace") as file:
            return file.read(8).strip()
    except OSError:
        return ""
