from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphguard import manifest
from graphguard.batch import BatchDescriptor
from graphguard.errors import DescriptorError, ManifestError
from graphguard.manifest import Manifest, decode, encode
from graphguard.nodes import GraphNode
from graphguard.signature import CollectiveCall, GraphKey, GraphMode, Signature, TensorSpec
from graphguard.verdict import Phase

CALL = CollectiveCall("all_reduce", 4, "float32", "sum", None, None, "0[0]", 1, 0)
SMALL = Manifest(
    rank=0,
    world_size=1,
    signatures=(
        Signature(
            GraphKey("target"),
            BatchDescriptor.of(4, 2),
            (TensorSpec("x", (8,), "int64", (1,), "cpu", 4096, 64),),
            1,
            (CALL, CALL),
        ),
    ),
)
CONTENT = encode(SMALL)

names = st.text(st.characters(codec="utf-8"), max_size=8)
naturals = st.integers(0, 2**63 - 1)
small = st.integers(0, 1000)
batches = st.one_of(
    st.builds(BatchDescriptor.of, st.integers(1, 9), st.integers(1, 9), st.sampled_from(Phase)),
    st.builds(
        BatchDescriptor.ragged,
        st.lists(small, min_size=1, max_size=5).filter(any),
        st.sampled_from(Phase),
    ),
    st.builds(BatchDescriptor.tokens, small),
)
calls = st.builds(
    CollectiveCall,
    operation=names,
    count=st.none() | naturals,
    dtype=names,
    reduction=st.none() | names,
    root=st.none() | small,
    peer=st.none() | small,
    group=names,
    group_size=naturals,
    group_rank=small,
    coalesced=st.booleans(),
    send_splits=st.lists(naturals, max_size=3).map(tuple),
    recv_splits=st.lists(naturals, max_size=3).map(tuple),
    seen_by=names,
)
dimensions = st.lists(st.integers(-(2**62), 2**62), max_size=3).map(tuple)
tensors = st.builds(
    TensorSpec, names, dimensions, names, dimensions, names, address=naturals, nbytes=naturals
)
extents = st.none() | st.tuples(naturals, naturals, naturals)
graph_nodes = st.builds(
    GraphNode,
    kind=st.sampled_from(["kernel", "memcpy", "child"]),
    name=names,
    grid=extents,
    block=extents,
    shared_bytes=naturals,
    parameter_bytes=st.lists(naturals, max_size=3).map(tuple),
    count=naturals,
)
signatures = st.builds(
    Signature,
    key=st.builds(GraphKey, names, st.sampled_from(GraphMode), names),
    batch=batches,
    tensors=st.lists(tensors, max_size=3).map(tuple),
    num_inputs=st.integers(0, 3),
    collectives=st.lists(calls, max_size=4).map(lambda distinct: (*distinct, *distinct)),
    graph_kind=names,
    nodes=names,
    graph_nodes=st.lists(graph_nodes, max_size=3).map(lambda distinct: (*distinct, *distinct)),
    disagreements=st.lists(names, max_size=3).map(tuple),
)
manifests = st.builds(
    Manifest,
    rank=naturals,
    world_size=naturals,
    signatures=st.lists(signatures, max_size=3).map(tuple),
    query_lens=st.dictionaries(names, naturals, max_size=2),
    mode=names,
    host=names,
    pid=naturals,
    created=names,
    versions=st.dictionaries(names, names, max_size=2),
)


def changed(path: str, value: object) -> bytes:
    """Return the small manifest with one field replaced."""
    document = msgspec.json.decode(CONTENT)
    *parents, last = path.split(".")
    inner: Any = document
    for parent in parents:
        inner = inner[int(parent) if parent.isdigit() else parent]
    inner[last] = value
    return msgspec.json.encode(document)


def refusal(content: bytes) -> ManifestError:
    with pytest.raises(ManifestError) as caught:
        decode(content, "the file")
    assert caught.value.message.startswith("the file")
    assert caught.value.hint
    return caught.value


@given(manifests)
def test_what_is_written_is_read_back(written: Manifest) -> None:
    read = decode(encode(written))
    assert read.signatures == written.signatures
    digests = tuple(signature.digests for signature in written.signatures)
    assert tuple(signature.digests for signature in read.signatures) == digests
    assert read.written_digests == digests
    assert msgspec.structs.replace(read, written_digests=()) == written


def test_equal_calls_are_written_once_and_are_one_object_when_read() -> None:
    document = msgspec.json.decode(CONTENT)
    assert len(document["calls"]) == 1
    first, second = decode(CONTENT).signatures[0].collectives
    assert first is second


def test_manifest_cut_off_anywhere_is_refused() -> None:
    whole = CONTENT.rstrip()
    for length in range(len(whole)):
        refusal(whole[:length])


@given(st.integers(0, len(CONTENT) - 1), st.integers(0, 255))
@settings(max_examples=300)
def test_damaged_byte_is_refused_or_read_never_a_crash(position: int, byte: int) -> None:
    content = CONTENT[:position] + bytes([byte]) + CONTENT[position + 1 :]
    try:
        for signature in decode(content).signatures:
            assert signature.digests
    except ManifestError as error:
        assert error.hint  # noqa: PT017 - both outcomes are right


@given(st.binary(max_size=200))
def test_any_bytes_are_refused(content: bytes) -> None:
    refusal(content)


def test_newer_version_is_refused_with_a_hint() -> None:
    error = refusal(changed("version", 2))
    assert "version 2" in error.message
    assert "newer" in error.hint


def test_newer_version_is_told_even_where_its_fields_are_unknown() -> None:
    assert "version 99" in refusal(b'{"schema":"graphguard.manifest","version":99}').message


def test_version_0_never_was() -> None:
    refusal(changed("version", 0))


def test_other_schema_is_refused() -> None:
    assert "'other'" in refusal(changed("schema", "other")).message


@pytest.mark.parametrize("path", ["added", "graphs.0.added", "calls.0.added", "graphs.0.key.added"])
def test_unknown_fields_are_ignored(path: str) -> None:
    assert decode(changed(path, {"deep": [1]})).signatures == SMALL.signatures


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("rank", -1),
        ("rank", 2**63),
        ("rank", 0.5),
        ("rank", "0"),
        ("rank", None),
        ("world_size", 10**400),
        ("graphs", {}),
        ("graphs", [None]),
        ("calls", [[]]),
        ("calls.0.count", -1),
        ("calls.0.count", True),
        ("calls.0.group", 0),
        ("calls.0.group", "x" * 65_537),
        ("calls.0.operation", "x" * 257),
        ("calls.0.send_splits", [0] * 65_537),
        ("graphs.0.calls", [-1]),
        ("graphs.0.calls", [1]),
        ("graphs.0.calls", [2**63 - 1]),
        ("graphs.0.calls", 0),
        ("graphs.0.batch", "4 by 2"),
        ("graphs.0.batch", "4x2/9"),
        ("graphs.0.batch", "9999999999x2"),
        ("graphs.0.batch", "9" * 250 + "x1"),
        ("graphs.0.batch", "\u0664x2"),
        ("graphs.0.key", {"role": "target", "mode": "half"}),
        ("graphs.0.tensors.0.shape", [2**63]),
        ("graphs.0.tensors.0.shape", [1] * 65),
        ("graphs.0.tensors.0.address", -1),
        ("graphs.0.num_inputs", -1),
        ("graphs.0.disagreements", "one"),
        ("graphs.0.disagreements", ["x" * 4_097]),
        ("graphs.0.disagreements", [""] * 1_001),
        ("query_lens", {"target": "two"}),
        ("versions", {"torch": 2}),
        ("versions", {str(n): "" for n in range(1001)}),
    ],
)
def test_value_out_of_bounds_is_refused_with_its_place(path: str, value: object) -> None:
    error = refusal(changed(path, value))
    assert "graph 0" in error.message or path.rsplit(".", maxsplit=1)[-1] in error.message


def test_calls_that_expand_beyond_the_bound_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "MAX_CALLS", 1)
    assert "more than 1 collective calls" in refusal(CONTENT).message


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[]",
        b"[" * 100_000,
        b'{"schema":"graphguard.manifest","version":1,"x":' + b"[" * 100_000,
        b'{"schema":"graphguard.manifest","version":1,"x":' + b"[" * 9_999 + b"]" * 9_999 + b"}",
        b'{"schema":"graphguard.manifest","version":' + b"9" * 10_000 + b"}",
        b'{"schema":"graphguard.manifest","version":1e999}',
        b'{"schema":"\xff\xfe","version":1}',
        b'{"schema":"\\ud800","version":1}',
        b"\xff\xfe\x00",
        b"\x80\x04\x95",
        CONTENT + CONTENT,
    ],
    ids=range(13),
)
def test_hostile_content_is_refused(content: bytes) -> None:
    refusal(content)


def test_file_is_private_and_named_after_its_rank(tmp_path: Path) -> None:
    path = manifest.write(msgspec.structs.replace(SMALL, rank=3), tmp_path / "run")
    assert path == tmp_path / "run" / "manifest.rank3.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert manifest.read(path).signatures == SMALL.signatures


def test_manifest_of_the_same_rank_is_replaced(tmp_path: Path) -> None:
    manifest.write(SMALL, tmp_path / "run")
    path = manifest.write(msgspec.structs.replace(SMALL, signatures=()), tmp_path / "run")
    assert manifest.read(path).signatures == ()
    assert os.listdir(path.parent) == [path.name]


def test_file_larger_than_any_manifest_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = manifest.write(SMALL, tmp_path / "run")
    monkeypatch.setattr(manifest, "MAX_BYTES", len(CONTENT) - 1)
    with pytest.raises(ManifestError, match="larger than"):
        manifest.read(path)


def test_reason_names_the_graph_that_is_wrong() -> None:
    error = refusal(changed("graphs.0.batch", "4x2/9"))
    assert "graph 0 (target/full)" in error.message
    assert isinstance(error.__cause__, DescriptorError)


def test_memory_that_a_capture_reserved_is_kept_and_in_no_digest() -> None:
    without = Signature(GraphKey("target"), BatchDescriptor.of(16, 2))
    signature = msgspec.structs.replace(without, memory_bytes=2**21)
    read = manifest.decode(manifest.encode(Manifest(0, 1, (signature,))))

    assert read.signatures[0].memory_bytes == 2**21
    assert signature.digests == without.digests
