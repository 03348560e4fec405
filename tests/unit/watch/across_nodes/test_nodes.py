"""A stall that two nodes see, over stores that answer, fail and hang."""

from __future__ import annotations

import json
import logging
import os
import stat
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from torch._C._distributed_c10d import HashStore

from graphguard.agreement.store import Store
from graphguard.watch.across_nodes import nodes as watched
from graphguard.watch.across_nodes.node_verdict import NodeView, Seen, joined
from graphguard.watch.across_nodes.nodes import NodeStalls, own_stall
from graphguard.watch.looking.bundles import Bundle, ToldVerdict, bundles

NAMES = ("host-a (ranks 0-1)", "host-b (ranks 2-3)")
PATIENCE = 30.0
STUCK = ToldVerdict("host-stuck", ranks=(3,), waiting=(2,), step=41, sentence="rank 3 is stuck")
WAITS = ToldVerdict("device", waiting=(0, 1), step=41, sentence="all wait")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watched, "BEAT_SECONDS", 0.02)
    monkeypatch.setattr(watched, "WAIT_SECONDS", 0.5)


class Node:
    """A node with a directory of its own."""

    def __init__(self, store: object, number: int, folder: Path, pids: Sequence[int] = ()) -> None:
        self.folder = folder / f"node{number}"
        self.folder.mkdir(0o700)
        self.step = 41
        self.number = number
        told = list(zip(NAMES, pids or [os.getpid()] * 2, strict=True))
        self.stalls = NodeStalls(
            cast(Store, store), "0[0-3]", number, told, own_stall=self.stall, steps=self.steps
        )

    def steps(self) -> list[tuple[int, int]]:
        first = 2 * self.number
        return [(first, 41), (first + 1, self.step)]

    def stall(self) -> Bundle | None:
        return next((each for each in bundles(self.folder) if not each.over), None)

    def stuck(self, verdict: ToldVerdict, name: str = "stall-a-host-0123abcd") -> Path:
        path = self.folder / name
        path.mkdir(0o700)
        content = {"ranks": verdict.ranks, "waiting": verdict.waiting}
        told = {"stall_class": verdict.stall_class, "sentence": verdict.sentence, **content}
        (path / "verdict.json").write_text(json.dumps(told))
        return path


def told(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((path / "nodes.json").read_text())
    return found


def poll(*members: Node, until: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not until():
        assert time.monotonic() < deadline
        for node in members:
            node.stalls.poll()
        time.sleep(0.005)


def test_a_stall_of_two_nodes_is_told_on_both_with_the_rank_that_is_blamed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = HashStore()
    one, other = Node(store, 0, tmp_path), Node(store, 1, tmp_path)
    paths = [one.stuck(WAITS), other.stuck(STUCK)]
    with caplog.at_level(logging.ERROR):
        poll(one, other, until=lambda: all((path / "nodes.json").exists() for path in paths))

    for path in paths:
        found = told(path)
        assert (found["format"], found["group"]) == (1, "0[0-3]")
        assert (found["stall_class"], found["ranks"]) == ("host-stuck", [3])
        assert {each["node"]: each["seen"] for each in found["nodes"]} == dict.fromkeys(
            NAMES, "stall"
        )
        assert stat.S_IMODE((path / "nodes.json").stat().st_mode) == 0o600
        assert [each.name for each in path.iterdir() if each.name.startswith(".")] == []
    lines = [record.getMessage() for record in caplog.records]
    assert (
        lines
        == [
            "STALL on several nodes: 0[0-3]: host-a (ranks 0-1), host-b (ranks 2-3) see a stall; "
            "verdicts: host-a (ranks 0-1): device, host-b (ranks 2-3): host-stuck; "
            "rank 3 is blamed (host-stuck)"
        ]
        * 2
    )


def test_a_node_that_sees_none_says_so_and_how_far_it_came(tmp_path: Path) -> None:
    store = HashStore()
    one, other = Node(store, 0, tmp_path), Node(store, 1, tmp_path)
    other.step = 40
    path = one.stuck(WAITS)
    poll(one, other, until=(path / "nodes.json").exists)

    found = told(path)
    assert [each["seen"] for each in found["nodes"]] == ["stall", "no stall"]
    assert (found["behind"], found["ranks"], found["stall_class"]) == ([3], [3], "device")
    assert found["nodes"][1]["steps"] == [[2, 41], [3, 40]]
    assert "host-b (ranks 2-3) sees none" in found["sentence"]
    assert found["sentence"].endswith("rank 3 is behind, at step 40")
    assert list(other.folder.iterdir()) == []


@pytest.mark.parametrize("before", [False, True])
def test_a_node_that_does_not_answer_is_not_known(before: bool, tmp_path: Path) -> None:
    store = HashStore()
    one, other = Node(store, 0, tmp_path), Node(store, 1, tmp_path)
    if before:
        poll(one, other, until=lambda: bool(store.check(["stalls/1"])))
        other.stalls.close()
    path = one.stuck(WAITS)
    poll(one, until=(path / "nodes.json").exists)

    view = told(path)["nodes"][1]
    assert view["seen"] == "not known"
    assert view["why"] == "it does not post any more" if before else "it has never posted"


class Hanging:
    """A store whose server is stopped."""

    def __init__(self) -> None:
        self.calls = 0
        self.released = threading.Event()

    def set(self, key: str, value: bytes) -> None:
        self.calls += 1
        self.released.wait(PATIENCE)


class Failing:
    def set(self, key: str, value: bytes) -> None:
        raise RuntimeError("connection reset \x1b[2J")


def test_a_store_that_never_answers_is_not_waited_for(tmp_path: Path) -> None:
    store = Hanging()
    node = Node(store, 0, tmp_path)
    path = node.stuck(WAITS)
    longest = 0.0
    deadline = time.monotonic() + PATIENCE
    while not (path / "nodes.json").exists():
        began = time.thread_time()
        node.stalls.poll()
        longest = max(longest, time.thread_time() - began)
        assert time.monotonic() < deadline
        time.sleep(0.005)
    store.released.set()

    assert store.calls == 1
    assert longest < 1.0
    assert "the store has not answered" in told(path)["nodes"][1]["why"]


def test_a_store_that_fails_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    node = Node(Failing(), 0, tmp_path)
    path = node.stuck(WAITS)
    poll(node, until=(path / "nodes.json").exists)

    assert told(path)["nodes"][1]["why"].startswith("the store failed: connection reset")
    assert "\x1b" not in caplog.text


def test_what_an_earlier_life_left_behind_does_not_count(tmp_path: Path) -> None:
    store = HashStore()
    earlier = Node(store, 1, tmp_path, pids=(1, 2))
    earlier.stalls._pid = 99
    earlier.stuck(STUCK)
    one = Node(store, 0, tmp_path)
    path = one.stuck(WAITS)
    poll(one, earlier, until=(path / "nodes.json").exists)

    assert told(path)["nodes"][1]["seen"] == "not known"
    assert told(path)["ranks"] == []


@pytest.mark.parametrize("post", [b"", b"\xff" * 100, b"x" * (watched.MAX_POST_BYTES + 1)])
def test_a_post_that_cannot_be_read_is_none(post: bytes, tmp_path: Path) -> None:
    store = HashStore()
    cast(Store, store).set("stalls/1", post)
    one = Node(store, 0, tmp_path)
    path = one.stuck(WAITS)
    poll(one, until=(path / "nodes.json").exists)

    assert told(path)["nodes"][1]["why"] == "it has never posted"


def test_a_later_stall_is_told_too_and_one_that_is_over_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = HashStore()
    one, other = Node(store, 0, tmp_path), Node(store, 1, tmp_path)
    first = one.stuck(WAITS)
    poll(one, other, until=(first / "nodes.json").exists)
    (first / "later.jsonl").write_text('{"event": "recovered", "seconds": 7.5}\n')
    poll(one, other, until=lambda: one.stalls._bundle is None)
    second = one.stuck(STUCK, "stall-b-host-0123abcd")
    poll(one, other, until=(second / "nodes.json").exists)

    lines = [r for r in caplog.records if r.getMessage().startswith("STALL on several nodes")]
    assert len(lines) == 2


def test_a_node_that_sees_it_later_is_added(tmp_path: Path) -> None:
    store = HashStore()
    one, other = Node(store, 0, tmp_path), Node(store, 1, tmp_path)
    path = one.stuck(WAITS)
    poll(one, other, until=(path / "nodes.json").exists)
    assert told(path)["sentence"].endswith("no rank is blamed")
    other.stuck(STUCK)
    poll(one, other, until=lambda: told(path)["ranks"] == [3])


def test_a_bundle_that_is_a_link_is_not_written_to(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    link = tmp_path / "link"
    link.symlink_to(target)

    watched._write(link, b"{}")

    assert list(target.iterdir()) == []


def test_only_stalls_of_these_ranks_are_taken_for_own(tmp_path: Path) -> None:
    node = Node(HashStore(), 0, tmp_path)
    path = node.stuck(STUCK, "stall-a-host-0123abcd")

    assert own_stall(node.folder, 0, "0123abcdef01", [0, 1]) is not None
    assert own_stall(node.folder, 0, "ffffabcdef01", [0, 1]) is None
    assert own_stall(node.folder, 0, "ffffabcdef01", [2]) is not None
    assert own_stall(node.folder, time.time_ns() + 10**9, "0123abcdef01", [0, 1]) is None
    (path / "later.jsonl").write_text('{"event": "gone"}\n')
    assert own_stall(node.folder, 0, "0123abcdef01", [0, 1]) is None


@pytest.mark.parametrize(
    ("classes", "stall_class", "ranks"),
    [
        ([("device", ()), ("process-died", (3,))], "process-died", (3,)),
        ([("host-stuck", (1,)), ("host-stuck", (3,))], "host-stuck", (1, 3)),
        ([("ranks-diverged", ()), ("stopped", (2,))], "stopped", (2,)),
        ([("host-stuck", ()), ("unknown", (2,))], "unknown", (2,)),
        ([("unknown", ()), ("device", ())], "device", ()),
        ([], "", ()),
    ],
)
def test_the_class_that_explains_most_names_the_ranks(
    classes: list[tuple[str, tuple[int, ...]]], stall_class: str, ranks: tuple[int, ...]
) -> None:
    views = [
        NodeView(f"host-{place}", Seen.STALL, (), ToldVerdict(name, ranks=blamed))
        for place, (name, blamed) in enumerate(classes)
    ]
    together = joined("tp", views)

    assert (together.stall_class, together.ranks) == (stall_class, ranks)


def test_ranks_behind_are_named_with_their_steps() -> None:
    waits = ToldVerdict("device", waiting=(0, 1))
    views = [
        NodeView("a", Seen.STALL, ((0, 41), (1, 41)), waits),
        NodeView("b", Seen.NO_STALL, ((2, 40), (3, 38))),
        NodeView("c", Seen.NOT_KNOWN, (), None, "it has never posted"),
    ]

    assert joined("tp", views).ranks == (2, 3)
    assert joined("tp", views).sentence == (
        "tp: a sees a stall; b sees none; of c nothing is known (it has never posted); "
        "verdicts: a: device; ranks 2-3 are behind, at steps 38 to 40"
    )


def test_a_node_that_goes_on_alone_is_not_what_the_others_wait_for() -> None:
    views = [
        NodeView("a", Seen.STALL, ((0, 41),), ToldVerdict("device", waiting=(0,))),
        NodeView("b", Seen.NO_STALL, ((1, 57),)),
    ]

    assert joined("tp", views).ranks == ()
