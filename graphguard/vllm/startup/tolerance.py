"""Reading attributes of another program that may not be there."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


def found(owner: Any, path: str) -> Any:  # noqa: ANN401 - anything of vLLM's
    """Return an attribute of an attribute, ``a.b.c``, or None if any of them is not there."""
    try:
        return functools.reduce(getattr, path.split("."), owner)
    except Exception:  # noqa: BLE001 - a property of vLLM's may raise anything
        return None


def tolerant(read: Callable[[], T], otherwise: T) -> T:
    """Return what is read, or something else if it cannot be."""
    try:
        return read()
    except Exception:  # noqa: BLE001 - of an unknown vLLM anything may be raised
        return otherwise
