"""What the spine does, whichever adapter tells it. Run on every library of graphs there is.

``tests/unit/recorders/test_spine.py`` and ``test_spine_wheels.py`` import these tests and give the
libraries.
"""

from __future__ import annotations

import gc
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode_stack

from graphguard import BatchDescriptor, CaptureError, GuardMismatch, Session, manifest, record
from graphguard.blackbox.events import Event
from graphguard.blackbox.writer import BlackBox, open_box
from graphguard.environment import Mode
from graphguard.installation import Installation
from graphguard.program_graphs import ProgramGraphs
from graphguard.recorders import c10d
from tests.unit.recorders.graph_libraries import Library

Install = Callable[..., Installation]


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BlackBox:
    opened = open_box(tmp_path / "boxes", 256)
    monkeypatch.setattr("graphguard.blackbox.writer.process_box", lambda: opened)
    return opened


@pytest.fixture
def install(library: Library, session: Session) -> Iterator[Install]:
    installed: list[Installation] = []

    def install(mode: Mode = Mode.OBSERVE) -> Installation:
        program, adapter = ProgramGraphs(mode, session), library.adapter()
        adapter.install(program)
        installed.append(Installation(program, [adapter]))
        return installed[-1]

    yield install
    for installation in installed:
        installation.uninstall()
    assert _get_current_dispatch_mode_stack() == [], "a recorder is still on"


def launches(graph: Any) -> int | None:
    """How often a graph was launched, where the stand-in for C++ counts it."""
    count: int | None = getattr(graph, "launches", None)
    return count


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
    if library.name == "emulated":
        pytest.skip("emulated graphs have no pools")
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


def test_each_launch_is_in_the_black_box(
    library: Library, install: Install, session: Session, box: BlackBox
) -> None:
    install()
    first = library.captured(lambda: torch.zeros(4) + 1)
    second = library.captured(lambda: torch.zeros(4) + 2)
    for graph in (first, second, first):
        graph.replay()

    from graphguard.blackbox.reading import read

    records = [r for r in read(box.path).records if r.event != Event.CLOCK]
    digests = [int(signature.shared_digest[:16], 16) for signature in session.signatures]
    launch = [Event.CHECK, Event.REPLAY_BEGIN, Event.REPLAY_END]
    assert [r.event for r in records] == [Event.CAPTURE] * 2 + launch * 3
    assert [r.digest for r in records if r.event == Event.CHECK] == [
        digests[0],
        digests[1],
        digests[0],
    ]


def test_a_bound_replay_that_the_program_keeps_is_seen(
    library: Library, install: Install, box: BlackBox
) -> None:
    install()
    graph = library.new()
    replay_from_before = graph.replay
    with library.capture(graph):
        torch.zeros(4)
    replay_from_after = graph.replay
    written = box.ring.written

    replay_from_before()
    replay_from_after()

    assert box.ring.written - written >= 6


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
    if library.name == "emulated":
        pytest.skip("no operation invalidates an emulated capture: it raises")
    install()
    graph = library.new()
    graph.invalidated = True
    with pytest.raises(RuntimeError, match="previous error"), library.capture(graph):
        torch.zeros(4)

    assert session.signatures == []
    assert _get_current_dispatch_mode_stack() == []
    graph.invalidated = False
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


def test_a_graph_that_was_reset_is_not_recorded_as_launched(
    library: Library, install: Install, box: BlackBox
) -> None:
    install()
    graph = library.captured()
    graph.reset()
    written = box.ring.written
    # Torch 2.14 and newer leave it to C++ to refuse what was reset.
    with suppress(RuntimeError, CaptureError):
        graph.replay()

    assert box.ring.written == written


def test_no_fault_of_the_recorder_reaches_a_program_that_is_observed(
    library: Library, install: Install, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    install()

    def fail(*_: object) -> None:
        raise OSError("a fault")

    monkeypatch.setattr(c10d.CollectiveRecorder, "__enter__", fail)
    graph = library.captured()
    monkeypatch.setattr("graphguard.program_replays.GraphReplays._record", fail)
    graph.replay()
    monkeypatch.undo()
    monkeypatch.setattr("graphguard.program_graphs.GraphWatch.__init__", fail)
    other = library.captured()
    other.replay()

    assert session.signatures == []
    assert launches(graph) in (1, None)


def test_a_graph_that_could_not_be_recorded_is_refused_when_enforcing(
    library: Library, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(Mode.ENFORCE)

    def fail(*_: object) -> None:
        raise OSError("a fault")

    monkeypatch.setattr(c10d.CollectiveRecorder, "__enter__", fail)
    graph = library.captured()

    with pytest.raises(CaptureError, match="could not be recorded") as raised:
        graph.replay()
    assert "GRAPHGUARD_MODE=observe" in raised.value.hint
    assert launches(graph) in (0, None)


@pytest.mark.parametrize("mode", [Mode.OBSERVE, Mode.ENFORCE])
def test_a_moved_input_stops_the_launch_when_enforcing(
    library: Library, install: Install, mode: Mode
) -> None:
    installation, hidden = install(mode), torch.zeros(4)
    graph = library.captured(lambda: hidden + 1)
    installation.describe(
        graph, role="target", batch=BatchDescriptor.of(2, 2), inputs={"hidden": hidden}
    )
    graph.replay()
    hidden.data = torch.zeros(4)

    if mode is Mode.ENFORCE:
        with pytest.raises(GuardMismatch, match=r"target/full 2x2: .* has moved .*\(hidden\)"):
            graph.replay()
        assert launches(graph) in (1, None)
    else:
        graph.replay()
        assert launches(graph) in (2, None)


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


def test_uninstalling_lets_the_program_alone(
    library: Library, install: Install, session: Session, box: BlackBox
) -> None:
    installation = install(Mode.ENFORCE)
    graph = library.captured()
    replay = graph.replay
    installation.uninstall()
    written = box.ring.written

    replay()
    graph.replay()
    other = library.captured()
    other.replay()

    assert len(session.signatures) == 1
    assert box.ring.written == written


def test_a_mode_that_outlives_the_capture_stays_on(library: Library, install: Install) -> None:
    if library.name == "emulated":
        pytest.skip("an emulated capture is a mode itself")

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


def test_the_manifest_is_there_before_the_first_launch(
    library: Library, install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRAPHGUARD_DIR", str(tmp_path / "job"))
    install()
    graph = library.captured()
    assert not list(tmp_path.glob("job/manifest*"))

    graph.replay()

    (path,) = tmp_path.glob("job/manifest*")
    assert len(manifest.read(path).signatures) == 1


def test_a_manifest_that_cannot_be_written_stops_nothing(
    library: Library, install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GRAPHGUARD_DIR", str(tmp_path / "file"))
    install(Mode.ENFORCE)
    graph = library.captured()

    graph.replay()

    assert launches(graph) in (1, None)


def test_graphs_beyond_the_bound_are_launched_and_not_recorded(
    library: Library, install: Install, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graphguard.program_graphs.MAX_GRAPHS", 2)
    install(Mode.ENFORCE)
    kept = [library.captured() for _ in range(3)]
    for graph in kept:
        graph.replay()

    assert len(session.signatures) == 2
    assert "torch" in sys.modules
