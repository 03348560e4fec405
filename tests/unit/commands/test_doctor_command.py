from __future__ import annotations

import ctypes
from importlib import metadata, util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.json import decode

from graphguard.commands import main
from graphguard.commands.doctor import Diagnosis, Support, diagnose
from graphguard.watch.stack_traces import tracing_rights


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GRAPHGUARD_MODE", raising=False)
    monkeypatch.delenv("GRAPHGUARD_DIR", raising=False)


def machine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, cuda: str | None, driver: bool, torch: bool
) -> Diagnosis:
    """Diagnose a machine that is made up."""
    (tmp_path / "version.py").write_text(
        f"from typing import Optional\ncuda: Optional[str] = {cuda!r}\n"
    )
    spec = SimpleNamespace(origin=str(tmp_path / "__init__.py"))

    def version(distribution: str) -> str:
        if distribution == "torch" and torch:
            return "2.13.0"
        raise metadata.PackageNotFoundError(distribution)

    def load(library: str, mode: int = 0) -> None:
        # Nothing but the driver is asked for, unless it is loaded already.
        if not driver or mode:
            raise OSError(library)

    monkeypatch.setattr(util, "find_spec", lambda _name: spec)
    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setattr(ctypes, "CDLL", load)
    return diagnose()


def support(diagnosis: Diagnosis, name: str) -> tuple[Support, str]:
    return next((c.support, c.why) for c in diagnosis.capabilities if c.capability == name)


def test_machine_with_all_can_guard_cuda_graphs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    diagnosis = machine(monkeypatch, tmp_path, cuda="13.0", driver=True, torch=True)
    assert support(diagnosis, "torch.cuda graphs") == (Support.YES, "torch is built for CUDA 13.0")
    assert support(diagnosis, "emulated graphs")[0] is Support.YES
    assert support(diagnosis, "collectives of torch.distributed")[0] is Support.YES


@pytest.mark.parametrize(
    ("lacking", "why"),
    [
        ({"cuda": None}, "this torch is built without CUDA"),
        ({"driver": False}, "the CUDA driver (libcuda.so.1) does not load"),
        ({"torch": False}, "torch is not installed"),
    ],
)
def test_what_lacks_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, lacking: dict[str, Any], why: str
) -> None:
    parts: dict[str, Any] = {"cuda": "13.0", "driver": True, "torch": True, **lacking}
    diagnosis = machine(monkeypatch, tmp_path, **parts)
    assert support(diagnosis, "torch.cuda graphs") == (Support.NO, why)
    emulated = Support.YES if parts["torch"] else Support.NO
    assert support(diagnosis, "emulated graphs")[0] is emulated


def test_what_cannot_be_seen_here_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    document = decode(capsys.readouterr().out)
    told = {row["capability"]: row["support"] for row in document["capabilities"]}
    assert told["NCCL called by other means (pynccl)"] == "no"
    assert told["agreement of ranks"] == "yes"
    assert told["vLLM plugin"] == "no"
    assert document["installed"]["graphguard"]


def test_asked_about_vllm_it_could_not_look_where_there_is_none(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["doctor", "--vllm", "--json"]) == 2

    vllm = decode(capsys.readouterr().out)["vllm"]
    assert (vllm["version"], vllm["parts"]) == (None, [])
    assert vllm["problems"] == ["vLLM is not installed with this Python"]


@pytest.mark.parametrize(("name", "value"), [("ON_MISMATCH", "ignore"), ("PADDED", "no")])
def test_settings_of_the_vllm_plugin_are_checked(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"GRAPHGUARD_{name}", value)

    (found,) = [s for s in diagnose().settings if s.name == f"GRAPHGUARD_{name}"]

    assert not found.valid
    assert f"{value!r} does not exist; use" in found.note


def test_text_has_a_table_for_each_part(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    told = capsys.readouterr().out
    for words in ("Installed", "capability", "GRAPHGUARD_MODE", "GRAPHGUARD_DIR", "not set"):
        assert words in told


def test_valid_settings_are_fine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GRAPHGUARD_MODE", "enforce")
    monkeypatch.setenv("GRAPHGUARD_DIR", str(tmp_path / "made-later"))
    assert all(setting.valid for setting in diagnose().settings)


def test_settings_that_cannot_be_used_end_with_1(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    monkeypatch.setenv("GRAPHGUARD_MODE", "enforced")
    monkeypatch.setenv("GRAPHGUARD_DIR", str(shared))
    assert main(["doctor", "--json"]) == 1
    settings = {setting["name"]: setting for setting in decode(capsys.readouterr().out)["settings"]}
    mode, directory = settings["GRAPHGUARD_MODE"], settings["GRAPHGUARD_DIR"]
    assert (mode["value"], mode["valid"]) == ("enforced", False)
    assert "use off, observe or enforce" in mode["note"]
    assert directory["valid"] is False
    assert "others may write" in directory["note"]


def test_directory_that_is_a_file_is_invalid(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("GRAPHGUARD_DIR", str(tmp_path / "file"))
    valid = {setting.name: setting.valid for setting in diagnose().settings}
    assert valid["GRAPHGUARD_DIR"] is False
    assert sum(not each for each in valid.values()) == 1


@pytest.mark.parametrize("value", ["many", "-1", "1e3", "16777217", "9" * 30, "٣"])
def test_number_of_records_that_is_none_is_invalid(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRAPHGUARD_RING_ENTRIES", value)
    setting = next(s for s in diagnose().settings if s.name == "GRAPHGUARD_RING_ENTRIES")
    assert not setting.valid
    assert "give a number of records up to 16777216" in setting.note


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GRAPHGUARD_STALL_SECONDS", "soon"),
        ("GRAPHGUARD_STALL_STARTUP_SECONDS", "0"),
        ("GRAPHGUARD_SLOW_SECONDS", "-1"),
        ("GRAPHGUARD_ON_STALL", "panic"),
        ("GRAPHGUARD_STALL_COREDUMP", "yes"),
        ("GRAPHGUARD_BREADCRUMBS", "2"),
    ],
)
def test_settings_of_stalls_that_cannot_be_used_are_invalid(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    assert [setting.name for setting in diagnose().settings if not setting.valid] == [name]


def test_whether_stacks_can_be_taken_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tracing_rights, "_has_capability", lambda: False)
    monkeypatch.setattr(tracing_rights, "_scope", lambda: "0")
    stacks = "stacks of stalled processes"
    assert support(diagnose(), stacks) == (Support.YES, "by py-spy and pystack")
    monkeypatch.setattr(tracing_rights, "_scope", lambda: "1")
    told, why = support(diagnose(), stacks)
    assert told is Support.PARTLY
    assert "each process writes its own: kernel.yama.ptrace_scope is 1" in why
    monkeypatch.setattr(tracing_rights, "_has_capability", lambda: True)
    nothing = machine(monkeypatch, tmp_path, cuda=None, driver=False, torch=False)
    told, why = support(nothing, stacks)
    assert told is Support.PARTLY
    assert "graphguard[stacks]" in why
