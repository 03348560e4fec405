"""The interposer's table against the real wheels of NCCL, and in front of their libraries.

``python -m tests.native.nccl_wheels`` fetches them (1 GB). Without them the tests are skipped,
unless GRAPHGUARD_REQUIRE_NCCL_WHEELS=1.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import warnings
from pathlib import Path

import pytest

from graphguard.recorders.nccl_interposer import NEWEST_NCCL
from tests.native import nccl_wheels
from tests.native.cmake_target import REPOSITORY, NativeBuildError
from tests.native.nccl_stubs import Stubs, build_stubs

TABLE = REPOSITORY / "csrc" / "nccl" / "exported_symbols.inc"
_ENTRY = re.compile(r"^GRAPHGUARD_(RECORDED|FOLLOWED|FORWARDED|ALONE)\((\w+)\)$", re.MULTILINE)
_HEADING = re.compile(r"^// (\d+\.\d+\.\d+)$", re.MULTILINE)


def required(version: str) -> Path:
    library = nccl_wheels.library(version)
    if library is None:
        reason = f"the wheel of NCCL {version} was not fetched: python -m tests.native.nccl_wheels"
        if os.environ.get("GRAPHGUARD_REQUIRE_NCCL_WHEELS") == "1":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    return library


def exported(library: Path) -> set[str]:
    """Return the functions of NCCL that a library exports."""
    if shutil.which("nm") is None:
        pytest.skip("nm is not installed; it is part of binutils, which every C++ compiler needs")
    listed = subprocess.run(
        ["nm", "--dynamic", "--defined-only", "--format=posix", str(library)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    names = (line.split()[0] for line in listed.stdout.splitlines())
    return {name for name in names if name.startswith(("nccl", "pnccl"))}


def table() -> dict[str, str]:
    """Return each name of the table with the first version that has it."""
    names: dict[str, str] = {}
    version = ""
    for line in TABLE.read_text(encoding="utf-8").splitlines():
        if heading := _HEADING.fullmatch(line):
            version = heading[1]
        elif entry := _ENTRY.fullmatch(line):
            names[f"nccl{entry[2]}"] = version
            if entry[1] != "ALONE":
                names[f"pnccl{entry[2]}"] = version
    return names


def number(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


@pytest.fixture(scope="module")
def stubs() -> Stubs:
    try:
        return build_stubs()
    except NativeBuildError as error:
        pytest.fail(f"the interposer cannot be built: {error}", pytrace=False)


def test_the_interposer_exports_the_table_and_nothing_else_of_nccl(stubs: Stubs) -> None:
    assert exported(stubs.interposer) == set(table())


def test_the_newest_version_of_the_table_is_the_one_that_a_warning_goes_by() -> None:
    major, minor, patch = max(map(number, table().values()))
    assert 10_000 * major + 100 * minor + patch == NEWEST_NCCL
    assert max(map(number, nccl_wheels.VERSIONS)) == (major, minor, patch)


@pytest.mark.filterwarnings("default:NCCL .* exports")
@pytest.mark.parametrize("version", nccl_wheels.versions())
def test_a_wheel_exports_what_the_table_says_of_its_version(version: str) -> None:
    real = exported(required(version))
    known = {name for name, first in table().items() if number(first) <= number(version)}
    if version in nccl_wheels.VERSIONS:
        assert real == known
    elif real != known:
        # A newer or a rarer one: the interposer works with it, and passes on what it knows.
        warnings.warn(
            f"NCCL {version} exports {sorted(real - known)} beyond the interposer's table, and "
            f"lacks {sorted(known - real)} of it",
            stacklevel=1,
        )


@pytest.mark.parametrize("version", nccl_wheels.VERSIONS)
def test_a_real_library_answers_through_the_interposer(stubs: Stubs, version: str) -> None:
    library = required(version)
    settings = {"LD_PRELOAD": stubs.interposer, "GRAPHGUARD_NCCL_SO": library}
    seen = stubs.run("real_library", **settings)
    assert seen["path"] == str(library)
    major, minor, patch = number(version)
    assert seen["version"] == [0, 10_000 * major + 100 * minor + patch]
    # What NCCL can do without a GPU.
    assert seen["identifier"] == 0
    assert seen["group"] == [0, 0]
    assert "unhandled cuda error" in seen["text"]
