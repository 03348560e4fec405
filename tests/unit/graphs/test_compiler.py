"""Loading torch's compiler leaves the process as it would have been without graphguard."""

import subprocess
import sys
from pathlib import Path

CODE = """
import sys, weakref
import torch
import torch.distributed as dist
dist.init_process_group("gloo", init_method="file://" + sys.argv[1], rank=0, world_size=1)
assert "torch._dynamo" not in sys.modules
from graphguard.graphs.emulated import EmulatedGraph, capture
from graphguard.recorders.c10d import CollectiveRecorder
x, graph = torch.ones(2), EmulatedGraph()
with CollectiveRecorder() as recorder:
    dist.all_reduce(x)
    with capture(graph):
        dist.all_reduce(x)
assert len(recorder.calls) == 2
from torch.distributed.nn import functional
assert torch.equal(functional.all_reduce(x), x)
graph.reset()
group = weakref.ref(dist.group.WORLD)
dist.destroy_process_group()
assert group() is None
"""


def test_a_process_group_ends_when_the_program_destroys_it(tmp_path: Path) -> None:
    """One that lives on keeps threads, which abort the process when it ends."""
    command = [sys.executable, "-W", "ignore", "-c", CODE, str(tmp_path / "rendezvous")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    assert ended.returncode == 0, ended.stderr
