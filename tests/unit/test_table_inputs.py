"""Static tensors against those that were recorded."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from msgspec.structs import replace

from graphguard.batch import BatchDescriptor
from graphguard.signature import GraphKey, Signature, TensorSpec
from graphguard.table import SignatureTable
from graphguard.verdict import Reason

TOKENS = TensorSpec("tokens", (32,), "int64", (1,), "cuda:0", 0x7F00_0000_0000, 256)
HIDDEN = TensorSpec("hidden", (32, 64), "bfloat16", (64, 1), "cuda:0", 0x7F00_0000_1000, 4096)
OUTPUT = TensorSpec("logits", (32, 8), "bfloat16", (8, 1), "cuda:0", 0x7F00_0000_9000, 512)


@dataclass
class Recorded:
    """A table with one graph of two static inputs."""

    table: SignatureTable = field(default_factory=SignatureTable)
    graph: int = 0

    def __post_init__(self) -> None:
        self.graph = self.table.add(signature(TOKENS, HIDDEN))

    def check(self, *inputs: TensorSpec, addresses: bool = False) -> tuple[Reason, int]:
        fields = self.table.input_fields(inputs)
        reason, index = self.table.check_inputs(self.graph, fields, addresses)
        return Reason(reason), index


def signature(*inputs: TensorSpec) -> Signature:
    batch = BatchDescriptor.of(16, 2)
    return Signature(GraphKey("target"), batch, (*inputs, OUTPUT), len(inputs))


@pytest.fixture
def recorded() -> Recorded:
    return Recorded()


def test_the_recorded_inputs_fit(recorded: Recorded) -> None:
    assert recorded.check(TOKENS, HIDDEN, addresses=True) == (Reason.EXACT, 0)


def test_another_number_of_inputs(recorded: Recorded) -> None:
    assert recorded.check(TOKENS) == (Reason.INPUT_COUNT, 0)
    assert recorded.check(TOKENS, HIDDEN, OUTPUT) == (Reason.INPUT_COUNT, 0)


def test_another_dtype(recorded: Recorded) -> None:
    assert recorded.check(TOKENS, replace(HIDDEN, dtype="float16")) == (Reason.INPUT_DTYPE, 1)


@pytest.mark.parametrize("shape", [(32, 63), (64, 32), (32,), (32, 64, 1), ()])
def test_another_shape(recorded: Recorded, shape: tuple[int, ...]) -> None:
    assert recorded.check(TOKENS, replace(HIDDEN, shape=shape)) == (Reason.INPUT_SHAPE, 1)


def test_another_device(recorded: Recorded) -> None:
    assert recorded.check(replace(TOKENS, device="cuda:1"), HIDDEN) == (Reason.INPUT_DEVICE, 0)


def test_a_moved_input_is_seen_only_when_addresses_are_asked_for(recorded: Recorded) -> None:
    moved = replace(HIDDEN, address=HIDDEN.address + 16)
    assert recorded.check(TOKENS, moved) == (Reason.EXACT, 0)
    assert recorded.check(TOKENS, moved, addresses=True) == (Reason.INPUT_ADDRESS, 1)


def test_name_stride_and_outputs_are_not_compared(recorded: Recorded) -> None:
    renamed = replace(TOKENS, name="other", stride=(2,), nbytes=1)
    assert recorded.check(renamed, HIDDEN, addresses=True) == (Reason.EXACT, 0)


def test_the_first_input_that_differs_is_named(recorded: Recorded) -> None:
    moved = replace(TOKENS, address=0)
    other = replace(HIDDEN, dtype="float16")
    assert recorded.check(moved, other, addresses=True) == (Reason.INPUT_ADDRESS, 0)


def test_of_one_input_dtype_comes_before_shape_before_device_before_address(
    recorded: Recorded,
) -> None:
    spec = replace(TOKENS, dtype="int32", shape=(33,), device="cpu", address=0)
    seen = []
    for back in ("dtype", "shape", "device", "address"):
        seen.append(recorded.check(spec, HIDDEN, addresses=True)[0])
        spec = replace(spec, **{back: getattr(TOKENS, back)})
    assert seen == [
        Reason.INPUT_DTYPE,
        Reason.INPUT_SHAPE,
        Reason.INPUT_DEVICE,
        Reason.INPUT_ADDRESS,
    ]
    assert recorded.check(spec, HIDDEN, addresses=True) == (Reason.EXACT, 0)


def test_a_graph_that_was_captured_again_has_new_addresses(recorded: Recorded) -> None:
    moved = replace(TOKENS, address=0x1000)
    recorded.table.replace(recorded.graph, signature(moved, HIDDEN))
    assert recorded.check(moved, HIDDEN, addresses=True) == (Reason.EXACT, 0)
    assert recorded.check(TOKENS, HIDDEN, addresses=True) == (Reason.INPUT_ADDRESS, 0)


def test_an_unknown_graph_is_an_index_error(recorded: Recorded) -> None:
    with pytest.raises(IndexError, match="no such graph"):
        recorded.table.check_inputs(1, [], False)
    with pytest.raises(IndexError, match="no such graph"):
        recorded.table.replace(1, signature())


def test_inputs_that_are_no_inputs_are_refused(recorded: Recorded) -> None:
    with pytest.raises(ValueError, match="dtype, device, address, shape"):
        recorded.table.check_inputs(0, [(0, 0, 0)], False)  # type: ignore[list-item]
    with pytest.raises(ValueError, match="more than 64"):
        recorded.table.check_inputs(0, [(0, 0, 0, ())] * 65, False)
    with pytest.raises(ValueError, match="more than 16"):
        recorded.table.check_inputs(0, [(0, 0, 0, (1,) * 17)], False)
