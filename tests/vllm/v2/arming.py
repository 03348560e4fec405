"""Imports the V2 runner of the vLLM on the path as a worker does, and prints what was armed."""

from __future__ import annotations

import contextlib
import importlib
import json

import msgspec


def main() -> None:
    from graphguard.vllm import armed, plugin

    plugin.register()
    importlib.import_module("vllm.v1.worker.gpu_worker")
    importlib.import_module(plugin.RUNNER_V2)
    for name in (*plugin.SPECULATORS_V2, plugin.BREAKABLE):
        with contextlib.suppress(ModuleNotFoundError):
            importlib.import_module(name)
    import torch

    parts = {status.part: msgspec.to_builtins(status) for status in armed.statuses()}
    print(json.dumps({"parts": parts, "initialized": torch.cuda.is_initialized()}))


if __name__ == "__main__":
    main()
