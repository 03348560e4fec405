from __future__ import annotations

import builtins
import importlib
import sys
from types import ModuleType

import pytest

from graphguard.reporters import table

ROWS = [("target", "16x2"), ("[bold]drafter[/bold]", "\x1b[31m")]


@pytest.fixture
def without_rich(monkeypatch: pytest.MonkeyPatch) -> None:
    original = importlib.import_module

    def refuse(name: str, package: str | None = None) -> ModuleType:
        if name.startswith("rich"):
            raise ImportError(name)
        return original(name, package)

    monkeypatch.setattr(importlib, "import_module", refuse)


def test_table_shows_title_columns_and_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    shown = table.render("Graphs", ("role", "batch"), ROWS)
    lines = shown.splitlines()
    assert lines[0] == "Graphs"
    assert any("role" in line and "batch" in line for line in lines)
    assert any("target" in line and "16x2" in line for line in lines)
    assert max(map(len, lines)) <= 60


def test_cells_are_neither_markup_nor_control() -> None:
    shown = table.render("[red]Graphs", ("role", "batch"), ROWS)
    assert "[red]Graphs" in shown
    assert "[bold]drafter[/bold]" in shown
    assert "\x1b" not in shown
    assert "\\x1b[31m" in shown


def test_no_text_is_lost_where_the_terminal_is_narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    shown = table.render("", ("a", "b"), [("x" * 30, "y" * 30)])
    assert (shown.count("x"), shown.count("y")) == (30, 30)


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_colour_is_for_terminals_that_want_it(
    monkeypatch: pytest.MonkeyPatch, no_color: str, coloured: bool
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.delenv("COLORTERM", raising=False)
    assert ("\x1b" in table.render("Graphs", ("role",), [("target",)])) is coloured


@pytest.mark.usefixtures("without_rich")
def test_without_rich_the_table_is_lines_with_tabs() -> None:
    assert table.render("Graphs", ("role", "batch"), ROWS[:1]) == (
        "Graphs\nrole\tbatch\ntarget\t16x2\n"
    )


def test_module_does_not_import_rich_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def refuse(name: str, *rest: object) -> ModuleType:
        assert not name.startswith("rich")
        return original(name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", refuse)
    importlib.reload(table)
