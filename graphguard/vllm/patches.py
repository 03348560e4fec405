"""Putting a wrapper around a function of vLLM, once per process, and taking it away again."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

Function = Callable[..., Any]
Make = Callable[[Function], Function]
"""Takes the original function and returns the one to call instead."""

_MARK = "__graphguard_wraps__"


class _Patch(NamedTuple):
    owner: Any
    name: str
    original: Any
    inherited: bool


_patches: list[_Patch] = []


def wrap(owner: Any, name: str, make: Make) -> bool:  # noqa: ANN401 - a class or a module
    """Replace a function of a class or a module by a wrapper around it.

    A function that has a wrapper of the same maker is left alone: plugins are loaded again in
    processes that were forked from one where they were loaded before.

    Args:
        owner: The class or the module.
        name: The attribute. A static method stays one.
        make: Makes the wrapper.

    Returns:
        Whether it was replaced.

    Raises:
        AttributeError: If there is no such attribute.
    """
    original = inspect.getattr_static(owner, name)
    static = isinstance(original, staticmethod)
    function = original.__func__ if static else original
    maker = f"{make.__module__}.{make.__qualname__}"
    if maker in getattr(function, _MARK, ()):
        return False
    wrapper = functools.wraps(function)(make(function))
    setattr(wrapper, _MARK, (*getattr(function, _MARK, ()), maker))
    inherited = name not in vars(owner)
    setattr(owner, name, staticmethod(wrapper) if static else wrapper)
    _patches.append(_Patch(owner, name, original, inherited))
    return True


@contextmanager
def wrapped_inside() -> Iterator[None]:
    """Take away, on leaving, every wrapper that was put in place inside."""
    before = len(_patches)
    try:
        yield
    finally:
        _unwrap(before)


def unwrap_all() -> None:
    """Take every wrapper away again, the last one first. For tests."""
    _unwrap(0)


def _unwrap(keep: int) -> None:
    while len(_patches) > keep:
        patch = _patches.pop()
        if patch.inherited:
            delattr(patch.owner, patch.name)
        else:
            setattr(patch.owner, patch.name, patch.original)
