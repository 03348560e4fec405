"""Whether the static tensors of a graph are what they were, without keeping them alive."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any, NamedTuple

from graphguard.signature import TensorSpec
from graphguard.verdict import Reason


class _Tensor(NamedTuple):
    spec: TensorSpec
    tensor: weakref.ref[Any]
    shape: Any
    dtype: Any
    device: Any


class StaticTensors:
    """The static tensors of one graph.

    Args:
        specs: What was recorded of them.
        tensors: The tensors, by name. They are kept weakly: graphguard must not hold memory that
            the program lets go. Of one that is gone nothing is said, for it may have been a view
            of memory that is still there.
    """

    def __init__(self, specs: tuple[TensorSpec, ...], tensors: Mapping[str, Any]) -> None:
        self._tensors = [
            _Tensor(spec, weakref.ref(tensor), tensor.shape, tensor.dtype, tensor.device)
            for spec, tensor in ((spec, tensors[spec.name]) for spec in specs)
        ]

    def reason(self) -> Reason:
        """Return how a tensor differs from what was recorded; EXACT if none does."""
        return self._first()[0]

    def changed(self) -> str:
        """Return the name of the first tensor that differs, or nothing."""
        return self._first()[1]

    def _first(self) -> tuple[Reason, str]:
        for spec, weak, shape, dtype, device in self._tensors:
            tensor = weak()
            if tensor is None:
                continue
            if tensor.data_ptr() != spec.address:
                return Reason.INPUT_ADDRESS, spec.name
            if tensor.shape != shape:
                return Reason.INPUT_SHAPE, spec.name
            if tensor.dtype != dtype:
                return Reason.INPUT_DTYPE, spec.name
            if tensor.device != device:
                return Reason.INPUT_DEVICE, spec.name
        return Reason.EXACT, ""
