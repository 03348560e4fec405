"""Which sizes a runner captures, and into which pools."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from graphguard.vllm.startup.facts import GraphFact, PoolFact
from graphguard.vllm.startup.tolerance import found

_WRAPPERS = (
    ("vllm.compilation.cuda_graph", "CUDAGraphWrapper"),
    ("vllm.compilation.breakable_cudagraph", "BreakableCUDAGraphWrapper"),
)
_MANAGERS = (
    "prefill_cudagraph_manager",
    "decode_cudagraph_manager",
    "query_cudagraph_manager",
    "cudagraph_manager",
)


def graphs(runner: Any) -> Iterator[GraphFact]:  # noqa: ANN401 - vLLM's own
    """Yield the sizes of target and drafter."""
    query_len = found(runner, "uniform_decode_query_len") or 1
    yield from _of_dispatcher("target", found(runner, "cudagraph_dispatcher"), query_len)
    yield from _of_dispatcher("drafter", found(runner, "drafter.cudagraph_dispatcher"), 1)
    for role, _, manager in _managers(runner):
        yield from _of_manager(role, manager)


def pools(runner: Any) -> Iterator[PoolFact]:  # noqa: ANN401 - vLLM's own
    """Yield the pools of target and drafter, where they have graphs."""
    shared = _global_pool()
    for role, family, pool in _pools(runner):
        yield PoolFact(role, family, str(pool), pool == shared)


def _pools(runner: Any) -> Iterator[tuple[str, str, Any]]:  # noqa: ANN401 - vLLM's own
    pools_of_v1 = {wrapper.graph_pool for wrapper in _wrappers()} - {None}
    # A wrapper does not say whose graphs it holds. With one pool for all nobody needs to know.
    if len(pools_of_v1) == 1:
        (pool,) = pools_of_v1
        for role, path in (("target", ""), ("drafter", "drafter.")):
            keys = found(runner, f"{path}cudagraph_dispatcher.cudagraph_keys") or {}
            if any(keys.values()):
                yield role, "CUDAGraphWrapper", pool
    for role, family, manager in _managers(runner):
        if found(manager, "pool") is not None:
            yield role, family, manager.pool


def _wrappers() -> Iterator[Any]:
    """Yield the wrappers of V1 that hold graphs."""
    for name, kind in _WRAPPERS:
        instances = found(sys.modules.get(name), f"{kind}._all_instances") or ()
        yield from (one for one in list(instances) if found(one, "graph_pool") is not None)


def _of_dispatcher(role: str, dispatcher: Any, query_len: int) -> Iterator[GraphFact]:  # noqa: ANN401
    """Yield the keys of a V1 dispatcher."""
    for mode, keys in (found(dispatcher, "cudagraph_keys") or {}).items():
        for key in sorted(keys, key=lambda key: int(key.num_tokens)):
            uniform = query_len if key.uniform else 0
            yield GraphFact(role, mode.name, key.num_tokens, key.num_reqs, uniform)


def _managers(runner: Any) -> Iterator[tuple[str, str, Any]]:  # noqa: ANN401 - vLLM's own
    """Yield the managers of a V2 runner and of its speculator."""
    manager = found(runner, "cudagraph_manager")
    if manager is not None:
        yield "target", "cudagraph_manager", manager
    for name in _MANAGERS:
        manager = found(runner, f"speculator.{name}")
        if manager is not None:
            yield "drafter", name, manager


def _of_manager(role: str, manager: Any) -> Iterator[GraphFact]:  # noqa: ANN401 - vLLM's own
    """Yield what a V2 manager captures."""
    for mode, descs in (found(manager, "_capture_descs") or {}).items():
        for desc in descs:
            query_len = desc.uniform_token_count or 0
            yield GraphFact(role, mode.name, desc.num_tokens, desc.num_reqs, query_len)


def _global_pool() -> Any:  # noqa: ANN401 - a pool's identity
    """Return the pool that vLLM keeps for a process. It is not made here if there is none yet."""
    from vllm.platforms import current_platform

    return found(type(current_platform), "_global_graph_pool")
