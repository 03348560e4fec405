"""The worker extension: what all workers of an engine can be asked, and told, from outside.

Use it as ``--worker-extension-cls graphguard.vllm.worker.GuardedWorker`` and call its methods with
``collective_rpc``.
"""

from __future__ import annotations

import os
from typing import Any

import msgspec

from graphguard import environment
from graphguard.session import process_rank
from graphguard.version import __version__
from graphguard.vllm import armed


class GuardedWorker:
    """Methods that vLLM adds to its workers."""

    def graphguard_report(self) -> dict[str, Any]:
        """Return what is guarded in this worker, and what is not and why.

        A plugin that vLLM could not load is only a line in its log. Here it shows: ``parts`` is
        empty.
        """
        from graphguard.vllm.worker_guard import worker_guard

        rank, world_size = process_rank()
        worker = worker_guard()
        return {
            "graphguard": __version__,
            "mode": str(environment.mode()),
            "rank": rank,
            "world_size": world_size,
            "pid": os.getpid(),
            "sealed": worker.sealed,
            "models": [_model(steps.guard) for steps in worker.models],
            "data_parallel": _data_parallel(worker.data_parallel),
            "findings": [msgspec.to_builtins(finding) for finding in worker.findings],
            **armed.report(),
        }

    def graphguard_recapture(self, role: str, graph: int) -> str:
        """Capture a graph again. Call it on all workers while no request runs.

        It may move memory that other graphs have baked in: read vLLM's reasons for capturing at
        start-up only before you do.

        Args:
            role: ``target`` or ``drafter``.
            graph: Its place among the graphs of ``graphguard_report``.

        Returns:
            What was captured, in words.
        """
        from graphguard.vllm.recapture import recapture
        from graphguard.vllm.worker_guard import worker_guard

        runner: Any = self.model_runner  # type: ignore[attr-defined]  # vLLM's worker has it
        return recapture(runner, worker_guard(), role, graph)

    def graphguard_quarantine(self, role: str, graph: int) -> int | None:
        """Let no rank use a graph any more. Call it on all workers; the first one announces it.

        Args:
            role: ``target`` or ``drafter``.
            graph: Its place among the graphs of ``graphguard_report``.

        Returns:
            The step from which it holds, or None if it holds at once.
        """
        from graphguard.vllm.worker_guard import worker_guard

        steps = getattr(worker_guard(), role)
        quarantined: int | None = steps.guard.quarantine(graph)
        return quarantined


def _model(guard: Any) -> dict[str, Any]:  # noqa: ANN401 - a ModelGuard, which imports the core
    return {
        "role": guard.key.role,
        "graphs": [str(signature) for signature in guard.signatures],
        "collectives": sum(len(signature.collectives) for signature in guard.signatures),
        "compared_with": [agreement.name for agreement in guard.agreements],
        "divergences": [str(d.text) for a in guard.agreements for d in a.divergences],
        "quarantined": sorted(guard.quarantined),
    }


def _data_parallel(steps: Any) -> dict[str, Any] | None:  # noqa: ANN401 - as above
    if steps is None:
        return None
    agreement = steps.agreement
    return {
        "compared_with": agreement.name,
        "divergences": [str(divergence.text) for divergence in agreement.divergences],
    }
