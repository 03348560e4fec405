"""graphguard's log lines among vLLM's own."""

from __future__ import annotations

from graphguard.log import logger


def speak_as_vllm() -> None:
    """Write to where vLLM writes, unless the program has said where graphguard's lines go.

    vLLM sets up the logger ``vllm`` and no other, so that what a plugin says below a warning would
    not be seen.
    """
    import logging

    own, root, vllm = logger(), logging.getLogger(), logging.getLogger("vllm")
    if own.handlers or own.level or root.handlers or not vllm.handlers:
        return
    for handler in vllm.handlers:
        own.addHandler(handler)
    own.setLevel(vllm.level)
    own.propagate = False
