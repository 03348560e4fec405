"""An engine of vLLM that answers requests: ``… REPLIES ARGUMENTS-OF-LLM-AS-JSON``.

Its input has one request a line, its answers go to a file, and its output belongs to vLLM's log.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any


class Program:
    """An ``LLM`` and what may be asked of it."""

    def __init__(self, arguments: dict[str, Any]) -> None:
        from vllm import LLM

        self._llm = LLM(**arguments)

    def answer(self, request: dict[str, Any]) -> Any:
        """Do what a request asks for."""
        if request["call"] == "rpc":
            return self._llm.collective_rpc(request["method"])
        return self._generate(request["prompts"], request["tokens"])

    def _generate(self, prompts: list[list[int]], tokens: int) -> list[list[int]]:
        from vllm import SamplingParams
        from vllm.inputs import TokensPrompt

        greedy = SamplingParams(
            temperature=0.0, max_tokens=tokens, ignore_eos=True, detokenize=False
        )
        made = [TokensPrompt(prompt_token_ids=prompt) for prompt in prompts]
        outputs = self._llm.generate(made, greedy, use_tqdm=False)
        return [list(output.outputs[0].token_ids) for output in outputs]


def main() -> None:
    """Start the engine, say that it is ready, and answer until the input ends."""
    replies = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)

    def attempted(action: Callable[[], Any]) -> Any:
        try:
            return action()
        except Exception as error:  # noqa: BLE001 - whoever asked decides what to make of it
            write({"error": type(error).__name__, "message": str(error)})
            return None

    def write(reply: dict[str, Any]) -> None:
        os.write(replies, json.dumps(reply).encode() + b"\n")

    program = attempted(lambda: Program(json.loads(sys.argv[2])))
    if program is None:
        sys.exit(1)
    write({"answer": "ready"})
    for line in sys.stdin.buffer:
        answer = attempted(lambda line=line: {"answer": program.answer(json.loads(line))})  # type: ignore[misc]
        if answer is not None:
            write(answer)


if __name__ == "__main__":
    main()
