"""Putting functions around vLLM's own, beneath those of graphguard."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

_WRAPPED_BY_GRAPHGUARD = "__graphguard_wraps__"

Function = Callable[..., Any]


def replace(owner: Any, name: str, make: Callable[[Function], Function]) -> None:
    """Put a function around one of vLLM's, beneath whatever graphguard puts around it.

    Raises:
        RuntimeError: If graphguard came first. What is injected would look to it as if it came
            from outside vLLM.
    """
    original = inspect.getattr_static(owner, name)
    if hasattr(original, _WRAPPED_BY_GRAPHGUARD):
        raise RuntimeError(
            f"{owner.__name__}.{name} is wrapped by graphguard already: the plugin of the "
            "emulation must be found first, see tests/vllm/engine/README.md"
        )
    setattr(owner, name, functools.wraps(original)(make(original)))
