"""The log of NCCL's calls as Python reads it, from the installed plugin."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from graphguard.errors import CaptureError, ConfigurationError
from graphguard.recorders import nccl_plugin
from graphguard.recorders.nccl_calls import Captured, NcclCall, Source
from graphguard.recorders.nccl_log import ABI, CallRecord, NcclLog
from tests.unit.recorders.nccl_caller import Communicator


@pytest.fixture(scope="module")
def plugin() -> ctypes.CDLL:
    return ctypes.CDLL(str(nccl_plugin.library()))


@pytest.fixture
def log(plugin: ctypes.CDLL) -> NcclLog:
    return NcclLog(plugin)


@pytest.fixture
def communicator(plugin: ctypes.CDLL) -> Iterator[Communicator]:
    communicator = Communicator(plugin)
    yield communicator
    communicator.finalize()


def told(call: NcclCall) -> tuple[str, int, str, int | None]:
    return call.operation, call.count, call.dtype, call.root


def test_calls_between_begin_and_end_are_taken_in_order_and_once(
    log: NcclLog, communicator: Communicator
) -> None:
    communicator.collective(count=1)
    log.begin()
    communicator.collective(count=2)
    communicator.collective(b"Broadcast", 3, b"ncclBfloat16", root=2)
    log.end()
    communicator.collective(count=4)

    calls, dropped = log.take()
    assert [told(call) for call in calls] == [
        ("all_reduce", 2, "float32", None),
        ("broadcast", 3, "bfloat16", 2),
    ]
    assert dropped == 0
    assert log.take() == ((), 0)


def test_a_call_is_told_with_its_communicator_and_by_whom_it_was_seen(
    log: NcclLog, communicator: Communicator
) -> None:
    log.begin()
    communicator.collective()
    log.end()

    (call,) = log.take().calls
    assert call.source is Source.PLUGIN
    assert (call.rank, call.num_ranks, call.communicator_hash) == (1, 4, 0xABC)
    assert call.thread == threading.get_ident()
    assert call.captured is Captured.YES
    assert (call.reduction, call.peer, call.send_buffer, call.recv_buffer) == ("", None, 0, 0)


def test_calls_that_run_at_once_are_told_to(log: NcclLog, communicator: Communicator) -> None:
    log.begin()
    communicator.collective(captured=False)
    log.end()
    assert [call.captured for call in log.take().calls] == [Captured.NO]


def test_calls_of_different_groups_have_different_numbers(
    log: NcclLog, communicator: Communicator
) -> None:
    log.begin()
    for depth in (1, 2, 2):
        communicator.collective(group_depth=depth)
    log.end()
    alone, first, second = (call.group for call in log.take().calls)
    assert alone == 0
    assert 0 < first < second


def test_more_calls_are_taken_than_one_reading_holds(
    log: NcclLog, communicator: Communicator
) -> None:
    log.begin()
    for count in range(1_000):
        communicator.collective(count=count)
    log.end()
    assert [call.count for call in log.take().calls] == list(range(1_000))


def test_what_another_thread_calls_is_not_of_this_threads_capture(
    log: NcclLog, communicator: Communicator
) -> None:
    log.begin()
    other = threading.Thread(target=communicator.collective)
    other.start()
    other.join(timeout=10)
    log.end()
    assert log.take() == ((), 0)


def test_each_recording_of_a_thread_has_the_calls_that_no_other_capture_is_known_for(
    log: NcclLog, communicator: Communicator
) -> None:
    # Nobody tells an id here, for there is no driver.
    log.begin()
    log.begin(77)
    communicator.collective(count=1)
    log.end(77)
    communicator.collective(count=2)
    log.end()
    assert [call.count for call in log.take(77).calls] == [1]
    assert [call.count for call in log.take().calls] == [1, 2]


def test_a_capture_with_an_id_does_not_have_what_runs_at_once(
    log: NcclLog, communicator: Communicator
) -> None:
    log.begin(77)
    communicator.collective(captured=False)
    log.end(77)
    assert log.take(77) == ((), 0)


def test_a_recording_is_begun_once_and_ended_once(log: NcclLog) -> None:
    log.begin(77)
    with pytest.raises(CaptureError, match="capture 77 are recorded already"):
        log.begin(77)
    log.end(77)
    with pytest.raises(CaptureError, match="capture 77 were not being recorded"):
        log.end(77)


def test_too_many_recordings_at_once_are_refused(log: NcclLog) -> None:
    begun = []
    try:
        with pytest.raises(CaptureError, match="too many captures"):  # noqa: PT012
            for capture_id in range(1_000, 2_000):
                log.begin(capture_id)
                begun.append(capture_id)
    finally:
        for capture_id in begun:
            log.end(capture_id)
            log.take(capture_id)
    assert len(begun) == 64


def test_a_library_without_a_log_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="keeps no log of NCCL's calls"):
        NcclLog(ctypes.CDLL("libc.so.6"))


class _Function:
    """A function of a library, which can be given argument types."""

    def __init__(self, result: int) -> None:
        self._result = result

    def __call__(self) -> int:
        return self._result


@pytest.mark.parametrize(("version", "extra"), [(ABI + 1, 0), (ABI, 8)])
def test_a_library_of_another_version_is_refused(version: int, extra: int) -> None:
    # A stand-in: there is no library of another version.
    library: Any = SimpleNamespace(
        _name="other.so",
        graphguard_nccl_abi=_Function(version),
        graphguard_nccl_record_size=_Function(ctypes.sizeof(CallRecord) + extra),
    )
    with pytest.raises(ConfigurationError, match="of another version of graphguard"):
        NcclLog(library)


def test_a_record_has_the_layout_that_cpp_asserts() -> None:
    places = {name: getattr(CallRecord, name).offset for name in ("rank", "operation", "source")}
    assert places == {"rank": 88, "operation": 104, "source": 160}
    assert ctypes.sizeof(CallRecord) == 168
