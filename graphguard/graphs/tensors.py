"""Static tensors as specs: what a signature keeps of a tensor."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from graphguard.errors import ConfigurationError
from graphguard.signature import TensorSpec


def input_specs(inputs: Mapping[str, Any]) -> tuple[TensorSpec, ...]:
    """Describe the named tensors that a graph reads, in the order given.

    Raises:
        ConfigurationError: If one of them is no tensor.
    """
    for name, value in inputs.items():
        if not _is_tensor(value):
            raise ConfigurationError(
                f"the static input {name!r} is a {type(value).__name__}, not a tensor",
                hint="a graph reads tensors; a number given at capture is frozen into it",
            )
    return tuple(describe(name, value) for name, value in inputs.items())


def output_specs(outputs: object) -> tuple[TensorSpec, ...]:
    """Describe every tensor in a nesting of outputs; whatever is no tensor is passed over."""
    return tuple(describe(name, value) for name, value in _named(outputs, "output"))


def describe(name: str, tensor: Any) -> TensorSpec:  # noqa: ANN401 - torch's, or one like it
    """Describe one tensor.

    Raises:
        ConfigurationError: If it has no strides or no address, as a sparse tensor has none.
    """
    try:
        shape, stride, address = tuple(tensor.shape), tuple(tensor.stride()), tensor.data_ptr()
    except RuntimeError as error:
        raise ConfigurationError(
            f"the static tensor {name!r} has no plain memory: {str(error).partition(chr(10))[0]}",
            hint="static tensors are strided ones; name the parts of a sparse one instead",
        ) from error
    last = sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
    return TensorSpec(
        name=name,
        shape=shape,
        dtype=str(tensor.dtype).removeprefix("torch."),
        stride=stride,
        device=str(tensor.device),
        address=address,
        nbytes=(last + 1) * tensor.element_size() if tensor.numel() else 0,
    )


def sliced(outputs: Any, from_size: int, to_size: int) -> Any:  # noqa: ANN401 - the user's own
    """Return outputs with every tensor of ``from_size`` rows cut to its first ``to_size``."""
    if _is_tensor(outputs):
        rows = outputs.shape[0] if outputs.dim() else None
        return outputs[:to_size] if rows == from_size else outputs
    if isinstance(outputs, Mapping):
        return {key: sliced(value, from_size, to_size) for key, value in outputs.items()}
    if isinstance(outputs, tuple) and hasattr(outputs, "_fields"):
        return type(outputs)(*(sliced(value, from_size, to_size) for value in outputs))
    if isinstance(outputs, list | tuple):
        return type(outputs)(sliced(value, from_size, to_size) for value in outputs)
    return outputs


def _named(value: object, name: str) -> Iterator[tuple[str, Any]]:
    if _is_tensor(value):
        yield name, value
        return
    children: Iterable[tuple[object, object]] = ()
    if isinstance(value, Mapping):
        children = value.items()
    elif isinstance(value, list | tuple):
        children = enumerate(value)
    for key, child in children:
        yield from _named(child, f"{name}.{key}")


def _is_tensor(value: object) -> bool:
    # By what it offers, so that this module needs no torch and any library's tensors will do.
    return hasattr(value, "data_ptr") and hasattr(value, "stride") and hasattr(value, "dtype")
