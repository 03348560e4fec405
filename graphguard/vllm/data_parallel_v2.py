"""The hook of the V2 runner and its speculators where data-parallel ranks have just agreed.

Each module imports ``dispatch_cg_and_sync_dp`` by name. It dispatches, makes the ranks agree, and
dispatches again; what it returns is what is launched.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from graphguard.vllm.data_parallel_coordination import skipped
from graphguard.vllm.drafter_v2 import SPECULATORS
from graphguard.vllm.patches import Function, wrap
from graphguard.vllm.worker_guard import worker_guard

_NAME = "dispatch_cg_and_sync_dp"
_DP_SIZE = 4


def install() -> None:
    """Put the hook of the runner in place. Called again, it does nothing."""
    from vllm.v1.worker.gpu import model_runner

    wrap(model_runner, _NAME, _of_target)


def install_in_speculators() -> None:
    """Put the hook of the speculators in place that are imported; called again, in new ones."""
    for name in SPECULATORS:
        module = sys.modules.get(name)
        if module is not None and hasattr(module, _NAME):
            wrap(module, _NAME, _of_drafter)


def _of_target(original: Function) -> Function:
    return _compared("target", original)


def _of_drafter(original: Function) -> Function:
    return _compared("drafter", original)


def _compared(role: str, original: Function) -> Callable[..., Any]:
    worker = worker_guard()

    def dispatch_cg_and_sync_dp(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        result = original(*args, **kwargs)
        steps = worker.data_parallel
        if steps is None:
            return result
        try:
            dp_size = args[_DP_SIZE] if len(args) > _DP_SIZE else kwargs["dp_size"]
            num_tokens = args[2] if len(args) > 2 else kwargs["num_tokens"]
            descriptor, agreed = result
            # An agreement that is used once more holds no rank in step; and where no rank has
            # anything to run, nothing is launched.
            new = kwargs.get("dp_sync_state") is None and agreed is not None and dp_size > 1
            launch = (descriptor.cg_mode.name, num_tokens, descriptor.num_tokens)
            if not new or skipped():
                return result
        except Exception as error:  # noqa: BLE001 - the step runs as it would without us
            steps.not_compared(role, error)
            return result
        steps.launching(role, *launch)
        return result

    return dispatch_cg_and_sync_dp
