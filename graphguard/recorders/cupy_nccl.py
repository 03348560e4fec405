"""The recorder for ``cupy.cuda.nccl``: every call on a communicator that cupy made.

The class of communicators cannot be changed, so ``cupy.cuda.nccl.NcclCommunicator`` is replaced by
a subclass of it. Communicators that were made before are not seen, nor those that ``commSplit``
returns, which cupy makes of its own class. The signatures are those of cupy 14.2.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

from graphguard.digest import digest
from graphguard.session import process_rank
from graphguard.signature import CollectiveCall

SEEN_BY = "cupy"

# Positions in the arguments of each method, without self: count, dtype, reduction, root, peer.
_METHODS: dict[str, tuple[str, int, int, int | None, int | None, int | None]] = {
    "allReduce": ("all_reduce", 2, 3, 4, None, None),
    "reduce": ("reduce", 2, 3, 4, 5, None),
    "broadcast": ("broadcast", 2, 3, None, 4, None),
    "bcast": ("broadcast", 1, 2, None, 3, None),
    "reduceScatter": ("reduce_scatter", 2, 3, 4, None, None),
    "allGather": ("all_gather", 2, 3, None, None, None),
    "send": ("send", 1, 2, None, None, 3),
    "recv": ("recv", 1, 2, None, None, 3),
}

# ncclDataType_t and ncclRedOp_t of nccl.h, which have not changed since 2.10.
_DTYPES = (
    *("int8", "uint8", "int32", "uint32", "int64", "uint64"),
    *("float16", "float32", "float64", "bfloat16"),
)
_REDUCTIONS = ("sum", "product", "max", "min", "avg")


class CupyRecorder:
    """Records the calls on communicators of cupy made on this thread while it is entered.

    Attributes:
        calls: What was recorded so far, in order.
        failure: The first error of the recorder itself, or None. It is kept here and not raised:
            the program that is being recorded must go on as it would have.
    """

    def __init__(self) -> None:
        self.calls: list[CollectiveCall] = []
        self.failure: Exception | None = None

    def __enter__(self) -> CupyRecorder:
        _active.recorders.append(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        _active.recorders.remove(self)


class _Active(threading.local):
    def __init__(self) -> None:
        self.recorders: list[CupyRecorder] = []
        self.groups = 0


_active = _Active()
_replaced: list[tuple[Any, str, Any]] = []


def install(nccl: Any) -> bool:  # noqa: ANN401 - the module
    """Record communicators that are made from now on. Called again, it does nothing.

    Args:
        nccl: ``cupy.cuda.nccl``, or a module with its surface.

    Returns:
        Whether there is a NCCL for cupy to call.
    """
    original = getattr(nccl, "NcclCommunicator", None)
    if original is None:
        return False
    if not hasattr(original, "__graphguard_name__"):
        _replace(nccl, "NcclCommunicator", _recorded(original))
        _replace(nccl, "groupStart", _counted(nccl.groupStart, 1))
        _replace(nccl, "groupEnd", _counted(nccl.groupEnd, -1))
    return True


def uninstall() -> None:
    """Put cupy's own class back. Communicators that were made of the other one stay as they are."""
    while _replaced:
        module, name, original = _replaced.pop()
        setattr(module, name, original)


def _replace(module: Any, name: str, value: Any) -> None:  # noqa: ANN401
    _replaced.append((module, name, getattr(module, name)))
    setattr(module, name, value)


def _counted(original: Callable[[], Any], change: int) -> Callable[[], Any]:
    def call() -> Any:  # noqa: ANN401
        result = original()
        _active.groups = max(0, _active.groups + change)
        return result

    return call


def _recorded(original: Any) -> type:  # noqa: ANN401
    """Return a subclass of cupy's class of communicators that notes what is called."""

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        original.__init__(self, *args, **kwargs)
        unique_id = args[1] if len(args) > 1 else kwargs.get("commId", ())
        self.__graphguard_name__ = _name(unique_id)

    def init_all(devices: int | list[int]) -> list[Any]:
        listed = list(range(devices)) if isinstance(devices, int) else list(devices)
        communicators = [recorded.__new__(recorded) for _ in listed]
        # Cupy's own helper for subclasses: it fills what is there already.
        original._initAll(communicators, len(listed), listed)
        return communicators

    body: dict[str, Any] = {
        "__init__": __init__,
        "__graphguard_name__": SEEN_BY,
        "__doc__": original.__doc__,
        "__module__": original.__module__,
        "initAll": staticmethod(init_all),
    }
    for name in _METHODS:
        if hasattr(original, name):
            body[name] = _noting(name, getattr(original, name))
    recorded: Any = type(original.__name__, (original,), body)
    made: type = recorded
    return made


def _noting(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
    def method(communicator: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        if _active.recorders:
            _note(communicator, name, args)
        return original(communicator, *args, **kwargs)

    method.__name__, method.__doc__ = name, original.__doc__
    return method


def _note(communicator: Any, name: str, args: Sequence[Any]) -> None:  # noqa: ANN401
    try:
        call = _call(communicator, name, args)
    except Exception as error:  # noqa: BLE001 - kept for whoever reads the record
        for recorder in _active.recorders:
            recorder.failure = recorder.failure or error
        return
    for recorder in _active.recorders:
        recorder.calls.append(call)


def _call(communicator: Any, name: str, args: Sequence[Any]) -> CollectiveCall:  # noqa: ANN401
    operation, count, dtype, reduction, root, peer = _METHODS[name]
    rank, size = communicator.rank_id(), communicator.size()
    return CollectiveCall(
        operation=operation,
        count=int(args[count]),
        dtype=_word(_DTYPES, args[dtype]),
        reduction=None if reduction is None else _word(_REDUCTIONS, args[reduction]),
        root=None if root is None else int(args[root]),
        peer=None if peer is None else int(args[peer]),
        group=_group_text(communicator.__graphguard_name__, rank, size),
        group_size=size,
        group_rank=rank,
        coalesced=_active.groups > 0,
        seen_by=SEEN_BY,
    )


def _word(words: Sequence[str], number: int) -> str:
    return words[number] if 0 <= number < len(words) else f"unknown ({number})"


def _name(unique_id: Sequence[int]) -> str:
    """Return a name for a communicator that all its ranks come to: they share the unique id."""
    if not unique_id:
        return SEEN_BY
    return f"{SEEN_BY}:{digest([bytes(byte & 0xFF for byte in unique_id)])[:16]}"


def _group_text(name: str, rank: int, size: int) -> str:
    global_rank, world_size = process_rank()
    if size == 1:
        return f"{name}[{global_rank}]"
    if size == world_size and rank == global_rank:
        return f"{name}[0-{size - 1}]"
    # Which ranks of the job these are is something that cupy does not know.
    return f"{name}({size} ranks)"
