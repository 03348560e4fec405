"""One run with every collective of torch.distributed that gloo has, ordinary and coalesced."""

from __future__ import annotations

import warnings

import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as functional


class EveryCollective:
    """Static inputs, and a run that calls each collective once on what it derives from them."""

    def __init__(self) -> None:
        self.rank, self.ranks = dist.get_rank(), dist.get_world_size()
        self.x = torch.zeros(4 * self.ranks)
        pairs = [[rank, rank + 1] for rank in range(0, self.ranks, 2)]
        # Every rank makes every group, in the same order, as torch requires.
        groups = [dist.new_group(pair) for pair in pairs]
        self.pair = groups[self.rank // 2]

    def fill(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(100 * seed + self.rank)
        self.x.copy_(torch.rand(self.x.shape, generator=generator))

    def run(self) -> list[torch.Tensor]:
        with warnings.catch_warnings():
            # Newer names for the same functions came with torch 2.13.
            warnings.simplefilter("ignore", FutureWarning)
            return [
                *self._reductions(),
                *self._gathers(),
                *self._exchanges(),
                *self._point_to_point(),
                *self._functional(),
            ]

    def _reductions(self) -> list[torch.Tensor]:
        summed, largest, reduced, sent = (self.x.clone() for _ in range(4))
        dist.all_reduce(summed)
        work = dist.all_reduce(largest, op=dist.ReduceOp.MAX, async_op=True)
        assert work is not None
        work.wait()
        dist.reduce(reduced, dst=self.ranks - 1, op=dist.ReduceOp.PRODUCT)
        if self.rank != self.ranks - 1:
            # What reduce leaves on the other ranks is not defined.
            reduced = torch.zeros(1)
        dist.broadcast(sent, src=1)
        in_pair = self.x[:3].to(torch.float64)
        dist.all_reduce(in_pair, group=self.pair)
        coalesced = [self.x.clone(), self.x[:2].clone()]
        dist.all_reduce_coalesced(coalesced)
        dist.barrier()
        return [summed, largest, reduced, sent, in_pair, *coalesced]

    def _gathers(self) -> list[torch.Tensor]:
        one = self.x[:4]
        listed = [torch.zeros(4) for _ in range(self.ranks)]
        dist.all_gather(listed, one)
        whole = torch.zeros(4 * self.ranks)
        dist.all_gather_into_tensor(whole, one)
        share = torch.zeros(4)
        dist.reduce_scatter_tensor(share, self.x.clone())
        gathered = [torch.zeros(4) for _ in range(self.ranks)] if self.rank == 0 else None
        dist.gather(one, gathered, dst=0)
        scattered = torch.zeros(4)
        dist.scatter(scattered, list(self.x.chunk(self.ranks)) if self.rank == 0 else None, src=0)
        return [*listed, whole, share, *(gathered or []), scattered]

    def _exchanges(self) -> list[torch.Tensor]:
        even = torch.zeros_like(self.x)
        dist.all_to_all_single(even, self.x.clone())
        # Rank r sends r + 1 rows to everyone.
        sent = [self.rank + 1] * self.ranks
        received = [rank + 1 for rank in range(self.ranks)]
        uneven = torch.zeros(sum(received), 2)
        rows = self.x[:2].expand(sum(sent), 2).contiguous()
        dist.all_to_all_single(uneven, rows, received, sent)
        return [even, uneven]

    def _point_to_point(self) -> list[torch.Tensor]:
        peer = self.rank ^ 1
        arrived, batched = torch.zeros(2), torch.zeros(3)
        if self.rank < peer:
            dist.send(self.x[:2].clone(), dst=peer)
            dist.recv(arrived, src=peer)
        else:
            dist.recv(arrived, src=peer)
            dist.send(self.x[:2].clone(), dst=peer)
        operations = [
            dist.P2POp(dist.isend, self.x[:3].clone(), peer),
            dist.P2POp(dist.irecv, batched, peer),
        ]
        for work in dist.batch_isend_irecv(operations):
            work.wait()
        return [arrived, batched]

    def _functional(self) -> list[torch.Tensor]:
        world = dist.group.WORLD
        assert world is not None
        averaged = functional.all_reduce(self.x, "avg", world)
        gathered = functional.all_gather_tensor(self.x[:2], 0, world)
        scattered = functional.reduce_scatter_tensor(self.x, "sum", 0, world)
        several = functional.all_reduce_coalesced([self.x, self.x[:1]], "max", world)
        exchanged = functional.all_to_all_single(self.x, None, None, world)
        sent = functional.broadcast(self.x, 0, world)
        results = [averaged, gathered, scattered, *several, exchanged, sent]
        return [result * 1 for result in results]
