"""Where the padded slots of a step lie in vLLM's runners, and which of them the CPU sees.

At every padded step the CPU looks at what it sees without asking the GPU (yes). The rest shows only
in a sample of the GPU's memory (sample, see :mod:`graphguard.vllm.padding_samples`).

| value | V1 on CUDA | V1 on the CPU | V2 on CUDA |
|---|---|---|---|
| requests and tokens, and the graph's | yes | yes | yes |
| ``seq_lens`` | sample | yes | sample |
| upper bound of ``seq_lens`` | yes: ``optimistic_seq_lens_cpu`` | yes | yes |
| ``dcp_local_seq_lens`` (only with DCP) | yes, sample | yes | no |
| ``query_start_loc`` | yes, sample | yes | yes: ``query_start_loc_np``; sample |
| block tables, by group of caches | sample | yes | sample |
| slot mappings, by group of caches | sample | yes | sample |
| positions | sample | yes | sample |
| lengths derived by the backend | sample | yes | sample |

For CUDA the same in 0.20.1, 0.26.0 and 0.33.0; for the CPU 0.32.0, where V2 does not run. A CUDA
engine of V1 has block tables on the CPU too, but vLLM nulls the padded rows on the GPU only: what
lies there on the CPU is not what the graph reads, and is not looked at. V1's drafter pads tokens
only, so slot mapping and positions; a drafter of V2 pads requests as well, all of it on the GPU.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec

from graphguard.vllm.padding import MetadataView, Tail, Values

MAX_VIEWS = 4096
"""Steps of different size whose views are kept."""
SAMPLED_BLOCKS = 8
"""Columns of a block table that a sample takes. A request that should be empty reads the first."""


class Extent(NamedTuple):
    """A step and the graph that vLLM has chosen for it.

    Attributes:
        num_reqs: Requests of the batch.
        num_reqs_padded: Requests of the graph; those of the batch for a piecewise graph.
        num_tokens: Query tokens of the batch.
        num_tokens_padded: Query tokens of the graph.
        query_len: Query tokens of each request in a uniform graph, 0 for any other graph.
    """

    num_reqs: int
    num_reqs_padded: int
    num_tokens: int
    num_tokens_padded: int
    query_len: int = 0

    @property
    def padded(self) -> bool:
        """Whether there is anything to look at."""
        return self.num_reqs != self.num_reqs_padded or self.num_tokens != self.num_tokens_padded


class Buffers(NamedTuple):
    """Whole tensors of a runner, on one side."""

    lengths: tuple[tuple[str, Values], ...] = ()
    query_start: tuple[str, Values] | None = None
    block_tables: tuple[tuple[str, Values], ...] = ()
    slot_mappings: tuple[tuple[str, Values], ...] = ()
    positions: tuple[str, Values] | None = None


class V1Metadata:
    """The metadata of a V1 runner. Made once: its buffers do not move while graphs exist.

    Args:
        runner: A ``GPUModelRunner`` of V1 or what derives from it.
    """

    def __init__(self, runner: Any) -> None:  # noqa: ANN401 - vLLM's own
        self._runner = runner
        self._batch: Any = None
        self._max_model_len = 0
        self._device = "cpu"
        self._seen = self._tensors = Buffers()
        self._views: dict[Extent, MetadataView] = {}

    def view(self, extent: Extent, attn_metadata: object = None) -> MetadataView:
        """Return what the CPU sees of the padded slots. Never waits for a GPU.

        Args:
            extent: The step.
            attn_metadata: The forward context's, for the lengths that a backend derived; looked at
                on the CPU only.
        """
        if self._batch is not self._runner.input_batch:
            self._find()
        view = self._views.get(extent)
        if view is None:
            view = self._keep(extent)
        if attn_metadata is None or self._device != "cpu" or not extent.padded:
            return view
        tails = derived_lengths(attn_metadata, extent)
        derived = tuple([Tail(it.name, it.values.numpy(), it.first) for it in tails])
        return msgspec.structs.replace(view, derived=derived)

    @property
    def all_seen(self) -> bool:
        """Whether the CPU sees all there is, so that nothing is left to take samples of."""
        if self._batch is not self._runner.input_batch:
            self._find()
        return self._device == "cpu"

    def tensors(self, extent: Extent, attn_metadata: object = None) -> MetadataView:
        """Return the padded slots as tensors where the graph reads them, for a sample.

        Args:
            extent: The step.
            attn_metadata: The forward context's, for the lengths that a backend derived.
        """
        if self._batch is not self._runner.input_batch:
            self._find()
        view = cut(self._tensors, extent, self._device, self._max_model_len, SAMPLED_BLOCKS)
        view.derived = derived_lengths(attn_metadata, extent)
        return view

    def _keep(self, extent: Extent) -> MetadataView:
        """Cut out the padded slots of a step once: the cuts show what the buffers hold later."""
        if len(self._views) >= MAX_VIEWS:
            self._views.clear()
        self._views[extent] = view = cut(self._seen, extent, "cpu", self._max_model_len)
        return view

    def _find(self) -> None:
        runner = self._runner
        self._batch = runner.input_batch
        self._views.clear()
        self._max_model_len = int(getattr(runner, "max_model_len", 0))
        self._device = str(runner.seq_lens.device)
        tables = _cache_groups(runner)
        starts, local = runner.query_start_loc, getattr(runner, "dcp_local_seq_lens", None)
        bound = ("optimistic_seq_lens_cpu", runner.optimistic_seq_lens_cpu.numpy())
        seen_lengths = [bound]
        read_lengths = [("seq_lens", runner.seq_lens)]
        if local is not None:
            seen_lengths.append(("dcp_local_seq_lens", local.np))
            read_lengths.append(("dcp_local_seq_lens", local.gpu))
        self._tensors = Buffers(
            tuple(read_lengths),
            ("query_start_loc", starts.gpu),
            tuple((f"block_table[{i}]", table.block_table.gpu) for i, table in tables),
            tuple((f"slot_mapping[{i}]", table.slot_mapping.gpu) for i, table in tables),
            ("positions", runner.positions),
        )
        if self._device == "cpu":
            self._seen = _as_arrays(self._tensors)
            self._seen = self._seen._replace(lengths=(bound, *self._seen.lengths))
        else:
            self._seen = Buffers(tuple(seen_lengths), ("query_start_loc", starts.np))


def view_of_v1(runner: Any, extent: Extent) -> MetadataView:  # noqa: ANN401 - vLLM's own
    """Return what the CPU sees of the padded slots of a V1 runner's step.

    Keep a :class:`V1Metadata` where this is called at every step.
    """
    return V1Metadata(runner).view(extent)


def view_of_v1_drafter(proposer: Any, extent: Extent) -> MetadataView:  # noqa: ANN401 - vLLM's own
    """Return the padded tokens of a V1 proposer, as tensors where they are on a GPU."""
    slots, positions = proposer._slot_mapping_buffer, getattr(proposer, "positions", None)
    buffers = Buffers(
        slot_mappings=(("_slot_mapping_buffer", slots),),
        positions=None if positions is None else ("positions", positions),
    )
    device = str(slots.device)
    if device == "cpu":
        buffers = _as_arrays(buffers)
    return cut(buffers, extent, device, int(getattr(proposer, "max_model_len", 0)))


def derived_lengths(attn_metadata: object, extent: Extent) -> tuple[Tail, ...]:
    """Return the padded part of the lengths that attention backends have computed for decodes.

    Args:
        attn_metadata: By layer, as in vLLM's forward context; anything else has none.
        extent: The step.
    """
    if not isinstance(attn_metadata, dict):
        return ()
    tails: list[Tail] = []
    for metadata in {id(metadata): metadata for metadata in attn_metadata.values()}.values():
        lengths = getattr(getattr(metadata, "decode", None), "seq_lens", None)
        if lengths is None:
            continue
        name = f"{type(metadata).__name__}.decode.seq_lens"
        rows = len(lengths)
        if rows == extent.num_reqs_padded:
            tails.append(Tail(name, lengths[extent.num_reqs :], extent.num_reqs))
        elif rows == extent.num_tokens_padded:
            tails.append(Tail(name, lengths[extent.num_tokens :], extent.num_tokens))
    return tuple(tails)


def _cache_groups(runner: Any) -> list[tuple[int, Any]]:  # noqa: ANN401 - vLLM's own
    """Return the block tables that graphs read, with the number of their group."""
    tables = list(runner.input_batch.block_table.block_tables)
    config = getattr(runner, "kv_cache_config", None)
    groups: Iterable[Any] = getattr(config, "kv_cache_groups", ())
    # For layers that only encode, vLLM makes a new table at each step.
    encoders = {
        index
        for index, group in enumerate(groups)
        if type(group.kv_cache_spec).__name__ == "EncoderOnlyAttentionSpec"
    }
    return [(index, table) for index, table in enumerate(tables) if index not in encoders]


def _as_arrays(buffers: Buffers) -> Buffers:
    """Return tensors of the CPU as arrays that share their memory."""

    def array(named: tuple[str, Values]) -> tuple[str, Values]:
        return named[0], named[1].numpy()

    return Buffers(
        tuple(array(named) for named in buffers.lengths),
        array(buffers.query_start) if buffers.query_start else None,
        tuple(array(named) for named in buffers.block_tables),
        tuple(array(named) for named in buffers.slot_mappings),
        array(buffers.positions) if buffers.positions else None,
    )


def cut(
    buffers: Buffers, extent: Extent, device: str, max_model_len: int, columns: int | None = None
) -> MetadataView:
    """Cut the padded slots out of whole buffers."""
    req, reqs, token, tokens, query_len = extent
    if req >= reqs and token >= tokens:
        return MetadataView(req, reqs, token, tokens, query_len, device, max_model_len)
    starts, positions = buffers.query_start, buffers.positions
    return MetadataView(
        req,
        reqs,
        token,
        tokens,
        query_len,
        device,
        max_model_len,
        tuple([Tail(name, it[req:reqs], req) for name, it in buffers.lengths]),
        Tail(starts[0], starts[1][req : reqs + 1], req) if starts else None,
        tuple([Tail(name, it[req:reqs, :columns], req) for name, it in buffers.block_tables]),
        tuple([Tail(name, it[token:tokens], token) for name, it in buffers.slot_mappings]),
        Tail(positions[0], positions[1][token:tokens], token) if positions else None,
    )
