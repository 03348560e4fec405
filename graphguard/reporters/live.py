"""A view that is drawn again and again: in place on a terminal, one below the other elsewhere."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, TextIO

from graphguard.reporters.watch import Line

DEFAULT_SIZE = (120, 40)

Layout = Callable[[int, "int | None"], Sequence[Line]]
"""Returns the lines for a width and, where there is one, a height."""

_STYLES = {"title": "bold", "head": "dim", "trouble": "bold red", "slow": "yellow"}


class Screen:
    """Where views are drawn, entered for as long as that is.

    With rich and a terminal the view takes the whole screen, and what was on it comes back at the
    end. Else each view is printed.

    Args:
        out: Where they go.
        whole: Whether the screen may be taken; else views are printed there too.
    """

    def __init__(self, out: TextIO | None = None, *, whole: bool = True) -> None:
        self._out = sys.stdout if out is None else out
        self._console: Any = _console(self._out)
        self._takes_over = whole and self._console is not None and self._out.isatty()
        self._live: Any = None
        self._printed = False

    def __enter__(self) -> Screen:
        if self._takes_over:
            live = importlib.import_module("rich.live").Live
            self._live = live(
                console=self._console, screen=True, auto_refresh=False, vertical_overflow="crop"
            )
            self._live.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._live is not None:
            live, self._live = self._live, None
            live.__exit__(kind, error, traceback)

    @property
    def took_over(self) -> bool:
        """Whether views are drawn on a screen of their own."""
        return self._takes_over

    def draw(self, layout: Layout) -> None:
        """Draw a view, as large as the terminal is now."""
        if self._live is None:
            self._print(layout)
            return
        size = self._console.size
        self._live.update(self._rich(layout(size.width, size.height)), refresh=True)

    def _print(self, layout: Layout) -> None:
        columns, _ = shutil.get_terminal_size(DEFAULT_SIZE)
        if self._printed:
            self._out.write("\n")
        self._printed = True
        every = layout(columns, None)
        if self._console is not None and self._out.isatty():
            self._console.print(self._rich(every))
        else:
            self._out.write("".join(f"{line.text}\n" for line in every))
        self._out.flush()

    def _rich(self, every: Sequence[Line]) -> Any:  # noqa: ANN401 - of a module that may be missing
        text = importlib.import_module("rich.text").Text
        drawn = text(no_wrap=True, overflow="ellipsis", end="")
        for place, line in enumerate(every):
            drawn.append(("\n" if place else "") + line.text, style=_STYLES.get(line.kind, ""))
        return drawn


def _console(out: TextIO) -> Any:  # noqa: ANN401 - of a module that may be missing
    try:
        console = importlib.import_module("rich.console").Console
    except ImportError:
        return None
    return console(
        file=out,
        no_color=bool(os.environ.get("NO_COLOR")),
        force_jupyter=False,
        highlight=False,
        soft_wrap=False,
    )
