"""Capturing into an emulated graph: what becomes a step, what does not, and what cannot."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch._C._distributed_c10d import FakeWork
from torch._ops import OpOverload
from torch._subclasses import fake_tensor
from torch.utils import _pytree
from torch.utils._python_dispatch import TorchDispatchMode

from graphguard.errors import OperationNotRecordable
from graphguard.graphs import compiler
from graphguard.graphs.emulated_steps import (
    Collective,
    FunctionalCollective,
    Step,
    frozen,
    tensors_of,
)

compiler.load()

Observer = Callable[[OpOverload, tuple[Any, ...], Mapping[str, Any]], None]

_C10D = "c10d"
_FUNCTIONAL = ("_c10d_functional", "_c10d_functional_autograd")
# These return their argument: there is nothing to replay.
_PASS_THROUGH = frozenset({"wait_tensor", "wait_tensors", "_wrap_tensor_autograd"})
# Memory without content: there is nothing to replay.
_ALLOCATES = frozenset(
    {"empty", "empty_strided", "empty_permuted", "empty_like", "new_empty", "new_empty_strided"}
)
# These change a tensor's memory or shape itself, which a captured graph has frozen.
_RESHAPES_MEMORY = frozenset({"resize_", "resize_as_", "set_", "swap_"})
_PLAIN = (torch.Tensor, torch.nn.Parameter)

_NOT_RECORDABLE = (
    fake_tensor.DataDependentOutputException,
    fake_tensor.DynamicOutputShapeException,
    fake_tensor.UnsupportedOperatorException,
)


class _Kind(NamedTuple):
    composite: bool
    at_capture: bool
    host_value: bool
    written_returns: tuple[str | None, ...]


@lru_cache(maxsize=4096)
def _kind(func: OpOverload) -> _Kind:
    """Read an operator's schema: what its results share with its arguments."""
    returns = func._schema.returns
    # Lists whose tensors are written one by one have no name for what they share.
    written = {
        shared: argument.name
        for argument in func._schema.arguments
        if argument.alias_info is not None and argument.alias_info.is_write
        for shared in argument.alias_info.before_set
    }
    aliases = [item.alias_info for item in returns]
    is_view = any(alias is not None and not alias.is_write for alias in aliases)
    # Those that turn a tensor itself into another view of its memory (t_, unsqueeze_) work on the
    # host, once: replays find the memory as it was.
    turns = torch.Tag.inplace_view in func.tags and func._opname not in _RESHAPES_MEMORY
    return _Kind(
        composite=_has_kernel(func, "CompositeImplicitAutograd") and not _has_kernel(func, "CPU"),
        at_capture=is_view or turns,
        host_value=any("Tensor" not in str(item.type) for item in returns),
        written_returns=tuple(
            next((written[shared] for shared in alias.before_set), None)
            if alias is not None and alias.is_write
            else None
            for alias in aliases
        ),
    )


def _has_kernel(func: OpOverload, key: str) -> bool:
    has: bool = torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), key)
    return has


class CaptureMode(TorchDispatchMode):
    """Turns every operation of a run into a step, and runs none of them.

    Results are given the memory that replays will write to. Until the first replay it holds
    nothing, as with a CUDA graph.

    Attributes:
        steps: The operations so far.
    """

    def __init__(self, observers: list[Observer]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.steps: list[Step] = []
        self._observers = observers
        self._shapes = fake_tensor.FakeTensorMode()

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: tuple[type, ...],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - whatever the operator returns
        if any(kind not in _PLAIN for kind in types):
            # A wrapper such as DTensor takes itself apart first; its parts come back here.
            return NotImplemented
        kwargs = kwargs or {}
        if _kind(func).composite:
            # Autograd takes these apart; in inference mode they come here whole. One that gives a
            # view here and a copy there (to, reshape, contiguous) would be run instead of recorded.
            with self:
                return func.decompose(*args, **kwargs)
        for observe in self._observers:
            observe(func, args, kwargs)
        if func.namespace == _C10D:
            return self._collective(func, args, kwargs)
        if func.namespace in _FUNCTIONAL:
            return self._functional_collective(func, args, kwargs)
        return self._operation(func, args, kwargs)

    def _operation(self, func: OpOverload, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:  # noqa: ANN401
        name, kind = func._opname, _kind(func)
        if name in _ALLOCATES or kind.at_capture:
            return func(*args, **kwargs)
        if kind.host_value or name in _RESHAPES_MEMORY:
            raise _not_recordable(func)
        return self._record(Step, func, args, kwargs)

    def _functional_collective(
        self, func: OpOverload, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:  # noqa: ANN401
        if func._opname in _PASS_THROUGH:
            return args[0]
        return self._record(FunctionalCollective, func, args, kwargs)

    def _collective(
        self, func: OpOverload, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:  # noqa: ANN401
        self.steps.append(Collective(func, frozen(args), frozen(kwargs)))
        returns = func._schema.returns
        if not returns:
            return None
        # The work of a capture is over at once: nothing has been started.
        work = FakeWork().boxed()
        return work if len(returns) == 1 else (args[0], work)

    def _record(
        self,
        step: type[Step],
        func: OpOverload,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> Any:  # noqa: ANN401
        shapes = self._infer(func, args, kwargs)
        written = self._written(func, args, kwargs)
        several = len(written) > 1
        shapes_by_return = shapes if several else (shapes,) * len(written)
        targets: list[torch.Tensor] = []

        def allocate(shape: torch.Tensor) -> torch.Tensor:
            _require_plain_memory(func, shape)
            result = torch.empty_strided(
                shape.shape, shape.stride(), dtype=shape.dtype, device=shape.device
            )
            targets.append(frozen(result))
            return result

        results = tuple(
            argument
            if argument is not None
            else _pytree.tree_map_only(torch.Tensor, allocate, shape)
            for argument, shape in zip(written, shapes_by_return, strict=True)
        )
        if any(argument is not None for argument in written) and targets:
            raise _not_recordable(func)
        self.steps.append(step(func, frozen(args), frozen(kwargs), targets))
        return results if several else (results[0] if results else None)

    def _written(
        self, func: OpOverload, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[Any, ...]:
        """Return, for each result, the argument that it is, or None if it is new."""
        names = _kind(func).written_returns
        if not any(names):
            return names
        arguments = dict(zip((a.name for a in func._schema.arguments), args, strict=False))
        arguments.update(kwargs)
        return tuple(None if name is None else arguments[name] for name in names)

    def _infer(self, func: OpOverload, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:  # noqa: ANN401
        """Work out the shapes of the results without running the operation."""
        for tensor in tensors_of((args, kwargs)):
            _require_plain_memory(func, tensor)
        try:
            with self._shapes:
                fake_args, fake_kwargs = _pytree.tree_map_only(
                    torch.Tensor, _shape_only, (args, dict(kwargs))
                )
                results = func(*fake_args, **fake_kwargs)
        except _NOT_RECORDABLE as error:
            raise _not_recordable(func) from error
        for was, now in zip(
            tensors_of((args, kwargs)), tensors_of((fake_args, fake_kwargs)), strict=True
        ):
            if was.shape != now.shape:
                raise _not_recordable(func)
        return results


def _require_plain_memory(func: OpOverload, tensor: torch.Tensor) -> None:
    if tensor.layout is not torch.strided:
        raise OperationNotRecordable(
            f"{func.name()} cannot be recorded into an emulated graph: one of its tensors is "
            "sparse",
            hint="capture it on a GPU, or keep such tensors out of what is emulated",
        )


def _shape_only(tensor: torch.Tensor) -> torch.Tensor:
    return torch.empty_strided(
        tensor.shape, tensor.stride(), dtype=tensor.dtype, device=tensor.device
    )


def _not_recordable(func: OpOverload) -> OperationNotRecordable:
    return OperationNotRecordable(
        f"{func.name()} cannot be recorded into an emulated graph: it needs the content of a "
        "tensor on the host, gives results whose shape depends on it, changes a tensor's memory, "
        "or says nothing about the shape of its results",
        hint="keep .item(), boolean masks, nonzero() and resizing out of the captured function, "
        "as for a CUDA graph; give a custom operator a fake implementation "
        "(torch.library.register_fake)",
    )
