"""Reading the logs of engines: what they support, what they exclude, and what they leave open.

The logs are of vLLM, SGLang, TensorRT-LLM and PyTorch's NCCL watchdog, of engines with or without
graphguard. A log is read once, in bounded memory; nothing in it is trusted.
"""

from __future__ import annotations

from graphguard.audit.logs.model import Cause, Diagnosis, Evidence, Reading, Step
from graphguard.audit.logs.reading import as_json, read_bytes, read_log

__all__ = [
    "Cause",
    "Diagnosis",
    "Evidence",
    "Reading",
    "Step",
    "as_json",
    "read_bytes",
    "read_log",
]
