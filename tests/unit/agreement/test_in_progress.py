"""Whether a process is in a launch, seen from another thread."""

from __future__ import annotations

import threading

import torch

from graphguard import BatchDescriptor, Captured, Session, guard
from graphguard.agreement.group import Agreement
from graphguard.agreement.in_progress import in_launch
from graphguard.agreement.store import GroupMembers
from graphguard.environment import Mode
from tests.unit.agreement.ranks import memory

BATCH, OTHER = BatchDescriptor.of(4, 2), BatchDescriptor.of(5, 2)
PATIENCE_SECONDS = 60.0


class Blocks:
    """A graph whose launch lasts until it is let go."""

    def __init__(self) -> None:
        self.begun, self.let_go = threading.Event(), threading.Event()

    def replay(self) -> None:
        self.begun.set()
        assert self.let_go.wait(PATIENCE_SECONDS)

    def reset(self) -> None:
        pass


def agreement() -> Agreement:
    """The agreement of a group of this process alone."""
    return Agreement(memory(), GroupMembers(0, (0,), "0[0]"), Mode.ENFORCE, seconds=10.0)


def test_a_launch_is_seen_from_its_begin_to_its_end_by_the_group_that_agreed_on_it() -> None:
    mine, another = agreement(), agreement()
    for batch in (BATCH, OTHER):  # a replay, and an eager run
        blocks = Blocks()

        def eager(batch: BatchDescriptor, blocks: Blocks = blocks) -> torch.Tensor:
            blocks.replay()
            return torch.zeros(1)

        def capture(batch: BatchDescriptor, blocks: Blocks = blocks) -> Captured:
            return Captured(blocks)

        step = guard("target", eager=eager, mode="enforce", group=mine, session=Session())(capture)
        step.warm_up([BATCH])
        assert not in_launch(mine)

        thread = threading.Thread(target=step, args=(batch,))
        thread.start()
        assert blocks.begun.wait(PATIENCE_SECONDS)
        assert in_launch(mine)
        assert not in_launch(another)

        blocks.let_go.set()
        thread.join(PATIENCE_SECONDS)
        assert not in_launch(mine)
