from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[1] / "data" / "nvtx_tool.c"

PROGRAM = """
import sys
from graphguard.nvtx_ranges import annotated

def replay(graph, *, padded=False):
    print("replays", graph, padded, file=sys.stderr, flush=True)
    return graph + 1

def fails():
    raise ValueError("broken")

imported_at_once = "nvtx" in sys.modules
ranged = annotated("replay target", replay)
failing = annotated("capture", fails)
print(imported_at_once, ranged is replay, failing is fails, ranged.__name__)
print(ranged(1), ranged(2, padded=True))
try:
    failing()
except ValueError as error:
    print(error)
"""


def run(code: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )


@pytest.fixture(scope="module")
def profiler(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A profiler that writes down the ranges; NVTX loads it into the program."""
    library = tmp_path_factory.mktemp("nvtx") / "tool.so"
    compiler = os.environ.get("CC", "cc")
    subprocess.run([compiler, "-Wall", "-shared", "-fPIC", "-o", library, TOOL], check=True)
    return str(library)


def test_ranges_are_seen_by_a_profiler(profiler: str) -> None:
    pytest.importorskip("nvtx")
    ended = run(PROGRAM, NVTX_INJECTION64_PATH=profiler)
    assert ended.stdout.splitlines() == ["False False False replay", "2 3", "broken"]
    assert [
        line for line in ended.stderr.splitlines() if "graphguard" in line or "rep" in line
    ] == [
        "register graphguard: replay target",
        "register graphguard: capture",
        "push graphguard: replay target",
        "replays 1 False",
        "pop graphguard",
        "push graphguard: replay target",
        "replays 2 True",
        "pop graphguard",
        "push graphguard: capture",
        "pop graphguard",
    ]


def test_function_stays_itself_where_nvtx_is_not_installed(profiler: str) -> None:
    blocked = "import sys; sys.modules['nvtx'] = None\n" + PROGRAM
    ended = run(blocked, NVTX_INJECTION64_PATH=profiler)
    assert ended.stdout.splitlines()[0].split()[1:] == ["True", "True", "replay"]
    assert "graphguard" not in ended.stderr


def test_function_stays_itself_where_nvtx_is_switched_off(profiler: str) -> None:
    ended = run(PROGRAM, NVTX_INJECTION64_PATH=profiler, NVTX_DISABLE="1")
    assert ended.stdout.splitlines()[0] == "False True True replay"
    assert "graphguard" not in ended.stderr


def test_importing_graphguard_does_not_import_nvtx() -> None:
    assert run("import sys, graphguard; print('nvtx' in sys.modules)").stdout == "False\n"
