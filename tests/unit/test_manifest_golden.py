"""A manifest of version 1, which every later version must read as this one does."""

from __future__ import annotations

from pathlib import Path

import msgspec

from graphguard import manifest
from graphguard.manifest import encode

GOLDEN = Path(__file__).parents[1] / "data" / "manifest-v1.json"

GOLDEN_DIGESTS = {
    "target/full 16x2": (
        "4f445e028893da9654d5fb012a4ade2c",
        "79464348c1e38ac8cf9b58714dee974f",
    ),
    "target/piecewise/lora=2 32t": (
        "29a1213f62a6be87e0af9532d9aeecc8",
        "d00494b6a924b54a8c0d2012f7afe4c9",
    ),
    "drafter/full 3x3/8:mixed": (
        "09ae4db41608f78427d75764c57bfa6c",
        "f649c201c29ff6cae13fe089995c17a2",
    ),
    "drafter/full 1x2:prefill": (
        "dfc8aae19f9c33bc2a4d5de91bea039e",
        "db7fd405c3fe61a815fa7fc9e1f6127b",
    ),
}


def test_golden_manifest_of_version_1_is_read_with_its_digests() -> None:
    golden = manifest.read(GOLDEN)
    assert {str(s): tuple(s.digests) for s in golden.signatures} == GOLDEN_DIGESTS
    assert [tuple(digests) for digests in golden.written_digests] == list(GOLDEN_DIGESTS.values())
    assert (golden.rank, golden.world_size, golden.query_lens) == (1, 4, {"target": 2})
    assert golden.signatures[0].inputs[0].address == 140_000_000_000_000
    assert [call.operation for call in golden.signatures[0].collectives] == [
        "all_reduce",
        "all_gather",
        "all_reduce",
        "broadcast",
    ]
    assert golden.signatures[2].collectives[2].send_splits == (1, 2, 3, 4)


def test_golden_manifest_is_written_again_as_it_was() -> None:
    document = msgspec.json.decode(GOLDEN.read_bytes())
    assert msgspec.json.decode(encode(manifest.read(GOLDEN))) == document
