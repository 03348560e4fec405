"""Stand-ins for what a model with experts needs on data-parallel ranks, and the CPU build lacks.

Its all-to-all manager gathers the tokens of all ranks before the experts and scatters sums of what
comes out. It calls ``all_gatherv`` and ``reduce_scatterv`` of its communicator, which the one for
the CPU does not have. Here they are made of what gloo has.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch.utils._python_dispatch import _disable_current_modes


def install() -> None:
    """Put the stand-ins in place, once per process."""
    from vllm import forward_context
    from vllm.distributed.device_communicators.cpu_communicator import CpuCommunicator

    replace: Any = setattr
    replace(CpuCommunicator, "all_gatherv", _all_gatherv)
    replace(CpuCommunicator, "reduce_scatterv", _reduce_scatterv)
    sizes = forward_context._compute_sp_num_tokens

    def compute_sp_num_tokens(*args: Any, **kwargs: Any) -> list[int]:
        # Numbers on the CPU, which a CUDA capture leaves alone and an emulated one would record.
        with _disable_current_modes():
            tokens: list[int] = sizes(*args, **kwargs)
        return tokens

    replace(forward_context, "_compute_sp_num_tokens", compute_sp_num_tokens)


def _all_gatherv(
    self: Any,
    input_: torch.Tensor | Sequence[torch.Tensor],
    dim: int = 0,
    sizes: Sequence[int] | None = None,
) -> torch.Tensor | list[torch.Tensor]:
    if isinstance(input_, torch.Tensor):
        return _gathered(self, input_, sizes)
    return [_gathered(self, tensor, sizes) for tensor in input_]


def _gathered(self: Any, tensor: torch.Tensor, sizes: Sequence[int] | None) -> torch.Tensor:
    rows = list(sizes or [tensor.shape[0]] * self.world_size)
    parts = [tensor.new_empty((count, *tensor.shape[1:])) for count in rows]
    if len(set(rows)) == 1:
        dist.all_gather(parts, tensor.contiguous(), group=self.device_group)
        return torch.cat(parts)
    parts[self.rank_in_group].copy_(tensor)
    for part, rank in zip(parts, self.ranks, strict=True):
        dist.broadcast(part, rank, group=self.device_group)
    return torch.cat(parts)


def _reduce_scatterv(
    self: Any, input_: torch.Tensor, dim: int = -1, sizes: Sequence[int] | None = None
) -> torch.Tensor:
    rows = list(sizes or [input_.shape[0] // self.world_size] * self.world_size)
    total = input_.clone()
    dist.all_reduce(total, group=self.device_group)
    begin = sum(rows[: self.rank_in_group])
    return total[begin : begin + rows[self.rank_in_group]].clone()
