"""What the walk of a graph tells of each type of node, asked of a stand-in for the CUDA driver."""

from __future__ import annotations

import pytest

from graphguard.nodes import MAX_NAME, GraphNode
from tests.native.fake_driver import (
    DEVICE_MEMORY,
    EMPTY,
    EVENT_RECORD,
    EVENT_WAIT,
    HOST_MEMORY,
    IF,
    SWITCH,
    WHILE,
    FakeDriver,
)

NCCL = "_Z40ncclDevKernel_AllReduce_Sum_bf16_RING_LL24ncclDevKernelArgsStorageILm4096EE"
NCCL_READABLE = "ncclDevKernel_AllReduce_Sum_bf16_RING_LL(ncclDevKernelArgsStorage<4096ul>)"


def test_a_kernel_has_name_extents_shared_memory_and_parameter_sizes(fake: FakeDriver) -> None:
    graph = fake.graph()
    fake.add_kernel(graph, fake.function(NCCL, 4096), (24, 1, 1), (640, 1, 1), 82_240)
    assert fake.nodes(graph) == (
        GraphNode("kernel", NCCL_READABLE, (24, 1, 1), (640, 1, 1), 82_240, (4096,)),
    )


def test_a_kernel_without_a_function_is_asked_for_as_a_kernel(fake: FakeDriver) -> None:
    graph = fake.graph()
    fake.add_kernel(graph, kernel=fake.function("gemm", 8, 4))
    assert fake.nodes(graph) == (GraphNode("kernel", "gemm", (1, 1, 1), (1, 1, 1), 0, (8, 4)),)
    assert fake.calls("cuFuncGetName") == 0


def test_a_function_comes_before_a_kernel_as_it_does_for_the_driver(fake: FakeDriver) -> None:
    graph = fake.graph()
    fake.add_kernel(graph, fake.function("function"), kernel=fake.function("kernel"))
    assert [node.name for node in fake.nodes(graph)] == ["function"]


def test_alike_kernels_are_counted_and_a_kernel_is_asked_for_once(fake: FakeDriver) -> None:
    graph = fake.graph()
    add, multiply = fake.function("add", 8), fake.function("multiply", 8)
    for _ in range(50):
        fake.add_kernel(graph, add, (2, 1, 1))
        fake.add_kernel(graph, add, (3, 1, 1))
        fake.add_kernel(graph, multiply, (2, 1, 1))
    assert [(node.name, node.grid, node.count) for node in fake.nodes(graph)] == [
        ("add", (2, 1, 1), 50),
        ("add", (3, 1, 1), 50),
        ("multiply", (2, 1, 1), 50),
    ]
    assert fake.calls("cuFuncGetName") == 2


def test_kernels_of_two_modules_that_look_alike_are_counted_together(fake: FakeDriver) -> None:
    graph = fake.graph()
    for _ in range(3):
        fake.add_kernel(graph, fake.function("add", 8))
    assert [(node.name, node.count) for node in fake.nodes(graph)] == [("add", 3)]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (
            "_ZN4vllm26cross_device_reduce_1stageI6__halfLi2EEEvPT_",
            "void vllm::cross_device_reduce_1stage<__half, 2>(__half*)",
        ),
        ("triton_red_fused_add_0", "triton_red_fused_add_0"),
        ("_Znonsense", "_Znonsense"),
        ("", "unreadable"),
    ],
)
def test_names_are_told_as_cpp_writes_them(fake: FakeDriver, given: str, told: str) -> None:
    graph = fake.graph()
    fake.add_kernel(graph, fake.function(given))
    assert [node.name for node in fake.walk(graph).nodes] == [told]


def test_long_names_are_cut_and_differ_where_the_whole_names_do(fake: FakeDriver) -> None:
    graph = fake.graph()
    fake.add_kernel(graph, fake.function("k" * 70_000))
    fake.add_kernel(graph, fake.function("k" * 600 + "a"))
    fake.add_kernel(graph, fake.function("k" * 600 + "b"))
    names = {node.name for node in fake.nodes(graph)}
    assert len(names) == 3
    assert {len(name) for name in names} == {MAX_NAME}


def test_a_memcpy_has_direction_and_bytes(fake: FakeDriver) -> None:
    graph = fake.graph()
    fake.add_memcpy(graph, HOST_MEMORY, DEVICE_MEMORY, (16, 4, 2))
    fake.add_memcpy(graph, DEVICE_MEMORY, DEVICE_MEMORY)
    fake.add_memcpy(graph, 3, 4)
    fake.add_memcpy(graph, 0, 99)
    assert sorted((node.name, node.parameter_bytes) for node in fake.nodes(graph)) == [
        ("array to unified", (1024,)),
        ("device to device", (1024,)),
        ("host to device", (128,)),
        ("unknown to unknown", (1024,)),
    ]


def test_a_memset_has_the_bytes_that_it_writes(fake: FakeDriver) -> None:
    graph = fake.graph()
    fake.add_memset(graph, 4, 100, 3)
    assert fake.nodes(graph) == (GraphNode("memset", parameter_bytes=(1200,)),)


def test_numbers_that_no_manifest_holds_are_cut(fake: FakeDriver) -> None:
    graph = fake.graph()
    fake.add_memset(graph, 4, 2**63, 2**63)
    fake.add_kernel(graph, fake.function("k", 2**64 - 1))
    assert {node.parameter_bytes for node in fake.nodes(graph)} == {(2**63 - 1,)}


def test_a_host_function_is_named_if_its_library_exports_it(fake: FakeDriver) -> None:
    graph = fake.graph()
    fake.add_host(graph, fake.exported_callback)
    assert fake.nodes(graph) == (GraphNode("host", "fake_exported_callback"),)


def test_a_host_function_that_is_not_exported_is_not_given_its_neighbour_s_name(
    fake: FakeDriver,
) -> None:
    graph = fake.graph()
    fake.add_host(graph, fake.hidden_callback)
    assert fake.nodes(graph) == (GraphNode("host", "in graphguard_fake_driver"),)


def test_a_host_function_that_is_in_no_library_has_no_name(fake: FakeDriver) -> None:
    graph = fake.graph()
    fake.add_host(graph, 16)
    assert fake.nodes(graph) == (GraphNode("host"),)


def test_a_batch_of_memory_operations_names_them_in_order(fake: FakeDriver) -> None:
    graph = fake.graph()
    fake.add_batch(graph, [2, 2, 2, 1, 5, 4, 6, 3, 8, 77])
    assert [node.name for node in fake.nodes(graph)] == [
        "3 × write_value_32, wait_value_32, write_value_64, wait_value_64, barrier, "
        "flush_remote_writes, atomic_reduction, operation 77"
    ]


def test_a_batch_larger_than_the_driver_takes_is_not_read(fake: FakeDriver) -> None:
    graph = fake.graph()
    fake.add_batch(graph, [2] * 257)
    assert fake.nodes(graph) == (GraphNode("batch_memory_operation", "unreadable"),)


def test_other_types_have_their_word_and_no_more(fake: FakeDriver) -> None:
    graph = fake.graph()
    for node_type in (EMPTY, EVENT_WAIT, EVENT_RECORD, 8, 9, 10, 11, 14, -1):
        fake.add_node(graph, node_type)
    assert {(node.kind, node.name) for node in fake.nodes(graph)} == {
        ("empty", ""),
        ("event_wait", ""),
        ("event_record", ""),
        ("semaphore_signal", ""),
        ("semaphore_wait", ""),
        ("memory_allocation", ""),
        ("memory_free", ""),
        ("unknown 14", ""),
        ("unknown -1", ""),
    }


def test_the_nodes_of_child_graphs_are_among_them(fake: FakeDriver) -> None:
    graph, child, grandchild = fake.graph(), fake.graph(), fake.graph()
    fake.add_node(grandchild, EMPTY)
    fake.add_child(child, grandchild)
    fake.add_node(child, EMPTY)
    fake.add_child(graph, child)
    fake.add_node(graph, EMPTY)
    assert fake.nodes(graph) == (
        GraphNode("child", "1 nodes"),
        GraphNode("child", "2 nodes"),
        GraphNode("empty", count=3),
    )


def test_the_bodies_of_conditional_nodes_are_among_them(fake: FakeDriver) -> None:
    graph, then, otherwise = fake.graph(), fake.graph(), fake.graph()
    fake.add_kernel(then, fake.function("then"))
    fake.add_node(then, EMPTY)
    fake.add_kernel(otherwise, fake.function("otherwise"))
    fake.add_conditional(graph, IF, [then, otherwise])
    fake.add_conditional(graph, WHILE, [fake.graph()])
    fake.add_conditional(graph, SWITCH, [fake.graph()] * 3)
    fake.add_conditional(graph, 9, [fake.graph()])
    assert {(node.kind, node.name) for node in fake.nodes(graph)} == {
        ("conditional", "if: 2, 1 nodes"),
        ("conditional", "while: 0 nodes"),
        ("conditional", "switch: 0, 0, 0 nodes"),
        ("conditional", "condition: 0 nodes"),
        ("kernel", "then"),
        ("kernel", "otherwise"),
        ("empty", ""),
    }
