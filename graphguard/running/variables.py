"""The environment of a program that is to be recorded, and of all that it starts."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from graphguard import environment
from graphguard.environment import Mode
from graphguard.errors import CommandError

HOOK = Path(__file__).with_name("hook")
"""The directory of the start-up hook. Nothing else is in it: programs get it on their path."""
INTERPOSER = Path(__file__).parents[1] / "lib" / "interposer" / "libnccl.so.2"

INSTALL = "GRAPHGUARD_INSTALL"
NCCL_PLUGIN = "GRAPHGUARD_NCCL_PLUGIN"
_PRELOAD = "LD_PRELOAD"
_PATH = "PYTHONPATH"
_VLLM_PLUGINS = "VLLM_PLUGINS"
_OWN_VLLM_PLUGIN = "graphguard"


def variables(
    inherited: Mapping[str, str],
    *,
    output: Path,
    processes: Path,
    mode: Mode | None = None,
    interpose: bool = False,
) -> dict[str, str]:
    """Return the environment for the program; what it inherits besides is left as it is.

    Args:
        inherited: The environment of this process.
        output: Where manifests and black boxes go; an absolute path.
        processes: Where each Python process says that it has started.
        mode: The mode of the guards; without it, the inherited one, or else ``observe``.
        interpose: Whether the NCCL interposer is loaded into every process.

    Raises:
        CommandError: If there is no interposer in this installation, or its path cannot be
            preloaded.
    """
    given = {
        **inherited,
        environment.DIRECTORY.name: str(output),
        environment.RUN.name: str(processes),
        _PATH: _prepended(str(HOOK), inherited.get(_PATH, ""), os.pathsep),
        # Without it, or empty, vLLM loads every plugin that is installed.
        **_vllm_plugins(inherited.get(_VLLM_PLUGINS, "")),
    }
    # What the user has set of these stays.
    defaults = {environment.MODE.name: Mode.OBSERVE.value, INSTALL: "1", NCCL_PLUGIN: "1"}
    given |= {name: inherited.get(name) or value for name, value in defaults.items()}
    if mode is not None:
        given[environment.MODE.name] = mode.value
    if interpose:
        given[_PRELOAD] = _prepended(_interposer(), inherited.get(_PRELOAD, ""), ":")
    return given


def _prepended(first: str, rest: str, separator: str) -> str:
    return separator.join(filter(None, (first, rest)))


def _vllm_plugins(names: str) -> dict[str, str]:
    listed = [name.strip() for name in names.split(",")]
    if not names or _OWN_VLLM_PLUGIN in listed:
        return {}
    return {_VLLM_PLUGINS: f"{names},{_OWN_VLLM_PLUGIN}"}


def _interposer() -> str:
    path = str(INTERPOSER)
    if not INTERPOSER.is_file():
        raise CommandError(
            f"this installation has no NCCL interposer: {path} is not there",
            hint="install graphguard with its shared libraries, or leave --interpose out",
        )
    if set(path) & {" ", ":"}:
        raise CommandError(
            f"the interposer cannot be preloaded from {path}: the loader splits paths at spaces "
            "and colons",
            hint="install graphguard into a directory without them, or leave --interpose out",
        )
    return path
