"""The kinds of steps that the uniform scheduler makes, and which requests belong to each."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    Request = Any
    """A ``vllm.v1.request.Request``."""


class Decodes(NamedTuple):
    """A step of decodes of one length.

    Attributes:
        length: Tokens that each of them takes.
        request_ids: Whose turn it is.
    """

    length: int
    request_ids: AbstractSet[str]

    def tokens(self, request: Request, num_new_tokens: int, due: int) -> int:
        """Return how many tokens of a request may be taken.

        Args:
            request: The request.
            num_new_tokens: How many vLLM would take.
            due: How many of its tokens are known and not computed.
        """
        del due
        mine = num_new_tokens == self.length and request.request_id in self.request_ids
        return num_new_tokens if mine else 0

    def allows(self, lengths: dict[str, int]) -> bool:
        """Whether a step of these lengths, by request, is one of this kind."""
        return all(length == self.length for length in lengths.values())

    def __str__(self) -> str:
        return f"decodes of {self.length} tokens"


class Prefills(NamedTuple):
    """A step of prefills, none of which looks like a decode.

    Attributes:
        decodes: The running requests that are past their prompts.
        forbidden: The length that no prefill may have because it is that of a decode that
            verifies drafts; 0 where they may have any.
        unpads: Whether vLLM takes back the drafts that it pads a request with.
    """

    decodes: AbstractSet[str]
    forbidden: int
    unpads: bool

    def tokens(self, request: Request, num_new_tokens: int, due: int) -> int:
        """Return how many tokens of a request may be taken; see :meth:`Decodes.tokens`."""
        if request.request_id in self.decodes:
            return 0
        if num_new_tokens != self.forbidden:
            return num_new_tokens
        if due == 1:
            # The last token of a prompt. vLLM padded it with drafts to look like a verification.
            return 1 if self.unpads else num_new_tokens
        return num_new_tokens - 1

    def allows(self, lengths: dict[str, int]) -> bool:
        """Whether a step of these lengths, by request, is one of this kind."""
        return self.decodes.isdisjoint(lengths)

    def __str__(self) -> str:
        return "prefills"
