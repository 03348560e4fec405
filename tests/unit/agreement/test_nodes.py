"""Agreement between nodes: step by step, however far one is ahead, and never waiting."""

import hashlib
import logging
import threading
from collections.abc import Sequence
from typing import cast

import pytest
from torch._C._distributed_c10d import FileStore, HashStore, PrefixStore

from graphguard.agreement import nodes
from graphguard.agreement.node_steps import MAX_POSTED_STEPS, MAX_REMEMBERED_STEPS, NodeSteps
from graphguard.agreement.nodes import NodeComparison, NodeDifference, Window
from graphguard.agreement.store import Store
from graphguard.errors import AgreementError

GROUP = "0[0-7]"
NAMES = ("host-a (ranks 0-3)", "host-b (ranks 4-7)")


class Node:
    """A node that launches what it is told, and what compares it with the others."""

    def __init__(
        self, store: object, node: int = 0, names: Sequence[str] = NAMES, window: int = 64
    ) -> None:
        self.steps: list[tuple[int, str, str]] = []
        self.size = window
        self.comparison = NodeComparison(cast(Store, store), node, names, self.window, seconds=0.0)

    def launch(self, *digests: str) -> None:
        for digest in digests:
            before = self.steps[-1][2] if self.steps else ""
            rolling = hashlib.sha256((before + digest).encode()).hexdigest()[:16]
            self.steps.append((len(self.steps) + 1, digest, rolling))

    def window(self) -> Window | None:
        if not self.steps:
            return None
        step, _, rolling = self.steps[-1]
        return Window(GROUP, step, rolling, self.steps[-self.size :])

    def poll(self) -> list[NodeDifference]:
        found = self.comparison.poll()
        # The answer of the store is there within a poll, or a little later.
        while self.comparison._answers is not None:
            found += self.comparison.poll()
        return found


@pytest.fixture
def store() -> HashStore:
    return HashStore()


def meet(*members: Node) -> list[list[NodeDifference]]:
    """Poll until every node has read what every other one had to post at the first poll."""
    found: list[list[NodeDifference]] = [[] for _ in members]
    for _ in range(4):
        for number, node in enumerate(members):
            found[number] += node.poll()
    return found


def pair(store: object, window: int = 64) -> tuple[Node, Node]:
    return Node(store, 0, window=window), Node(store, 1, window=window)


def test_nodes_that_launch_the_same_do_not_differ(store: HashStore) -> None:
    one, other = pair(store)
    for digest in ("aa", "bb", "cc"):
        one.launch(digest)
        other.launch(digest)
        assert meet(one, other) == [[], []]


def test_the_step_that_differs_is_named_on_both_sides_once(store: HashStore) -> None:
    one, other = pair(store)
    one.launch("aa", "bb", "cc", "dd")
    other.launch("aa", "bb", "ee", "dd")

    found = meet(one, other)

    assert [len(differences) for differences in found] == [1, 1]
    difference = found[0][0]
    assert (difference.step, difference.equal_until, difference.exact) == (3, 2, True)
    assert str(difference) == (
        "host-a (ranks 0-3) and host-b (ranks 4-7) launched different things in step 3 of "
        "0[0-7]: cc and ee"
    )
    assert "step 3 of 0[0-7]: ee and cc" in str(found[1][0])
    one.launch("ff")
    other.launch("00")
    assert meet(one, other) == [[], []]


def test_a_step_that_differs_is_named_though_nothing_is_launched_after_it(
    store: HashStore,
) -> None:
    one, other = pair(store)
    one.launch(*["aa"] * 100)
    other.launch(*["aa"] * 100)
    assert meet(one, other) == [[], []]
    one.launch("bb")
    other.launch("cc")

    assert [d.step for found in meet(one, other) for d in found] == [101, 101]


def test_a_node_that_is_behind_or_silent_is_no_difference(store: HashStore) -> None:
    one, other = pair(store)
    assert meet(one, other) == [[], []]
    one.launch(*["aa"] * 200)
    assert meet(one, other) == [[], []]
    other.launch("aa", "aa")

    assert meet(one, other) == [[], []]


def test_a_node_far_behind_is_compared_when_it_comes_to_the_step(store: HashStore) -> None:
    one, other = pair(store)
    assert meet(one, other) == [[], []]
    for number in range(1_000):
        one.launch("bb" if number == 500 else "aa")
        if number % 50 == 49:
            one.poll()
            other.poll()
    assert one.steps[500][0] == 501

    for _ in range(10):
        other.launch(*["aa"] * 49)
        assert [*other.poll(), *one.poll()] == []
    other.launch(*["aa"] * 49)

    found = meet(one, other)

    assert [(d.step, d.equal_until) for differences in found for d in differences] == [
        (501, 500),
        (501, 500),
    ]


def test_where_steps_were_not_seen_the_difference_is_told_between_two(store: HashStore) -> None:
    one, other = pair(store, window=8)
    assert meet(one, other) == [[], []]
    one.launch(*["aa"] * 20)
    other.launch(*["aa"] * 20)
    assert meet(one, other) == [[], []]
    one.launch("bb", *["aa"] * 29)
    other.launch("cc", *["aa"] * 29)

    found = meet(one, other)

    assert [(d.step, d.equal_until) for d in found[0]] == [(43, 20)]
    assert not found[0][0].exact
    assert "between step 20 (the last that is known to be equal) and step 43" in str(found[0][0])


def test_steps_that_no_window_has_in_common_are_compared_by_what_is_posted_longer(
    store: HashStore,
) -> None:
    one, other = pair(store)
    one.launch("bb", *["aa"] * 63)
    other.launch("cc", *["aa"] * 63)
    for _ in range(40):
        one.poll()
        one.launch(*["aa"] * 64)
    assert one.steps[-1][0] > MAX_POSTED_STEPS

    for _ in range(2):
        other.poll()
        other.launch(*["aa"] * 64)
    found = meet(one, other)

    assert [(d.step, d.equal_until) for d in found[0]] == [(1, 0)]
    assert [(d.step, d.equal_until) for d in found[1]] == [(64, 0)]


def test_each_of_many_nodes_is_compared(store: HashStore) -> None:
    names = [f"host-{number}" for number in range(20)]
    members = [Node(store, number, names) for number in range(20)]
    for node in members:
        node.launch("aa", "bb" if node is members[13] else "cc")

    found = [node.poll() for _ in range(6) for node in members]

    others = {d.other for differences in found for d in differences if d.node != "host-13"}
    assert others == {"host-13"}
    assert {d.other for differences in found for d in differences if d.node == "host-13"} == {
        name for name in names if name != "host-13"
    }


def test_what_an_earlier_life_of_the_group_left_in_the_store_is_not_compared(
    store: HashStore,
) -> None:
    one, other = pair(store)
    for node in (one, other):
        node.launch("aa", "bb")
    assert meet(one, other) == [[], []]
    later, last = pair(store)
    later.launch("cc", "dd")

    assert later.poll() == []
    assert later.poll() == []
    last.launch("cc", "dd")
    assert meet(later, last) == [[], []]
    later.launch("ee")
    last.launch("ff")
    assert [d.step for found in meet(later, last) for d in found] == [3, 3]


def test_what_a_life_with_fewer_nodes_left_is_not_compared(store: HashStore) -> None:
    before = pair(store)
    for node in before:
        node.launch("aa")
    assert meet(*before) == [[], []]
    last = Node(store, 2, [*NAMES, "host-c"])
    last.launch("bb")

    assert last.poll() == []


def test_a_node_that_comes_late_gets_what_was_posted_before(store: HashStore) -> None:
    one, other = pair(store)
    for node, digest in ((one, "bb"), (other, "cc")):
        node.launch(digest)
        for _ in range(6):
            node.launch(*["aa"] * 50)
            node.poll()

    assert [(d.step, d.equal_until) for found in meet(one, other) for d in found] == [(1, 0)] * 2


def test_groups_of_one_server_are_apart(store: HashStore) -> None:
    first = pair(PrefixStore("first", store))
    second = pair(PrefixStore("second", store))
    for node in first:
        node.launch("aa")
    for node in second:
        node.launch("bb")

    assert meet(*first, *second) == [[]] * 4


def test_nodes_are_compared_over_a_file(tmp_path: object) -> None:
    one, other = (Node(FileStore(f"{tmp_path}/store", 2), number) for number in range(2))
    one.launch("aa")
    other.launch("bb")

    assert [d.step for found in meet(one, other) for d in found] == [1, 1]


class Silent:
    """A store that does not answer before it is told to."""

    def __init__(self, store: HashStore) -> None:
        self._store = store
        self.answer = threading.Event()

    def set(self, key: str, value: bytes, /) -> None:
        self.answer.wait(60.0)
        self._store.set(key, value)  # type: ignore[arg-type]  # takes bytes, too

    def check(self, keys: list[str], /) -> bool:
        return self._store.check(keys)

    def get(self, key: str, /) -> bytes:
        return self._store.get(key)


def test_a_poll_does_not_wait_for_a_store_that_does_not_answer(
    store: HashStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(nodes, "SILENCE_SECONDS", 0.0)
    silent = Silent(store)
    one, other = Node(silent, 0), Node(store, 1)
    one.launch("aa")
    other.launch("bb")

    for _ in range(3):
        assert one.comparison.poll() == []

    assert [r.getMessage()[:66] for r in caplog.records if r.levelno == logging.WARNING] == [
        "host-a (ranks 0-3): nodes are not compared: the store has not answ"
    ]
    silent.answer.set()
    assert [d.step for found in meet(one, other) for d in found] == [1, 1]


def test_a_store_that_fails_is_an_error_and_used_again(store: HashStore) -> None:
    class Failing:
        fails = True

        def set(self, key: str, value: bytes, /) -> None:
            if self.fails:
                raise RuntimeError("Broken pipe")
            store.set(key, value)  # type: ignore[arg-type]  # takes bytes, too

        def check(self, keys: list[str], /) -> bool:
            return store.check(keys)

        def get(self, key: str, /) -> bytes:
            return store.get(key)

    failing = Failing()
    one, other = Node(failing, 0), Node(store, 1)
    one.launch("aa")
    other.launch("bb")

    with pytest.raises(AgreementError, match="the store failed: Broken pipe"):
        one.poll()
    failing.fails = False
    assert [d.step for found in meet(one, other) for d in found] == [1, 1]


@pytest.mark.parametrize("left", [b"", b"\xc1", b"\x94\x01\x90\x90\x91\x00", b"\x91" * 300_000])
def test_what_no_node_would_post_is_an_error(left: bytes, store: HashStore) -> None:
    store.set("nodes/1", left)  # type: ignore[arg-type]  # takes bytes, too

    with pytest.raises(AgreementError, match=r"what host-b \(ranks 4-7\) posted cannot be read"):
        Node(store).poll()


def test_what_is_posted_and_remembered_stays_small(store: HashStore) -> None:
    one, other = pair(store)
    for _ in range(100):
        for node in (one, other):
            node.launch(*["0123456789abcdef" * 2] * 64)
            assert node.poll() == []

    assert len(store.get("nodes/0")) < nodes.MAX_POST_BYTES // 4
    steps = NodeSteps()
    steps.add((step, "", "0") for step in range(10_000))
    assert len(steps.launched) == MAX_REMEMBERED_STEPS
    assert min(steps.launched) == 10_000 - MAX_REMEMBERED_STEPS
    assert len(steps.after(0)) == MAX_POSTED_STEPS
