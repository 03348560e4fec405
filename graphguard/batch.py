"""The batch descriptor: what a step wants to run."""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from graphguard.errors import DescriptorError
from graphguard.verdict import Phase

MAX_SIZE = 2**31 - 1
"""The largest number of requests or tokens that a descriptor takes."""

_TEXT = re.compile(r"(\d{1,10})x(\d{1,10})(?:/(\d{1,10}))?(?::(decode|prefill|mixed))?", re.ASCII)
_TOKENS_TEXT = re.compile(r"(\d{1,10})t", re.ASCII)


class BatchDescriptor(msgspec.Struct, frozen=True):
    """What a step wants to run.

    Use :meth:`of`, :meth:`ragged` or :meth:`tokens` rather than the constructor.

    Attributes:
        num_reqs: Number of requests.
        query_len: Query tokens of a request; the largest where they differ.
        num_tokens: Query tokens of all requests together.
        uniform: Whether every request has ``query_len`` tokens; False where no requests are named.
        phase: Whether the requests are past their prompts.

    Raises:
        DescriptorError: If the numbers contradict each other.
    """

    num_reqs: int
    query_len: int
    num_tokens: int
    uniform: bool
    phase: Phase = Phase.DECODE

    def __post_init__(self) -> None:
        product = self.num_reqs * self.query_len
        if self.num_reqs == 0:
            valid = self.query_len == 0 and not self.uniform and self.phase == Phase.MIXED
        else:
            valid = (
                0 < self.num_reqs <= MAX_SIZE
                and 0 < self.query_len <= self.num_tokens <= product
                and self.uniform == (self.num_tokens == product)
            )
        if valid and 0 <= self.num_tokens <= MAX_SIZE:
            return
        raise DescriptorError(
            f"{self.num_reqs} requests of at most {self.query_len} query tokens cannot be "
            f"{self.num_tokens} tokens in all (uniform={self.uniform})",
            hint="use BatchDescriptor.of(), .ragged() or .tokens(), which do the arithmetic",
        )

    @classmethod
    def of(cls, num_reqs: int, query_len: int, phase: Phase = Phase.DECODE) -> BatchDescriptor:
        """Describe ``num_reqs`` requests of ``query_len`` query tokens each."""
        return cls(num_reqs, query_len, num_reqs * query_len, True, phase)

    @classmethod
    def ragged(cls, query_lens: Sequence[int], phase: Phase = Phase.MIXED) -> BatchDescriptor:
        """Describe requests by the query tokens of each, which may differ."""
        num_reqs, query_len, num_tokens = (
            len(query_lens),
            max(query_lens, default=0),
            sum(query_lens),
        )
        return cls(num_reqs, query_len, num_tokens, num_reqs * query_len == num_tokens, phase)

    @classmethod
    def tokens(cls, num_tokens: int) -> BatchDescriptor:
        """Describe what a piecewise graph is captured for: tokens, of whatever requests."""
        return cls(0, 0, num_tokens, False, Phase.MIXED)

    @classmethod
    def parse(cls, text: str) -> BatchDescriptor:
        """Read the text form: ``16x2``, ``16x2:prefill``, ``5x20/37:mixed`` or ``32t``.

        Raises:
            DescriptorError: If the text is none of these, or its numbers contradict each other.
        """
        if match := _TOKENS_TEXT.fullmatch(text):
            return cls.tokens(int(match[1]))
        match = _TEXT.fullmatch(text)
        if match is None:
            raise DescriptorError(
                f"{text!r} is not a batch descriptor",
                hint="write 16x2 for 16 requests of 2 query tokens, 5x20/37:mixed for 5 requests "
                "of at most 20 and 37 in all, or 32t for 32 tokens",
            )
        num_reqs, query_len = int(match[1]), int(match[2])
        num_tokens = int(match[3]) if match[3] else num_reqs * query_len
        phase = Phase[match[4].upper()] if match[4] else Phase.DECODE
        return cls(num_reqs, query_len, num_tokens, num_tokens == num_reqs * query_len, phase)

    def __str__(self) -> str:
        if self.num_reqs == 0:
            return f"{self.num_tokens}t"
        tokens = "" if self.uniform else f"/{self.num_tokens}"
        phase = "" if self.phase == Phase.DECODE else f":{self.phase}"
        return f"{self.num_reqs}x{self.query_len}{tokens}{phase}"
