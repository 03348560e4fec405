"""The words of graphguard: what they refuse, how they read, that they never change."""

from __future__ import annotations

import re

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphguard.batch import MAX_SIZE, BatchDescriptor
from graphguard.errors import DescriptorError
from graphguard.signature import CollectiveCall, GraphKey, GraphMode, Signature, TensorSpec
from graphguard.verdict import Phase

phases = st.sampled_from(Phase)
descriptors = st.one_of(
    st.builds(BatchDescriptor.of, st.integers(1, 40_000), st.integers(1, 40_000), phases),
    st.builds(
        BatchDescriptor.ragged,
        st.lists(st.integers(0, 300), min_size=1, max_size=12).filter(any),
        phases,
    ),
    st.builds(BatchDescriptor.tokens, st.integers(0, MAX_SIZE)),
)

ALL_GATHER = CollectiveCall("all_gather", 64, "int32", None, None, None, "tp:0,1", 2, 1)
TENSOR = TensorSpec("tokens", (32,), "int64", (1,), "cpu", 4096, 256)
SIGNATURE = Signature(GraphKey("target"), BatchDescriptor.of(16, 2), (TENSOR,), 1, (ALL_GATHER,))


@settings(max_examples=1_000, derandomize=True, database=None, deadline=None)
@given(descriptors)
def test_the_text_form_reads_back_as_the_same_descriptor(descriptor: BatchDescriptor) -> None:
    assert BatchDescriptor.parse(str(descriptor)) == descriptor


@pytest.mark.parametrize(
    ("text", "descriptor"),
    [
        ("16x2", BatchDescriptor(16, 2, 32, True, Phase.DECODE)),
        ("16x2:prefill", BatchDescriptor(16, 2, 32, True, Phase.PREFILL)),
        ("5x20/37:mixed", BatchDescriptor(5, 20, 37, False, Phase.MIXED)),
        ("32t", BatchDescriptor(0, 0, 32, False, Phase.MIXED)),
    ],
)
def test_text_forms(text: str, descriptor: BatchDescriptor) -> None:
    assert BatchDescriptor.parse(text) == descriptor
    assert str(descriptor) == text


def test_a_redundant_token_count_is_read_and_not_written() -> None:
    descriptor = BatchDescriptor.parse("16x2/32:decode")
    assert descriptor == BatchDescriptor.of(16, 2)
    assert str(descriptor) == "16x2"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "16",
        "16x",
        "x2",
        "16x2x3",
        "-1x2",
        "16x2:draft",
        " 16x2",
        "16x2\n",
        "t",
        "\u0661x\u0662",
    ],
)
def test_what_is_no_text_form_is_refused_with_a_hint(text: str) -> None:
    with pytest.raises(DescriptorError, match=re.escape(f"{text!r} is not a batch")) as caught:
        BatchDescriptor.parse(text)
    assert "16x2" in caught.value.hint


@pytest.mark.parametrize(
    ("num_reqs", "query_len", "num_tokens", "uniform"),
    [
        (16, 2, 33, False),  # more tokens than the requests can have
        (16, 2, 32, False),  # equal requests said to differ
        (16, 2, 31, True),  # unequal requests said to be equal
        (16, 2, 1, False),  # the longest request alone has more tokens
        (-1, 2, -2, True),
        (2, -1, -2, True),
        (1, 2**31, 2**31, True),
        (2**31, 0, 0, True),
    ],
)
def test_numbers_that_contradict_each_other_are_refused(
    num_reqs: int, query_len: int, num_tokens: int, uniform: bool
) -> None:
    with pytest.raises(DescriptorError, match="cannot be"):
        BatchDescriptor(num_reqs, query_len, num_tokens, uniform)


@pytest.mark.parametrize("text", ["16x2/33", "16x2/1", "2147483648t", "65536x65536"])
def test_a_text_form_whose_numbers_contradict_each_other_is_refused(text: str) -> None:
    with pytest.raises(DescriptorError, match="cannot be"):
        BatchDescriptor.parse(text)


def test_a_contradiction_in_a_file_is_refused_while_decoding() -> None:
    encoded = msgspec.json.encode(BatchDescriptor.of(16, 2)).replace(b"32", b"33")
    with pytest.raises((DescriptorError, msgspec.ValidationError), match="cannot be"):
        msgspec.json.decode(encoded, type=BatchDescriptor)


def test_unequal_requests_are_described_by_the_longest() -> None:
    assert BatchDescriptor.ragged([1, 20, 16]) == BatchDescriptor(3, 20, 37, False, Phase.MIXED)
    assert BatchDescriptor.ragged([2, 2], Phase.DECODE) == BatchDescriptor.of(2, 2)


@pytest.mark.parametrize("query_lens", [[], [0], [0, 0]])
def test_a_batch_of_nothing_is_refused(query_lens: list[int]) -> None:
    with pytest.raises(DescriptorError):
        BatchDescriptor.ragged(query_lens)


@pytest.mark.parametrize(
    ("word", "field"),
    [
        (SIGNATURE, "nodes"),
        (SIGNATURE.key, "role"),
        (SIGNATURE.batch, "num_reqs"),
        (TENSOR, "address"),
        (ALL_GATHER, "count"),
    ],
)
def test_no_word_can_be_changed(word: msgspec.Struct, field: str) -> None:
    with pytest.raises(AttributeError, match="immutable"):
        setattr(word, field, getattr(word, field))


def test_equal_words_are_one_key() -> None:
    again = msgspec.msgpack.decode(msgspec.msgpack.encode(SIGNATURE), type=Signature)
    assert again is not SIGNATURE
    assert again == SIGNATURE
    assert len({again, SIGNATURE}) == 1
    assert again.digests == SIGNATURE.digests


def test_what_was_computed_once_does_not_make_words_differ() -> None:
    fresh = msgspec.structs.replace(SIGNATURE)
    _ = SIGNATURE.digests, ALL_GATHER.shared
    assert fresh == SIGNATURE
    assert hash(fresh) == hash(SIGNATURE)


def test_inputs_are_the_first_tensors() -> None:
    output = msgspec.structs.replace(TENSOR, name="logits")
    signature = msgspec.structs.replace(SIGNATURE, tensors=(TENSOR, output), num_inputs=1)
    assert signature.inputs == (TENSOR,)


def test_words_say_what_they_are() -> None:
    assert str(SIGNATURE) == "target/full 16x2"
    assert str(GraphKey("drafter", GraphMode.PIECEWISE, "lora 2")) == "drafter/piecewise/lora 2"
    assert str(ALL_GATHER) == "all_gather(64 int32) on tp:0,1"
    broadcast = msgspec.structs.replace(
        ALL_GATHER, operation="reduce", count=None, reduction="sum", root=0, coalesced=True
    )
    assert str(broadcast) == "reduce(? int32, sum, root 0, coalesced) on tp:0,1"
