"""What is remembered of the launches of a node, and where two nodes part."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta

from graphguard.signature import Natural

MAX_NODES = 65_536
MAX_POSTED_STEPS = 512
MAX_POSTED_CHECKPOINTS = 64

MAX_REMEMBERED_STEPS = 4_096
"""Steps that are remembered of each node, for one that is that far ahead or behind."""

Rolling = Annotated[str, Meta(pattern="^[0-9a-f]{1,16}$")]
Digest = Annotated[str, Meta(pattern="^[0-9a-f]{0,32}$")]

Step = tuple[Natural, Digest, Rolling]
"""Number of a step, digest of what was launched, and the rolling value up to it."""


class NodePost(msgspec.Struct, frozen=True, array_like=True):
    """What a node posts, over what it posted before.

    Attributes:
        number: Drawn by the node.
        seen: The numbers that it has read of the other nodes, 0 for none. A post that holds my
            number is not from an earlier life of the group; ``joining`` says why.
        steps: The last steps, newest last.
        checkpoints: A step in so many, for nodes that are far behind.
    """

    number: Natural
    seen: Annotated[tuple[Natural, ...], Meta(max_length=MAX_NODES)]
    steps: Annotated[tuple[Step, ...], Meta(max_length=MAX_POSTED_STEPS)]
    checkpoints: Annotated[tuple[Step, ...], Meta(max_length=MAX_POSTED_CHECKPOINTS)]


class Launched(NamedTuple):
    """What a node launched in a step, and its rolling value then."""

    digest: str
    rolling: str


class NodeSteps:
    """The launches of a node.

    Attributes:
        launched: By step. The oldest ones are forgotten.
        last: The last step.
    """

    def __init__(self) -> None:
        self.launched: dict[int, Launched] = {}
        self.last = 0

    def add(self, steps: Iterable[Step]) -> None:
        """Remember steps, those that are known already too."""
        for step, digest, rolling in steps:
            self.launched.setdefault(step, Launched(digest, rolling))
            self.last = max(self.last, step)
        while len(self.launched) > MAX_REMEMBERED_STEPS:
            del self.launched[next(iter(self.launched))]

    def after(self, step: int) -> tuple[Step, ...]:
        """Return the steps after one, as many as may be posted."""
        later = sorted(number for number in self.launched if number > step)
        return self._steps(later[-MAX_POSTED_STEPS:])

    def checkpoints(self, every_steps: int) -> tuple[Step, ...]:
        """Return the steps that are multiples of a number, as many as may be posted."""
        multiples = sorted(number for number in self.launched if number % every_steps == 0)
        return self._steps(multiples[-MAX_POSTED_CHECKPOINTS:])

    def _steps(self, numbers: Iterable[int]) -> tuple[Step, ...]:
        return tuple((number, *self.launched[number]) for number in numbers)


class Peer:
    """Another node, as far as it has been read.

    Attributes:
        number: The number that it has drawn; 0 before it was read.
        steps: Its launches.
        equal_until: The last step in which it is known to be equal.
        met: Whether it has read what this node posted, so that it is not from an earlier life.
        told: Whether a difference was reported.
    """

    def __init__(self, number: int = 0) -> None:
        self.number = number
        self.steps = NodeSteps()
        self.equal_until = 0
        self.met = False
        self.told = False

    def add(self, steps: Iterable[Step]) -> None:
        """Remember steps that were not compared yet."""
        self.steps.add(step for step in steps if step[0] > self.equal_until)

    def first_difference(self, own: NodeSteps) -> int | None:
        """Return the first step that is known of both nodes and has other rolling values."""
        theirs = self.steps.launched
        common = (step for step in theirs if step > self.equal_until and step in own.launched)
        for step in sorted(common):
            if own.launched[step].rolling != theirs[step].rolling:
                return step
            self.equal_until = step
        return None
