"""The hooks of the V1 runner and its proposer where data-parallel ranks have just agreed.

``_determine_batch_execution_and_padding`` of each dispatches, makes the ranks agree, and dispatches
again with what they agreed on. What it returns is what is launched.
"""

from __future__ import annotations

from typing import Any

from graphguard.vllm.data_parallel_coordination import skipped
from graphguard.vllm.patches import Function, wrap
from graphguard.vllm.worker_guard import worker_guard

_METHOD = "_determine_batch_execution_and_padding"


def install() -> None:
    """Put the hook of the runner in place. Called again, it does nothing."""
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner

    wrap(GPUModelRunner, _METHOD, _of_target)


def install_in_proposer() -> None:
    """Put the hook of the proposer in place. Called again, it does nothing."""
    from vllm.v1.spec_decode.llm_base_proposer import SpecDecodeBaseProposer

    wrap(SpecDecodeBaseProposer, _METHOD, _of_drafter)


def _of_target(original: Function) -> Function:
    worker = worker_guard()

    def determine(self: Any, num_tokens: int, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        result = original(self, num_tokens, *args, **kwargs)
        if worker.data_parallel is not None:
            _compare("target", num_tokens, result, across=3)
        return result

    return determine


def _of_drafter(original: Function) -> Function:
    worker = worker_guard()

    def determine(self: Any, num_tokens: int, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        result = original(self, num_tokens, *args, **kwargs)
        if worker.data_parallel is not None:
            _compare("drafter", num_tokens, result, across=2)
        return result

    return determine


def _compare(role: str, num_tokens: int, result: Any, across: int) -> None:  # noqa: ANN401
    """Compare what is launched.

    Args:
        role: Which model.
        num_tokens: Its tokens, without padding.
        result: Mode, then descriptor or tokens, and the tokens of all ranks.
        across: Where in it those are; None where the ranks have not agreed on anything.
    """
    steps = worker_guard().data_parallel
    assert steps is not None  # noqa: S101 - the caller has asked
    try:
        if result[across] is None or skipped():
            return
        padded = getattr(result[1], "num_tokens", result[1])
        launch = (result[0].name, num_tokens, int(padded))
    except Exception as error:  # noqa: BLE001 - the step runs as it would without us
        steps.not_compared(role, error)
        return
    steps.launching(role, *launch)
