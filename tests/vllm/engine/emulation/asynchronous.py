"""Async scheduling, which the CPU platform switches off, with stand-ins for streams and events.

The scheduler, the queue of outputs and the runner's own bookkeeping for it are vLLM's: the next
step is scheduled before this one's tokens are known, and placeholders stand for them and for the
drafts. What is missing is overlap on a device: a copy is done when its call returns.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from tests.vllm.engine.emulation.patching import Function


class Event:
    """An event that has always happened."""

    def __init__(self, *_args: object, **_kwargs: object) -> None:
        pass

    def record(self, *_args: object) -> None:
        """Record it."""

    def synchronize(self) -> None:
        """Wait for it."""

    def wait(self, *_args: object) -> None:
        """Let a stream wait for it."""

    def query(self) -> bool:
        """Whether it has happened."""
        return True


class Stream:
    """A stream on which everything is done at once."""

    device = torch.device("cpu")

    def __init__(self, *_args: object, **_kwargs: object) -> None:
        pass

    def wait_stream(self, *_args: object) -> None:
        """Wait for another stream."""

    def wait_event(self, *_args: object) -> None:
        """Wait for an event."""

    def synchronize(self) -> None:
        """Wait for what was begun on it."""


def install() -> None:
    """Put the stand-ins in place, and let vLLM schedule asynchronously, once per process."""
    from vllm.platforms.cpu import CpuPlatform

    replace: Any = setattr
    replace(torch.cuda, "Event", Event)
    replace(torch.cuda, "Stream", Stream)
    replace(torch.cuda, "stream", _on)
    replace(torch.cuda, "current_stream", Stream)
    original = CpuPlatform.check_and_update_config
    replace(CpuPlatform, "check_and_update_config", classmethod(_checking(original.__func__)))


def _on(_stream: object) -> AbstractContextManager[None]:
    return nullcontext()


def _checking(original: Function) -> Callable[..., None]:
    def check_and_update_config(cls: Any, vllm_config: Any) -> None:
        original(cls, vllm_config)
        vllm_config.scheduler_config.async_scheduling = True

    return check_and_update_config
