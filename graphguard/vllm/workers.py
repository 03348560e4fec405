"""The hooks of vLLM's workers: the end of start-up, where all ranks compare their graphs."""

from __future__ import annotations

import sys
from typing import Any

from graphguard.vllm.patches import Function, wrap
from graphguard.vllm.worker_guard import worker_guard

_CLASSES = (("vllm.v1.worker.gpu_worker", "Worker"), ("vllm.v1.worker.cpu_worker", "CPUWorker"))


def install() -> None:
    """Put the hooks in place in the workers that are imported. Called again, it does nothing."""
    for module, name in _CLASSES:
        worker = getattr(sys.modules.get(module), name, None)
        if worker is not None and "compile_or_warm_up_model" in vars(worker):
            wrap(worker, "compile_or_warm_up_model", _compile_or_warm_up_model)


def _compile_or_warm_up_model(original: Function) -> Function:
    def compile_or_warm_up_model(self: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        result = original(self, *args, **kwargs)
        worker_guard().seal(self.model_runner, everywhere=True)
        return result

    return compile_or_warm_up_model
