"""What NVML says, by the real pynvml. Its library is a stub here: the real one is the driver's."""

from __future__ import annotations

import subprocess
import sysconfig
import time
from pathlib import Path

import pytest

from graphguard.watch.evidence import gpus

pytest.importorskip("pynvml")


@pytest.fixture
def _stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
    source = Path(__file__).with_name("nvml_stub.c")
    library = tmp_path / "libnvidia-ml.so.1"
    command = [compiler, "-shared", "-fPIC", "-o", str(library), str(source)]
    subprocess.run(command, check=True, timeout=60)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))


@pytest.mark.usefixtures("_stub")
def test_what_nvml_tells_is_told_and_what_it_does_not_is_named() -> None:
    told = gpus.ask(30.0)
    assert told["driver"] == "580.01"
    (gpu,) = told["gpus"]
    assert gpu["name"] == "Stub GPU"
    assert gpu["utilisation"] == {"gpu": 100, "memory": 3}
    assert gpu["memory"] == {"total": 80, "used": 60, "free": 20}
    assert gpu["temperature_c"] == 71
    assert "problem" in gpu["power_mw"]
    assert "problem" in gpu["processes"]
    assert [link["link"] for link in gpu["nvlinks"]] == [0, 1]
    assert set(gpu["nvlinks"][1]["errors"]) == {"replay", "recovery", "crc_flit"}
    assert all(10 <= count < 20 for count in gpu["nvlinks"][1]["errors"].values())


def test_without_a_driver_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "libnvidia-ml.so.1").write_text("no library")
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    with pytest.raises(gpus.NoGpus, match="NVML cannot be used"):
        gpus.ask(30.0)


@pytest.mark.usefixtures("_stub")
def test_an_nvml_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    began = time.monotonic()
    with pytest.raises(gpus.NoGpus, match="took longer"):
        gpus.ask(0.001)
    assert time.monotonic() - began < 3.0
