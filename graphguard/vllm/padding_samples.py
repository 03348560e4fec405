"""Samples of padded slots that only a GPU holds: copied in passing, looked at when they are there.

Reading a value from a GPU waits for all work before it, so a step must not. Every so many padded
steps the padded part of each tensor is copied to pinned memory on the stream that runs the step,
behind what writes it and before the graph that reads it. An event behind the copies says when they
are done; a later step finds it done and checks the values. So a violation is told some steps after
it happened, and steps in between are not seen at all.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import msgspec

from graphguard.vllm.padding import MetadataView, PaddingFinding, Tail, violations

if TYPE_CHECKING:
    import torch

EVERY = 64
"""Padded steps from one sample to the next."""
MAX_WAITING = 4
"""Samples that may be under way. With more of them the GPU is far behind, and one is left out."""


class PaddingSamples:
    """Takes samples of padded slots and tells what does not hold in them.

    Args:
        every: Padded steps from one sample to the next.

    Attributes:
        taken: Samples so far.
        left_out: Samples that were due and not taken: too many under way, or a capture.
    """

    def __init__(self, every: int = EVERY) -> None:
        self.taken = 0
        self.left_out = 0
        self._every = every
        self._steps = 0
        self._waiting: deque[tuple[Any, MetadataView]] = deque()

    def due(self) -> bool:
        """Count a padded step, and say whether to take a sample of it. The first one is taken."""
        self._steps += 1
        return self._every == 1 or self._steps % self._every == 1

    def take(self, view: MetadataView) -> bool:
        """Copy the padded slots of a step, without waiting for them.

        Args:
            view: The padded slots as tensors; on a CPU they are copied at once.

        Returns:
            Whether a sample was taken.
        """
        on_gpu = view.device != "cpu"
        if on_gpu and (len(self._waiting) >= MAX_WAITING or _is_capturing()):
            self.left_out += 1
            return False
        sample = msgspec.structs.replace(
            view,
            lengths=_copies(view.lengths),
            query_start=_copy(view.query_start) if view.query_start else None,
            block_tables=_copies(view.block_tables),
            slot_mappings=_copies(view.slot_mappings),
            positions=_copy(view.positions) if view.positions else None,
            derived=_copies(view.derived),
        )
        self._waiting.append((_event() if on_gpu else None, sample))
        self.taken += 1
        return True

    def findings(self) -> list[PaddingFinding]:
        """Return what does not hold in the samples that have arrived. Never waits."""
        found: list[PaddingFinding] = []
        while self._waiting:
            event, sample = self._waiting[0]
            if event is not None and not event.query():
                break
            self._waiting.popleft()
            found += violations(sample)
        return found


def _copies(tails: tuple[Tail, ...]) -> tuple[Tail, ...]:
    return tuple(_copy(tail) for tail in tails)


def _copy(tail: Tail) -> Tail:
    """Start a copy to the CPU. It holds the step's values once the event behind it is done."""
    import torch

    values: torch.Tensor = tail.values
    on_gpu = values.device.type != "cpu"
    copy = torch.empty(values.shape, dtype=values.dtype, device="cpu", pin_memory=on_gpu)
    copy.copy_(values, non_blocking=on_gpu)
    return Tail(tail.name, copy.numpy(), tail.first)


def _is_capturing() -> bool:
    """Whether this stream is being captured: what is copied then would become part of the graph."""
    import torch

    return torch.cuda.is_current_stream_capturing()


def _event() -> torch.cuda.Event:
    import torch

    event = torch.cuda.Event()
    event.record()
    return event
