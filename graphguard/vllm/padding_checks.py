"""Looking at padded slots before a launch, so that no fault in looking reaches the engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphguard.vllm.model_guard import ModelGuard
from graphguard.vllm.padding import MetadataView, PaddingFinding
from graphguard.vllm.padding_samples import PaddingSamples


class PaddingChecks:
    """Tells what does not hold in the padded slots of one model's steps.

    Args:
        guard: The guard of the model, which is told.
    """

    def __init__(self, guard: ModelGuard) -> None:
        self._guard = guard
        self._samples = PaddingSamples()

    def look(self, find: Callable[..., list[PaddingFinding]], *what: Any) -> None:  # noqa: ANN401
        """Look at a step that is about to be launched.

        Args:
            find: Finds what does not hold.
            what: What it takes.

        Raises:
            PaddingMismatch: When enforcing, if something does not.
        """
        try:
            findings = find(*what)
        except Exception as error:  # noqa: BLE001 - the step runs as it would without us
            self._guard.say_once("padding", f"padded slots are not checked: {error!r}")
            return
        if findings:
            self._tell(findings)

    def sampled(self, tensors: Callable[..., MetadataView], *what: Any) -> list[PaddingFinding]:  # noqa: ANN401
        """Return what was found in samples of earlier steps, and take one of this if it is due.

        Args:
            tensors: Returns the padded slots as tensors.
            what: What it takes.
        """
        findings = self._samples.findings()
        if self._samples.due():
            self._samples.take(tensors(*what))
        return findings

    def _tell(self, findings: list[PaddingFinding]) -> None:
        try:
            self._guard.padding_breaks(findings)
        except Exception as error:
            if self._guard.enforces:
                raise
            self._guard.say_once("padding", f"{findings[0]} could not be recorded: {error!r}")
