"""Doing something when a module has been imported, without importing it.

graphguard is loaded in processes that run no model and need no torch. Importing either there would
take seconds.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Callable, Sequence
from types import ModuleType


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the modules that are waited for as Python does, and tells when they were run."""

    def __init__(self) -> None:
        self.calls: dict[str, list[Callable[[], None]]] = {}

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in self.calls:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            for call in self.calls.pop(fullname, ()):
                call()

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


_finder = _Finder()


def after_import(module: str, call: Callable[[], None]) -> None:
    """Call a function once a module has been imported; at once if it has been already.

    Asked for again with the same function, it does nothing.
    """
    if module in sys.modules:
        call()
        return
    calls = _finder.calls.setdefault(module, [])
    if call not in calls:
        calls.append(call)
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)


def forget_all() -> None:
    """Wait for nothing any more. For tests."""
    _finder.calls.clear()
    if _finder in sys.meta_path:
        sys.meta_path.remove(_finder)
