"""What the communicators of vLLM's groups are and hold."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from typing import Any

from graphguard.vllm.startup.facts import AllReduceFact
from graphguard.vllm.startup.tolerance import found, tolerant


def all_reduces() -> Iterator[AllReduceFact]:
    """Yield the custom all-reduces that are used."""
    for name, communicator in _communicators():
        custom = found(communicator, "ca_comm")
        if custom is None or found(custom, "disabled"):
            continue
        yield AllReduceFact(
            group=name,
            capturing=bool(found(custom, "_IS_CAPTURING")),
            unregistered=tolerant(functools.partial(_unregistered, custom), None),
        )


def nccl_version() -> int | None:
    """Return the version of the NCCL that vLLM's groups use."""
    for _, communicator in _communicators():
        version = found(communicator, "pynccl_comm.nccl_version")
        if version:
            return int(version)
    return None


def num_nodes() -> int | None:
    """Return the number of machines, where vLLM has counted them."""
    state = sys.modules.get("vllm.distributed.parallel_state")
    count = found(state, "_NODE_COUNT")
    return None if count is None else int(count)


def _communicators() -> Iterator[tuple[str, Any]]:
    """Yield the groups of this process that exist, by vLLM's names, with their communicators."""
    state = sys.modules.get("vllm.distributed.parallel_state")
    for name, reference in sorted((found(state, "_groups") or {}).items()):
        communicator = found(reference(), "device_communicator")
        if communicator is not None:
            yield name, communicator


def _unregistered(custom: Any) -> int:  # noqa: ANN401 - vLLM's CustomAllreduce
    """Count the buffers that captured graphs use and that were not exchanged with the ranks.

    This reads vLLM's list of them, from which registering removes them.
    """
    from vllm import _custom_ops

    _, offsets = _custom_ops.get_graph_buffer_ipc_meta(custom._ptr)
    return len(offsets)
