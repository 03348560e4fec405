"""What the spine does, whichever adapter tells it. Run on every library of graphs there is.

``tests/unit/recorders/test_spine.py`` and ``test_spine_wheels.py`` import these tests and give the
libraries.
"""

from __future__ import annotations

import gc
import threading
import weakref
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode_stack

from graphguard import BatchDescriptor, Session, record
from graphguard.recorders import duty
from tests.unit.recorders.graph_libraries import Library
from tests.unit.recorders.spine_fixtures import Install


def test_a_capture_becomes_a_signature(
    library: Library, install: Install, session: Session
) -> None:
    installation = install()
    graph = library.captured(lambda: torch.zeros(4) + 1)

    (signature,) = session.signatures
    assert str(signature) == "graph/full/pool0.0 0t"
    assert signature.graph_kind
    assert installation.signature_of(graph) is signature


def test_graphs_are_named_by_pool_and_order(
    library: Library, install: Install, session: Session
) -> None:
    if not library.has_pools:
        pytest.skip("its graphs have no pools that a program can name")
    install()
    kept = [library.captured(pool=pool) for pool in [(1, 7), (1, 7), (1, 9), (1, 7), None, None]]

    variants = [signature.key.variant for signature in session.signatures]
    assert variants == ["pool0.0", "pool0.1", "pool1.0", "pool0.2", "pool2.0", "pool3.0"]
    assert len(kept) == 6


@pytest.mark.usefixtures("one_rank")
def test_collectives_of_a_capture_are_recorded_in_order(
    library: Library, install: Install, session: Session
) -> None:
    install()
    dist.all_reduce(torch.ones(3))

    def body() -> None:
        dist.all_reduce(torch.ones(8), op=dist.ReduceOp.MAX)
        dist.broadcast(torch.ones(2), src=0)

    graph = library.captured(body)
    dist.all_reduce(torch.ones(5))

    assert [str(call) for call in session.signatures[0].collectives] == [
        "all_reduce(8 float32, max) on 0[0]",
        "broadcast(2 float32, root 0) on 0[0]",
    ]
    assert graph is not None


def test_what_a_recording_records_is_left_to_it(
    library: Library, install: Install, session: Session
) -> None:
    install()
    with record("target", BatchDescriptor.of(4, 2), session=session) as recording:
        graph = library.captured(lambda: torch.zeros(4) + 1)
        recording.captured(graph)

    assert [str(signature) for signature in session.signatures] == ["target/full 4x2"]
    graph.replay()


def test_a_failing_capture_is_not_recorded(
    library: Library, install: Install, session: Session
) -> None:
    install()
    graph = library.new()
    with pytest.raises(ZeroDivisionError), library.capture(graph):
        _ = 1 / 0

    assert session.signatures == []
    assert _get_current_dispatch_mode_stack() == []
    kept = library.captured()
    assert [s.key.variant.endswith(".0") for s in session.signatures] == [True]
    assert kept is not None


def test_a_capture_after_an_error_was_handled_is_recorded(
    library: Library, install: Install, session: Session
) -> None:
    install()
    try:
        raise MemoryError
    except MemoryError:
        # A program that captures less after it ran out of memory.
        graph = library.captured()

    assert len(session.signatures) == 1
    assert graph is not None


def test_an_invalidated_capture_leaves_nothing_behind(
    library: Library, install: Install, session: Session
) -> None:
    if not library.can_be_invalidated:
        pytest.skip("no operation invalidates its captures: it raises")
    install()
    graph = library.new()
    library.invalidate(graph, True)
    with pytest.raises(RuntimeError, match="previous error"), library.capture(graph):
        torch.zeros(4)

    assert session.signatures == []
    assert _get_current_dispatch_mode_stack() == []
    library.invalidate(graph, False)
    with library.capture(graph):
        torch.zeros(4)
    assert len(session.signatures) == 1


def test_a_graph_that_is_captured_again_keeps_its_name(
    library: Library, install: Install, session: Session
) -> None:
    install()
    graph = library.captured(lambda: torch.zeros(4) + 1)
    other = library.captured()
    names = [str(signature) for signature in session.signatures]
    first = session.signatures[0]

    graph.reset()
    with library.capture(graph):
        _ = torch.zeros(9) * 3
    graph.replay()

    assert [str(signature) for signature in session.signatures] == names
    assert session.signatures[0] is not first
    assert other is not None


def test_a_graph_goes_with_its_last_reference(library: Library, install: Install) -> None:
    """Torch frees a graph's memory then, which the collector must not do in another capture."""
    install()
    gc.collect()
    gc.disable()
    try:
        graph = library.captured(lambda: torch.zeros(4) + 1)
        graph.replay()
        weak = weakref.ref(graph)
        del graph
        assert weak() is None
    finally:
        gc.enable()


def test_what_was_captured_stays_on_record_when_the_graph_is_gone(
    library: Library, install: Install, session: Session
) -> None:
    install()
    library.captured(lambda: torch.zeros(4) + 1)

    assert len(session.signatures) == 1


def test_a_described_graph_is_called_so_in_the_session(
    library: Library, install: Install, session: Session
) -> None:
    installation, hidden = install(), torch.zeros(4)
    graph = library.captured(lambda: hidden + 1)

    signature = installation.describe(
        graph, role="target", batch=BatchDescriptor.of(2, 2), inputs={"hidden": hidden}
    )

    assert session.signatures == [signature]
    assert str(signature) == "target/full 2x2"
    assert [spec.name for spec in signature.inputs] == ["hidden"]


def test_a_mode_that_outlives_the_capture_stays_on(library: Library, install: Install) -> None:
    if not library.has_modes:
        pytest.skip("its capture is a mode itself, or ends with its block")

    class Own(TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            return func(*args, **(kwargs or {}))

    install()
    graph, own = library.new(), Own()  # type: ignore[no-untyped-call]
    graph.capture_begin()
    own.__enter__()  # type: ignore[no-untyped-call]
    graph.capture_end()

    assert _get_current_dispatch_mode_stack() == [own]
    own.__exit__(None, None, None)  # type: ignore[no-untyped-call]


def test_captures_of_two_threads_do_not_mix(
    library: Library, install: Install, session: Session
) -> None:
    install()
    kept: list[Any] = []
    both_capture = threading.Barrier(2, timeout=30)

    def capture() -> None:
        graph = library.new()
        with library.capture(graph):
            both_capture.wait()
            _ = torch.zeros(4) + 1
            both_capture.wait()
        kept.append(graph)

    threads = [threading.Thread(target=capture) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert len(kept) == len(session.signatures) == 2


def test_recorders_in_cpp_are_told_the_number_of_the_capture(
    library: Library, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    class Duty(duty.Duty):
        def __init__(self, capture_id: int = 0) -> None:
            seen.append(capture_id)
            super().__init__(capture_id, find_logs=dict)

    monkeypatch.setattr("graphguard.graphs.capture_id_of", lambda graph: 77)
    monkeypatch.setattr(duty, "Duty", Duty)
    install()
    library.captured()

    assert seen == [77]


def test_memory_that_a_capture_reserves_is_told(
    library: Library, install: Install, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    reserved = iter((1_000, 5_000))
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: next(reserved))
    monkeypatch.setattr("graphguard.graphs.capture_id_of", lambda graph: 0)
    install()
    library.captured()

    assert session.signatures[0].memory_bytes == 4_000
