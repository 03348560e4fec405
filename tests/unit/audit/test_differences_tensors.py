from __future__ import annotations

from typing import Any

import msgspec
import pytest

from graphguard.audit.differences_tensors import MAX_LISTED, TensorChange, tensor_changes
from graphguard.signature import Signature, TensorSpec
from tests.unit.audit.jobs import graph

TOKENS = TensorSpec("tokens", (32,), "int64", (1,), "cuda:0", 4096, 256)


def with_tensors(*tensors: TensorSpec, inputs: int = 1) -> Signature:
    return graph(tensors=tensors, num_inputs=inputs)


def changed(**fields: Any) -> TensorSpec:
    return msgspec.structs.replace(TOKENS, **fields)


def test_an_address_is_another_one_in_every_run() -> None:
    assert tensor_changes(with_tensors(TOKENS), with_tensors(changed(address=8192))) == ()


@pytest.mark.parametrize(
    "fields",
    [
        {"shape": (64,)},
        {"dtype": "int32"},
        {"stride": (2,)},
        {"device": "cuda:1"},
        {"nbytes": 128},
    ],
)
def test_everything_else_of_a_tensor_counts(fields: dict[str, Any]) -> None:
    (change,) = tensor_changes(with_tensors(TOKENS), with_tensors(changed(**fields)))
    assert change.name == "input tokens"
    assert change.before == "32 int64 on cuda:0, stride (1), 256 bytes"
    assert change.after not in (None, change.before)


def test_tensors_that_only_one_graph_has_are_told() -> None:
    hidden = changed(name="hidden")
    assert tensor_changes(with_tensors(TOKENS, hidden), with_tensors(TOKENS)) == (
        TensorChange("output hidden", "32 int64 on cuda:0, stride (1), 256 bytes", None),
    )
    assert [change.before for change in tensor_changes(with_tensors(), with_tensors(TOKENS))] == [
        None
    ]


def test_an_input_that_became_an_output_has_changed() -> None:
    names = [c.name for c in tensor_changes(with_tensors(TOKENS), with_tensors(TOKENS, inputs=0))]
    assert names == ["input tokens", "output tokens"]


def test_tensors_of_one_name_are_told_apart_by_their_order() -> None:
    ours = with_tensors(TOKENS, changed(name="out"), changed(name="out", dtype="int32"))
    theirs = with_tensors(TOKENS, changed(name="out"), changed(name="out", dtype="int8"))
    (change,) = tensor_changes(ours, theirs)
    assert change.name == "output out #2"


def test_no_more_are_listed_than_anybody_reads() -> None:
    many = with_tensors(*(changed(name=str(n)) for n in range(MAX_LISTED + 5)), inputs=0)
    assert len(tensor_changes(many, with_tensors())) == MAX_LISTED
