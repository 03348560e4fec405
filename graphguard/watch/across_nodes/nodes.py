"""A stall that several nodes see: what each of them says of it, side by side.

The verdict of a stall is made on one node, from what its ranks left there. The first rank of each
node posts a summary of it to the store of the group, with the step that its node has come to, and
reads what the others post. Into the bundle of its node goes ``nodes.json``.

The store is asked on a thread of its own and never waited for. A node that does not post any more
is named as one of which nothing is known: its first rank may be stopped or gone, or the process
that serves the store may be.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta

from graphguard.blackbox.directory import FILE_MODE
from graphguard.log import logger
from graphguard.printable import printable
from graphguard.watch.across_nodes.node_verdict import NodeView, Seen, joined
from graphguard.watch.looking.bundles import NODES, Bundle, ToldVerdict, bundles

if TYPE_CHECKING:
    from graphguard.agreement.store import Store

FORMAT = 1

MAX_POST_BYTES = 2**16
MAX_READS = 8
"""Nodes that are read at a time. Where there are more, they take turns."""

MAX_TEXT = 1_000
MAX_RANKS = 256
MAX_WRITES = 20
"""How often ``nodes.json`` of one stall is written."""

BEAT_SECONDS = 1.0
"""How often a node posts, and looks for a stall of its own."""

WAIT_SECONDS = 6.0
"""How long the others have to see the stall too, or to say that they see none."""

LAST_ANSWER_SECONDS = 1.0
"""How long the end of a process waits for the store, if it has been asked."""

_Number = Annotated[int, Meta(ge=0, le=2**63 - 1)]


class StallPost(msgspec.Struct, frozen=True, array_like=True):
    """What a node posts, over what it posted before.

    Attributes:
        pid: The process that posts. One of an earlier life of the group was another one.
        beat: Grows with each post.
        steps: The ranks of the group on the node, each with the last step that it has published.
        stall: The stall that is going on there, or None.
    """

    pid: _Number
    beat: _Number
    steps: Annotated[tuple[tuple[_Number, _Number], ...], Meta(max_length=MAX_RANKS)]
    stall: ToldVerdict | None


class _Peer:
    """What was read of another node."""

    def __init__(self, name: str, pid: int) -> None:
        self.name = name
        self.pid = pid
        self.post: StallPost | None = None
        self.beats = 0
        """How many posts were seen since the stall began."""

    def take(self, post: StallPost) -> None:
        if post.pid != self.pid:
            return
        if self.post is not None and post.beat > self.post.beat:
            self.beats += 1
        self.post = post


class _Asking:
    """A question to the store, which may never be answered."""

    def __init__(self, store: Store, own: tuple[str, bytes], reads: Sequence[str]) -> None:
        self.began = time.monotonic()
        self._answers: SimpleQueue[dict[str, bytes] | Exception] = SimpleQueue()
        arguments = (store, own, tuple(reads), self._answers)
        self._thread = Thread(target=_ask, args=arguments, name="graphguard stalls", daemon=True)
        self._thread.start()

    def answer(self) -> dict[str, bytes] | Exception | None:
        with suppress(Empty):
            return self._answers.get_nowait()
        return None

    def join(self) -> None:
        self._thread.join(LAST_ANSWER_SECONDS)


class NodeStalls:
    """Tells the stalls of this node to the others, and theirs to this one.

    Args:
        store: Shared by all nodes.
        group: The name of the group.
        node: The number of this node.
        nodes: What each node is called, and the process that posts for it.
        own_stall: Returns the bundle of the stall that is going on on this node, or None.
        steps: Returns the ranks of the group on this node, each with the last step that it has
            published.
    """

    def __init__(
        self,
        store: Store,
        group: str,
        node: int,
        nodes: Sequence[tuple[str, int]],
        *,
        own_stall: Callable[[], Bundle | None],
        steps: Callable[[], Sequence[tuple[int, int]]],
    ) -> None:
        self._store = store
        self._group = group
        self._node = node
        self._name = nodes[node][0]
        self._peers = {
            _key(number): _Peer(name, pid)
            for number, (name, pid) in enumerate(nodes)
            if number != node
        }
        self._turn = list(self._peers)
        self._own_stall = own_stall
        self._steps = steps
        self._pid = os.getpid()
        self._beat = 0
        self._asking: _Asking | None = None
        self._problem = ""
        self._next = 0.0
        self._bundle: Bundle | None = None
        self._began = 0.0
        self._written: tuple[NodeView, ...] = ()
        self._writes = 0
        self._failed = False

    def poll(self) -> None:
        """Look for a stall, take what the store has answered, and ask it again.

        It does not wait, and does not fail: what goes wrong is logged once.
        """
        try:
            self._poll()
        except Exception as error:  # noqa: BLE001 - what else is watched must go on
            if not self._failed:
                self._failed = True
                logger().warning("stalls of other nodes are not looked for: %s; said once", error)

    def _poll(self) -> None:
        self._take()
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + BEAT_SECONDS
        self._look(now)
        if self._asking is None:
            self._ask()
        if self._bundle is not None:
            self._tell(self._bundle, now)

    def close(self) -> None:
        """Wait for what the store was asked, for a moment; poll no more after that."""
        if self._asking is not None:
            self._asking.join()

    def _look(self, now: float) -> None:
        found = self._own_stall()
        if found is None:
            self._bundle = None
        elif self._bundle is None or found.path != self._bundle.path:
            self._began, self._written, self._writes = now, (), 0
            for peer in self._peers.values():
                peer.beats = 0
            self._bundle = found
        else:
            self._bundle = found

    def _ask(self) -> None:
        self._beat += 1
        verdict = _bounded(self._bundle.verdict) if self._bundle and self._bundle.verdict else None
        post = StallPost(self._pid, self._beat, self._own_steps(), verdict)
        reads: list[str] = []
        if self._bundle is not None:
            reads = self._turn[:MAX_READS]
            self._turn = [*self._turn[MAX_READS:], *reads]
        own = (_key(self._node), msgspec.msgpack.encode(post))
        self._asking = _Asking(self._store, own, reads)

    def _take(self) -> None:
        if self._asking is None:
            return
        answer = self._asking.answer()
        if answer is None:
            silent = time.monotonic() - self._asking.began
            if silent > BEAT_SECONDS:
                self._problem = f"the store has not answered for {silent:.0f} s"
            return
        self._asking = None
        self._problem = ""
        if isinstance(answer, Exception):
            self._problem = f"the store failed: {str(answer)[:MAX_TEXT]}"
            return
        for key, value in answer.items():
            with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                if len(value) <= MAX_POST_BYTES:
                    self._peers[key].take(_decoder.decode(value))

    def _tell(self, bundle: Bundle, now: float) -> None:
        """Write what is known of all nodes, once that is all there is, and when it changes."""
        rounds = -(-len(self._peers) // MAX_READS)
        # In the order of the nodes, so that all of them say the same.
        others = [self._view(peer) for peer in self._peers.values()]
        views = (*others[: self._node], self._own_view(bundle), *others[self._node :])
        complete = all(view.seen is Seen.STALL for view in views)
        if not complete and now - self._began < WAIT_SECONDS + 2 * rounds * BEAT_SECONDS:
            return
        if views == self._written or self._writes >= MAX_WRITES:
            return
        first = not self._written
        self._written = views
        self._writes += 1
        together = joined(self._group, views)
        document = {
            "format": FORMAT,
            "time": datetime.now(timezone.utc).isoformat(),
            "group": self._group,
            **msgspec.to_builtins(together),
            "nodes": [msgspec.to_builtins(view) for view in views],
        }
        _write(Path(bundle.path), msgspec.json.format(msgspec.json.encode(document), indent=2))
        if first:
            logger().error("STALL on several nodes: %s", printable(together.sentence))

    def _own_view(self, bundle: Bundle) -> NodeView:
        verdict = None if bundle.verdict is None else _bounded(bundle.verdict)
        return NodeView(self._name, Seen.STALL, self._own_steps(), verdict, bundle.problem)

    def _own_steps(self) -> tuple[tuple[int, int], ...]:
        return tuple((rank, max(0, step)) for rank, step in self._steps()[:MAX_RANKS])

    def _view(self, peer: _Peer) -> NodeView:
        post = peer.post
        if post is not None and post.stall is not None and peer.beats > 0:
            return NodeView(peer.name, Seen.STALL, post.steps, post.stall)
        if post is not None and peer.beats > 0:
            return NodeView(peer.name, Seen.NO_STALL, post.steps)
        why = self._problem
        if not why:
            why = "it has never posted" if post is None else "it does not post any more"
        return NodeView(peer.name, Seen.NOT_KNOWN, post.steps if post else (), None, why)


def own_stall(directory: Path, since_ns: int, job: str, ranks: Sequence[int]) -> Bundle | None:
    """Return the bundle of a stall of this job that is not over, or None.

    Args:
        directory: The one of the rings.
        since_ns: When this process opened its ring; older stalls are not its own.
        job: What the ranks of the node call themselves.
        ranks: The global ranks of the group on this node. A stall of a wider group has another
            job's name, and is about some of these ranks.
    """
    here = set(ranks)
    for bundle in bundles(directory, since_ns):
        told = bundle.verdict
        if told is None or bundle.over:
            continue
        about = {*told.ranks, *told.waiting}
        if bundle.is_of(job) or here & about or not about:
            return bundle
    return None


def _bounded(verdict: ToldVerdict) -> ToldVerdict:
    texts = ("group", "role", "graph", "batch", "where", "sentence")
    cut = {name: getattr(verdict, name)[:MAX_TEXT] for name in texts}
    return msgspec.structs.replace(
        verdict, ranks=verdict.ranks[:MAX_RANKS], waiting=verdict.waiting[:MAX_RANKS], **cut
    )


def _write(bundle: Path, content: bytes) -> None:
    """Put a file into a bundle: whole or not at all, and into no other directory."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    temporary = f".{NODES}.{os.getpid()}"
    try:
        directory = os.open(bundle, flags)
        try:
            create = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(temporary, create, FILE_MODE, dir_fd=directory)
            with open(descriptor, "wb") as file:
                file.write(content)
            os.replace(temporary, NODES, src_dir_fd=directory, dst_dir_fd=directory)
        finally:
            os.close(directory)
    except OSError as error:
        logger().warning("what other nodes see was not written to %s: %s", bundle, error.strerror)


_decoder = msgspec.msgpack.Decoder(StallPost)


def _ask(
    store: Store,
    own: tuple[str, bytes],
    reads: Sequence[str],
    answers: SimpleQueue[dict[str, bytes] | Exception],
) -> None:
    try:
        store.set(*own)
        # What is not there is not waited for.
        answers.put({key: store.get(key) for key in reads if store.check([key])})
    except Exception as error:  # noqa: BLE001 - told by the poll that takes it
        answers.put(error)


def _key(node: int) -> str:
    return f"stalls/{node}"
