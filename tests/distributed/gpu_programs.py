"""What ranks run that share one GPU: CUDA graphs, and a gloo group to agree over.

NCCL takes no two ranks on one device, so these graphs hold no collective. What is tested is that
agreement, ledger and watcher work beside a CUDA context.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

from graphguard import BatchDescriptor, RanksDiverged, Session
from tests.gpu.step import MAX_TOKENS, Step

OF = BatchDescriptor.of


def agreed_on_one_gpu() -> dict[str, Any]:
    """Serve equal steps, then let rank 1 ask for another batch than the others."""
    step = Step()
    step.hidden.normal_()
    guarded = step.guarded(Session(), group=dist.group.WORLD, unpad="tokens")
    verdicts, equal = [], []
    for batch in (OF(16, 2), OF(15, 2), OF(15, 1)):
        out = guarded(batch)
        verdicts.append(str(guarded.last_verdict))
        equal.append(torch.allclose(out, step.forward(batch), atol=1e-5))
    dist.barrier()
    message = ""
    try:
        guarded(OF(3, 1) if dist.get_rank() == 1 else OF(MAX_TOKENS, 1))
        dist.barrier()
        guarded(OF(16, 2))
    except RanksDiverged as error:
        message = error.message
        if "is refused" in message:
            dist.barrier()
    return {"verdicts": verdicts, "equal": equal, "message": message}
