"""Finding the CUDA driver, and asking it what a stream is captured into."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from graphguard import _core
from graphguard.graphs.contents import contents_of_handle, contents_of_stream
from graphguard.nodes import GraphNode
from tests.native.cmake_target import REPOSITORY
from tests.native.fake_driver import ACTIVE, EMPTY, INVALIDATED, FakeDriver


@pytest.mark.parametrize("version", [12_000, 12_030, 13_020])
def test_a_stream_tells_what_it_is_captured_into(fake: FakeDriver, version: int) -> None:
    graph = fake.graph()
    fake.add_node(graph, EMPTY)
    driver = fake.load(version)
    fake.capture(7, 42, graph)
    assert driver.capture_of(7) == (42, graph, ACTIVE)
    found = contents_of_stream(7, driver)
    assert found is not None
    assert found.nodes == (GraphNode("empty"),)


def test_a_stream_that_is_not_captured_has_no_graph(fake: FakeDriver) -> None:
    driver = fake.load()
    assert driver.capture_of(7) == (0, 0, 0)
    assert contents_of_stream(7, driver) is None


def test_an_invalidated_capture_has_no_graph(fake: FakeDriver) -> None:
    driver = fake.load()
    fake.capture(7, 42, fake.graph(), INVALIDATED)
    assert driver.capture_of(7) == (0, 0, INVALIDATED)
    assert contents_of_stream(7, driver) is None


def test_a_stream_that_the_driver_refuses_is_unknown(fake: FakeDriver) -> None:
    driver = fake.load()
    fake.refuse("cuStreamGetCaptureInfo")
    assert driver.capture_of(7) is None
    assert contents_of_stream(7, driver) is None


def test_a_driver_that_is_not_there_says_why() -> None:
    driver = _core.CudaDriver("libno-such-driver.so.1")
    assert "no CUDA driver" in driver.absence
    assert "libno-such-driver" in driver.absence
    assert driver.capture_of(0) is None
    assert contents_of_handle(4096, driver).error == driver.absence


def test_a_driver_before_cuda_12_is_none() -> None:
    # A library that is there everywhere, and has nothing of a driver.
    driver = _core.CudaDriver("libc.so.6")
    assert "older than CUDA 12" in driver.absence


PROGRAM = """
import sys
from tests.native.fake_driver import FakeDriver
from graphguard import _core
from pathlib import Path
assert _core.cuda_driver_absence() == ""
fake = FakeDriver(Path(sys.argv[1]))
graph = fake.graph()
fake.add_node(graph, 5)
fake.capture(7, 42, graph)
print(_core.capture_id(7), _core.capture_id(8), _core.capture_of(7)[2], _core.walk_graph(graph)[0])
"""


def test_the_driver_of_a_process_can_be_chosen_by_an_environment_variable(fake: FakeDriver) -> None:
    environment = os.environ | {
        "GRAPHGUARD_CUDA_DRIVER": str(fake.library),
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *sys.path]),
    }
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(fake.library)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment,
    )
    assert done.stderr == ""
    assert done.stdout == "42 0 1 [('empty', '', None, None, 0, (), 1)]\n"
