"""Whatever a ring holds can be watched. Files come from anywhere."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from hypothesis import given, settings
from msgspec.json import decode

from graphguard.reporters import watch, watch_json
from graphguard.watch.looking.ranks import Ranks
from graphguard.watch.looking.view import Watched
from tests.unit.reporters.test_blackbox_inputs import FLIPS, NAMES, RECORDS, box_of


def show(directory: Path) -> None:
    watched = Watched(Ranks([directory], max_threads=0), "run")
    for _ in range(2):
        view = watched.look()
        for width, height in ((200, None), (60, 10), (1, 1)):
            told = [line.text for line in watch.lines(view, width, height)]
            assert all(line.isprintable() for line in told)
            assert all(len(line) <= max(width, watch.LEAST_WIDTH) for line in told)
        line = watch_json.render(view)
        assert line.endswith("\n")
        assert line[:-1].isprintable()
        assert decode(line)["schema"] == "graphguard.watch"


@settings(max_examples=60, deadline=None)
@given(RECORDS, NAMES)
def test_any_records_can_be_watched(records: list[tuple[int, ...]], names: list[str]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        box_of(Path(directory), records, names)
        show(Path(directory))


@settings(max_examples=60, deadline=None)
@given(RECORDS, NAMES, FLIPS)
def test_a_damaged_ring_is_watched_or_left_out(
    records: list[tuple[int, ...]], names: list[str], flips: list[tuple[int, int]]
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = box_of(Path(directory), records, names)
        content = bytearray(path.read_bytes())
        for place, value in flips:
            content[place] = value
        # Not the file that is mapped: that would be a change under its writer.
        damaged = path.with_name("blackbox.rank0.1.ring")
        damaged.write_bytes(content)
        os.unlink(path)
        show(Path(directory))
