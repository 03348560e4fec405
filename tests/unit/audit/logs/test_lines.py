from __future__ import annotations

import pytest

from graphguard.audit.logs.lines import Line, take_apart


def parts(text: str) -> tuple[str, str, str, str, str]:
    line = take_apart(1, text.encode())
    return line.process, line.level, line.time, line.source, line.message


VLLM = "INFO 05-06 10:20:52 [shm_broadcast.py:681] No available block"
OF_VLLM = ("INFO", "05-06 10:20:52", "shm_broadcast.py:681", "No available block")


@pytest.mark.parametrize(
    ("text", "process"),
    [
        (VLLM, ""),
        (f"(EngineCore pid=311) {VLLM}", "EngineCore"),
        (f"(EngineCore_DP1 pid=311) {VLLM}", "EngineCore_DP1"),
        (f"(VllmWorker rank=2 pid=267) {VLLM}", "VllmWorker rank=2"),
        (f"(Worker_TP0_EP0 pid=12) {VLLM}", "Worker_TP0_EP0"),
        (f"prod-7 (EngineCore pid=311) {VLLM}", "EngineCore"),
        (f"vllm-1  | (EngineCore pid=311) {VLLM}", "EngineCore"),
        (f"> (EngineCore pid=311) {VLLM}", "EngineCore"),
        (
            f"\x1b[36m(RayWorkerProc pid=91, ip=10.0.0.2)\x1b[0m (Worker_TP3 pid=9) {VLLM}",
            "Worker_TP3",
        ),
        (f"Capturing CUDA graphs:   0%|    | 0/5 [00:00<?](EngineCore pid=7) {VLLM}", "EngineCore"),
        (f"2026-05-06T10:20:52.123Z stderr F (EngineCore pid=311) {VLLM}", "EngineCore"),
        (f"Nov 21 10:20:52 gpu-7 vllm[4711]: (EngineCore pid=311) {VLLM}", "EngineCore"),
        (f"(\x1b[0;36mEngineCore pid=311\x1b[0;0m) {VLLM}", "EngineCore"),
    ],
)
def test_prefix_of_vllm_in_every_wrapper(text: str, process: str) -> None:
    assert parts(text) == (process, *OF_VLLM)


def test_older_prefix_without_bracket_before_the_file() -> None:
    assert parts("INFO 01-04 17:21:02 core.py:247] RUNNING: 306")[1:] == (
        "INFO",
        "01-04 17:21:02",
        "core.py:247",
        "RUNNING: 306",
    )


def test_formats_of_other_engines() -> None:
    assert parts("[2026-01-29 13:12:37 DP1 TP0] Watchdog timeout") == (
        "DP1 TP0",
        "",
        "2026-01-29 13:12:37",
        "",
        "Watchdog timeout",
    )
    torch = "[rank3]:[E1218 20:27:21.426415540 ProcessGroupNCCL.cpp:629] [Rank 3] Watchdog caught"
    assert parts(torch) == (
        "rank3",
        "E",
        "1218 20:27:21",
        "ProcessGroupNCCL.cpp:629",
        "[Rank 3] Watchdog caught",
    )
    trt = "[11/20/2026-10:31:00] [TRT-LLM] [RANK 1] [E] Hang detected"
    assert parts(trt) == ("rank1", "E", "11/20/2026-10:31:00", "", "Hang detected")


def test_json_of_a_formatter_and_of_docker() -> None:
    record = (
        '{"asctime": "2026-05-06 10:20:52,000", "levelname": "ERROR", "processName": "EngineCore", '
        '"process": 311, "message": "EngineCore encountered a fatal error."}'
    )
    assert parts(record) == (
        "EngineCore",
        "ERROR",
        "2026-05-06 10:20:52,000",
        "",
        "EngineCore encountered a fatal error.",
    )
    docker = (
        f'{{"log": "(EngineCore pid=1) {VLLM}\\n", "stream": "stderr", "time": "2026-05-06T1"}}'
    )
    assert parts(docker) == ("EngineCore", *OF_VLLM)


@pytest.mark.parametrize(
    "cut",
    [
        '{"log": "SchedulerOutput(a=[1,", "stream": "stderr", "time": "t"}',
        "2026-05-06T10:20:52.123Z stderr P SchedulerOutput(a=[1,",
    ],
)
def test_a_line_that_the_runtime_cut_is_partial(cut: str) -> None:
    line = take_apart(7, cut.encode())
    assert (line.partial, line.message) == (True, "SchedulerOutput(a=[1,")


def test_what_is_no_prefix_stays_in_the_message() -> None:
    for text in ("", "plain", "{not json}", '{"a": 1}', "[1, 2]", "(x) y", "[2026-13] z"):
        assert take_apart(3, text.encode()) == Line(3, "", "", "", "", "", text)
