"""How vLLM's V2 runner asks for the graph of a step, and how it is answered.

It calls ``dispatch_cg_and_sync_dp`` with a graph manager, of which that function uses ``dispatch``
and nothing else. So what is to answer in place of the manager is given to vLLM's own function.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

Descriptor = Any
"""vLLM's ``BatchExecutionDescriptor``, which differs from version to version."""


_NOT_OF_DECODES = {"max_query_len": None, "uniform_decode": False}
"""What vLLM passes, by name and where its version has it, for a batch that is not of decodes."""


class Request(NamedTuple):
    """A call of vLLM's ``dispatch_cg_and_sync_dp``.

    Attributes:
        original: vLLM's own function.
        manager: The graph manager that is asked.
        num_reqs: Requests of the batch.
        num_tokens: Tokens of the batch.
        uniform_token_count: Tokens of each request if vLLM takes the batch for decodes.
        dp_size: Number of data-parallel ranks.
        dp_rank: This one among them.
        more: What else the version takes, by name.
        refine: What the speculator makes of a descriptor before it uses it, or None.
    """

    original: Callable[..., tuple[Descriptor, Any]]
    manager: Any
    num_reqs: int
    num_tokens: int
    uniform_token_count: int | None
    dp_size: int
    dp_rank: int
    more: dict[str, Any]
    refine: Callable[[Descriptor], Descriptor] | None = None

    def refined(self, descriptor: Descriptor) -> Descriptor:
        """Return what is launched for a descriptor that vLLM's function has returned."""
        return descriptor if self.refine is None else self.refine(descriptor)

    def unguarded(self) -> tuple[Descriptor, Any]:
        """Make the call as vLLM does."""
        return self.answered_by(self.manager, uniform=True, alone=False)

    def answered_by(self, manager: Any, *, uniform: bool, alone: bool) -> tuple[Descriptor, Any]:  # noqa: ANN401
        """Call vLLM's function with another manager.

        Args:
            manager: What stands for the manager.
            uniform: Whether the batch may be taken for decodes, if vLLM does.
            alone: Whether data-parallel ranks are left out of it.
        """
        more = self.more
        if not uniform:
            more = more | {name: no for name, no in _NOT_OF_DECODES.items() if name in more}
        return self.original(
            manager,
            self.num_reqs,
            self.num_tokens,
            self.uniform_token_count if uniform else None,
            1 if alone else self.dp_size,
            0 if alone else self.dp_rank,
            **more,
        )


class Asking:
    """Stands for a manager that is asked for the graph of a step.

    Args:
        request: What vLLM asks for.
        decide: Says what the step runs with.
        no_graphs: vLLM's mode of a step without graphs.

    Attributes:
        decided: What was decided, or None if vLLM has not asked.
    """

    def __init__(
        self,
        request: Request,
        decide: Callable[[Asking], Descriptor],
        no_graphs: Any,  # noqa: ANN401 - vLLM's own
    ) -> None:
        self.decided: Descriptor = None
        self._request = request
        self._decide = decide
        self._no_graphs = no_graphs
        self._asked: tuple[tuple[Any, ...], dict[str, Any]] = ((), {})

    def dispatch(self, *args: Any, **kwargs: Any) -> Descriptor:  # noqa: ANN401 - vLLM's own
        """Answer as vLLM's manager, with what was decided for the step."""
        self._asked = (args, kwargs)
        self.decided = self._decide(self)
        return self.decided

    def choice(self) -> Descriptor:
        """Return vLLM's own choice."""
        args, kwargs = self._asked
        return self._request.refined(self._request.manager.dispatch(*args, **kwargs))

    def without_decodes(self) -> Descriptor:
        """Return vLLM's choice for a batch of the same size that is not of decodes."""
        (num_reqs, num_tokens, _, *rest), kwargs = self._asked
        if kwargs.get("max_query_len") is not None:
            kwargs = kwargs | {"max_query_len": None}
        return self._request.manager.dispatch(num_reqs, num_tokens, None, *rest, **kwargs)

    def eagerly(self, chosen: Descriptor) -> Descriptor:
        """Return vLLM's own descriptor of a step without graphs."""
        request = self._request
        fields = {field.name for field in dataclasses.fields(chosen)}
        unused = fields & {"uniform_token_count", "max_query_len"}
        return dataclasses.replace(
            chosen,
            cg_mode=self._no_graphs,
            num_tokens=request.num_tokens,
            num_reqs=request.num_reqs,
            **dict.fromkeys(unused),
        )


class Answered:
    """Stands for a manager that has been asked; after that, it is the manager."""

    def __init__(self, manager: Any, decided: Descriptor) -> None:  # noqa: ANN401 - vLLM's own
        self._manager = manager
        self._decided = decided

    def dispatch(self, *args: Any, **kwargs: Any) -> Descriptor:  # noqa: ANN401 - vLLM's own
        """Answer with what was decided, the first time."""
        decided, self._decided = self._decided, None
        return self._manager.dispatch(*args, **kwargs) if decided is None else decided


def for_decodes(descriptor: Descriptor) -> bool:
    """Whether a graph is only for decodes, and so is never chosen for another batch."""
    bound = getattr(descriptor, "max_query_len", None)
    return descriptor.uniform_token_count is not None or bound is not None
