"""Agreement between nodes: whether the launches of one node are those of the others.

The ledger of a node ends at its memory. It keeps one rolling value over all launches so far, and
these values are compared over the store of the group, beside the steps and not in them.

What this can do: name a divergence between nodes, and the step in which it began, within 64 steps
or one poll, whichever is later. That holds even if the ranks hang in that very step: a rank
publishes a step before it launches it, and polls go on in a thread of their own.

What it cannot do: prevent it. When a step is compared, it has most often been launched. Steps are
compared with the same step, however late, so a node that is silent or behind is no difference. A
divergence is not seen while the store does not answer, and never if a node ends before it posts.
"""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Annotated

import msgspec
from msgspec import Meta

from graphguard.agreement.node_steps import Digest, NodePost, NodeSteps, Peer, Rolling, Step
from graphguard.agreement.store import Store
from graphguard.errors import AgreementError
from graphguard.log import logger
from graphguard.signature import Groups, Natural

MAX_POST_BYTES = 2**18

MAX_READS = 8
"""Nodes that are read at a time. Where there are more, they take turns."""

OVERLAPPING_POSTS = 4
"""Posts in which a step is found, for nodes that do not read each of them."""

ANSWER_SECONDS = 0.02
"""How long a poll waits for the store. What comes later is taken up by the next poll."""

SILENCE_SECONDS = 10.0
"""How long the store may not answer before the log says so."""

LAST_ANSWER_SECONDS = 1.0
"""How long the end of a process waits for the store, if it has been asked."""

_Answer = dict[int, bytes] | Exception


class Window(msgspec.Struct, frozen=True):
    """What a node has launched lately.

    Attributes:
        group: Name and global ranks of the group.
        step: The last step.
        rolling: A value over everything up to that step, in hexadecimal digits.
        recent: The last steps, newest last: number, digest of the launch, rolling value.
    """

    group: Groups
    step: Natural
    rolling: Rolling
    recent: Annotated[list[Step], Meta(max_length=65_536)] = []

    @property
    def steps(self) -> list[Step]:
        """All steps of the window, the last one too."""
        if self.recent and self.recent[-1][0] == self.step:
            return self.recent
        unknown: Digest = ""
        return [*self.recent, (self.step, unknown, self.rolling)]


class NodeDifference(msgspec.Struct, frozen=True):
    """Two nodes that launched different things. Nothing says which of them is wrong.

    Attributes:
        group: Name and global ranks of the group.
        step: The first step that is known to come with or after the difference.
        equal_until: The last step that is known to be equal; 0 if none is.
        node: This node, by its name.
        other: The other node.
        digest: What this node launched in ``step``; empty if it is not known.
        other_digest: What the other node launched.
    """

    group: str
    step: int
    equal_until: int
    node: str
    other: str
    digest: str
    other_digest: str

    @property
    def exact(self) -> bool:
        """Whether the nodes first differ in ``step`` itself."""
        return self.step == self.equal_until + 1

    def __str__(self) -> str:
        if self.exact:
            return (
                f"{self.node} and {self.other} launched different things in step {self.step} of "
                f"{self.group}: {self.digest or 'unknown'} and {self.other_digest or 'unknown'}"
            )
        return (
            f"{self.node} and {self.other} launched different things in {self.group} between "
            f"step {self.equal_until} (the last that is known to be equal) and step {self.step}"
        )


class NodeComparison:
    """Compares this node with the others. One rank of each node has one.

    Args:
        store: Shared by all nodes.
        node: The number of this node.
        names: What each node is called, by its number: ``host-a (ranks 0-3)``.
        window: Returns what this node has launched lately, or None before the first step. Where
            it leaves out steps since the last poll, a difference can be told less exactly.
        every_steps: One step in so many is posted for longer than the others, for nodes that are
            far behind.
        seconds: How often the store is asked, unless ``every_steps`` steps have passed.
    """

    def __init__(
        self,
        store: Store,
        node: int,
        names: Sequence[str],
        window: Callable[[], Window | None],
        *,
        every_steps: int = 64,
        seconds: float = 0.2,
    ) -> None:
        self._store = store
        self._node = node
        self._names = tuple(names)
        self._window = window
        self._every_steps = every_steps
        self._seconds = seconds
        self._number = secrets.randbelow(2**63 - 1) + 1
        self._group = ""
        self._own = NodeSteps()
        self._peers = {other: Peer() for other in range(len(self._names)) if other != node}
        self._turn = list(self._peers)
        self._posted = b""
        self._posted_until = deque([0], maxlen=OVERLAPPING_POSTS)
        self._answers: SimpleQueue[_Answer] | None = None
        self._asking: Thread | None = None
        self._asked = float("-inf")
        self._said_silent = False

    def poll(self) -> list[NodeDifference]:
        """Post what is new, read other nodes, and return the differences that are new.

        The store is asked on a thread of its own and not waited for, as it may never answer. What
        it does not answer at once is taken up by a later poll.

        Raises:
            AgreementError: If the store failed, or another node posted what cannot be read.
        """
        if window := self._window():
            self._group = window.group
            self._own.add(window.steps)
        if self._answers is None and self._due():
            self._ask()
        if self._answers is not None:
            self._take(self._answers)
        return list(self._differences())

    def close(self) -> None:
        """Wait for what the store was asked, for a moment; poll no more after that.

        A thread that comes back from the native code of a store while the interpreter is taken
        down would end the process with an abort.
        """
        if self._asking is not None:
            self._asking.join(LAST_ANSWER_SECONDS)

    def _due(self) -> bool:
        waited = time.monotonic() - self._asked >= self._seconds
        return waited or self._own.last - self._posted_until[-1] >= self._every_steps

    def _ask(self) -> None:
        seen = tuple(
            self._number if node == self._node else self._peers[node].number
            for node in range(len(self._names))
        )
        first = min(*self._posted_until, self._own.last - self._every_steps)
        if not all(peer.met for peer in self._peers.values()):
            # A node that has not read this one yet gets all that is remembered.
            first = 0
        post = msgspec.msgpack.encode(
            NodePost(
                self._number,
                seen,
                self._own.after(first),
                self._own.checkpoints(self._every_steps),
            )
        )
        own = None if post == self._posted else (_key(self._node), post)
        self._posted = post
        self._posted_until.append(self._own.last)
        reads = self._turn[:MAX_READS]
        self._turn = [*self._turn[MAX_READS:], *reads]
        self._answers = SimpleQueue()
        self._asked = time.monotonic()
        arguments = (self._store, own, reads, self._answers)
        self._asking = Thread(target=_ask, args=arguments, name="graphguard nodes", daemon=True)
        self._asking.start()

    def _take(self, answers: SimpleQueue[_Answer]) -> None:
        try:
            answer = answers.get(timeout=ANSWER_SECONDS)
        except Empty:
            silent = time.monotonic() - self._asked
            if silent > SILENCE_SECONDS and not self._said_silent:
                self._said_silent = True
                logger().warning(
                    "%s: nodes are not compared: the store has not answered for %.0f s; this is "
                    "said once",
                    self._name,
                    silent,
                )
            return
        self._answers = None
        if isinstance(answer, Exception):
            # Whether the post has arrived is not known.
            self._posted = b""
            raise AgreementError(
                f"{self._name}: nodes are not compared: the store failed: {answer}",
                hint="has the process that serves the store ended? With TCPStore it is most often "
                "rank 0",
            ) from answer
        for node, post in answer.items():
            self._read(node, post)

    def _read(self, node: int, value: bytes) -> None:
        try:
            post = _decoder.decode(value) if len(value) <= MAX_POST_BYTES else None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            post = None
        if post is None:
            raise AgreementError(
                f"{self._name}: what {self._names[node]} posted cannot be read",
                hint="do all nodes run the same version of graphguard?",
            )
        if len(post.seen) != len(self._names):
            # Of an earlier life with other nodes.
            return
        if post.number != self._peers[node].number:
            self._peers[node] = Peer(post.number)
        peer = self._peers[node]
        peer.add((*post.checkpoints, *post.steps))
        peer.met = peer.met or post.seen[self._node] == self._number

    def _differences(self) -> Iterator[NodeDifference]:
        for node, peer in self._peers.items():
            if peer.told or not peer.met:
                continue
            if (step := peer.first_difference(self._own)) is None:
                continue
            peer.told = True
            yield NodeDifference(
                group=self._group,
                step=step,
                equal_until=peer.equal_until,
                node=self._name,
                other=self._names[node],
                digest=self._own.launched[step].digest,
                other_digest=peer.steps.launched[step].digest,
            )

    @property
    def _name(self) -> str:
        return self._names[self._node]


_decoder = msgspec.msgpack.Decoder(NodePost)


def _ask(
    store: Store,
    own: tuple[str, bytes] | None,
    reads: Sequence[int],
    answers: SimpleQueue[_Answer],
) -> None:
    try:
        if own is not None:
            store.set(*own)
        # What is not there is not waited for.
        there = [node for node in reads if store.check([_key(node)])]
        answers.put({node: store.get(_key(node)) for node in there})
    except Exception as error:  # noqa: BLE001 - raised by the poll that takes it
        answers.put(error)


def _key(node: int) -> str:
    return f"nodes/{node}"
