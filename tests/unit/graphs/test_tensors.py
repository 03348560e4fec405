"""Static tensors as specs."""

from typing import NamedTuple

import pytest
import torch

from graphguard.errors import ConfigurationError
from graphguard.graphs.tensors import describe, input_specs, output_specs, sliced


class Outputs(NamedTuple):
    logits: torch.Tensor
    step: int


def test_a_spec_describes_the_tensor() -> None:
    tensor = torch.zeros(4, 6, dtype=torch.bfloat16)[:, ::2]

    spec = describe("x", tensor)

    assert (spec.name, spec.shape, spec.stride) == ("x", (4, 3), (6, 2))
    assert (spec.dtype, spec.device) == ("bfloat16", "cpu")
    assert spec.address == tensor.data_ptr()
    # From the first element to the last: 3 rows of 6, then 2 steps of 2, then itself.
    assert spec.nbytes == (3 * 6 + 2 * 2 + 1) * 2


def test_an_empty_tensor_spans_no_bytes() -> None:
    assert describe("x", torch.zeros(0, 4)).nbytes == 0


def test_inputs_keep_their_order_and_names() -> None:
    specs = input_specs({"tokens": torch.zeros(2), "positions": torch.zeros(3)})

    assert [spec.name for spec in specs] == ["tokens", "positions"]


def test_an_input_that_is_no_tensor_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="'scale' is a float, not a tensor"):
        input_specs({"scale": 2.0})


def test_outputs_are_found_in_any_nesting() -> None:
    outputs = {"logits": torch.zeros(2), "hidden": [torch.zeros(1), (torch.zeros(1), 5)], "n": 3}

    assert [spec.name for spec in output_specs(outputs)] == [
        "output.logits",
        "output.hidden.0",
        "output.hidden.1.0",
    ]


def test_slicing_cuts_only_tensors_of_the_padded_size() -> None:
    outputs = Outputs(torch.zeros(32, 5), 7)

    cut = sliced({"a": outputs, "b": [torch.zeros(16), torch.tensor(1)]}, 32, 30)

    assert cut["a"].logits.shape == (30, 5)
    assert cut["a"].step == 7
    assert cut["b"][0].shape == (16,)
    assert cut["b"][1].dim() == 0
