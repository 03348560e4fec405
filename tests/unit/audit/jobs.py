"""Jobs made up for the tests: manifests of several ranks, without any process."""

from __future__ import annotations

from collections.abc import Sequence

from graphguard.audit import Finding, LoadedManifest, audit
from graphguard.batch import BatchDescriptor
from graphguard.manifest import Manifest
from graphguard.signature import CollectiveCall, GraphKey, GraphMode, Signature, TensorSpec


def call(
    operation: str = "all_reduce",
    count: int | None = 1024,
    *,
    dtype: str = "bfloat16",
    reduction: str | None = None,
    root: int | None = None,
    peer: int | None = None,
    group: str = "0[0-3]",
    size: int = 4,
    rank: int = 0,
    coalesced: bool = False,
    send_splits: tuple[int, ...] = (),
    recv_splits: tuple[int, ...] = (),
) -> CollectiveCall:
    return CollectiveCall(
        operation=operation,
        count=count,
        dtype=dtype,
        reduction=reduction,
        root=root,
        peer=peer,
        group=group,
        group_size=size,
        group_rank=rank,
        coalesced=coalesced,
        send_splits=send_splits,
        recv_splits=recv_splits,
    )


def graph(
    *calls: CollectiveCall,
    batch: str = "16x2",
    role: str = "target",
    mode: GraphMode = GraphMode.FULL,
    tensors: tuple[TensorSpec, ...] = (),
    num_inputs: int = 0,
) -> Signature:
    return Signature(
        key=GraphKey(role, mode),
        batch=BatchDescriptor.parse(batch),
        tensors=tensors,
        num_inputs=num_inputs,
        collectives=calls,
    )


def tensor(address: int, nbytes: int, name: str = "", device: str = "cuda:0") -> TensorSpec:
    return TensorSpec(name, (nbytes,), "uint8", (1,), device, address, nbytes)


def loaded(rank: int, world_size: int, *signatures: Signature) -> LoadedManifest:
    return LoadedManifest(f"rank{rank}.json", Manifest(rank, world_size, signatures))


def job(*ranks: Sequence[Signature]) -> list[LoadedManifest]:
    """Return the manifests of a job, given the graphs of each rank."""
    return [loaded(rank, len(ranks), *graphs) for rank, graphs in enumerate(ranks)]


def calls_of(*ranks: Sequence[CollectiveCall]) -> list[Finding]:
    """Audit a job in which every rank captured one graph, given its calls on each rank."""
    return audit(job(*([graph(*calls)] for calls in ranks)))


def rules(findings: Sequence[Finding]) -> list[str]:
    return [finding.rule for finding in findings]
