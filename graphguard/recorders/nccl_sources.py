"""One sequence of NCCL calls from two that recorded the same: the plugin's and the interposer's.

The interposer sees what the program asked for: reduction, buffers, peers, calls that come to
nothing. The plugin sees what NCCL takes up, whoever asked: also what a library that holds the real
NCCL by its path asked for. So what both saw is taken from the interposer, and what only the plugin
saw is put between.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from graphguard.recorders.alignment import Expected, Key, align
from graphguard.recorders.nccl_calls import NcclCall
from graphguard.signature import ONE_SIDED


class NcclSequence(NamedTuple):
    """Calls in their order, and where their sources told it differently, as sentences."""

    calls: tuple[NcclCall, ...]
    disagreements: tuple[str, ...] = ()


# A call, behind what it is sorted by among those of all threads.
_Placed = tuple[tuple[int, int], NcclCall]


class _Unseen(NamedTuple):
    by_interposer: list[NcclCall]
    by_plugin: list[NcclCall]


def one_sequence(
    plugin: Sequence[NcclCall] | None, interposer: Sequence[NcclCall] | None
) -> NcclSequence:
    """Return every call once.

    Args:
        plugin: What the plugin saw, in its order; None where it was not on duty.
        interposer: What the interposer saw, in its order; None where it was not on duty.
    """
    if plugin is None or interposer is None:
        return NcclSequence(tuple(plugin or interposer or ()))
    told: list[str] = []
    unseen = _Unseen([], [])
    calls: list[_Placed] = []
    for thread in dict.fromkeys(call.thread for call in (*interposer, *plugin)):
        mine = [call for call in interposer if call.thread == thread]
        theirs = [call for call in plugin if call.thread == thread]
        calls += _merged(mine, theirs, told, unseen)
    calls.sort(key=lambda placed: placed[0])
    told += _unseen_text(unseen.by_interposer, "plugin", "interposer")
    told += _unseen_text(unseen.by_plugin, "interposer", "plugin")
    return NcclSequence(tuple(call for _, call in calls), tuple(told))


def _merged(
    mine: Sequence[NcclCall], theirs: Sequence[NcclCall], told: list[str], unseen: _Unseen
) -> Iterator[_Placed]:
    """Yield the calls of one thread, with what they are sorted by among those of all threads."""
    seen = [_key(call) for call in theirs]
    found = align([_in_the_plugin(call) for call in mine], seen, pair_different=True)
    communicators: dict[int, int] = {}
    place, begin = 0, 0
    for call, positions in zip(mine, found, strict=True):
        if positions:
            yield from _of_the_plugin_alone(theirs, range(begin, positions[0]), place, unseen)
            inner = range(positions[0], positions[-1])
            others = [p for p in inner if p not in positions]
            yield from _of_the_plugin_alone(theirs, others, place, unseen)
            begin = positions[-1] + 1
            told += _differences(call, theirs[positions[0]], communicators)
        elif not _may_be_unseen(call):
            unseen.by_plugin.append(call)
        place = call.order
        yield (place, 0), call
    yield from _of_the_plugin_alone(theirs, range(begin, len(theirs)), place, unseen)


def _of_the_plugin_alone(
    theirs: Sequence[NcclCall], positions: Sequence[int], place: int, unseen: _Unseen
) -> Iterator[_Placed]:
    for position in positions:
        unseen.by_interposer.append(theirs[position])
        yield (place, 1 + position), theirs[position]


def _key(call: NcclCall) -> Key:
    return Key(call.operation, call.count, call.dtype, call.root, call.num_ranks)


def _may_be_unseen(call: NcclCall) -> bool:
    """Whether NCCL may do without telling its plugin: src/enqueue.cc, taskAppend."""
    return call.operation in ONE_SIDED or call.num_ranks <= 1 or call.count == 0


def _in_the_plugin(call: NcclCall) -> Expected:
    own = _key(call)
    if call.operation in ONE_SIDED:
        return Expected(())
    if call.operation not in ("all_to_all", "gather", "scatter"):
        # Where NCCL has nothing to do it tells nothing, and neither is that a difference.
        return Expected(((own,),))
    send, recv = (
        own._replace(operation="send", root=None),
        own._replace(operation="recv", root=None),
    )
    at_root = call.rank == call.root
    parts: tuple[Key, ...]
    if call.operation == "all_to_all":
        parts = (send, recv) * call.num_ranks
    elif call.operation == "gather":
        parts = (send, *(recv,) * (call.num_ranks if at_root else 0))
    else:
        parts = (*(send,) * (call.num_ranks if at_root else 0), recv)
    # As it is where copy engines do it.
    return Expected(((own,), parts))


def _differences(mine: NcclCall, theirs: NcclCall, communicators: dict[int, int]) -> Iterator[str]:
    if mine.operation == theirs.operation and _key(mine) != _key(theirs):
        yield f"the interposer saw {mine}, and the plugin {theirs}"
    expected = communicators.setdefault(theirs.communicator, mine.communicator)
    if expected != mine.communicator:
        yield (
            f"{mine}: the interposer saw it on another communicator than an earlier call that the "
            "plugin saw on the same"
        )
    if mine.capture_id and theirs.capture_id and mine.capture_id != theirs.capture_id:
        yield f"{mine}: the interposer saw it in another capture than the plugin"


def _unseen_text(calls: Sequence[NcclCall], by: str, unseen_by: str) -> Iterator[str]:
    if calls:
        number = "a call was" if len(calls) == 1 else f"{len(calls)} calls were"
        first = "" if len(calls) == 1 else "the first is "
        yield f"{number} seen by the {by} and not by the {unseen_by}: {first}{calls[0]}"
