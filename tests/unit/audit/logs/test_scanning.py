from __future__ import annotations

import io

import pytest

from graphguard.audit.logs import scanning
from graphguard.audit.logs.scanning import anchors, scan

SMALL = 4096


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scanning, "BLOCK_BYTES", SMALL)
    monkeypatch.setattr(scanning, "DETAILED_BYTES", SMALL)
    monkeypatch.setattr(scanning, "END_BYTES", 0)


def fed(content: bytes, engine: str | None = None, wanted: int = 0) -> tuple[list[int], int]:
    numbers: list[int] = []
    whole = content.split(b"\n")

    def feed(number: int, line: bytes) -> int:
        assert line.rstrip(b"\n") == whole[number - 1][: len(line.rstrip(b"\n"))]
        numbers.append(number)
        return wanted if b"EngineCore ERROR" in line else 0

    return numbers, scan(io.BytesIO(content).read, feed, lambda: engine)


@pytest.mark.parametrize("anchor", sorted({*anchors(None)[0]}))
def test_each_anchor_is_found_under_its_line_number(anchor: bytes) -> None:
    filler = b"x" * 50 + b"\n"
    content = filler * 200 + b"- " + anchor + b" -\n" + filler * 200 + b"\n"
    numbers, lines = fed(content)
    assert 201 in numbers
    assert lines == 402


def test_anchors_of_an_engine_are_some_of_all() -> None:
    everything = {*anchors(None)[0]}
    for engine in ("vllm", "sglang", "tensorrt-llm", "pytorch"):
        assert set(anchors(engine)[0]) < everything
        assert set(anchors(engine)[1]) < {*anchors(None)[1]}


def test_only_the_start_is_fed_where_nothing_matters() -> None:
    numbers, lines = fed((b"y" * 63 + b"\n") * 1000)
    assert numbers == list(range(1, SMALL // 64 + 1))
    assert lines == 1000


def test_lines_after_one_that_wants_them_are_fed_across_blocks() -> None:
    filler = b"z" * 63 + b"\n"
    content = filler * 127 + b"EngineCore ERROR\n" + filler * 500
    numbers, _ = fed(content, wanted=100)
    assert numbers[-101:] == list(range(128, 229))


def test_the_last_progress_before_trouble_is_fed() -> None:
    rate = b"Avg generation throughput: 10.0 tokens/s\n"
    filler = b"z" * 63 + b"\n"
    content = filler * 70 + rate * 3 + b"EngineCore ERROR\n" + filler * 10
    numbers, _ = fed(content, "vllm")
    assert numbers[-2:] == [73, 74]


def test_a_start_of_an_engine_is_read_line_by_line() -> None:
    filler = b"z" * 63 + b"\n"
    numbers, _ = fed(filler * 100 + b"Initializing a V1 LLM engine\n" + filler * 200)
    assert numbers[-60:] == list(range(numbers[-1] - 59, numbers[-1] + 1))
    assert numbers[-60] > 100


def test_a_line_without_an_end_and_one_that_is_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scanning, "MAX_LINE_BYTES", 2 * SMALL)
    long = b"ERROR " + b"w" * (10 * SMALL)
    sizes: dict[int, int] = {}

    def feed(number: int, line: bytes) -> int:
        sizes[number] = len(line)
        return 0

    content = b"first\n" + long + b"\nthird ERROR"
    assert scan(io.BytesIO(content).read, feed, lambda: None) == 3
    assert sizes[2] <= 3 * SMALL + 1
    assert sizes[3] == len(b"third ERROR\n")


def test_the_end_is_read_line_by_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scanning, "END_BYTES", 640)
    numbers, lines = fed((b"y" * 63 + b"\n") * 1000)
    assert lines == 1000
    assert numbers[-10:] == list(range(991, 1001))
