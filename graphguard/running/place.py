"""The directory of a run: new, private, and nothing of another run in it."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

from graphguard.blackbox.directory import DIRECTORY_MODE, is_ring_name, private_directory
from graphguard.errors import BlackBoxError, CommandError
from graphguard.manifest import FILE_PATTERN
from graphguard.running import processes


def default_name() -> str:
    """Return the name of a directory that no run has had: of this moment and this process."""
    now = datetime.now().astimezone()
    return f"graphguard-{now:%Y%m%d-%H%M%S}-{os.getpid()}"


def prepare(directory: Path) -> Path:
    """Make the directory of a run and return its absolute path.

    Raises:
        CommandError: If another run has left its files there, if others may write to it, or if it
            cannot be made.
    """
    directory = Path(os.path.abspath(directory))
    try:
        with private_directory(directory, follow_links=True):
            _require_unused(directory)
            (directory / processes.DIRECTORY).mkdir(mode=DIRECTORY_MODE, exist_ok=True)
    except BlackBoxError as error:
        raise CommandError(error.message, hint=error.hint) from error
    except OSError as error:
        raise CommandError(
            f"cannot make {directory}: {error.strerror}", hint="name another one with --output"
        ) from error
    return directory


def _require_unused(directory: Path) -> None:
    used = (
        any(directory.glob(FILE_PATTERN)),
        any(is_ring_name(name) for name in os.listdir(directory)),
        any((directory / processes.DIRECTORY).glob("*")),
    )
    if any(used):
        raise CommandError(
            f"{directory} holds what another run has left; the two would be taken for one",
            hint="name a new directory with --output, or leave it out",
        )
