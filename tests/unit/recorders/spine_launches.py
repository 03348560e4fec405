"""What the spine does around launches, whichever adapter tells it. See ``spine_behaviour.py``."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from graphguard import BatchDescriptor, CaptureError, GuardMismatch, Session, manifest
from graphguard.blackbox.events import Event
from graphguard.blackbox.writer import BlackBox
from graphguard.environment import Mode
from graphguard.recorders import c10d
from tests.unit.recorders.graph_libraries import Library
from tests.unit.recorders.spine_fixtures import Install, launches


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
    library: Library, install: Install, session: Session
) -> None:
    install()

    def fail(*_: object) -> None:
        raise OSError("a fault")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(c10d.CollectiveRecorder, "__enter__", fail)
        graph = library.captured()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("graphguard.program_replays.GraphReplays._prepared", fail)
        graph.replay()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("graphguard.program_graphs.GraphWatch.__init__", fail)
        other = library.captured()
    other.replay()

    assert session.signatures == []
    assert launches(graph) in (1, None)
    assert launches(other) in (1, None)


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
