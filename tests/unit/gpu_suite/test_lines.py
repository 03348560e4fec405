"""What is read of a stage's output, which may be anything."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest

from tests.gpu.suite import lines
from tests.gpu.suite.lines import MARK, Claim, Figure, NotRun, Spread
from tests.gpu.suite.measuring import in_turn, spread_of

SPREAD = b'{"n":3,"median":2,"p10":1,"p90":3}'


def line(content: bytes) -> bytes:
    return MARK + b" " + content + b"\n"


def test_what_is_told_is_read_again_wherever_it_stands() -> None:
    program = (
        "from tests.gpu.suite.lines import *\n"
        "print('a line that has not ended', end='')\n"
        "tell(Claim('a', None, 'b')); tell(NotRun('c', 'd'))\n"
        "tell(Figure('e', 'µs', Spread(1, 2.0, 2.0, 2.0)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    told = lines.read(done.stdout)
    assert told.claims == (Claim("a", None, "b"),)
    assert told.not_run == (NotRun("c", "d"),)
    assert told.figures == (Figure("e", "µs", Spread(1, 2.0, 2.0, 2.0)),)
    assert told.garbled == 0


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no json",
        b"{}",
        b"[1]",
        b'{"type":"unknown","what":"a"}',
        b'{"type":"claim","what":"a"}',
        b'{"type":"claim","what":"","held":true}',
        b'{"type":"claim","what":"a","held":"yes"}',
        b'{"type":"claim","what":"a","held":true,"more":1}',
        b'{"type":"claim","what":"\xff","held":true}',
        b'{"type":"claim","what":"' + b"a" * 3_000 + b'","held":true}',
        b'{"type":"claim","what":"' + b"a" * 70_000 + b'","held":true}',
        b'{"type":"figure","what":"a","unit":"s","spread":{"n":0,"median":2,"p10":1,"p90":3}}',
        b'{"type":"figure","what":"a","unit":"s","spread":{"n":3,"median":9,"p10":1,"p90":3}}',
        b'{"type":"figure","what":"a","unit":"s","spread":{"n":3,"median":NaN,"p10":1,"p90":3}}',
        b'{"type":"figure","what":"a","unit":"s","spread":{"n":3,"median":2,"p10":1,"p90":1e999}}',
        b'{"type":"figure","what":"a","unit":"s","spread":{"n":1,"median":1e999,"p10":1e999,'
        b'"p90":1e999}}',
        b'{"type":"figure","what":"a","unit":"s","spread":' + b"[" * 50_000,
        b'{"type":"figure","what":"a","unit":"s","spread":%s,"ratio":{"n":1}}' % SPREAD,
    ],
)
def test_what_is_no_line_is_counted_and_not_believed(content: bytes) -> None:
    good = line(b'{"type":"claim","what":"good","held":true}')
    told = lines.read(line(content) + good)
    assert (told.garbled, [claim.what for claim in told.claims]) == (1, ["good"])
    assert told.figures == ()


def test_any_bytes_are_read_without_an_error() -> None:
    chance = random.Random(3)  # noqa: S311
    whole = line(b'{"type":"figure","what":"a","unit":"s","spread":%s}' % SPREAD) * 3
    for _ in range(2_000):
        content = bytearray(whole)
        for _ in range(chance.randint(1, 8)):
            content[chance.randrange(len(content))] = chance.randrange(256)
        told = lines.read(bytes(content[: chance.randint(0, len(content))]))
        assert len(told.figures) + told.garbled <= 4


def test_no_more_lines_are_kept_than_a_table_can_hold() -> None:
    one = line(b'{"type":"claim","what":"a","held":true}')
    told = lines.read(one * (lines.MAX_LINES + 10))
    assert (len(told.claims), told.garbled) == (lines.MAX_LINES, 10)


def test_a_spread_says_how_values_lie() -> None:
    assert spread_of([5.0]) == Spread(1, 5.0, 5.0, 5.0, least=5.0)
    spread = spread_of([float(n) for n in range(101)])
    assert (spread.least, spread.p10, spread.median, spread.p90, spread.p99) == (0, 10, 50, 90, 99)
    with pytest.raises(ValueError, match="nothing"):
        spread_of([])


def test_candidates_take_turns_and_the_warm_up_is_left_out() -> None:
    order: list[str] = []
    candidates = {name: (lambda name=name: order.append(name)) for name in "abc"}

    def measure(candidate: object) -> float:
        candidate()  # type: ignore[operator]
        return float(len(order))

    values = in_turn(candidates, rounds=3, measure=measure, warm_up=3)
    assert "".join(order) == "abcbcacab" * 2
    assert {name: len(taken) for name, taken in values.items()} == {"a": 3, "b": 3, "c": 3}
    assert min(map(min, values.values())) == 10
