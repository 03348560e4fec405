"""Graphs stay what they were recorded as: digests and addresses over replays and captures."""

from __future__ import annotations

import random

from tests.gpu.suite import needs
from tests.gpu.suite.lines import Claim, tell
from tests.gpu.suite.program import run_stage
from tests.gpu.suite.settings import Settings

NEEDS = (needs.device,)
REPLAYS = 1_000
TOLERANCE = 1e-4


def run(settings: Settings) -> None:
    """Serve a thousand steps of every kind, and capture the same once more."""
    import torch

    with torch.no_grad():
        _served(settings.device)
        _captured_again(settings.device)


def _served(device: str) -> None:
    from graphguard import BatchDescriptor, Phase, Session
    from tests.gpu.step import Step

    step, session = Step(device=device), Session()
    guarded = step.guarded(session, unpad="tokens")
    recorded = [(s.local_digest, s.nodes) for s in session.signatures]
    addresses = {s.name: s.address for g in session.signatures for s in g.tensors}
    drawn = random.Random(1)  # noqa: S311 - traffic, no secret
    worst = 0.0
    for _ in range(REPLAYS):
        phase = drawn.choice((Phase.DECODE, Phase.DECODE, Phase.PREFILL))
        batch = BatchDescriptor.of(drawn.randint(1, 18), drawn.randint(1, 3), phase)
        step.hidden.normal_()
        out = guarded(batch)
        worst = max(worst, float((out - step.forward(batch)).abs().max()))
    verdicts = {str(verdict): n for verdict, n in guarded.verdicts().items()}
    what = f"outputs of {REPLAYS} steps equal an eager run"
    tell(Claim(what, worst <= TOLERANCE, f"largest difference {worst:.2e}; {verdicts}"))
    after = [(s.local_digest, s.nodes) for s in session.signatures]
    moved = step.hidden.data_ptr() != addresses["hidden"]
    tell(Claim("digests and addresses stay over replays", recorded == after and not moved))


def _captured_again(device: str) -> None:
    from graphguard import Session
    from tests.gpu.step import Step

    digests, nodes = [], []
    for _ in range(2):
        step, session = Step(device=device), Session()
        step.guarded(session)
        digests.append([s.shared_digest for s in session.signatures])
        nodes.append([s.nodes for s in session.signatures])
    tell(Claim("equal captures have equal shared digests", digests[0] == digests[1]))
    what = "equal captures have equal digests of nodes"
    tell(Claim(what, nodes[0] == nodes[1] if all(nodes[0]) else None))


if __name__ == "__main__":
    run_stage("captures", NEEDS, run)
