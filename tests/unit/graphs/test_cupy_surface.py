"""Whether the real cupy has the surface that graphguard and its stand-in take for granted.

This needs cupy and no GPU; a NCCL library for what is about communicators. Skipped without.
"""

from __future__ import annotations

import re
from typing import Any

import pytest

from graphguard.recorders import cupy_nccl
from graphguard.recorders.spine import Watch
from tests.unit.graphs import stand_in_cupy

cupy: Any = pytest.importorskip("cupy", reason="cupy is not installed")

ARGUMENTS = {
    "allReduce": ("count", "datatype", "op", None, None),
    "reduce": ("count", "datatype", "op", "root", None),
    "broadcast": ("count", "datatype", None, "root", None),
    "bcast": ("count", "datatype", None, "root", None),
    "reduceScatter": ("recvcount", "datatype", "op", None, None),
    "allGather": ("count", "datatype", None, None, None),
    "send": ("count", "datatype", None, None, "peer"),
    "recv": ("count", "datatype", None, None, "peer"),
}


@pytest.fixture
def nccl() -> Any:
    from cupy.cuda import nccl

    if not nccl.available:
        pytest.skip("cupy finds no NCCL library")
    return nccl


def test_the_stand_in_has_only_what_cupy_has() -> None:
    for stand_in, real in (
        (stand_in_cupy.BaseStream, cupy.cuda.stream._BaseStream),
        (stand_in_cupy.Graph, cupy.cuda.Graph),
    ):
        names = {name for name in vars(stand_in) if not name.startswith("_")}
        assert names - {"invalidated"} <= set(dir(real))


def test_arguments_are_where_the_recorder_reads_them(nccl: Any) -> None:
    for name, (_, *positions) in cupy_nccl._METHODS.items():
        text = getattr(nccl.NcclCommunicator, name).__doc__.partition("(")[2]
        arguments = [re.split(r"[ =]", part.strip(" )"))[-1] for part in text.split(",")][1:]
        expected = ARGUMENTS[name]
        read = tuple(None if at is None else arguments[at] for at in positions)
        assert read == expected, name


def test_numbers_are_those_of_nccl(nccl: Any) -> None:
    for name, words in (("DTYPES", cupy_nccl._DTYPES), ("REDUCTIONS", cupy_nccl._REDUCTIONS)):
        for number, word in enumerate(words):
            short = {"product": "PROD"}.get(word, word.upper())
            assert getattr(nccl, f"NCCL_{short}", number) == number, (name, word)


def test_the_class_of_communicators_can_be_replaced(nccl: Any) -> None:
    """Without a GPU none can be made, and NCCL does not survive a call on one that was not."""
    original = nccl.NcclCommunicator
    cupy_nccl.install(nccl)
    try:
        replaced = nccl.NcclCommunicator
        assert issubclass(replaced, original)
        assert set(cupy_nccl._METHODS) <= set(vars(replaced))
        assert callable(original._initAll)
    finally:
        cupy_nccl.uninstall()
    assert nccl.NcclCommunicator is original


def test_streams_can_be_watched_and_let_go(nccl: Any) -> None:
    from graphguard.recorders.spine_cupy import CupyAdapter

    class Nobody:
        def capture_begins(self, before: Watch | None) -> None:
            return None

    stream_class = cupy.cuda.stream._BaseStream
    before = stream_class.begin_capture
    adapter = CupyAdapter(stream_class, nccl)
    adapter.install(Nobody())
    assert cupy.cuda.Stream.begin_capture is not before
    adapter.uninstall()
    assert cupy.cuda.Stream.begin_capture is before
