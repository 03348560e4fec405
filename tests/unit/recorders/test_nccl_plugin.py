"""How the profiler plugin is switched on, and what it tells of itself."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from graphguard.errors import ConfigurationError
from graphguard.recorders import nccl_plugin

OWN = str(nccl_plugin.library())
REPOSITORY = Path(__file__).parents[3]

# In a process of its own: what is loaded stays loaded.
TELL = """
import json, os
{program}
from graphguard.recorders import nccl_plugin
names = ("NCCL_PROFILER_PLUGIN", "GRAPHGUARD_NEXT_PROFILER_PLUGIN")
print(json.dumps([[os.environ.get(name) for name in names], nccl_plugin.status()]))
"""


def tell(program: str, **variables: str) -> tuple[list[str | None], list[object] | None, str]:
    done = subprocess.run(
        [sys.executable, "-c", TELL.format(program=program)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    settings, status = json.loads(done.stdout)
    return settings, status, done.stderr


@pytest.mark.parametrize(
    ("program", "variables"),
    [
        ("from graphguard.recorders import nccl_plugin; nccl_plugin.enable()", {}),
        ("import graphguard", {"GRAPHGUARD_NCCL_PLUGIN": "1"}),
    ],
)
def test_one_call_or_one_variable_gives_nccl_the_plugin(
    program: str, variables: dict[str, str]
) -> None:
    settings, status, _ = tell(program, **variables)
    assert settings == [OWN, None]
    assert status == [0, 0, 0, ""]


def test_nothing_is_loaded_unless_it_is_asked_for() -> None:
    assert tell("import graphguard") == ([None, None], None, "")
    assert tell("import graphguard", GRAPHGUARD_NCCL_PLUGIN="0") == ([None, None], None, "")


def test_a_setting_that_cannot_be_meant_is_told_and_harms_nothing() -> None:
    settings, status, errors = tell("import graphguard", GRAPHGUARD_NCCL_PLUGIN="yes")
    assert (settings, status) == ([None, None], None)
    assert "NCCL's calls are not recorded" in errors
    assert "'yes'" in errors


def test_a_plugin_that_was_there_stands_behind() -> None:
    settings, status, _ = tell(
        "import graphguard", GRAPHGUARD_NCCL_PLUGIN="1", NCCL_PROFILER_PLUGIN="/nonexistent.so"
    )
    assert settings == [OWN, "/nonexistent.so"]
    assert status is not None
    assert "not loaded: /nonexistent.so" in str(status[3])


@pytest.mark.parametrize(
    ("inherited", "expected"),
    [
        ({}, {"NCCL_PROFILER_PLUGIN": OWN}),
        ({"NCCL_PROFILER_PLUGIN": "none"}, {"NCCL_PROFILER_PLUGIN": OWN}),
        ({"NCCL_PROFILER_PLUGIN": OWN}, {"NCCL_PROFILER_PLUGIN": OWN}),
        (
            {"NCCL_PROFILER_PLUGIN": "inspector", "OTHER": "1"},
            {
                "NCCL_PROFILER_PLUGIN": OWN,
                "GRAPHGUARD_NEXT_PROFILER_PLUGIN": "inspector",
                "OTHER": "1",
            },
        ),
        (
            {"NCCL_PROFILER_PLUGIN": "a", "GRAPHGUARD_NEXT_PROFILER_PLUGIN": "b"},
            {"NCCL_PROFILER_PLUGIN": OWN, "GRAPHGUARD_NEXT_PROFILER_PLUGIN": "b"},
        ),
    ],
)
def test_settings_for_a_program_keep_the_plugin_that_it_had(
    inherited: dict[str, str], expected: dict[str, str]
) -> None:
    before = dict(inherited)
    assert nccl_plugin.settings(inherited) == expected
    assert inherited == before


def test_enabling_twice_does_not_put_the_plugin_behind_itself() -> None:
    settings, status, _ = tell(
        "from graphguard.recorders import nccl_plugin; nccl_plugin.enable(); nccl_plugin.enable()"
    )
    assert settings == [OWN, None]
    assert status == [0, 0, 0, ""]


def test_a_path_that_nccl_would_cut_off_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("d" * 150) / ("e" * 150) / "graphguard"
    (deep / "lib").mkdir(parents=True)
    (deep / "lib" / "libgraphguard_nccl.so").touch()
    monkeypatch.setattr(nccl_plugin, "__file__", str(deep / "recorders" / "nccl_plugin.py"))
    with pytest.raises(ConfigurationError, match="no path of more than 253 bytes"):
        nccl_plugin.library()


def test_a_plugin_that_is_not_installed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nccl_plugin, "__file__", str(tmp_path / "recorders" / "nccl_plugin.py"))
    with pytest.raises(ConfigurationError, match="is not installed"):
        nccl_plugin.enable()
    assert nccl_plugin.loaded() is None
    assert nccl_plugin.log() is None
    assert nccl_plugin.status() is None


def test_the_plugin_exports_what_nccl_and_python_look_for_and_nothing_else() -> None:
    if shutil.which("nm") is None:
        pytest.skip("nm is not installed; it is part of binutils")
    command = ["nm", "--dynamic", "--defined-only", "--format=posix", OWN]
    listed = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    exported = {line.split()[0] for line in listed.stdout.splitlines()}
    log = {"abi", "begin", "end", "record_size", "take"}
    own = {"plugin_communicators", "plugin_interface", "plugin_next"}
    assert exported == {
        *(f"ncclProfiler_v{version}" for version in (4, 5, 6, 7)),
        *(f"graphguard_nccl_{name}" for name in log | own),
    }
