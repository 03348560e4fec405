"""The interposer in front of a stub of NCCL: what it catches, what it records, what it passes on.

The stub stands for NCCL, which needs a GPU for every communicator. What real NCCL can do without
one is in ``test_nccl_wheels.py``.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.native.cmake_target import NativeBuildError
from tests.native.nccl_stubs import Stubs, build_stubs


@pytest.fixture(scope="module")
def stubs() -> Stubs:
    try:
        return build_stubs()
    except NativeBuildError as error:
        pytest.fail(f"the interposer cannot be built: {error}", pytrace=False)


def interposed(stubs: Stubs, program: str, *arguments: object, **settings: object) -> Any:
    """Run a program as ``LD_PRELOAD`` would."""
    every = {"LD_PRELOAD": stubs.interposer, "GRAPHGUARD_CUDA_DRIVER": stubs.driver, **settings}
    return stubs.run(program, *arguments, **every)


# --- what is caught


@pytest.mark.parametrize(("way", "is_caught"), [("linked", True), ("name", True), ("path", False)])
@pytest.mark.parametrize("set_up", ["preload", "import first"])
def test_what_is_linked_or_named_is_caught_and_what_is_loaded_by_its_path_is_not(
    stubs: Stubs, set_up: str, way: str, is_caught: bool
) -> None:
    settings = {"LD_PRELOAD": stubs.interposer} if set_up == "preload" else {}
    first = "" if set_up == "preload" else stubs.interposer
    file = stubs.consumer if way == "linked" else stubs.nccl
    assert stubs.run("caught", way, file, first, stubs.interposer, **settings) is is_caught


@pytest.mark.parametrize("way", ["linked", "name", "path"])
def test_nothing_is_caught_where_the_interposer_is_not_loaded(stubs: Stubs, way: str) -> None:
    file = stubs.consumer if way == "linked" else stubs.nccl
    assert stubs.run("caught", way, file, "", stubs.interposer) is False


def test_a_program_that_is_given_the_path_of_the_interposer_calls_it(stubs: Stubs) -> None:
    # As vLLM does with VLLM_NCCL_SO_PATH.
    arguments = ("caught", "path", stubs.interposer, stubs.interposer, stubs.interposer)
    assert stubs.run(*arguments) is True


def test_it_comes_too_late_for_what_is_linked_with_an_nccl_that_is_loaded(stubs: Stubs) -> None:
    # First the real one, globally; the interposer is loaded afterwards, by its path.
    settings = {"LD_PRELOAD": f"{stubs.nccl}:{stubs.interposer}"}
    seen = stubs.run("caught", "linked", stubs.consumer, "", stubs.interposer, **settings)
    assert seen is False


# --- what is recorded


def test_every_operation_is_recorded_with_all_that_it_was_called_with(stubs: Stubs) -> None:
    calls = interposed(stubs, "every_operation")
    told = [
        tuple(call[name] for name in ("operation", "count", "dtype", "reduction", "root", "peer"))
        for call in calls
    ]
    assert told == [
        ("all_reduce", 6, "float32", "sum", -1, -1),
        ("reduce", 6, "bfloat16", "max", 1, -1),
        ("all_gather", 6, "float32", "", -1, -1),
        ("reduce_scatter", 6, "float32", "avg", -1, -1),
        ("broadcast", 6, "float32", "", 1, -1),
        ("all_to_all", 6, "float32", "", -1, -1),
        ("send", 6, "float32", "", -1, 1),
        ("recv", 6, "float32", "", -1, 1),
        ("put_signal", 6, "float32", "", -1, 1),
        ("signal", 0, "", "", -1, 1),
        ("wait_signal", 0, "", "", -1, 1),
    ]
    buffers = [(call["send_buffer"], call["recv_buffer"]) for call in calls]
    assert buffers == [(0x1000, 0x2000)] * 6 + [
        (0x1000, 0),
        (0, 0x2000),
        (0x1000, 0),
        (0, 0),
        (0, 0),
    ]
    assert [call["order"] for call in calls] == list(range(1, 12))
    assert {(call["rank"], call["num_ranks"], call["source"]) for call in calls} == {(0, 2, 2)}
    assert len({call["thread"] for call in calls}) == 1


def test_a_configured_call_is_recorded_with_its_tag_if_its_configuration_has_one(
    stubs: Stubs,
) -> None:
    calls = interposed(stubs, "configured")
    assert [(call["operation"], call["user_tag"]) for call in calls] == [
        ("all_reduce", 77),
        ("all_reduce", 0),
        ("all_reduce", 0),
    ]


def test_a_call_that_nccl_makes_of_its_own_functions_is_counted_once(stubs: Stubs) -> None:
    seen = interposed(stubs, "twins", stubs.nccl)
    # The stub's pncclAllReduce and ncclBcast call its own exported functions, as NCCL's do.
    assert seen["calls"] == [["all_reduce", 4, -1], ["all_reduce", 5, -1], ["broadcast", 6, 1]]
    assert seen["reached"] == {"ncclAllReduce": 2, "ncclBcast": 1, "ncclBroadcast": 1}


def test_calls_on_one_rank_and_of_no_elements_are_recorded(stubs: Stubs) -> None:
    calls = interposed(stubs, "came_to_nothing")
    assert [(call["num_ranks"], call["count"]) for call in calls] == [(1, 4), (2, 0)]


def test_a_call_that_nccl_refuses_is_not_recorded_and_its_error_is_returned(stubs: Stubs) -> None:
    assert interposed(stubs, "refused") == {"results": [5, 0], "counts": [4]}


def test_calls_are_recorded_with_the_outermost_group_once_it_is_launched(stubs: Stubs) -> None:
    calls = interposed(stubs, "grouped")
    groups = [(call["count"], call["group"]) for call in calls]
    # Call 6 was in a group that was only simulated.
    assert groups == [(1, 0), (2, 1), (3, 1), (4, 1), (5, 2), (7, 0)]


def test_calls_go_to_the_recording_of_their_capture(stubs: Stubs) -> None:
    first, second, thread = interposed(stubs, "captures")
    assert first == [[1, 100, 1]]
    assert second == [[2, 200, 1]]
    # One of a thread has them all. What is in no capture says so.
    assert thread == [[1, 100, 1], [2, 200, 1], [3, 0, 0]]


def test_without_a_driver_nobody_tells_what_is_captured_and_calls_are_recorded(
    stubs: Stubs,
) -> None:
    settings = {"GRAPHGUARD_CUDA_DRIVER": "/nowhere/libcuda.so.1"}
    *_, thread = interposed(stubs, "captures", **settings)
    assert thread == [[1, 0, 2], [2, 0, 2], [3, 0, 2]]


def test_two_threads_are_recorded_each_for_itself(stubs: Stubs) -> None:
    seen = interposed(stubs, "threads")
    assert seen == {"a": list(range(100, 150)), "b": list(range(200, 250))}


def test_a_communicator_has_one_hash_on_all_processes_and_every_one_another(stubs: Stubs) -> None:
    first = interposed(stubs, "communicators", 1)
    again = interposed(stubs, "communicators", 1)
    other = interposed(stubs, "communicators", 2)
    # The last two were made for one process, by ncclCommInitAll: they are two ranks of one.
    assert first[:4] == again[:4]
    hashes = [hash_ for hash_, _, _ in first]
    assert len(set(hashes)) == 5
    assert hashes[4] == hashes[5]
    assert 0 not in hashes
    assert not {hash_ for hash_, _, _ in other[:4]} & set(hashes)
    assert [(rank, size) for _, rank, size in first] == [(2, 4), *[(0, 2)] * 4, (1, 2)]


def test_of_a_communicator_that_was_made_before_nccl_tells_rank_and_size(stubs: Stubs) -> None:
    assert interposed(stubs, "made_before", stubs.nccl) == [[0, 3, 4]]


# --- what is passed on


def test_what_is_passed_on_arrives_whole_and_so_does_what_it_returns(stubs: Stubs) -> None:
    seen = interposed(stubs, "trampolines", stubs.nccl)
    expected = float(sum(i * i for i in range(1, 8)) + sum(i * i for i in range(1, 10)))
    assert seen["sums"] == [expected, expected]
    assert seen["team"] == [5, 3, 1]
    assert seen["reached"] == {"ncclCommMemStats": 2, "ncclTeamWorld": 1}
    assert seen["absent"] == 5  # ncclInvalidUsage


def test_a_function_that_is_newer_than_the_table_is_found_by_what_is_linked_with_it(
    stubs: Stubs,
) -> None:
    seen = interposed(stubs, "from_the_future", stubs.newer_consumer)
    assert seen == {"linked": 0, "by_handle": False}


# --- which NCCL is called


def test_without_any_nccl_every_function_returns_an_error(stubs: Stubs) -> None:
    settings = {"GRAPHGUARD_NCCL_SO": "/nowhere/libnccl.so.2", "LD_LIBRARY_PATH": None}
    seen = interposed(stubs, "real_library", **settings)
    assert seen["path"] == ""
    assert "GRAPHGUARD_NCCL_SO" in seen["absence"]
    assert seen["version"] == [2, 0]
    assert seen["group"] == [2, 2]
    assert "no NCCL" in seen["text"]


def test_it_never_calls_itself(stubs: Stubs) -> None:
    settings = {"GRAPHGUARD_NCCL_SO": stubs.interposer}
    assert interposed(stubs, "real_library", **settings)["path"] == ""


def test_without_a_name_the_loaders_directories_are_searched(stubs: Stubs) -> None:
    seen = interposed(stubs, "real_library", GRAPHGUARD_NCCL_SO=None)
    assert seen["path"] == str(stubs.nccl)
    assert seen["version"] == [0, 23_102]


def test_an_nccl_that_is_loaded_already_goes_before_what_the_loader_finds(
    stubs: Stubs, tmp_path: Any
) -> None:
    other = tmp_path / "libnccl.so.2"
    other.write_bytes(stubs.nccl.read_bytes())
    settings = {
        "LD_PRELOAD": f"{stubs.interposer}:{other}",
        "GRAPHGUARD_NCCL_SO": None,
    }
    assert interposed(stubs, "real_library", **settings)["path"] == str(other)
