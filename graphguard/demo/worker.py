"""One rank of the demo. Run as ``python -m graphguard.demo.worker`` by the demo itself."""

from __future__ import annotations

import argparse
import faulthandler
import gc
import os
import signal
from pathlib import Path

import torch
import torch.distributed as dist

from graphguard.demo import parts, plan


def main() -> None:
    """Join the other ranks and run a part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", required=True, choices=plan.PARTS)
    parser.add_argument("--rank", type=int, required=True)
    parser.add_argument("--ranks", type=int, required=True)
    parser.add_argument("--rendezvous", type=Path, required=True)
    parser.add_argument("--stacks", type=Path, required=True)
    arguments = parser.parse_args()

    # What was imported stays: searched once more at the end, it would take half a second.
    gc.freeze()
    # The demo asks for stacks with this signal when a rank does not move any more.
    with arguments.stacks.open("w") as stacks:
        faulthandler.register(signal.SIGUSR1, file=stacks, all_threads=False)
        # All ranks are on this machine, whatever its name resolves to.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        torch.set_num_threads(1)
        dist.init_process_group(
            "gloo",
            init_method=f"file://{arguments.rendezvous}",
            rank=arguments.rank,
            world_size=arguments.ranks,
        )
        with torch.no_grad():
            getattr(parts, arguments.part)()
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
