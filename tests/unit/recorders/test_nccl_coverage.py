"""What is told of the recorders of NCCL's calls, by the settings of a process."""

from __future__ import annotations

from pathlib import Path

import pytest

from graphguard.recorders import nccl_plugin
from graphguard.recorders.nccl_coverage import coverage


@pytest.fixture(autouse=True)
def _no_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NCCL_PROFILER_PLUGIN", raising=False)


def test_without_settings_nothing_is_recorded_and_it_is_told_how_to() -> None:
    assert coverage() == (False, "with GRAPHGUARD_NCCL_PLUGIN=1 NCCL's plugin records all")


@pytest.mark.parametrize(
    ("variable", "value", "by"),
    [
        ("GRAPHGUARD_NCCL_PLUGIN", "1", "NCCL's profiler plugin (NCCL 2.28 and newer)"),
        ("NCCL_PROFILER_PLUGIN", "/x/libgraphguard_nccl.so", "NCCL's profiler plugin"),
        ("GRAPHGUARD_INTERPOSE", "1", "the interposer"),
    ],
)
def test_what_is_set_up_is_named(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, by: str
) -> None:
    monkeypatch.setenv(variable, value)
    seen = coverage()
    assert seen.whole
    assert by in seen.why


def test_another_plugin_is_not_taken_for_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NCCL_PROFILER_PLUGIN", "inspector")
    assert not coverage().whole


def test_a_setting_that_cannot_be_meant_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHGUARD_NCCL_PLUGIN", "yes")
    whole, why = coverage()
    assert not whole
    assert "'yes'" in why


def test_a_plugin_that_is_not_installed_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nccl_plugin, "__file__", str(tmp_path / "recorders" / "nccl_plugin.py"))
    whole, why = coverage()
    assert not whole
    assert "is not installed" in why
