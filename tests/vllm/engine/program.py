"""The program that holds the engine: reads requests from its input, appends answers to a file.

    python -m tests.vllm.engine.program REPLIES ARGUMENTS-OF-LLM-AS-JSON

Its output belongs to vLLM's log.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec


class Program:
    """An ``LLM`` and what the test may ask of it."""

    def __init__(self, arguments: dict[str, Any]) -> None:
        from vllm import LLM

        self._llm = LLM(**arguments)

    def answer(self, request: dict[str, Any]) -> Any:
        """Do what a request asks for."""
        calls: dict[str, Callable[..., Any]] = {
            "generate": self.generate,
            "rpc": self.rpc,
            "metrics": self.metrics,
        }
        return calls[request.pop("call")](**request)

    def generate(self, prompts: list[list[int]], max_tokens: list[int]) -> list[list[int]]:
        """Generate greedily for all prompts at once."""
        from vllm import SamplingParams, TokensPrompt

        outputs = self._llm.generate(
            [TokensPrompt(prompt_token_ids=prompt) for prompt in prompts],
            [
                SamplingParams(temperature=0.0, max_tokens=n, ignore_eos=True, detokenize=False)
                for n in max_tokens
            ],
            use_tqdm=False,
        )
        return [list(output.outputs[0].token_ids) for output in outputs]

    def rpc(self, method: str, arguments: list[Any]) -> list[Any]:
        """Call a method of every worker."""
        answers: list[Any] = self._llm.collective_rpc(method, args=tuple(arguments))
        return answers

    def metrics(self) -> dict[str, float]:
        """Return vLLM's counters and gauges."""
        return {
            metric.name: float(metric.value)
            for metric in self._llm.get_metrics()
            if hasattr(metric, "value")
        }


def main(replies: Path, arguments: str) -> None:
    """Start the engine, say that it is ready, and answer until the input ends."""
    with replies.open("ab", buffering=0) as output:

        def attempt(action: Callable[[], Any]) -> Any:
            try:
                result = action()
                reply: dict[str, Any] = {"answer": None if isinstance(result, Program) else result}
            except Exception as error:  # noqa: BLE001 - the test decides what to make of it
                result, reply = None, {"error": type(error).__name__, "message": str(error)}
            output.write(msgspec.json.encode(reply) + b"\n")
            return result

        program = attempt(lambda: Program(msgspec.json.decode(arguments)))
        if program is None:
            return
        for line in sys.stdin.buffer:
            attempt(lambda line=line: program.answer(msgspec.json.decode(line)))  # type: ignore[misc]


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
