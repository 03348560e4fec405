from __future__ import annotations

import re

import pytest

from graphguard.audit.logs.configuration import Configuration
from graphguard.audit.logs.known_threads import entries, matches, release
from graphguard.audit.logs.lines import take_apart
from graphguard.audit.logs.model import Evidence

SIGN = (Evidence(4, "a line"),)


def configuration(*lines: str) -> Configuration:
    told = Configuration()
    for number, line in enumerate(lines, start=1):
        told.take(take_apart(number, line.encode()))
    return told


def test_every_thread_has_a_number_a_source_and_is_there_once() -> None:
    threads = [entry.thread for entry in entries()]
    assert len(threads) == len(set(threads)) >= 50
    for entry in entries():
        assert re.fullmatch(r"[\w.-]+/[\w.-]+#\d+", entry.thread)
        assert entry.kind in ("issues", "pull")
        assert entry.source
        assert len(entry.signs) >= 2
        re.compile(entry.model or "")
        re.compile(entry.gpu or "")
        if entry.versions_below:
            assert release(entry.versions_below)


def named(signs: dict[str, tuple[Evidence, ...]], told: Configuration) -> list[str]:
    return [thread.thread for thread in matches(signs, told)]


def test_a_thread_needs_all_of_its_signs() -> None:
    told = configuration("model='deepseek-ai/DeepSeek-V4-Flash'")
    signs = {"vllm": (), "stall": SIGN, "padded slots": SIGN, "decode": SIGN}
    assert "vllm-project/vllm#51593" in named(signs, told)
    del signs["padded slots"]
    assert "vllm-project/vllm#51593" not in named(signs, told)


@pytest.mark.parametrize(
    ("version", "fits"), [("0.27.1", True), ("0.28.0", False), ("0.33.1", False), ("0.9.2", True)]
)
def test_a_version_with_the_fix_is_left_out(version: str, fits: bool) -> None:
    told = configuration(
        f"Initializing a V1 LLM engine (v{version}) with config: model='zai-org/GLM-5.1-FP8'"
    )
    signs = {"vllm": (), "stall": SIGN, "padded slots": SIGN, "decode": SIGN}
    assert ("vllm-project/vllm#51593" in named(signs, told)) is fits


def test_a_version_that_is_no_release_is_not_compared_and_that_is_said() -> None:
    told = configuration("vLLM version: v0.1.dev15830+g8d599d76a", "model='zai-org/GLM-5.1-FP8'")
    signs = {"vllm": (), "stall": SIGN, "padded slots": SIGN, "decode": SIGN}
    found = {thread.thread: thread for thread in matches(signs, told)}
    assert "not compared" in found["vllm-project/vllm#51593"].why


def test_another_model_does_not_fit() -> None:
    told = configuration("model='Qwen/Qwen3-32B'")
    signs = {"vllm": (), "stall": SIGN, "padded slots": SIGN, "decode": SIGN}
    assert "vllm-project/vllm#51593" not in named(signs, told)


def test_a_thread_that_the_text_names_is_told() -> None:
    signs = {"names vllm-project/vllm#40926": SIGN, "vllm": ()}
    found = matches(signs, Configuration())
    assert [thread.thread for thread in found] == ["vllm-project/vllm#40926"]
    assert found[0].evidence == SIGN


def test_releases_are_compared_by_number() -> None:
    assert (release("0.9.2") or ()) < (release("v0.10") or ()) < (release("0.33.0") or ())
    assert release("0.20.1.dev45+gf69") is None
    assert release("main") is None
