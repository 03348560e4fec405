"""The native half of graphguard: the signature table."""

from collections.abc import Callable, Sequence

from graphguard.verdict import Verdict

PHASE_COUNT: int
ACTION_COUNT: int
REASON_COUNT: int
MAX_INPUTS: int
MAX_RANK: int

def noop(a: int, b: int, c: int, d: int, e: int, /) -> None:
    """Do nothing: the baseline that the benchmarks measure a check against."""

class SignatureTable:
    """Recorded graphs, and the check of a batch against them."""

    def __init__(self, make_verdict: Callable[[int, int, int | None], Verdict], /) -> None: ...
    def add_family(self, piecewise: bool, /) -> int:
        """Add a family of graphs and return its id."""

    def insert(
        self,
        family: int,
        num_reqs: int,
        query_len: int,
        num_tokens: int,
        phase: int,
        inputs: Sequence[tuple[int, int, int, Sequence[int]]],
        /,
    ) -> int:
        """Insert a graph with its static inputs (dtype, device, address, shape); return its id."""

    def replace_inputs(
        self, graph: int, inputs: Sequence[tuple[int, int, int, Sequence[int]]], /
    ) -> None:
        """Replace the static inputs of a graph."""

    def set_fallback(self, reason: int, action: int, /) -> None:
        """Set the action for a reason that a batch does not fit."""

    def check(
        self, family: int, num_reqs: int, query_len: int, num_tokens: int, phase: int, /
    ) -> Verdict:
        """Decide which graph of a family a batch may use, if any."""

    def check_graph(
        self, graph: int, num_reqs: int, query_len: int, num_tokens: int, phase: int, /
    ) -> Verdict:
        """Decide whether a batch may use one given graph."""

    def check_inputs(
        self,
        graph: int,
        inputs: Sequence[tuple[int, int, int, Sequence[int]]],
        addresses: bool,
        /,
    ) -> tuple[int, int]:
        """Compare static tensors with those recorded; return (reason, index of the tensor)."""

    def counts(self) -> list[tuple[Verdict, int]]:
        """Return every verdict given so far, with how often."""

    def __len__(self) -> int: ...
