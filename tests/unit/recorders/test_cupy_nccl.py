"""The recorder for cupy's communicators, with a stand-in for cupy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from graphguard.recorders import cupy_nccl
from graphguard.recorders.cupy_nccl import CupyRecorder
from tests.unit.graphs.stand_in_cupy import NcclCommunicator, stand_in_cupy

UNIQUE_ID = tuple(range(-64, 64))
FLOAT16, FLOAT32, BFLOAT16 = 6, 7, 9
SUM, MAX = 0, 2


@pytest.fixture
def nccl() -> Iterator[Any]:
    with stand_in_cupy() as cupy:
        assert cupy_nccl.install(cupy.cuda.nccl)
        yield cupy.cuda.nccl
        cupy_nccl.uninstall()
        assert cupy.cuda.nccl.NcclCommunicator is NcclCommunicator


def test_every_call_is_recorded_and_made(nccl: Any) -> None:
    communicator = nccl.NcclCommunicator(2, UNIQUE_ID, 1)
    with CupyRecorder() as recorder:
        assert communicator.allReduce(1, 2, 64, BFLOAT16, SUM, 0) == "returned"
        communicator.reduce(1, 2, 8, FLOAT32, MAX, 1, 0)
        communicator.broadcast(1, 2, 16, FLOAT16, 0, 0)
        communicator.bcast(1, 4, FLOAT16, 1, 0)
        communicator.reduceScatter(1, 2, 32, FLOAT16, SUM, 0)
        communicator.allGather(1, 2, 128, FLOAT16, 0)
        communicator.send(1, 5, FLOAT16, 0, 0)
        communicator.recv(1, 6, FLOAT16, 0, 0)
    communicator.allReduce(1, 2, 999, FLOAT16, SUM, 0)

    group = recorder.calls[0].group
    assert [str(call).removesuffix(f" on {group}") for call in recorder.calls] == [
        "all_reduce(64 bfloat16, sum)",
        "reduce(8 float32, max, root 1)",
        "broadcast(16 float16, root 0)",
        "broadcast(4 float16, root 1)",
        "reduce_scatter(32 float16, sum)",
        "all_gather(128 float16)",
        "send(5 float16, peer 0)",
        "recv(6 float16, peer 0)",
    ]
    assert recorder.failure is None
    assert len(communicator.called) == 9
    assert {(call.group_rank, call.group_size) for call in recorder.calls} == {(1, 2)}


def test_all_ranks_of_a_communicator_call_it_the_same(nccl: Any) -> None:
    def group(rank: int, unique_id: tuple[int, ...]) -> str:
        communicator = nccl.NcclCommunicator(2, unique_id, rank)
        with CupyRecorder() as recorder:
            communicator.allGather(1, 2, 128, FLOAT16, 0)
        return recorder.calls[0].group

    assert group(0, UNIQUE_ID) == group(1, UNIQUE_ID)
    assert group(0, UNIQUE_ID) != group(0, UNIQUE_ID[::-1])


def test_calls_in_a_group_are_marked(nccl: Any) -> None:
    communicator = nccl.NcclCommunicator(2, UNIQUE_ID, 0)
    with CupyRecorder() as recorder:
        nccl.groupStart()
        communicator.send(1, 5, FLOAT16, 1, 0)
        nccl.groupEnd()
        communicator.send(1, 5, FLOAT16, 1, 0)

    assert [call.coalesced for call in recorder.calls] == [True, False]


def test_communicators_of_all_devices_are_recorded(nccl: Any) -> None:
    first, second = nccl.NcclCommunicator.initAll([0, 3])
    with CupyRecorder() as recorder:
        second.allGather(1, 2, 128, FLOAT16, 0)

    assert [call.group_rank for call in recorder.calls] == [1]
    assert isinstance(first, NcclCommunicator)


def test_a_call_that_cannot_be_read_is_made(nccl: Any) -> None:
    communicator = nccl.NcclCommunicator(2, UNIQUE_ID, 0)
    with CupyRecorder() as recorder:
        communicator.reduce()

    assert communicator.called == [("reduce",)]
    assert recorder.calls == []
    assert isinstance(recorder.failure, IndexError)


def test_a_number_that_nccl_does_not_know_yet_is_told_as_it_is(nccl: Any) -> None:
    communicator = nccl.NcclCommunicator(2, UNIQUE_ID, 0)
    with CupyRecorder() as recorder:
        communicator.allReduce(1, 2, 64, 77, 99, 0)

    assert (recorder.calls[0].dtype, recorder.calls[0].reduction) == (
        "unknown (77)",
        "unknown (99)",
    )


def test_a_cupy_without_nccl_has_nothing_to_record() -> None:
    class Nccl: ...

    assert not cupy_nccl.install(Nccl())
