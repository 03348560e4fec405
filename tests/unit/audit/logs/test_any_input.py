"""Whatever is in a log, it is read without an error, and what is said names its lines."""

from __future__ import annotations

import io
import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from graphguard.audit.logs import read_bytes, scanning
from graphguard.audit.logs.dump import read_dump
from graphguard.audit.logs.events import PATTERNS
from graphguard.audit.logs.lines import take_apart
from graphguard.audit.logs.reading import read_stream
from graphguard.reporters import diagnosis as text
from graphguard.reporters import diagnosis_json

LOGS = Path(__file__).parents[3] / "data" / "logs"
CONTENTS = {path.stem: path.read_bytes()[:60_000] for path in sorted(LOGS.glob("*.log"))}
NAMES = st.sampled_from(sorted(CONTENTS))
HINTS = sorted({hint for hints, _ in PATTERNS.values() for hint in hints})
WORDS = st.sampled_from(
    [
        *HINTS,
        "SchedulerOutput(",
        "SchedulerStats(num_running_reqs=",
        "num_scheduled_tokens={a: 2, ",
        "scheduled_spec_decode_tokens={a: [-1]",
        "num_output_tokens=[",
        "total_num_scheduled_tokens=30",
        "'cudagraph_capture_sizes': [1, 2",
        "'cudagraph_mode': <CUDAGraphMode.FULL: 2>",
        "num_spec_tokens=1",
        "(EngineCore pid=1) ERROR 05-06 10:00:00 [a.py:1] ",
        '{"log": "',
        "\\n",
        "\n",
        "\r\n",
        "'",
        '"',
        ")",
        "]",
        "}",
        " ",
        "1",
        "RPC call to x timed out",
        "TimeoutError: ",
        "No available shared memory broadcast block found in 60 seconds",
        "Avg generation throughput: 0.0 tokens/s, Running: 3 reqs",
        "Avg generation throughput: 9 tokens/s",
        'File "shm_broadcast.py", line 1, in memory_fence',
        "WorkNCCL(SeqNum=1, OpType=A",
        "\x1b[31m",
    ]
)


def render(content: bytes) -> None:
    found = read_bytes(content)
    diagnosis_json.render([found])
    for line in text.render([found]).splitlines():
        assert line.isprintable()


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=4000))
def test_any_bytes_are_read(content: bytes) -> None:
    render(content)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(WORDS, st.text(max_size=8)), max_size=60).map("".join))
def test_any_mixture_of_what_matters_is_read(content: str) -> None:
    render(content.encode("utf-8", "replace"))


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(NAMES, st.integers(0, 2**32), st.integers(1, 30))
def test_logs_with_parts_cut_moved_and_overwritten_are_read(
    name: str, seed: int, times: int
) -> None:
    content = CONTENTS[name]
    chance = random.Random(seed)  # noqa: S311
    changed = bytearray(content)
    for _ in range(times):
        at, size = chance.randrange(len(changed) + 1), chance.randrange(200)
        part = bytes(changed[at : at + size])
        to = chance.randrange(len(changed) + 1)
        if chance.random() < 0.5:
            del changed[at : at + size]
        changed[to:to] = part if chance.random() < 0.7 else chance.randbytes(size % 20)
    render(bytes(changed))


@settings(max_examples=100, deadline=None)
@given(st.lists(WORDS, max_size=50).map("".join))
def test_any_text_is_a_dump_and_a_line(content: str) -> None:
    read_dump(content)
    line = take_apart(1, content.encode())
    assert line.number == 1


@settings(max_examples=60, deadline=None)
@given(NAMES, st.integers(1, 5000))
@example("utf-16", 1)
def test_in_what_pieces_a_log_comes_does_not_matter(name: str, piece: int) -> None:
    content = CONTENTS[name]
    whole = read_bytes(content)

    class Pieces(io.BytesIO):
        def read(self, _size: int | None = -1) -> bytes:
            return super().read(piece)

    assert read_stream(Pieces(content), "") == whole


HOSTILE = {
    "dots": b"a." * 200_000 + b"#",
    "brackets": b"SchedulerOutput(" + b"[" * 400_000,
    "quotes": b"SchedulerOutput(num_scheduled_tokens={" + b"'," * 200_000,
    "prefixes": b"(A pid=1) " * 40_000,
    "running": b"Running: 1 reqs " * 30_000 + b"throughput",
    "escapes": b"\x1b[" * 200_000,
    "json": b'{"log": "' + b"[" * 100_000 + b'"}',
    "nested json": b'{"a":' * 50_000,
    "errors": b"ERROR\n" * 3_000,
    "worker proc": b"ERROR Worker proc " * 20_000,
    "dumps": b"ERROR SchedulerOutput(\n" * 3_000,
}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", HOSTILE)
def test_a_line_made_to_take_long_does_not(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No time is asserted: what goes with the square of a length would meet the test's limit."""
    monkeypatch.setattr(scanning, "DETAILED_BYTES", 1 << 16)
    render(b"Initializing a V1 LLM engine (v0.20.1)\n" + HOSTILE[name] + b"\n")
