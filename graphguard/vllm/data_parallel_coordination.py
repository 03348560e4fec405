"""Whether data-parallel ranks agree on a launch at all."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def skipped() -> bool:
    """Whether this rank runs without the others for now, as vLLM says since 0.32."""
    asked = _asked()
    return asked is not None and asked()


@cache
def _asked() -> Callable[[], bool] | None:
    from vllm.v1.worker import dp_utils

    return getattr(dp_utils, "should_skip_dp_coordination", None)
