"""A table for a terminal; lines with tabs where rich is not installed."""

from __future__ import annotations

import importlib
import io
import os
import shutil
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from graphguard.printable import printable

if TYPE_CHECKING:
    from rich.console import Console

DEFAULT_WIDTH = 100


def render(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows as a table with a title.

    It is as wide as the terminal. Colours are used on a terminal only, and not with NO_COLOR.
    """
    safe = [[printable(cell) for cell in row] for row in rows]
    try:
        return _rich(title, columns, safe)
    except ImportError:
        return "".join("\t".join(line) + "\n" for line in ([title], columns, *safe))


def _rich(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    # Imported here, by name: rich takes longer to import than a whole audit does to run.
    box = importlib.import_module("rich.box")
    text = importlib.import_module("rich.text").Text
    table = importlib.import_module("rich.table").Table(
        title=text(printable(title)), title_justify="left", box=box.SIMPLE_HEAD
    )
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*map(text, row))
    file = io.StringIO()
    _console(file).print(table)
    return "".join(line.rstrip() + "\n" for line in file.getvalue().splitlines())


def _console(file: io.StringIO) -> Console:
    console: Console = importlib.import_module("rich.console").Console(
        file=file,
        width=shutil.get_terminal_size((DEFAULT_WIDTH, 24)).columns,
        force_terminal=sys.stdout.isatty() and not os.environ.get("NO_COLOR"),
        # Otherwise rich asks the environment whether it runs in a notebook.
        force_jupyter=False,
    )
    return console
