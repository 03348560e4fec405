"""Where the worker is: its rank, its step, the model that runs. What happens goes to its trace."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.vllm.engine.trace import Event, Writer


class Worker:
    """What the emulation knows of the worker that it runs in.

    Attributes:
        rank: The rank in the tensor parallel group.
        step: The number of the step that runs, from 1; 0 during start-up.
        role: The model that runs, ``target`` or ``drafter``.
        num_reqs: The requests of the step.
        num_tokens: The tokens of the step, without padding.
        requests: The requests of the step by vLLM's names, in the order of the batch.
    """

    def __init__(self) -> None:
        self.rank = -1
        self.step = 0
        self.role = "target"
        self.num_reqs = 0
        self.num_tokens = 0
        self.requests: list[str] = []
        self._writer: Writer | None = None

    def start(self, rank: int, directory: str) -> None:
        """Learn the rank, and open the trace."""
        self.rank = rank
        self._writer = Writer(Path(directory), rank)

    def begin_step(self, num_reqs: int, num_tokens: int, *, unknown: bool = False) -> None:
        """Count a step; ``unknown`` says that it was scheduled before its drafts were known."""
        self.step += 1
        self.num_reqs = num_reqs
        self.num_tokens = num_tokens
        detail = "placeholders" if unknown else ""
        self.write("step", num_reqs=num_reqs, num_tokens=num_tokens, detail=detail)

    @contextmanager
    def drafting(self) -> Iterator[None]:
        """Say that the drafter runs."""
        self.role = "drafter"
        try:
            yield
        finally:
            self.role = "target"

    def write(self, kind: str, **fields: Any) -> None:
        """Append an event to the trace, if there is one in this process."""
        if kind == "fault":
            fields["time"] = time.time()
        if self._writer is not None:
            self._writer.write(Event(kind, step=self.step, **{"role": self.role, **fields}))


worker = Worker()
"""The worker of this process. Other processes of the engine have one too, and never start it."""


def descriptor_fields() -> dict[str, Any]:
    """Return what the forward context says of the graph that is run."""
    from vllm.forward_context import get_forward_context, is_forward_context_available

    if not is_forward_context_available():
        return {}
    context = get_forward_context()
    descriptor = context.batch_descriptor
    fields: dict[str, Any] = {"mode": context.cudagraph_runtime_mode.name}
    if descriptor is not None:
        fields |= {
            "num_tokens": descriptor.num_tokens,
            "num_reqs": descriptor.num_reqs,
            "uniform": descriptor.uniform,
        }
    return fields
