"""The steps of an emulated graph: one recorded operation each, and what a replay waits for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from weakref import ref

import torch
from torch._C._distributed_c10d import ProcessGroup, Work
from torch._ops import OpOverload
from torch.utils import _pytree

from graphguard.errors import CaptureError

# Operators of other libraries that communicate, and return when they are over: those of vLLM's CPU
# engine (csrc/cpu/torch_bindings.cpp of vLLM 0.32).
_COMMUNICATING = frozenset(
    f"_C::shm_{name}"
    for name in ("allreduce", "all_gather", "gather", "send_tensor_list", "recv_tensor_list")
)

_wait_tensor: Callable[[torch.Tensor], torch.Tensor] = torch.ops._c10d_functional.wait_tensor


def frozen(tree: Any) -> Any:  # noqa: ANN401 - any nesting of arguments
    """Return arguments with every tensor replaced by an alias of its memory.

    The alias keeps the memory alive and does not follow its owner: when a program gives its
    tensor other memory, a replay goes on using the memory that was there at capture.
    """
    return _pytree.tree_map_only(torch.Tensor, torch.Tensor.detach, tree)


def tensors_of(tree: Any) -> list[torch.Tensor]:  # noqa: ANN401 - any nesting of arguments
    """Return every tensor of a nesting of arguments."""
    return [leaf for leaf in _pytree.tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


class Step:
    """One recorded operation.

    Args:
        func: The operator.
        args: Its positional arguments, frozen.
        kwargs: Its keyword arguments, frozen.
        targets: The memory that its new results go to, in the order the operator returns them.

    Attributes:
        communicates: Whether it is a collective.
    """

    communicates = False

    def __init__(
        self,
        func: OpOverload,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        targets: list[torch.Tensor],
    ) -> None:
        self.func = func
        self.args = args
        self.kwargs = kwargs
        self.targets = targets
        self.communicates = type(self).communicates or func.name() in _COMMUNICATING
        # Collectives of these earlier steps must be over before this one starts.
        self.waits: tuple[int, ...] = ()
        self._operands = [*tensors_of((args, kwargs)), *targets]
        addresses = (tensor.untyped_storage().data_ptr() for tensor in self._operands)
        # Tensors without memory all have the address 0, and nothing in common.
        self.memory = frozenset(address for address in addresses if address)

    def run(self) -> Work | None:
        """Run the operation into the recorded memory, and return its work if it is unfinished."""
        results = self.func(*self.args, **self.kwargs)
        if self.targets:
            for target, result in zip(self.targets, tensors_of(results), strict=True):
                target.copy_(result)
        return None

    def describe(self) -> str:
        """Name the operation and the shapes it works on, for the digest of the graph's nodes."""
        operands = " ".join(f"{tensor.dtype}{list(tensor.shape)}" for tensor in self._operands)
        return f"{self.func.name()} {operands}"


class FunctionalCollective(Step):
    """A functional collective: its results are only there once they have been waited for."""

    communicates = True

    def run(self) -> None:
        """Run the collective to its end."""
        results = tensors_of(self.func(*self.args, **self.kwargs))
        for result in results:
            _wait_tensor(result)
        for target, result in zip(self.targets, results, strict=bool(self.targets)):
            target.copy_(result)


class Collective(Step):
    """A c10d collective: it runs on while later steps do not touch its memory.

    It does not keep its process group alive. A graph often lives until the process ends, and
    gloo aborts a process that ends while its threads are still there.
    """

    communicates = True

    def __init__(self, func: OpOverload, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        names = [argument.name for argument in func._schema.arguments]
        self._group_position = names.index("process_group")
        group = ProcessGroup.unbox(args[self._group_position])
        self._group = ref(group)
        self._group_name = group.group_name
        without_group = (*args[: self._group_position], None, *args[self._group_position + 1 :])
        super().__init__(func, without_group, kwargs, [])

    def run(self) -> Work | None:
        """Start the collective and return its work.

        Raises:
            CaptureError: If its process group was destroyed.
        """
        group = self._group()
        if group is None:
            raise CaptureError(
                f"an emulated graph was replayed whose process group {self._group_name!r} was "
                "destroyed",
                hint="replay graphs before destroy_process_group(), and capture them again for "
                "a new group",
            )
        position = self._group_position
        args = (*self.args[:position], group.boxed(), *self.args[position + 1 :])
        results = self.func(*args, **self.kwargs)
        last = results[-1] if isinstance(results, tuple) else results
        return None if last is None else Work.unbox(last)


def schedule_waits(steps: list[Step]) -> None:
    """Work out before which step each collective must be over.

    A CUDA graph keeps the order that streams and events gave it. Here a collective ends before
    the next step that touches its memory, and not earlier: a send that was waited for at once
    would never meet a receive that its peer posts after its own send.
    """
    running: dict[int, Step] = {}
    for number, step in enumerate(steps):
        needed = [other for other in running if running[other].memory & step.memory]
        step.waits = tuple(needed)
        for other in needed:
            del running[other]
        if isinstance(step, Collective):
            running[number] = step


@contextmanager
def _as_captured() -> Iterator[None]:
    """Leave out whatever the caller of a replay has switched on: a replay is not Python code.

    Operations were recorded below autograd and autocast. Inference mode allows writing to any
    tensor, whether the capture was made in it or not.
    """
    with (
        torch.inference_mode(),
        torch._C.DisableTorchFunction(),
        torch._C._AutoDispatchBelowAutograd(),
        torch._C._DisableAutocast(),
        torch._C._DisableTorchDispatch(),
    ):
        yield


def replay(steps: Iterable[Step]) -> None:
    """Run steps in order, and return when all of them are over."""
    unfinished: dict[int, Work] = {}
    with _as_captured():
        for number, step in enumerate(steps):
            for other in step.waits:
                if work := unfinished.pop(other, None):
                    work.wait()
            if work := step.run():
                unfinished[number] = work
        for work in unfinished.values():
            work.wait()


def replay_with_marks(steps: Iterable[Step], passed: Callable[[int], object]) -> None:
    """The same, and say of each collective that it is over.

    Args:
        steps: The steps.
        passed: Called with the number of a step.
    """
    unfinished: dict[int, Work] = {}
    with _as_captured():
        for number, step in enumerate(steps):
            for other in step.waits:
                if work := unfinished.pop(other, None):
                    work.wait()
                    passed(other)
            if work := step.run():
                unfinished[number] = work
            elif step.communicates:
                passed(number)
        for number, work in unfinished.items():
            work.wait()
            passed(number)
