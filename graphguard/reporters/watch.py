"""All ranks of a job as lines for a terminal, as many and as wide as it has room for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from textwrap import wrap
from typing import NamedTuple

from graphguard.audit.findings import ranks_text
from graphguard.blackbox.words import counted, duration, moment
from graphguard.printable import printable
from graphguard.reporters import watch_words as words
from graphguard.watch.looking.ranks import RankState
from graphguard.watch.looking.view import Doing, View, doing

LEAST_WIDTH = 20
LEAST_ROWS = 4
"""Ranks that are shown however low the terminal is."""

MAX_STALLS = 4
MAX_SLOW = 4
MAX_NOTES = 4

_GAP = "  "
_LEAST_DOING = 8


class Line(NamedTuple):
    """A line, and what it is: ``title``, ``head``, ``trouble``, ``slow``, or nothing."""

    text: str
    kind: str = ""


class _Column(NamedTuple):
    """A column: its head, its cells, when it goes (the lowest first), and how far it is cut."""

    head: str
    cell: Callable[[RankState], str]
    goes: int
    least: int = 0
    right: bool = False


_STAYS = 100
_COLUMNS = (
    _Column("rank", lambda state: str(state.rank), _STAYS, right=True),
    _Column("pid", lambda state: str(state.pid), 6, right=True),
    _Column("host", lambda state: state.host, 1, least=8),
    _Column("state", lambda state: str(doing(state)), _STAYS),
    _Column("group", words.group, 5, least=8),
    _Column("step", lambda state: str(words.step(state) or ""), _STAYS, right=True),
    _Column("doing", words.what, _STAYS, least=24),
    _Column("age", lambda state: _duration(words.age_ns(state)), _STAYS, right=True),
    _Column("watchdog", words.beat, 2),
    _Column("verdicts", words.verdicts, 3, least=12),
    _Column("stalls", words.stalls, 4, right=True),
)


def render(view: View, width: int = 200) -> str:
    """Return all ranks, and what is wrong with them, as text."""
    return "".join(f"{line.text}\n" for line in lines(view, width))


def lines(view: View, width: int, height: int | None = None) -> list[Line]:
    """Return a view as lines.

    Args:
        view: The ranks.
        width: Characters of a line.
        height: Lines that there is room for; None for all that there are. Where ranks have to be
            left out, those in trouble are shown first.
    """
    width = max(width, LEAST_WIDTH)
    below = [part for line in _below(view) for part in _wrapped(line, width)]
    room = len(view.ranks)
    if height is not None:
        room = max(LEAST_ROWS, height - len(below) - 4)
    shown = _chosen(view.ranks, room)
    table = _table(shown, width)
    if len(shown) < len(view.ranks):
        table.append(_left_out(view.ranks, shown))
    every = [Line(_title(view), "title"), *table, *below]
    return [Line(_cut(printable(line.text), width), line.kind) for line in every][:height]


def _title(view: View) -> str:
    size = max((state.world_size for state in view.ranks), default=0)
    ranks = f"{len(view.ranks)} of {counted(size, 'rank')}"
    return f"{moment(view.looked_ns)[:8]} UTC  {ranks}: {words.summary(view)}  ({view.where})"


def _chosen(ranks: Sequence[RankState], room: int) -> list[RankState]:
    if len(ranks) <= room:
        return list(ranks)
    order = list(Doing)
    by_trouble = sorted(ranks, key=lambda state: (order.index(doing(state)), state.rank))
    return sorted(by_trouble[: max(1, room - 1)], key=lambda state: (state.rank, state.host))


def _left_out(ranks: Sequence[RankState], shown: Sequence[RankState]) -> Line:
    places = {id(state) for state in shown}
    rest = [state for state in ranks if id(state) not in places]
    kinds = ", ".join(dict.fromkeys(str(doing(state)) for state in rest))
    return Line(f"and {ranks_text(sorted({state.rank for state in rest}))}: {kinds}")


def _table(ranks: Sequence[RankState], width: int) -> list[Line]:
    cells = {
        column.head: [column.head, *(printable(column.cell(state)) for state in ranks)]
        for column in _COLUMNS
    }
    said = {
        column.head for column in _COLUMNS if column.goes == _STAYS or any(cells[column.head][1:])
    }
    widths = _widths({head: max(map(len, cells[head])) for head in said}, width)
    rows = []
    for place in range(len(ranks) + 1):
        row = _GAP.join(
            _padded(cells[column.head][place], widths[column.head], column.right)
            for column in _COLUMNS
            if column.head in widths
        ).rstrip()
        rows.append(Line(row, "head" if place == 0 else _kind(doing(ranks[place - 1]))))
    return rows


def _widths(natural: dict[str, int], width: int) -> dict[str, int]:
    """Return the widths of the columns that fit; the least useful go, then some are cut."""
    columns = [column for column in _COLUMNS if column.head in natural]

    def excess(widths: list[int]) -> int:
        return sum(widths) + len(_GAP) * (len(widths) - 1) - width

    def cut(column: _Column) -> int:
        return min(natural[column.head], column.least or natural[column.head])

    for leaving in sorted(columns, key=lambda column: column.goes):
        if leaving.goes == _STAYS or excess([cut(column) for column in columns]) <= 0:
            break
        columns.remove(leaving)
    widths = {column.head: natural[column.head] for column in columns}
    for column in sorted(columns, key=lambda column: column.goes):
        too_wide = max(0, excess(list(widths.values())))
        widths[column.head] -= min(too_wide, widths[column.head] - cut(column))
    # A very narrow terminal still shows for how long.
    last = "doing"
    too_wide = max(0, excess(list(widths.values())))
    widths[last] -= min(too_wide, max(0, widths[last] - _LEAST_DOING))
    return widths


def _below(view: View) -> list[Line]:
    """Return what comes below the table: stalls, what is slow, notes of errors."""
    below: list[Line] = []
    stalls = []
    for bundle in view.bundles[:MAX_STALLS]:
        kind = "trouble" if bundle in view.open_stalls else ""
        stalls.append(Line(f"  {words.bundle(bundle, view)}", kind))
        stalls += [Line(f"    nodes: {bundle.nodes}")] if bundle.nodes else []
        stalls.append(Line(f"    {bundle.path}"))
    slow = [Line(f"  {text}", "slow") for text in map(words.slow, view.ranks) if text]
    notes = [
        Line(f"  rank {state.rank}: {state.note}", "trouble") for state in view.ranks if state.note
    ]
    for title, shown, most in (
        ("stalls", stalls, 3 * MAX_STALLS),
        ("under way for long", slow, MAX_SLOW),
        ("errors that ranks noted", notes, MAX_NOTES),
    ):
        if shown:
            below += [Line(""), Line(title, "head"), *shown[:most]]
            if len(shown) > most:
                below.append(Line(f"  and {len(shown) - most} more"))
    if len(view.bundles) > MAX_STALLS:
        below.append(Line(f"{len(view.bundles) - MAX_STALLS} older stalls are not shown"))
    return below


def _wrapped(line: Line, width: int) -> list[Line]:
    indent = " " * (len(line.text) - len(line.text.lstrip()))
    parts = wrap(
        printable(line.text),
        width,
        initial_indent="",
        subsequent_indent=f"{indent}  ",
        break_on_hyphens=False,
    )
    return [Line(part, line.kind) for part in parts] or [line]


def _kind(word: Doing) -> str:
    if word.trouble:
        return "trouble"
    return "slow" if word is Doing.EXTENDED else ""


def _padded(cell: str, width: int, right: bool) -> str:
    cut = _cut(cell, width)
    return cut.rjust(width) if right else cut.ljust(width)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _duration(nanoseconds: int | None) -> str:
    return "" if nanoseconds is None else duration(nanoseconds)
