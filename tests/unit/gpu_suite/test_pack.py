"""The archive for a machine without network, made of small wheels."""

from __future__ import annotations

import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.gpu.suite import pack
from tests.gpu.suite.pack import PackError
from tests.native.cmake_target import REPOSITORY

OWN = "graphguard-0.1.0-cp312-abi3-linux_x86_64.whl"
OWN_FILES = {
    "graphguard/__init__.py": b"",
    "graphguard/_core.abi3.so": b"native",
    "graphguard/lib/interposer/libnccl.so.2": b"native",
    "graphguard-0.1.0.dist-info/entry_points.txt": b"[vllm.general_plugins]",
}
MSGSPEC = "msgspec-0.22.0-cp312-cp312-manylinux_2_17_x86_64.manylinux2014_x86_64.whl"


def wheel(folder: Path, name: str, files: dict[str, bytes]) -> Path:
    path = folder / name
    with zipfile.ZipFile(path, "w") as archive:
        for inner, content in files.items():
            archive.writestr(inner, content)
    return path


@pytest.fixture
def wheels(tmp_path: Path) -> list[Path]:
    return [
        wheel(tmp_path, OWN, OWN_FILES),
        wheel(tmp_path, MSGSPEC, {"msgspec/__init__.py": b"", "msgspec-0.22.0.data/x": b""}),
    ]


def test_an_archive_has_all_that_the_suite_imports_in_one_folder(wheels: list[Path]) -> None:
    files = pack.contents(wheels)
    listed = subprocess.run(
        ["git", "ls-files", "tests/gpu"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    wanted = {*OWN_FILES, *listed.stdout.split(), "run", "pyproject.toml", "CMakeLists.txt"}
    wanted |= {"tests/conftest.py", "tests/native/cmake_target.py", "tests/distributed/ranks.py"}
    wanted |= {"csrc/python/bindings.cpp", "msgspec/__init__.py", "packed.json"}
    assert wanted - set(files) == set()
    assert not any(name.startswith(("benchmarks/", "tests/data/")) for name in files)
    assert not any(".data/" in name for name in files)


def test_an_archive_is_the_same_every_time_and_unpacks_with_a_program_to_start(
    wheels: list[Path], tmp_path: Path
) -> None:
    files = pack.contents(wheels)
    first, second = tmp_path / "a.tar.xz", tmp_path / "b.tar.xz"
    pack.write(first, files)
    pack.write(second, dict(reversed(files.items())))
    assert first.read_bytes() == second.read_bytes()
    with tarfile.open(first) as archive:
        archive.extractall(tmp_path / "there", filter="data")
    run = tmp_path / "there" / pack.ROOT / "run"
    assert run.stat().st_mode & 0o111
    # A shell that is not started there finds the folder all the same.
    done = subprocess.run(
        [str(run), "a b", "--c"],
        env={"PATH": "/usr/bin:/bin", "PYTHON": "echo", "PYTHONPATH": "/other"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "-m tests.gpu.suite a b --c\n"


@pytest.mark.parametrize(
    "name",
    [
        "graphguard-0.1.0-cp311-cp311-linux_x86_64.whl",
        "graphguard-0.1.0-cp313-abi3-linux_x86_64.whl",
        "graphguard-0.1.0-cp312-abi3-linux_aarch64.whl",
    ],
)
def test_a_wheel_for_another_machine_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(PackError, match="is not for CPython"):
        pack.contents([wheel(tmp_path, name, OWN_FILES)])


@pytest.mark.parametrize("name", ["../outside", "/etc/x", "a/../../x", "run"])
def test_a_wheel_that_would_write_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(PackError, match="cannot be taken"):
        pack.contents([wheel(tmp_path, OWN, {**OWN_FILES, name: b""})])


def test_an_archive_without_the_extension_is_refused(wheels: list[Path]) -> None:
    with pytest.raises(PackError, match="would lack graphguard/_core"):
        pack.contents(wheels[1:])


def test_an_archive_that_no_machine_takes_is_refused(
    wheels: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pack, "downloaded", lambda _folder: wheels[1:])
    monkeypatch.setattr(pack, "LIMIT_BYTES", 1_000)
    with pytest.raises(PackError, match="a machine takes 1000"):
        pack.pack(tmp_path / "a.tar.xz", wheels[0], tmp_path)
