"""The NCCL profiler plugin: what NCCL itself takes up, whoever asked for it.

NCCL loads it with the first communicator, by the environment variable NCCL_PROFILER_PLUGIN, also
where NCCL is linked statically or found by its path. It is asked only for the events of API calls,
which add nothing to a captured graph. What it cannot see is told in ``docs/nccl.md``.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from graphguard import environment
from graphguard.errors import ConfigurationError
from graphguard.log import logger
from graphguard.recorders.nccl_log import NcclLog

FILE = "libgraphguard_nccl.so"
PLUGIN_VARIABLE = "NCCL_PROFILER_PLUGIN"
NEXT_VARIABLE = environment.NEXT_PLUGIN.name

# NCCL cuts a longer one off without a word: src/plugin/plugin_open.cc, MAX_STR_LEN.
_MAX_PATH_BYTES = 253


class Status(NamedTuple):
    """What the plugin knows of this process.

    Attributes:
        interface: The version of NCCL's profiler interface that it is called by, 0 if it is not.
        communicators: How many it was told of since it was loaded.
        live: How many of them are still there.
        next_plugin: What became of the plugin behind it, as a sentence; empty if there is none.
    """

    interface: int
    communicators: int
    live: int
    next_plugin: str


def library() -> Path:
    """Return where the plugin is installed.

    Raises:
        ConfigurationError: If it is not, or where NCCL would not find it.
    """
    path = Path(__file__).parents[1] / "lib" / FILE
    if not path.is_file():
        raise ConfigurationError(
            f"NCCL's profiler plugin is not installed: there is no {path}",
            hint="install graphguard with its native libraries",
        )
    if len(os.fsencode(path)) > _MAX_PATH_BYTES:
        raise ConfigurationError(
            f"NCCL cannot load {path}: it takes no path of more than {_MAX_PATH_BYTES} bytes",
            hint="install graphguard into a folder with a shorter path",
        )
    return path


def settings(inherited: Mapping[str, str]) -> dict[str, str]:
    """Return environment variables with which NCCL loads the plugin.

    A plugin that was there before stands behind it, and is told everything as it was.

    Args:
        inherited: The variables that the program would have had.

    Raises:
        ConfigurationError: If the plugin is not installed.
    """
    own = str(library())
    before = inherited.get(PLUGIN_VARIABLE, "")
    changed = {**inherited, PLUGIN_VARIABLE: own}
    if before and before not in (own, "none"):
        changed.setdefault(NEXT_VARIABLE, before)
    return changed


def enable() -> NcclLog:
    """Have NCCL load the plugin, in this process and in its children.

    It counts for communicators that are made after this. If the process has made one before, its
    NCCL has decided to run without a plugin, and nothing is recorded: see :func:`status`.

    Returns:
        The log that the plugin keeps.

    Raises:
        ConfigurationError: If the plugin is not installed, or is of another version.
    """
    log = NcclLog(ctypes.CDLL(str(library())))
    changed = settings(os.environ)
    for name in (PLUGIN_VARIABLE, NEXT_VARIABLE):
        if name in changed:
            os.environ[name] = changed[name]
    return log


def enable_from_environment() -> None:
    """Enable it if ``GRAPHGUARD_NCCL_PLUGIN`` asks for it; where it cannot be, log why."""
    try:
        if environment.plugin_wanted():
            enable()
    except (ConfigurationError, OSError) as error:
        message = error.message if isinstance(error, ConfigurationError) else str(error)
        logger().warning("NCCL's calls are not recorded: %s", message)


def loaded() -> ctypes.CDLL | None:
    """Return the plugin, if this process has loaded it: by :func:`enable`, or NCCL has."""
    path = Path(__file__).parents[1] / "lib" / FILE
    try:
        return ctypes.CDLL(str(path), mode=os.RTLD_NOLOAD | os.RTLD_LAZY)
    except OSError:
        return None


def log() -> NcclLog | None:
    """Return the plugin's log, or None if this process has not loaded the plugin."""
    plugin = loaded()
    return None if plugin is None else NcclLog(plugin)


def status() -> Status | None:
    """Return what the plugin knows of this process, or None if it is not loaded."""
    plugin = loaded()
    if plugin is None:
        return None
    live = ctypes.c_uint64(0)
    plugin.graphguard_nccl_plugin_communicators.restype = ctypes.c_uint64
    told = plugin.graphguard_nccl_plugin_communicators(ctypes.byref(live))
    text = ctypes.create_string_buffer(1024)
    plugin.graphguard_nccl_plugin_next(text, ctypes.c_size_t(len(text)))
    return Status(
        interface=plugin.graphguard_nccl_plugin_interface(),
        communicators=told,
        live=live.value,
        next_plugin=text.value.decode(errors="replace"),
    )
