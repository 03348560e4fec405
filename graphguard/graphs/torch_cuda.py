"""CUDA graphs of torch.

``torch.cuda.CUDAGraph`` has the surface that graphguard asks for. What is added here are errors
that say what happened: CUDA reports a forbidden operation as an invalidated capture, and only
when the capture ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from graphguard.errors import CaptureError, NestedCapture, OperationNotRecordable

KIND = "torch.cuda"

# What the CUDA runtime says of an operation that a capture cannot hold (cudaErrorStreamCapture*,
# driver_types.h of CUDA 12 and 13).
_FORBIDDEN = ("when stream is capturing", "StreamCapture", "during capture")


def owns(graph: object) -> bool:
    """Whether ``graph`` is a CUDA graph of torch."""
    return isinstance(graph, torch.cuda.CUDAGraph)


def is_capturing() -> bool:
    """Whether the current stream of this thread is being captured."""
    return torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()


@contextmanager
def capture(graph: torch.cuda.CUDAGraph, **options: Any) -> Iterator[torch.cuda.CUDAGraph]:  # noqa: ANN401
    """Capture what runs inside, as ``torch.cuda.graph`` does, with errors that say what happened.

    Raises:
        NestedCapture: If the current stream is being captured already.
        OperationNotRecordable: If CUDA refused an operation while capturing.
    """
    if is_capturing():
        raise NestedCapture(
            "a capture was begun while the current CUDA stream is being captured",
            hint="end the first capture before the second begins",
        )
    try:
        with torch.cuda.graph(graph, **options):
            yield graph
    except CaptureError:
        raise
    except RuntimeError as error:
        if any(words in str(error) for words in _FORBIDDEN):
            raise OperationNotRecordable(
                f"CUDA refused an operation while capturing: {_first_line(error)}",
                hint="keep .item(), .cpu(), synchronize(), pageable copies and first-time "
                "initialisation out of the captured function; run it once before capturing",
            ) from error
        raise


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
