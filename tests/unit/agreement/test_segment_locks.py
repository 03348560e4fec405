"""The locks by which ranks know of each other that they live."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from graphguard.agreement.segment import DIRECTORY, Segment

# Joins the first group of its process, and then makes the segment of a second one, which looks for
# what dead runs have left behind.
MEMBER = """
import os, sys
from graphguard.agreement.segment import DIRECTORY, Segment, SegmentName
first = Segment.open(SegmentName(sys.argv[1], int(sys.argv[2])), 2)
first.hold(1)
os.utime(os.path.join(DIRECTORY, first.name.file), (0, 0))
second = Segment.create(2)
second.remove_name()
print("joined", flush=True)
sys.stdin.read()
"""


def test_a_place_stays_held_while_its_process_makes_the_segment_of_another_group() -> None:
    segment = Segment.create(2)
    # As old as what dead runs have left behind.
    os.utime(Path(DIRECTORY, segment.name.file), (0, 0))
    arguments = [segment.name.file, str(segment.name.token)]
    member = subprocess.Popen(
        [sys.executable, "-c", MEMBER, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert member.stdout is not None
        assert member.stdout.readline() == "joined\n"
        assert segment.held(1)
    finally:
        segment.remove_name()
        member.kill()
        member.communicate()
    assert not segment.held(1)
