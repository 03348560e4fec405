"""Digests are equal wherever the recorded things are equal, and only there."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from graphguard.batch import BatchDescriptor
from graphguard.digest import Encodable, digest, encode
from graphguard.nodes import GraphNode
from graphguard.signature import CollectiveCall, GraphKey, GraphMode, Signature, TensorSpec
from graphguard.verdict import Phase

ALL_REDUCE = CollectiveCall("all_reduce", 4096, "bfloat16", "sum", None, None, "tp:0,1", 2, 0)
BROADCAST = CollectiveCall("broadcast", 7, "int64", None, 0, None, "tp:0,1", 2, 0)
SEND = CollectiveCall("send", 512, "bfloat16", None, None, 1, "pp:0,1", 2, 0)
TENSOR = TensorSpec("tokens", (32,), "int64", (1,), "cuda:0", 0x7F00_0000_0000, 256)
SIGNATURE = Signature(
    key=GraphKey("target", GraphMode.FULL, "lora 2"),
    batch=BatchDescriptor.of(16, 2),
    tensors=(TENSOR,),
    num_inputs=1,
    collectives=(ALL_REDUCE, SEND, BROADCAST),
    graph_kind="torch.cuda",
    nodes="5f",
)
PINNED = ("1caf7b6baf5264824992fdc9e3d89e4e", "ba149897a9de10b791c312edab804836")

SHARED_CHANGES: dict[str, Signature] = {
    "role": replace(SIGNATURE, key=replace(SIGNATURE.key, role="drafter")),
    "mode": replace(SIGNATURE, key=replace(SIGNATURE.key, mode=GraphMode.PIECEWISE)),
    "variant": replace(SIGNATURE, key=replace(SIGNATURE.key, variant="")),
    "num_reqs and query_len": replace(SIGNATURE, batch=BatchDescriptor.of(32, 1)),
    "num_tokens": replace(SIGNATURE, batch=BatchDescriptor(16, 2, 31, False)),
    "phase": replace(SIGNATURE, batch=BatchDescriptor.of(16, 2, Phase.PREFILL)),
    "order": replace(SIGNATURE, collectives=(BROADCAST, SEND, ALL_REDUCE)),
    "one call less": replace(SIGNATURE, collectives=(ALL_REDUCE, SEND)),
    "one call more": replace(SIGNATURE, collectives=(*SIGNATURE.collectives, BROADCAST)),
}
SHARED_CALL_CHANGES: dict[str, CollectiveCall] = {
    "operation": replace(ALL_REDUCE, operation="reduce"),
    "count": replace(ALL_REDUCE, count=4097),
    "no count": replace(ALL_REDUCE, count=None),
    "dtype": replace(ALL_REDUCE, dtype="float16"),
    "reduction": replace(ALL_REDUCE, reduction="max"),
    "root": replace(ALL_REDUCE, root=0),
    "group": replace(ALL_REDUCE, group="tp:2,3"),
    "group_size": replace(ALL_REDUCE, group_size=4),
    "coalesced": replace(ALL_REDUCE, coalesced=True),
}
LOCAL_CALL_CHANGES: dict[str, CollectiveCall] = {
    "peer": replace(ALL_REDUCE, peer=1),
    "group_rank": replace(ALL_REDUCE, group_rank=1),
    "send_splits": replace(ALL_REDUCE, send_splits=(1, 2)),
    "recv_splits": replace(ALL_REDUCE, recv_splits=(1, 2)),
    "seen_by": replace(ALL_REDUCE, seen_by="nccl"),
}
LOCAL_CHANGES: dict[str, Signature] = {
    "tensor name": replace(SIGNATURE, tensors=(replace(TENSOR, name="ids"),)),
    "tensor shape": replace(SIGNATURE, tensors=(replace(TENSOR, shape=(33,)),)),
    "tensor dtype": replace(SIGNATURE, tensors=(replace(TENSOR, dtype="int32"),)),
    "tensor stride": replace(SIGNATURE, tensors=(replace(TENSOR, stride=(2,)),)),
    "tensor device": replace(SIGNATURE, tensors=(replace(TENSOR, device="cuda:1"),)),
    "tensor address": replace(SIGNATURE, tensors=(replace(TENSOR, address=0),)),
    "tensor nbytes": replace(SIGNATURE, tensors=(replace(TENSOR, nbytes=128),)),
    "one tensor less": replace(SIGNATURE, tensors=()),
    "num_inputs": replace(SIGNATURE, num_inputs=0),
    "graph_kind": replace(SIGNATURE, graph_kind="emulated"),
    "nodes": replace(SIGNATURE, nodes=""),
    "one send less": replace(SIGNATURE, collectives=(ALL_REDUCE, BROADCAST)),
    "another send": replace(
        SIGNATURE, collectives=(ALL_REDUCE, replace(SEND, count=513), BROADCAST)
    ),
}


IN_NO_DIGEST: dict[str, Signature] = {
    # The digest of the nodes is in the local digest already.
    "graph_nodes": replace(SIGNATURE, graph_nodes=(GraphNode("empty"),)),
    # What a capture reserves depends on what the pool had before.
    "memory_bytes": replace(SIGNATURE, memory_bytes=4096),
    # It is about the recording, not about the graph.
    "disagreements": replace(SIGNATURE, disagreements=("the plugin told 2 calls",)),
}


def with_first_call(call: CollectiveCall) -> Signature:
    return replace(SIGNATURE, collectives=(call, *SIGNATURE.collectives[1:]))


def named(changes: dict[str, CollectiveCall]) -> dict[str, Signature]:
    return {f"call {name}": with_first_call(call) for name, call in changes.items()}


ALL_SHARED = SHARED_CHANGES | named(SHARED_CALL_CHANGES)
ALL_LOCAL = LOCAL_CHANGES | named(LOCAL_CALL_CHANGES)


@pytest.mark.parametrize("name", ALL_SHARED)
def test_what_ranks_share_changes_both_digests(name: str) -> None:
    changed = ALL_SHARED[name]
    assert changed.shared_digest != SIGNATURE.shared_digest
    assert changed.local_digest != SIGNATURE.local_digest


@pytest.mark.parametrize("name", IN_NO_DIGEST)
def test_what_another_field_stands_for_changes_no_digest(name: str) -> None:
    assert IN_NO_DIGEST[name].digests == SIGNATURE.digests


@pytest.mark.parametrize("name", ALL_LOCAL)
def test_what_is_a_rank_s_own_changes_the_local_digest_only(name: str) -> None:
    changed = ALL_LOCAL[name]
    assert changed.shared_digest == SIGNATURE.shared_digest
    assert changed.local_digest != SIGNATURE.local_digest


def test_every_field_has_a_change_above() -> None:
    """A field that is added to a signature must be put into a digest, or said to be in none."""
    call_changes = SHARED_CALL_CHANGES | LOCAL_CALL_CHANGES
    assert set(CollectiveCall.__struct_fields__) == set(call_changes) - {"no count"}
    tensor_changes = {name.removeprefix("tensor ") for name in LOCAL_CHANGES}
    assert set(TensorSpec.__struct_fields__) <= tensor_changes
    assert set(GraphKey.__struct_fields__) <= set(SHARED_CHANGES)
    own = set(Signature.__struct_fields__) - {"key", "batch", "tensors", "collectives"}
    assert own <= set(LOCAL_CHANGES) | set(IN_NO_DIGEST)


def test_no_two_changes_have_one_local_digest() -> None:
    digests = {changed.local_digest for changed in (ALL_SHARED | ALL_LOCAL).values()}
    assert len(digests) == len(ALL_SHARED) + len(ALL_LOCAL)


def test_digests_of_a_known_signature() -> None:
    assert tuple(SIGNATURE.digests) == PINNED


def test_the_encoding_is_as_written_down() -> None:
    value: Encodable = ("ä", 1, None, -2, (), "")
    assert encode(value) == b"l2:\xc3\xa4i1eni-2ele0:e"


def test_the_digest_of_nothing_is_pinned() -> None:
    assert digest([]) == "91a2901484168245e35b1b7a0049555f"


@pytest.mark.parametrize("hash_seed", ["0", "4242"])
def test_another_process_with_another_hash_seed_gets_the_same_digests(hash_seed: str) -> None:
    code = "from tests.unit.test_digest import SIGNATURE; print(*SIGNATURE.digests)"
    environment = os.environ | {
        "PYTHONHASHSEED": hash_seed,
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env=environment,
    )
    assert tuple(done.stdout.split()) == PINNED


texts = st.text(st.characters(codec="utf-8"), max_size=4)
values: st.SearchStrategy[Encodable] = st.recursive(
    st.none() | st.integers(-12, 12) | st.sampled_from(["", "1:", "e", "i1e", "n", "le"]) | texts,
    lambda inner: st.lists(inner, max_size=3).map(tuple),
    max_leaves=6,
)


@settings(max_examples=2_000, derandomize=True, database=None, deadline=None)
@given(values, values)
def test_different_values_have_different_encodings(one: Encodable, other: Encodable) -> None:
    assert (encode(one) == encode(other)) == (one == other)


@settings(max_examples=1_000, derandomize=True, database=None, deadline=None)
@given(st.lists(values, max_size=4), st.lists(values, max_size=4))
def test_encodings_put_together_still_tell_values_apart(
    one: list[Encodable], other: list[Encodable]
) -> None:
    joined = [b"".join(map(encode, values)) for values in (one, other)]
    assert (joined[0] == joined[1]) == (one == other)
    assert (digest(map(encode, one)) == digest(map(encode, other))) == (one == other)
