"""Asking the driver for a core dump of the GPUs. Off unless it is asked for.

A process that was started with ``CUDA_ENABLE_USER_TRIGGERED_COREDUMP=1`` listens on a pipe, and
dumps when something is written to it. That stops its GPU, takes as long as the GPU has memory, and
may write gigabytes: ``CUDA_COREDUMP_GENERATION_FLAGS`` leaves parts out.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping

ENABLE = "CUDA_ENABLE_USER_TRIGGERED_COREDUMP"
PIPE = "CUDA_COREDUMP_PIPE"
DEFAULT_PIPE = "corepipe.cuda.%h.%p"


class NotTriggered(Exception):
    """Why a process was not asked for a core dump."""


def trigger(pid: int, environment: Mapping[str, str]) -> str:
    """Ask a process for a core dump of its GPUs; return the pipe that it was asked by.

    Args:
        pid: The process.
        environment: What it was started with.

    Raises:
        NotTriggered: If it does not listen.
    """
    if environment.get(ENABLE) != "1":
        raise NotTriggered(f"process {pid} was not started with {ENABLE}=1")
    path = pipe_of(pid, environment)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise NotTriggered(f"{path}: {error.strerror}") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISFIFO(status.st_mode) or status.st_uid != os.geteuid():
            raise NotTriggered(f"{path} is no pipe of this user")
        os.write(descriptor, b"1")
    except OSError as error:
        raise NotTriggered(f"{path}: {error.strerror}") from error
    finally:
        os.close(descriptor)
    return path


def pipe_of(pid: int, environment: Mapping[str, str]) -> str:
    """Return the path of the pipe of a process, as CUDA makes it of what the user has set."""
    name = environment.get(PIPE) or DEFAULT_PIPE
    path = name.replace("%h", os.uname().nodename).replace("%p", str(pid))
    if os.path.isabs(path):
        return path
    try:
        return os.path.join(os.readlink(f"/proc/{pid}/cwd"), path)
    except OSError as error:
        raise NotTriggered(f"the directory of process {pid}: {error.strerror}") from error
