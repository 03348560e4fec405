"""The locks by which ranks know of each other that they live."""

from __future__ import annotations

import subprocess
import sys

from graphguard.agreement.segment import Segment

# Joins the first group of its process, and then makes the segment of a second one, which looks for
# what dead runs have left behind.
MEMBER = """
import sys
from graphguard.agreement.segment import Segment, SegmentName
first = Segment.open(SegmentName(sys.argv[1], int(sys.argv[2])), 2)
first.hold(1)
second = Segment.create(2)
second.remove_name()
print("joined", flush=True)
sys.stdin.read()
"""


def test_a_place_stays_held_while_its_process_makes_the_segment_of_another_group() -> None:
    segment = Segment.create(2)
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
