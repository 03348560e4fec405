"""A real vLLM engine on the CPU for tests, with emulated graphs captured and replayed in it.

``README.md`` beside this file says how tests use it.
"""

from __future__ import annotations

from tests.vllm.engine.emulation.settings import Emulation, Fault, FaultKind, Piecewise
from tests.vllm.engine.offline import EngineRun, engine
from tests.vllm.engine.running import EngineFailed
from tests.vllm.engine.serving import ServerRun, server
from tests.vllm.engine.trace import Event, Trace

__all__ = [
    "Emulation",
    "EngineFailed",
    "EngineRun",
    "Event",
    "Fault",
    "FaultKind",
    "Piecewise",
    "ServerRun",
    "Trace",
    "engine",
    "server",
]
