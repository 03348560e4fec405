"""What the plugin takes NCCL's profiler interface to be, against the real libraries of NCCL.

They carry debug information, so that nothing has to run. ``make nccl-wheels`` fetches them (1 GB);
without them the tests are skipped, unless GRAPHGUARD_REQUIRE_NCCL_WHEELS=1.
"""

from __future__ import annotations

import os
import warnings
from functools import cache
from typing import TYPE_CHECKING, NoReturn

import pytest

from tests.native import nccl_wheels
from tests.native.cmake_target import NativeBuildError, build

if TYPE_CHECKING:
    from tests.native.debug_information import DebugInformation, Layout

NEWEST_INTERFACE = {
    "2.27.7": 4,
    "2.28.9": 5,
    "2.29.7": 6,
    "2.30.7": 6,
    "2.31.2": 7,
    "2.32.3": 7,
}
"""The newest version of the profiler interface that a release of NCCL looks for."""

DECLARED = range(4, 8)
# Every type of data has a text, by which a plugin is told of it, but this one.
WITHOUT_TEXT = "ncclUint8"


def missing(reason: str) -> NoReturn:
    if os.environ.get("GRAPHGUARD_REQUIRE_NCCL_WHEELS") == "1":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def information(path: object, unit: str) -> DebugInformation:
    try:
        from tests.native.debug_information import DebugInformation
    except ModuleNotFoundError as error:
        missing(f"debug information cannot be read: {error}; install the extra `dev`")
    return DebugInformation(path, unit)  # type: ignore[arg-type]


@cache
def of_nccl(version: str) -> DebugInformation:
    library = nccl_wheels.library(version)
    if library is None:
        missing(f"the wheel of NCCL {version} was not fetched: run `make nccl-wheels`")
    return information(library, "plugin/profiler.cc")


@pytest.fixture(scope="module")
def own() -> DebugInformation:
    try:
        host = build("graphguard_nccl_host", "GRAPHGUARD_STRESS", "stress")
    except NativeBuildError as error:
        pytest.fail(f"the plugin cannot be built: {error}", pytrace=False)
    return information(host, "nccl_host.cpp")


def declared(own: DebugInformation, interface: int) -> Layout:
    layout = own.layout(f"EventDescriptorV{interface}")
    assert layout is not None
    return layout


def differences(ours: Layout, real: Layout | None) -> list[str]:
    """Say what our declaration of a descriptor has elsewhere than NCCL; it may have less."""
    if real is None:
        return ["NCCL has no such structure"]
    told = [
        f"{name}: declared at {place}, and is at {real.fields.get(name)}"
        for name, place in ours.fields.items()
        if real.fields.get(name) != place
    ]
    if ours.size != real.size:
        told.append(f"declared with {ours.size} bytes, and has {real.size}")
    return told


@pytest.mark.filterwarnings("default:NCCL .* is newer")
@pytest.mark.parametrize("version", nccl_wheels.versions())
def test_the_plugin_reads_events_where_nccl_puts_them(own: DebugInformation, version: str) -> None:
    real = of_nccl(version)
    newest = NEWEST_INTERFACE.get(version, DECLARED[-1])
    told = differences(declared(own, newest), real.layout(f"ncclProfilerEventDescr_v{newest}_t"))
    if version in NEWEST_INTERFACE:
        assert told == []
    elif told or real.has_text(f"ncclProfiler_v{newest + 1}"):
        warnings.warn(f"NCCL {version} is newer than what the plugin knows: {told}", stacklevel=1)


@pytest.mark.parametrize("version", NEWEST_INTERFACE)
def test_nccl_looks_for_the_interfaces_that_the_plugin_has(version: str) -> None:
    real = of_nccl(version)
    newest = NEWEST_INTERFACE[version]
    assert real.has_text(f"ncclProfiler_v{newest}")
    assert not real.has_text(f"ncclProfiler_v{newest + 1}")


@pytest.mark.parametrize("version", NEWEST_INTERFACE)
def test_a_table_of_functions_is_as_nccl_reads_it(own: DebugInformation, version: str) -> None:
    newest = NEWEST_INTERFACE[version]
    real = of_nccl(version).layout(f"ncclProfiler_v{newest}_t")
    assert real is not None
    name = (
        "ProfilerV4"
        if newest == 4
        else f"ProfilerSince5<graphguard::nccl::EventDescriptorV{newest}>"
    )
    ours = own.layout(name)
    assert ours == real


@pytest.mark.parametrize("older", [4, 5, 6])
@pytest.mark.parametrize("version", ["2.31.2", "2.32.3"])
def test_an_older_next_plugin_can_read_a_newer_event(
    own: DebugInformation, version: str, older: int
) -> None:
    newest = of_nccl(version).layout("ncclProfilerEventDescr_v7_t")
    assert newest is not None
    moved = {
        name: (place, newest.fields.get(name))
        for name, place in declared(own, older).fields.items()
        if newest.fields.get(name) != place
    }
    # A byte in version 4, which is written again when an event is handed down to it.
    assert set(moved) == ({"type"} if older == 4 else set())


@pytest.mark.filterwarnings("default:NCCL .* has types")
@pytest.mark.parametrize("version", nccl_wheels.versions())
def test_one_type_of_data_has_no_text_of_its_own(version: str) -> None:
    real = of_nccl(version)
    types = real.enumerators("ncclDataType_t")
    assert types is not None
    one_name_each = {value: name for name, value in reversed(types.items())}
    without = [name for name in one_name_each.values() if not real.has_text(name)]
    without = [name for name in without if name != "ncclNumTypes"]
    if version in NEWEST_INTERFACE:
        assert without == [WITHOUT_TEXT]
    elif without != [WITHOUT_TEXT]:
        warnings.warn(f"NCCL {version} has types without a text: {without}", stacklevel=1)
