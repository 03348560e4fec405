"""Guard a capture function with the decorator.

Runs on any machine: with CUDA the graphs are CUDA graphs, without it they are emulated.

    python examples/decorator.py
"""

import torch

import graphguard
from graphguard import BatchDescriptor, Phase

MAX_TOKENS = 32

device = "cuda" if torch.cuda.is_available() else "cpu"
model = torch.nn.Sequential(
    torch.nn.Embedding(1000, 64), torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10)
)
model.to(device).requires_grad_(False)

# A graph reads and writes the memory it was captured with: the program fills this tensor.
tokens = torch.zeros(MAX_TOKENS, dtype=torch.int64, device=device)


def run_eager(batch: BatchDescriptor) -> torch.Tensor:
    """Run a step without a graph."""
    logits: torch.Tensor = model(tokens[: batch.num_tokens])
    return logits


@graphguard.guard("target", eager=run_eager, mode="enforce", unpad="tokens")
def capture(batch: BatchDescriptor) -> graphguard.Captured:
    """Capture the graph for one batch descriptor."""
    run_eager(batch)  # what is initialised on first use must not be captured
    graph = graphguard.new_graph()
    with graphguard.capture(graph):
        out = model(tokens[: batch.num_tokens])
    return graphguard.Captured(graph, inputs={"tokens": tokens}, outputs=out)


def main() -> None:
    """Serve five steps and say what became of each."""
    capture.warm_up(BatchDescriptor.of(n, 2) for n in (1, 2, 4, 8, 16))
    steps = [
        BatchDescriptor.of(16, 2),  # exactly a graph
        BatchDescriptor.of(15, 2),  # padded into 16x2
        BatchDescriptor.of(15, 1),  # no graph has this query length
        BatchDescriptor.of(1, 2, Phase.PREFILL),  # the shape of 1x2, but not a decode
        BatchDescriptor.ragged([7, 1, 1]),  # a prefill among decodes
    ]
    for batch in steps:
        tokens.copy_(torch.randint(1000, (MAX_TOKENS,)))
        out = capture(batch)
        equal = torch.allclose(out, run_eager(batch), atol=1e-5)
        print(f"{batch!s:<12} {capture.last_verdict!s:<22} equal to eager: {equal}")


if __name__ == "__main__":
    main()
