"""Segments of shared memory: private, sized, and gone when nobody has them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from graphguard import LedgerError, _core
from graphguard.agreement import segment as segments
from graphguard.agreement.segment import Segment, SegmentName

HOLDER = """
import sys
from graphguard.agreement.segment import Segment
segment = Segment.create(2)
print(segment.name.file, segment.name.token, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def segment() -> Iterator[Segment]:
    made = Segment.create(2)
    yield made
    made.remove_name()


def test_a_segment_is_private_and_has_its_full_size(segment: Segment) -> None:
    status = os.stat(Path(segments.DIRECTORY, segment.name.file))
    assert status.st_mode & 0o777 == 0o600
    assert status.st_size == _core.ledger_bytes(2)
    # Every page is there already, so that no write can fail.
    assert status.st_blocks * 512 >= status.st_size


def test_a_segment_outlives_its_name(segment: Segment) -> None:
    other = Segment.open(segment.name, 2)
    segment.remove_name()
    ledger = _core.Ledger(other.descriptor, other.size, 1, segment.name.token, 1, False)
    assert ledger.passed(0) == 0
    assert not Path(segments.DIRECTORY, segment.name.file).exists()


def test_a_segment_of_another_size_is_refused(segment: Segment) -> None:
    with pytest.raises(LedgerError, match="bytes and not"):
        Segment.open(segment.name, 3)


def test_a_segment_of_another_run_is_refused(segment: Segment) -> None:
    with pytest.raises(RuntimeError, match="another run"):
        _core.Ledger(segment.descriptor, segment.size, 0, segment.name.token ^ 1, 1, False)


def test_a_place_is_taken_once(segment: Segment) -> None:
    arguments = (segment.descriptor, segment.size, 0, segment.name.token)
    _core.Ledger(*arguments, 11, False)
    with pytest.raises(RuntimeError, match="taken by process 11"):
        _core.Ledger(*arguments, 12, False)


@pytest.mark.parametrize("mode", [0o604, 0o640])
def test_a_segment_that_others_may_read_is_refused(segment: Segment, mode: int) -> None:
    os.chmod(Path(segments.DIRECTORY, segment.name.file), mode)
    with pytest.raises(LedgerError, match="open to others"):
        Segment.open(segment.name, 2)


@pytest.mark.parametrize("name", ["../etc/passwd", "graphguard-1/../../x", "other"])
def test_a_name_that_leads_elsewhere_is_refused(name: str) -> None:
    with pytest.raises(LedgerError, match="is no name of a ledger"):
        Segment.open(SegmentName(name, 1), 2)


def test_a_link_in_the_place_of_a_segment_is_refused(segment: Segment, tmp_path: Path) -> None:
    file = f"{segment.name.file}.link"
    link = Path(segments.DIRECTORY, file)
    link.symlink_to(tmp_path)
    try:
        with pytest.raises(LedgerError, match="cannot be opened"):
            Segment.open(msgspec.structs.replace(segment.name, file=file), 2)
    finally:
        link.unlink()


def test_memory_that_is_no_ledger_is_refused(tmp_path: Path) -> None:
    size = _core.ledger_bytes(2)
    path = tmp_path / "zeros"
    path.write_bytes(bytes(size))
    descriptor = os.open(path, os.O_RDWR)
    try:
        with pytest.raises(RuntimeError, match="is no ledger"):
            _core.Ledger(descriptor, size, 0, 1, 1, False)
    finally:
        os.close(descriptor)


def test_a_place_is_held_until_its_process_is_gone_and_then_swept_away() -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        file, token = holder.stdout.readline().split()
        seen = Segment.open(SegmentName(file, int(token)), 2)
        assert seen.held(0)
        assert not seen.held(1)
        # A new segment does not take the name away while its maker lives …
        Segment.create(2).remove_name()
        assert Path(segments.DIRECTORY, file).exists()
    finally:
        holder.kill()
        holder.communicate()
    assert not seen.held(0)
    # … nor as long as another process may be about to take its place in it …
    Segment.create(2).remove_name()
    path = Path(segments.DIRECTORY, file)
    assert path.exists()
    # … and does so when it is gone.
    os.utime(path, (0, 0))
    Segment.create(2).remove_name()
    assert not Path(segments.DIRECTORY, file).exists()
