"""The profiler plugin, driven by a program that does with it what NCCL does, with sanitizers.

NCCL itself makes no communicator without a GPU. What the program does is written from NCCL's
sources (``csrc/stress/nccl_emulation.h``); ``tests/gpu/test_nccl_plugin.py`` has the real one.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.native.cmake_target import NativeBuildError, build

RUN_TIMEOUT = 60
VERSIONS = (4, 5, 6, 7)
WITH_API_EVENTS = (5, 6, 7)


class Line(NamedTuple):
    """A line of the program's output: what it is about, and its fields."""

    about: str
    fields: dict[str, str]


class Host:
    """The program, as one sanitizer has it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def module(self, name: str) -> Path:
        return self.folder / f"libgraphguard_nccl_{name}.so"

    def run(
        self, version: int, scenario: str, variables: Mapping[str, object] | None = None
    ) -> list[Line]:
        driver = {"GRAPHGUARD_CUDA_DRIVER": self.module("driver")}
        done = subprocess.run(
            [self.folder / "graphguard_nccl_host", self.module("checked"), str(version), scenario],
            env={**os.environ, **{k: str(v) for k, v in {**driver, **(variables or {})}.items()}},
            capture_output=True,
            text=True,
            timeout=RUN_TIMEOUT,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        *lines, last = done.stdout.splitlines()
        assert last == "ok", done.stdout
        return [parse(line) for line in lines]


def parse(line: str) -> Line:
    about, _, rest = line.partition(" ")
    return Line(about, dict(re.findall(r"(\w+(?: \w+)?)=(\S*)", rest)))


def of(lines: list[Line], about: str) -> list[dict[str, str]]:
    return [line.fields for line in lines if line.about == about]


def built(option: str, folder: str) -> Host:
    try:
        return Host(build("graphguard_nccl_host", option, folder).parent)
    except NativeBuildError as error:
        pytest.fail(f"the program that drives the plugin cannot be built: {error}", pytrace=False)


@pytest.fixture(scope="module")
def host() -> Host:
    return built("GRAPHGUARD_STRESS", "stress")


@pytest.fixture(scope="module")
def thread_host() -> Host:
    return built("GRAPHGUARD_TSAN", "thread-stress")


def told(calls: list[dict[str, str]]) -> list[tuple[str, ...]]:
    return [(c["operation"], c["count"], c["dtype"], c["root"], c["peer"]) for c in calls]


@pytest.mark.parametrize("version", WITH_API_EVENTS)
def test_each_call_of_a_capture_is_recorded_once_in_order_and_nothing_else(
    host: Host, version: int
) -> None:
    calls = of(host.run(version, "sequence"), "call")
    assert told(calls) == [
        ("all_reduce", "10", "bfloat16", "-1", "-1"),
        ("all_gather", "20", "float16", "-1", "-1"),
        ("reduce_scatter", "30", "float32", "-1", "-1"),
        ("broadcast", "40", "int64", "2", "-1"),
        ("reduce", "50", "float8_e4m3fn", "5", "-1"),
        ("send", "60", "float32", "-1", "-1"),
        ("recv", "70", "float32", "-1", "-1"),
    ]
    for number, call in enumerate(calls, start=1):
        assert call["order"] == str(number)
        assert (call["rank"], call["hash"]) == ("3/8", "abc")
        assert (call["capture"], call["captured"]) == ("7", "1")
    assert calls[0]["tag"] == ("42" if version == 7 else "0")


@pytest.mark.parametrize("version", WITH_API_EVENTS)
def test_only_events_that_leave_a_captured_graph_alone_are_asked_for(
    host: Host, version: int
) -> None:
    assert of(host.run(version, "sequence"), "mask") == [{"value": str(0x700)}]


def test_nccl_2_27_tells_peers_and_what_it_made_of_the_calls(host: Host) -> None:
    lines = host.run(4, "sequence")
    assert of(lines, "mask") == [{"value": str(0b110)}]
    assert told(of(lines, "call")) == [
        ("all_reduce", "10", "bfloat16", "-1", "-1"),
        # NCCL has counted the bytes of these.
        ("all_gather", "20", "bytes", "-1", "-1"),
        ("reduce_scatter", "30", "float32", "-1", "-1"),
        ("broadcast", "40", "bytes", "2", "-1"),
        ("reduce", "50", "float8_e4m3fn", "5", "-1"),
        ("send", "60", "float32", "-1", "4"),
        ("recv", "70", "float32", "-1", "1"),
        # Nor does it tell whether a call was captured.
        ("all_reduce", "99", "int8", "-1", "-1"),
    ]
    assert {call["captured"] for call in of(lines, "call")} == {"2"}


@pytest.mark.parametrize("version", WITH_API_EVENTS)
def test_calls_of_an_outermost_group_have_its_number_on_every_communicator(
    host: Host, version: int
) -> None:
    calls = of(host.run(version, "groups"), "call")
    assert [(c["operation"], c["group"], c["hash"], c["rank"]) for c in calls] == [
        ("all_reduce", "0", "abc", "3/8"),
        ("all_reduce", "1", "abc", "3/8"),
        ("send", "1", "def", "1/2"),
        ("recv", "1", "def", "1/2"),
        ("all_reduce", "2", "abc", "3/8"),
        ("send", "2", "def", "1/2"),
        ("recv", "2", "def", "1/2"),
        ("all_reduce", "0", "abc", "3/8"),
    ]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("driver", ["the stand-in", "none"])
def test_without_an_id_what_the_thread_of_the_recording_calls_is_recorded(
    host: Host, version: int, driver: str
) -> None:
    variables = {"GRAPHGUARD_CUDA_DRIVER": "/nonexistent"} if driver == "none" else {}
    (call,) = of(host.run(version, "by_thread", variables), "call")
    assert call["count"] == "10"
    assert call["capture"] == ("7" if driver != "none" and version > 4 else "0")


@pytest.mark.parametrize("version", WITH_API_EVENTS)
def test_a_capture_with_an_id_is_recorded_without_a_driver_by_its_thread(
    host: Host, version: int
) -> None:
    lines = host.run(version, "sequence", {"GRAPHGUARD_CUDA_DRIVER": "/nonexistent"})
    assert [call["capture"] for call in of(lines, "call")] == ["0"] * 7


@pytest.mark.parametrize("version", VERSIONS)
def test_captures_on_several_threads_do_not_mix(host: Host, version: int) -> None:
    assert of(host.run(version, "threads"), "kept") == [{"calls": "4000"}]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("scenario", ["threads", "replays", "by_thread"])
def test_threads_do_not_race(thread_host: Host, version: int, scenario: str) -> None:
    variables = {"GRAPHGUARD_NEXT_PROFILER_PLUGIN": thread_host.module("next_4")}
    assert thread_host.run(version, scenario, variables)


@pytest.mark.parametrize("version", VERSIONS)
def test_replays_with_handles_of_the_capture_record_nothing_and_harm_nothing(
    host: Host, version: int
) -> None:
    lines = host.run(version, "replays")
    assert [call["operation"] for call in of(lines, "call")] == ["all_reduce", "send"]
    assert of(lines, "replayed") == [{"calls": "0"}]


@pytest.mark.parametrize("version", VERSIONS)
def test_what_was_recorded_outlives_the_unloading_of_the_plugin(host: Host, version: int) -> None:
    lines = host.run(version, "reload")
    assert [(c["count"], c["hash"]) for c in of(lines, "call")] == [("10", "abc"), ("20", "def")]
    assert of(lines, "communicators") == [{"told": "2", "live": "1"}]


def test_a_log_is_bounded_and_counts_what_it_could_not_keep(host: Host) -> None:
    lines = host.run(7, "bounds")
    assert of(lines, "kept") == [{"calls": "65536"}]
    assert of(lines, "begun") == [{"again": "1", "ended again": "2"}]
    assert of(lines, "recordings") == [{"open": "64"}]
    assert of(host.run(7, "dropped"), "dropped") == [{"calls": "5"}]


def test_words_and_events_of_a_newer_nccl_are_taken_as_they_are(host: Host) -> None:
    calls = of(host.run(7, "unknown"), "call")
    assert [(call["operation"], call["dtype"]) for call in calls] == [
        ("AllReduceOfTheFutureTha", "ncclFloat4"),
        ("unknown", "uint8"),
        ("unknown", "unknown"),
    ]


# What the next plugin of each version is told by an NCCL of each version: every event of the two
# calls and their group, four times over (once at capture, three times at replay), and the API
# events once. Nothing of the last replay, which comes after its communicator is gone.
OF_TASKS = {"type1": "4", "type2": "4", "type4": "4"}
OF_THE_API = {"type256": "1", "type512": "1", "type1024": "1"}


@pytest.mark.parametrize(
    ("next_version", "version", "expected"),
    [
        (4, 4, OF_TASKS),
        (4, 5, OF_TASKS),
        (4, 7, OF_TASKS),
        (5, 5, {**OF_TASKS, **OF_THE_API}),
        (5, 7, {**OF_TASKS, **OF_THE_API}),
        (7, 7, {**OF_TASKS, **OF_THE_API}),
        (5, 4, {}),
        (7, 6, {}),
    ],
)
def test_the_next_plugin_is_told_what_nccl_would_tell_it(
    host: Host, next_version: int, version: int, expected: dict[str, str]
) -> None:
    variables = {"GRAPHGUARD_NEXT_PROFILER_PLUGIN": host.module(f"next_{next_version}")}
    lines = host.run(version, "replays", variables)
    (seen,) = of(lines, "next")
    assert {name: n for name, n in seen.items() if name.startswith("type")} == expected
    # Each handle that it gets is one of its own, and each call has a parent.
    assert [seen[name] for name in ("strangers", "parents", "orphans")] == ["0", "0", "0"]
    assert seen["communicators"] == "0"
    assert int(seen["stops"]) == sum(map(int, expected.values()))
    assert [call["operation"] for call in of(lines, "call")] == ["all_reduce", "send"]
    assert len(of(lines, "log")) == (0 if expected else 1)


@pytest.mark.parametrize("named", ["/nonexistent.so", "driver", "checked", "refuses"])
def test_a_next_plugin_that_cannot_run_is_told_of_and_left_out(host: Host, named: str) -> None:
    paths = {"driver": host.module("driver"), "checked": host.module("checked")}
    variables = {"GRAPHGUARD_NEXT_PROFILER_PLUGIN": paths.get(named, named)}
    if named == "refuses":
        variables = {
            "GRAPHGUARD_NEXT_PROFILER_PLUGIN": host.module("next_5"),
            "NEXT_REFUSES": "1",
        }
    lines = host.run(5, "groups", variables)
    assert len(of(lines, "call")) == 8
    assert len(of(lines, "log")) == 2  # once for each communicator
    assert of(lines, "log")[0]["level"] == "2"


def test_none_is_no_next_plugin(host: Host) -> None:
    lines = host.run(5, "groups", {"GRAPHGUARD_NEXT_PROFILER_PLUGIN": "none"})
    assert of(lines, "log") == []
