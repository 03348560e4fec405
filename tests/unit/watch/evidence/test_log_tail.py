"""The end of a log without prompts and token ids."""

from __future__ import annotations

import json
import os
import string
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from graphguard.watch.evidence import log_tail
from graphguard.watch.evidence.log_lines import MAX_CHARACTERS, safe_line, wanted
from graphguard.watch.evidence.redaction import Redactor
from tests.unit.watch.stuck_processes import wait_for_state

PREFIX = "(EngineCore pid=77) ERROR 11-21 15:20:31 [dump_input.py:72] "
PROMPTS = st.text(
    string.ascii_letters + string.digits + " ,.:;()[]{}'\"\\\n=äß漢", min_size=1, max_size=80
).map(lambda text: f"Zqx{text}Zqx")
IDS = st.lists(st.integers(1000, 200_000), min_size=1, max_size=40)


def shown(line: str) -> str:
    """Return what is kept of a line."""
    return safe_line(line) if wanted(line, "") else ""


@given(PROMPTS, IDS)
@example("Zqx', x=1, y='Zqx", [7777])
@example('Zqx"), ids=(Zqx', [1, 2])
def test_a_prompt_of_vllms_request_line_is_left_out(prompt: str, ids: list[int]) -> None:
    line = (
        f"INFO 11-21 10:00:00 [logger.py:40] Received request cmpl-1: prompt: {prompt!r}, params: "
        f"SamplingParams(n=1, temperature=0.7), prompt_token_ids: {ids}, lora_request: None."
    )
    kept = shown(line)
    assert "Zqx" not in kept
    assert str(ids)[1:-1] not in kept
    assert "Received request cmpl-1" in kept
    assert kept.endswith("lora_request: None.")


@given(PROMPTS, IDS)
def test_prompts_and_ids_in_the_dump_of_a_step_are_left_out(prompt: str, ids: list[int]) -> None:
    line = (
        f"{PREFIX}Dumping scheduler output for model execution: SchedulerOutput("
        f"scheduled_new_reqs=[NewRequestData(req_id=r1,prompt_token_ids={ids},prompt={prompt!r},"
        f"mm_inputs=[],num_computed_tokens=0)], scheduled_cached_reqs=CachedRequestData("
        f"req_ids=['r2'],new_token_ids=[{ids}],num_computed_tokens=[300],num_output_tokens=[35]),"
        f" num_scheduled_tokens={{r1: 2, r2: 2}}, total_num_scheduled_tokens=4, "
        f"scheduled_spec_decode_tokens={{r1: {ids}, r2: [-1]}})"
    )
    kept = shown(line)
    assert "Zqx" not in kept
    assert str(ids)[1:-1] not in kept
    assert "num_computed_tokens=[300],num_output_tokens=[35]" in kept
    assert "num_scheduled_tokens={r1: 2, r2: 2}, total_num_scheduled_tokens=4" in kept
    assert "r2: [-1]" in kept


@given(PROMPTS, IDS)
def test_a_prompt_of_sglangs_request_line_is_left_out(prompt: str, ids: list[int]) -> None:
    line = (
        f"[2026-11-21 10:00:00 TP0] Receive: obj=GenerateReqInput(rid='x', text={prompt!r}, "
        f"input_ids={ids}, stream=False)"
    )
    kept = shown(line)
    assert "Zqx" not in kept
    assert str(ids)[1:-1] not in kept


@given(PROMPTS)
def test_a_prompt_in_json_is_left_out(prompt: str) -> None:
    request = json.dumps({"model": "m", "messages": [{"role": "user", "content": prompt}]})
    assert "Zqx" not in shown(f"INFO 11-21 10:00:00 [serving.py:1] request {request}")
    message = f"INFO 11-21 10:00:00 [serving.py:1] request {request}"
    assert "Zqx" not in shown(json.dumps({"log": message, "stream": "stdout"}))


@given(PROMPTS)
def test_what_no_logger_wrote_is_left_out(prompt: str) -> None:
    for line in prompt.splitlines():
        assume(not line.startswith("Traceback"))
        assert shown(line) == ""
        assert shown(f"(Worker_TP0 pid=12) {line}") == ""


@given(st.lists(st.integers(0, 200_000), min_size=8, max_size=40))
def test_a_run_of_numbers_is_left_out_whatever_stands_around_it(ids: list[int]) -> None:
    for text in (f"got {ids}", f"got {tuple(ids)}", "got " + " ".join(map(str, ids))):
        kept = shown(f"INFO 11-21 10:00:00 [x.py:1] {text}")
        assert ", ".join(map(str, ids[:3])) not in kept
        assert " ".join(map(str, ids[:3])) not in kept


@pytest.mark.parametrize(
    "line",
    [
        "ERROR 11-21 10:00:00 [core.py:1138] EngineCore encountered a fatal error.",
        "(EngineCore pid=1) WARNING 11-21 10:00:00 [shm_broadcast.py:681] No available shared "
        "memory broadcast block found in 60 seconds.",
        f"{PREFIX}config: 'cudagraph_capture_sizes': [1, 2, 4, 8, 16, 24, 32, 40, 48, 56], x=1",
        "host:12:34 [3] NCCL INFO comm 0x55 rank 3 nranks 8 cudaDev 3 - Init COMPLETE",
        "TimeoutError: RPC call to sample_tokens timed out.",
        '  File "/vllm/v1/executor/multiproc_executor.py", line 275, in get_response',
        "Traceback (most recent call last):",
        "graphguard: STALL ranks-diverged: rank 1 of tp:0 has not come to step 812",
        "[rank0]:[E1121 10:00:00.123 ProcessGroupNCCL.cpp:616] [Rank 0] Watchdog caught collective "
        "operation timeout",
        "2026-11-21 10:00:00,123 - vllm - ERROR - it failed",
        "[2026-11-21 10:00:00 TP0] Decode batch. #running-req: 15, #token: 3000",
        '{"levelname": "INFO", "line": 3}',
    ],
)
def test_lines_that_tell_of_trouble_are_kept_as_they_are(line: str) -> None:
    assert shown(line) == line


def test_the_source_under_a_frame_is_kept_and_elsewhere_not() -> None:
    frame = '  File "/x.py", line 3, in f'
    assert wanted("    raise TimeoutError", frame)
    assert not wanted("    my prompt", "INFO 11-21 10:00:00 [x.py:1] hello")


def test_a_long_line_is_cut() -> None:
    line = f"INFO 11-21 10:00:00 [x.py:1] {'word ' * 10_000}"
    assert len(shown(line)) < MAX_CHARACTERS + 100


@given(st.text(max_size=400))
def test_any_line_can_be_looked_at(line: str) -> None:
    wanted(line, line)
    safe_line(line)
    safe_line(f"{PREFIX}prompt={line}")


def test_the_output_of_a_process_is_its_log_where_that_is_a_file(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    program = (
        "import sys, time\n"
        "print('secret prompt of a user')\n"
        "print('INFO 11-21 10:00:00 [x.py:1] last healthy step', flush=True)\n"
        "time.sleep(600)\n"
    )
    with log.open("wb") as file:
        process = subprocess.Popen([sys.executable, "-c", program], stdout=file, stderr=file)
    try:
        wait_for_state(process.pid, "S")
        while b"healthy" not in log.read_bytes():
            wait_for_state(process.pid, "S")
        found, problems = log_tail.tails([process.pid], "", Redactor())
    finally:
        process.kill()
        process.wait(30)
    assert problems == []
    assert [tail.lines for tail in found] == [["INFO 11-21 10:00:00 [x.py:1] last healthy step"]]
    text = log_tail.as_text(found)
    assert "secret prompt" not in text
    assert "1 line(s) that no logger wrote" in text


def test_a_pipe_is_no_log() -> None:
    process = subprocess.Popen(["sleep", "600"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        found, problems = log_tail.tails([process.pid], "", Redactor())
    finally:
        process.kill()
        process.communicate(timeout=30)
    assert found == []
    assert all("regular file" in problem for problem in problems)


def test_only_the_end_of_a_large_log_is_read_and_its_first_line_is_whole(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    line = "INFO 11-21 10:00:00 [x.py:1] step {:07d} and so on"
    log.write_text("".join(f"{line.format(number)}\n" for number in range(20_000)))
    (tail,), _ = log_tail.tails([], str(log), Redactor())
    assert len(tail.lines) == log_tail.MAX_LINES
    assert tail.lines[-1] == line.format(19_999)
    assert tail.lines[0] == line.format(20_000 - log_tail.MAX_LINES)


@pytest.mark.parametrize("name", ["absent.log", ".", "fifo"])
def test_what_is_no_log_is_named_with_why(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / "fifo")
    found, problems = log_tail.tails([], str(tmp_path / name), Redactor())
    assert found == []
    assert len(problems) == 1
