"""The interposer: a ``libnccl.so.2`` in front of the real one, which records what is asked of it.

It has to be found first. Three ways: ``LD_PRELOAD``; :func:`enable` before torch or cupy are
imported; ``VLLM_NCCL_SO_PATH``, for vLLM's own calls only. What it sees and what passes it by is
told in ``docs/nccl-interposer.md``.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from graphguard import environment
from graphguard.errors import ConfigurationError
from graphguard.log import logger
from graphguard.recorders.nccl_log import NcclLog

NEWEST_NCCL = 23_203
"""Newest NCCL whose functions ``csrc/nccl/exported_symbols.inc`` lists, as ncclGetVersion tells."""

REAL_LIBRARY = environment.NCCL_LIBRARY.name
PRELOAD = "LD_PRELOAD"
_NAME = "libnccl.so.2"
LIBRARY = Path(__file__).parents[1] / "lib" / "interposer" / _NAME
"""Where graphguard installs it, on processors that NCCL is built for."""

_WHEEL = Path("nvidia", "nccl", "lib", _NAME)
_OWN_FUNCTION = "graphguard_nccl_real_path"


def library() -> Path:
    """Return where the interposer is installed.

    Raises:
        ConfigurationError: If it is not: NCCL, and so the interposer, is built for x86-64 and
            aarch64 only.
    """
    if not LIBRARY.is_file():
        raise ConfigurationError(
            f"NCCL's interposer is not installed: there is no {LIBRARY}",
            hint="it is built for x86-64 and aarch64; on another machine use the profiler plugin",
        )
    return LIBRARY


def loaded() -> ctypes.CDLL | None:
    """Return the interposer, if this process has loaded it in any way."""
    # By the name that is loaded; and by its own, which finds it where vLLM was given its path.
    for name in (str(LIBRARY), _NAME):
        try:
            handle = ctypes.CDLL(name, mode=os.RTLD_NOLOAD | os.RTLD_LAZY)
        except OSError:
            continue
        if hasattr(handle, _OWN_FUNCTION):
            return handle
    return None


def log() -> NcclLog | None:
    """Return the interposer's log, or None if this process has not loaded the interposer."""
    interposer = loaded()
    return None if interposer is None else NcclLog(interposer)


def enable() -> Path:
    """Load the interposer, so that torch, cupy and vLLM, imported after this, call it.

    Children of this process are not affected; for those there is :func:`preloading`.

    Returns:
        The path of the NCCL that it calls.

    Raises:
        ConfigurationError: If it is not installed, if the process has loaded NCCL already, or if
            there is no NCCL for it to call.
    """
    interposer = loaded()
    if interposer is None:
        path = library()
        if others := _loaded_nccl():
            raise ConfigurationError(
                f"NCCL's interposer comes too late: {others[0]} is loaded already",
                hint="enable it before torch or cupy are imported, or start the program with "
                f"{PRELOAD}={path}",
            )
        _name_real_library()
        # Global: torch and cupy look their functions up among what is global before anything else.
        interposer = ctypes.CDLL(str(path), mode=os.RTLD_GLOBAL | os.RTLD_NOW)
    return _checked(interposer)


def enable_from_environment() -> None:
    """Enable it if ``GRAPHGUARD_INTERPOSE`` asks for it; where it cannot be, log why."""
    try:
        path = enable() if environment.interposer_wanted() else None
    except ConfigurationError as error:
        logger().warning("NCCL is not interposed: %s", error.message)
    else:
        if path is not None:
            logger().info("NCCL is interposed: %s is called through graphguard", path)


def preloading(settings: Mapping[str, str]) -> dict[str, str]:
    """Return environment variables with which a program and its children load the interposer.

    Args:
        settings: The variables that the program would have had.

    Raises:
        ConfigurationError: If the interposer is not installed.
    """
    own = str(library())
    # The loader splits at colons and at blanks, and has no way to quote them.
    if any(character in own for character in ": \t\n"):
        raise ConfigurationError(
            f"{own} cannot be named in {PRELOAD}, where colons and blanks separate names",
            hint="install graphguard into a folder without them",
        )
    others = settings.get(PRELOAD, "").replace(":", " ").split()
    preloaded = ":".join([own, *(name for name in others if name != own)])
    real = settings.get(REAL_LIBRARY) or _wheel()
    return {**settings, PRELOAD: preloaded, **({REAL_LIBRARY: real} if real else {})}


def _name_real_library() -> None:
    real = None if os.environ.get(REAL_LIBRARY) else _wheel()
    if real is not None:
        os.environ[REAL_LIBRARY] = real


def _wheel() -> str | None:
    """Return NVIDIA's wheel of NCCL, looked for where Python would import it from."""
    for folder in sys.path:
        path = Path(folder or ".", _WHEEL)
        if path.is_file():
            return str(path.resolve())
    return None


def _loaded_nccl() -> list[str]:
    """Return the files of NCCL that are mapped into this process."""
    maps = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
    paths = (line.split(maxsplit=5)[5] for line in maps.splitlines() if "libnccl.so" in line)
    return list(dict.fromkeys(paths))


def _checked(interposer: ctypes.CDLL) -> Path:
    interposer.graphguard_nccl_real_path.restype = ctypes.c_char_p
    interposer.graphguard_nccl_real_absence.restype = ctypes.c_char_p
    path = interposer.graphguard_nccl_real_path()
    if not path:
        reason = interposer.graphguard_nccl_real_absence().decode(errors="replace")
        raise ConfigurationError(
            f"NCCL's interposer has no NCCL to call: {reason}",
            hint=f"name the file of the real one in {REAL_LIBRARY}",
        )
    version = ctypes.c_int(0)
    interposer.ncclGetVersion(ctypes.byref(version))
    if version.value > NEWEST_NCCL:
        logger().warning(
            "NCCL %s is newer than the interposer, which knows the functions of %s and older: "
            "functions that came later are not recorded, and are not found by dlsym",
            _version_text(version.value),
            _version_text(NEWEST_NCCL),
        )
    return Path(os.fsdecode(path))


def _version_text(code: int) -> str:
    """Return a version as NCCL numbers them since 2.9: ``2.31.2`` of 23102."""
    return f"{code // 10_000}.{code // 100 % 100}.{code % 100}"
