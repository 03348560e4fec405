"""Capturing one graph of the V2 runner again; see :mod:`graphguard.vllm.recapture`.

vLLM captures all that its managers have descriptors of. So for as long as it captures, each of them
has no other descriptor than that of the graph.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from graphguard.errors import ConfigurationError
from graphguard.vllm.captures import Captures, Choice
from graphguard.vllm.captures_v2 import captures_of
from graphguard.vllm.drafter_v2 import MANAGERS

_FULL = "FULL"


def capture_again(runner: Any, steps: Any, role: str, graph: int) -> Captures:  # noqa: ANN401
    """Drop a graph and capture it again.

    Args:
        runner: vLLM's V2 runner.
        steps: The steps of the model.
        role: ``target`` or ``drafter``.
        graph: The id of the graph.

    Returns:
        The captures of the manager that has it.

    Raises:
        ConfigurationError: If it cannot be captured alone.
    """
    choice: Choice = steps.guard.choices[graph]
    managers = _managers(runner, role)
    manager = managers[steps.pass_of(graph)]
    _require_alone(runner, role, manager, choice)
    with _only(choice, manager, list(managers.values())), _capturing():
        _forget(manager, choice)
        if role == "target":
            args, kwargs = captures_of(manager).arguments or ((), {})
            manager.capture(*args, **kwargs)
        else:
            _capture_drafter(runner)
    return captures_of(manager).graphs


def _managers(runner: Any, role: str) -> dict[str, Any]:  # noqa: ANN401 - vLLM's own
    """Return the graph managers of a model, by pass."""
    if role == "target":
        return {"": runner.cudagraph_manager}
    found = {name: getattr(runner.speculator, it, None) for it, name in MANAGERS.items()}
    return {name: manager for name, manager in found.items() if manager is not None}


def _require_alone(runner: Any, role: str, manager: Any, choice: Choice) -> None:  # noqa: ANN401
    descriptor: Any = choice.descriptor
    reason = ""
    if getattr(runner, "lora_config", None) is not None:
        reason = "vLLM captures with dummies in place of the LoRAs that are loaded"
    elif getattr(descriptor, "num_speculative_tokens", 0):
        reason = "vLLM captures graphs for each number of drafts together"
    elif role == "target" and captures_of(manager).arguments is None:
        reason = "it was not seen how vLLM captured it"
    if reason:
        raise ConfigurationError(
            f"{role} {choice} is not captured again: {reason}",
            hint="graphguard_quarantine takes it out of use",
        )


@contextlib.contextmanager
def _only(choice: Choice, manager: Any, managers: list[Any]) -> Iterator[None]:  # noqa: ANN401
    """Let managers have no descriptors but that of a graph, which one of them has."""
    descriptor: Any = choice.descriptor
    before = [it._capture_descs for it in managers]
    for it in managers:
        it._capture_descs = {descriptor.cg_mode: [descriptor] if it is manager else []}
    try:
        yield
    finally:
        for it, descriptors in zip(managers, before, strict=True):
            it._capture_descs = descriptors


@contextlib.contextmanager
def _capturing() -> Iterator[None]:
    """Let vLLM's wrappers capture, which they may be forbidden once start-up is over."""
    from vllm.compilation import monitor

    before = monitor.cudagraph_capturing_enabled
    monitor.set_cudagraph_capturing_enabled(True)
    try:
        yield
    finally:
        monitor.set_cudagraph_capturing_enabled(before)


def _forget(manager: Any, choice: Choice) -> None:  # noqa: ANN401 - vLLM's own
    descriptor: Any = choice.descriptor
    captures = captures_of(manager).graphs
    owners = captures.owners(choice)
    captures.forget(choice)
    if choice.mode == _FULL:
        manager.graphs.pop(descriptor, None)
        return
    for wrapper in owners:
        # A breakable wrapper calls them otherwise.
        own = vars(wrapper)
        entries = own["entries" if "entries" in own else "concrete_cudagraph_entries"]
        for key, entry in list(entries.items()):
            sizes = entry.batch_descriptor
            if (sizes.num_tokens, sizes.num_active_loras) == (
                descriptor.num_tokens,
                getattr(descriptor, "num_active_loras", 0),
            ):
                del entries[key]


def _capture_drafter(runner: Any) -> None:  # noqa: ANN401 - vLLM's own
    from vllm.v1.worker.gpu import model_runner

    speculator = runner.speculator
    # 0.20 calls it otherwise.
    has_capture = hasattr(type(speculator), "capture")
    capture = speculator.capture if has_capture else speculator.capture_model
    with contextlib.ExitStack() as stack:
        if (lane := getattr(model_runner, "use_workspace_lane", None)) is not None:
            stack.enter_context(lane(runner._draft_workspace_lane))
        capture()
