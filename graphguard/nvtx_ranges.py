"""NVTX ranges around what graphguard does, for Nsight Systems and other profilers.

They are in the domain ``graphguard``, and only where the package nvtx is installed and a profiler
listens. Everywhere else there is nothing on the path, not even a call.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

DOMAIN = "graphguard"

F = TypeVar("F", bound=Callable[..., Any])


def annotated(name: str, function: F) -> F:
    """Return a function that does the same within an NVTX range.

    The range ends when the function does, by an error too. Its attributes are registered here,
    once. nvtx is imported by the first call, if it is there.

    Args:
        name: What the profiler shows: ``replay target``.
        function: The function.

    Returns:
        ``function`` itself if nvtx is not installed, or switched off by ``NVTX_DISABLE``, or (from
        nvtx 0.2.12) no profiler listens: none can begin to later.
    """
    try:
        nvtx = importlib.import_module("nvtx")
    except ImportError:
        return function
    nvtx_range = nvtx.annotate(message=name, domain=DOMAIN)
    if nvtx_range(function) is function:
        return function

    # Not what nvtx makes of the function: in nvtx 0.2.11 its range outlives an error.
    @wraps(function)
    def within_range(*args: object, **options: object) -> object:
        with nvtx_range:
            return function(*args, **options)

    return cast("F", within_range)
