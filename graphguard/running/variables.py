"""The environment of a program that is to be recorded, and of all that it starts."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from graphguard import environment
from graphguard.environment import Mode
from graphguard.errors import CommandError, ConfigurationError

HOOK = Path(__file__).with_name("hook")
"""The directory of the start-up hook. Nothing else is in it: programs get it on their path."""
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
        CommandError: If the interposer is not installed, or cannot be preloaded.
    """
    given = {
        **inherited,
        environment.DIRECTORY.name: str(output),
        environment.RUN.name: str(processes),
        _PATH: os.pathsep.join(filter(None, (str(HOOK), inherited.get(_PATH, "")))),
        # Without it, or empty, vLLM loads every plugin that is installed.
        **_vllm_plugins(inherited.get(_VLLM_PLUGINS, "")),
    }
    # What the user has set of these stays.
    defaults = {
        environment.MODE.name: Mode.OBSERVE.value,
        environment.INSTALL.name: "1",
        environment.NCCL_PLUGIN.name: "1",
    }
    given |= {name: inherited.get(name) or value for name, value in defaults.items()}
    if mode is not None:
        given[environment.MODE.name] = mode.value
    return _interposed(given) if interpose else given


def _vllm_plugins(names: str) -> dict[str, str]:
    listed = [name.strip() for name in names.split(",")]
    if not names or _OWN_VLLM_PLUGIN in listed:
        return {}
    return {_VLLM_PLUGINS: f"{names},{_OWN_VLLM_PLUGIN}"}


def _interposed(settings: Mapping[str, str]) -> dict[str, str]:
    from graphguard.recorders import nccl_interposer

    try:
        return nccl_interposer.preloading(settings)
    except ConfigurationError as error:
        raise CommandError(error.message, hint=error.hint) from error
