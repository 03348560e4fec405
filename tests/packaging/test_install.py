"""The package builds, installs and works with every supported Python that is on PATH."""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.packaging.environments import RUNNING, Environment, copy_sources, interpreter, run

pytestmark = [pytest.mark.packaging, pytest.mark.timeout(900)]

STABLE_ABI = "3.12"
VERSIONS = sorted({"3.10", "3.11", STABLE_ABI, "3.13", RUNNING}, key=lambda v: int(v.split(".")[1]))

REAL_CHECK = """
import ctypes
import sys
import graphguard
from graphguard import _core
from graphguard.batch import BatchDescriptor
from graphguard.recorders import nccl_interposer, nccl_plugin
from graphguard.recorders.nccl_log import NcclLog
from graphguard.signature import GraphKey, Signature
from graphguard.table import SignatureTable

table = SignatureTable()
key = GraphKey("target")
table.add(Signature(key, BatchDescriptor.of(16, 2)))
family = table.family(key)
print(table.check(family, 16, 2, 32, 0), table.check(family, 15, 2, 30, 0), sep=", ")
print(table.check(family, 16, 2, 32, 1))
NcclLog(ctypes.CDLL(str(nccl_plugin.library())))
NcclLog(ctypes.CDLL(str(nccl_interposer.library())))
print(_core.__file__)
"""


def usable(version: str) -> Path:
    python = interpreter(version)
    if python is None:
        pytest.skip(f"no usable python{version} on PATH")
    return python


def abi_of(version: str) -> str:
    """Name the Python whose wheel serves this version."""
    return version if version in ("3.10", "3.11") else STABLE_ABI


def builder_of(abi: str) -> str:
    """Name the Python that builds that wheel: the lowest one that is there."""
    if abi != STABLE_ABI:
        return abi
    able = [version for version in VERSIONS if abi_of(version) == abi]
    return next((version for version in able if interpreter(version)), abi)


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_sources(tmp_path_factory.mktemp("sources"))


@pytest.fixture(scope="session")
def wheel_for(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    built: dict[str, Path] = {}

    def build(version: str) -> Path:
        abi = abi_of(version)
        if abi not in built:
            work = tmp_path_factory.mktemp(f"wheel-{abi}")
            own = work / "sources"
            run("cp", "-r", sources, own, cwd=work)
            builder = Environment.new(usable(builder_of(abi)), work / "builder")
            builder.pip("wheel", "--no-deps", "-w", work / "dist", own)
            (built[abi],) = (work / "dist").glob("*.whl")
        return built[abi]

    return build


def assert_works(environment: Environment, elsewhere: Path) -> Path:
    """Ask the installed package for verdicts and return where its native module lies."""
    printed = run(environment.python, "-I", "-c", REAL_CHECK, cwd=elsewhere).splitlines()
    assert printed[:2] == ["replay (exact), pad (padded)", "eager (wrong_phase)"]
    assert "usage" in run(environment.folder / "bin" / "graphguard", "--help", cwd=elsewhere)
    return Path(printed[2])


@pytest.mark.parametrize("version", VERSIONS)
def test_a_wheel_installs_and_checks(
    version: str, wheel_for: Callable[[str], Path], tmp_path: Path
) -> None:
    python = usable(version)
    environment = Environment.new(python, tmp_path / "venv")
    environment.pip("install", "-q", wheel_for(version))
    native = assert_works(environment, tmp_path)
    assert native.is_relative_to(environment.folder)


@pytest.mark.parametrize(
    ("version", "tag"),
    [("3.10", "cp310-cp310"), ("3.11", "cp311-cp311"), (STABLE_ABI, "cp312-abi3")],
)
def test_a_wheel_says_what_it_fits_and_holds_the_package_alone(
    version: str, tag: str, wheel_for: Callable[[str], Path]
) -> None:
    usable(builder_of(version))
    wheel = wheel_for(version)
    assert f"-{tag}-linux_" in wheel.name
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    packages = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert packages == {"graphguard"}
    assert {"graphguard/py.typed", "graphguard/_core.pyi", "graphguard/__init__.py"} <= set(names)
    assert len([name for name in names if name.startswith("graphguard/_core.")]) == 2
    assert [name for name in names if name.endswith((".cpp", ".h", ".o"))] == []
    assert any(name.endswith("/licenses/LICENSE") for name in names)


def test_an_editable_install_works_from_a_checkout(sources: Path, tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    run("cp", "-r", sources, checkout, cwd=tmp_path)
    environment = Environment.new(usable(RUNNING), tmp_path / "venv")
    environment.pip("install", "-q", "-e", checkout)
    native = assert_works(environment, tmp_path)
    assert native.is_relative_to(checkout)


def test_a_source_distribution_holds_all_it_takes_to_build(sources: Path, tmp_path: Path) -> None:
    own = tmp_path / "sources"
    run("cp", "-r", sources, own, cwd=tmp_path)
    run(sys.executable, "-m", "build", "--sdist", "-o", tmp_path / "dist", cwd=own)
    (archive,) = (tmp_path / "dist").glob("*.tar.gz")
    environment = Environment.new(usable(RUNNING), tmp_path / "venv")
    environment.pip("install", "-q", archive)
    assert_works(environment, tmp_path)
