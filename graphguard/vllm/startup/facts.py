"""What the audit at start-up knows of an engine: plain values, read once."""

from __future__ import annotations

import msgspec


class GraphFact(msgspec.Struct, frozen=True):
    """One size that is captured.

    Attributes:
        role: ``target`` or ``drafter``.
        mode: ``FULL`` or ``PIECEWISE``.
        num_tokens: Query tokens.
        num_reqs: Requests; None where a graph is not bound to any number.
        query_len: Query tokens of each request where the graph is for uniform batches, else 0.
    """

    role: str
    mode: str
    num_tokens: int
    num_reqs: int | None = None
    query_len: int = 0


class DrafterFact(msgspec.Struct, frozen=True):
    """The model that drafts.

    Attributes:
        method: The method, as vLLM calls it: ``mtp``.
        model: The class of the model.
        capturable: Whether it is compiled by vLLM, or wrapped, as piecewise graphs need it; None if
            not known.
        enforce_eager: Whether it was asked to run eagerly.
        padded: Whether the drafter runs on the GPU before the CPU knows what was sampled.
    """

    method: str
    model: str = ""
    capturable: bool | None = None
    enforce_eager: bool = False
    padded: bool = False


class AllReduceFact(msgspec.Struct, frozen=True):
    """vLLM's custom all-reduce of one group.

    Attributes:
        group: The group, as vLLM calls it: ``tp:0``.
        capturing: Whether it still takes itself to be captured.
        unregistered: Buffers that graphs use and the other ranks do not know; None if not known.
    """

    group: str
    capturing: bool = False
    unregistered: int | None = None


class PoolFact(msgspec.Struct, frozen=True):
    """The memory pool that graphs are captured into.

    Attributes:
        role: Whose graphs.
        family: Which of its graphs.
        pool: The pool's identity, as text.
        is_global: Whether it is the one pool that vLLM keeps for all graphs of a process.
    """

    role: str
    family: str
    pool: str
    is_global: bool


class EngineFacts(msgspec.Struct, frozen=True, kw_only=True):
    """All that the rules look at. What could not be read keeps its default.

    Attributes:
        vllm_version: The version, as text; None if not known.
        runner: ``v1`` or ``v2``; None if not known.
        decode_mode: How uniform decodes run: ``FULL``, ``PIECEWISE`` or ``NONE``.
        mixed_mode: How other batches run.
        capture_sizes: The sizes of the configuration, in tokens.
        num_speculative_tokens: Drafts of each request; 0 without a drafter.
        graphs: What is captured.
        drafter: The drafter, or None without one.
        all_reduces: The custom all-reduces that are used.
        pools: The memory pools of the graphs.
        breakable: Whether graphs are broken at attention instead of cut by the compiler.
        fused_all_reduce: Whether all-reduce and norm are fused into FlashInfer's kernel.
        flashinfer_version: Its version; None if it is not there.
        nccl_version: NCCL's version, as its own integer: 22809; None without NCCL.
        num_nodes: Machines that the engine runs on.
        capability: Compute capability of the GPU; None without a GPU.
        sparse_topk: Tokens that each one attends to in a model with a sparse indexer; 0 in others.
        indexer_clamps: Whether the indexer keeps lengths from becoming negative; None if not known.
    """

    vllm_version: str | None = None
    runner: str | None = None
    decode_mode: str = "NONE"
    mixed_mode: str = "NONE"
    capture_sizes: tuple[int, ...] = ()
    num_speculative_tokens: int = 0
    graphs: tuple[GraphFact, ...] = ()
    drafter: DrafterFact | None = None
    all_reduces: tuple[AllReduceFact, ...] = ()
    pools: tuple[PoolFact, ...] = ()
    breakable: bool = False
    fused_all_reduce: bool = False
    flashinfer_version: str | None = None
    nccl_version: int | None = None
    num_nodes: int = 1
    capability: tuple[int, int] | None = None
    sparse_topk: int = 0
    indexer_clamps: bool | None = None

    @property
    def query_len(self) -> int:
        """Query tokens of a request that is past its prompt."""
        return 1 + self.num_speculative_tokens

    @property
    def release(self) -> tuple[int, int]:
        """The version as numbers that can be compared; (0, 0) if it cannot be read."""
        numbers = (self.vllm_version or "").split(".")[:2]
        if len(numbers) < 2 or not all(number.isdecimal() for number in numbers):
            return (0, 0)
        return int(numbers[0]), int(numbers[1])
