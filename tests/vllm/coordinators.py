"""Two real ranks of vLLM's CPU build, tensor parallel, that communicate through its coordinators.

A test names a function of this file. Each rank runs it, and the JSON of what it returned comes
back. Run as a module, this file is one rank.
"""

from __future__ import annotations

import faulthandler
import functools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

RANKS = 2
TIMEOUT_SECONDS = 150.0
SHARED_MEMORY = Path("/dev", "shm")


def run(program: str, folder: Path) -> list[Any]:
    """Run a program on both ranks; a rank that fails or hangs fails the test."""
    processes = [_start(program, rank, folder) for rank in range(RANKS)]
    deadline = time.monotonic() + TIMEOUT_SECONDS
    try:
        for process in processes:
            process.wait(timeout=max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        pass
    finally:
        for process in processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        # What a rank that was killed leaves of vLLM's shared memory.
        for segment in SHARED_MEMORY.glob(f"{folder.name}-*"):
            segment.unlink()
    if any(process.returncode for process in processes):
        raise AssertionError(
            "\n".join((folder / f"output.{rank}").read_text()[-4000:] for rank in range(RANKS))
        )
    return [json.loads((folder / f"result.{rank}").read_text()) for rank in range(RANKS)]


def _start(program: str, rank: int, folder: Path) -> subprocess.Popen[bytes]:
    environment = {
        **os.environ,
        "GLOO_SOCKET_IFNAME": "lo",
        "VLLM_DIST_IDENT": folder.name,
        "VLLM_LOGGING_LEVEL": "WARNING",
        "OMP_NUM_THREADS": "1",
    }
    with (folder / f"output.{rank}").open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.vllm.coordinators", program, str(rank), str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            cwd=Path(__file__).parents[2],
            env=environment,
        )


def every_operation(rank: int) -> dict[str, Any]:
    """Each operation of a coordinator, on groups with vLLM's shared memory and on one without."""
    import torch
    from vllm.distributed import parallel_state

    ones = torch.ones(4, 6)

    def communicate(group: Any) -> None:
        group.all_reduce(ones)
        group.all_gather(ones.to(torch.bfloat16), 0)
        group.gather(ones[:2], 1)
        group.broadcast(ones, 1)

    def pass_on(group: Any) -> None:
        tensors = {"hidden": ones, "empty": torch.empty(0), "residual": torch.ones(3)}
        if rank == 0:
            group.send_tensor_dict(tensors)
            group.send(ones.long())
        else:
            group.recv_tensor_dict()
            group.recv(ones.size(), torch.int64)

    plain = parallel_state.init_model_parallel_group([[0, 1]], rank, "gloo", group_name="dp")
    # The pipeline's group has shared memory as well, but not in a job of one stage.
    stages = parallel_state.init_model_parallel_group([[0, 1]], rank, "gloo", group_name="pp")
    seen = {
        "tensor parallel": recorded(lambda: communicate(parallel_state.get_tp_group())),
        "pipeline": recorded(lambda: pass_on(stages)),
        "plain": recorded(lambda: communicate(plain)) + recorded(lambda: pass_on(plain)),
        "scatter": recorded(lambda: plain.reduce_scatter(torch.ones(4, 6), 0)),
    }
    given = {"hidden": torch.ones(5)} if rank == 0 else None
    seen["tensors"] = recorded(lambda: plain.broadcast_tensor_dict(given))
    seen["one rank"] = recorded(lambda: parallel_state.get_pp_group().all_reduce(ones))
    return seen


def pipeline_with_tensor_groups(rank: int) -> list[dict[str, Any]]:
    """A dictionary of tensors of which each rank sends a share, gathered again by the receivers."""
    import torch
    from vllm.distributed import parallel_state

    tensor_group = parallel_state.get_tp_group()
    stage = parallel_state.init_model_parallel_group([[0, 1]], rank, "gloo", group_name="stage")

    def pass_on() -> None:
        if rank == 0:
            stage.send_tensor_dict({"hidden": torch.ones(4, 6)}, all_gather_group=tensor_group)
            tensor_group.all_gather(torch.ones(1, 12), 0)
        else:
            stage.recv_tensor_dict(all_gather_group=tensor_group)

    return recorded(pass_on)


def compiled(rank: int) -> dict[str, Any]:
    """Code that torch.compile made: vLLM's operator, and what it traces of a coordinator."""
    import torch
    from vllm.distributed import parallel_state

    group = parallel_state.get_tp_group()
    graphs: list[list[str]] = []

    def backend(module: torch.fx.GraphModule, _inputs: object) -> Callable[..., Any]:
        graphs.append([str(node.target) for node in module.graph.nodes])
        return module.forward

    def through_operator(tensor: torch.Tensor) -> torch.Tensor:
        summed: torch.Tensor = torch.ops.vllm.all_reduce(tensor * 2, group_name=group.unique_name)
        return summed + 1

    def as_on_a_device(tensor: torch.Tensor) -> torch.Tensor:
        summed: torch.Tensor = group.all_reduce(tensor * 2)
        return summed + 1

    seen: dict[str, Any] = {}
    for name, function, custom_op in (
        ("operator", through_operator, False),
        ("traced", as_on_a_device, True),
        ("traced on the CPU", as_on_a_device, False),
    ):
        torch._dynamo.reset()
        graphs.clear()
        group.use_custom_op_call = custom_op
        run_compiled = torch.compile(function, backend=backend, fullgraph=True)
        value = run_compiled(torch.ones(3)).tolist()
        calls = recorded(functools.partial(run_compiled, torch.ones(3)))
        seen[name] = {"value": value, "calls": calls, "graphs": list(graphs)}
    return seen


def captured(rank: int) -> dict[str, Any]:
    """Emulated captures and their replays: vLLM's operator, its shared memory, compiled code."""
    import torch
    from vllm.distributed import parallel_state

    import graphguard
    from graphguard.graphs.emulated import EmulatedGraph

    group = parallel_state.get_tp_group()
    given = torch.ones(3)

    def reduce() -> torch.Tensor:
        summed: torch.Tensor = group.all_reduce(given * (rank + 1))
        return summed

    def seen_in(function: Callable[[], torch.Tensor], *, custom_op: bool) -> dict[str, Any]:
        # As on a device: there vLLM calls an operator of its own.
        group.use_custom_op_call = custom_op
        graph = EmulatedGraph()
        results = []

        def capture() -> None:
            with graphguard.capture(graph):
                results.append(function())

        calls = recorded(capture)
        replayed = recorded(graph.replay)
        return {"calls": calls, "replayed": replayed, "value": results[0].tolist()}

    return {
        "operator": seen_in(reduce, custom_op=True),
        "shared memory": seen_in(reduce, custom_op=False),
    }


def everything(rank: int) -> dict[str, Any]:
    """All of the above, in one start of vLLM."""
    return {
        "captured": captured(rank),
        "compiled": compiled(rank),
        "pipeline": pipeline_with_tensor_groups(rank),
        "operations": every_operation(rank),
    }


def recorded(function: Callable[[], object]) -> list[dict[str, Any]]:
    import msgspec

    from graphguard.vllm.collectives import CommunicatorRecorder

    with CommunicatorRecorder() as recorder:
        function()
    if recorder.failure is not None:
        raise recorder.failure
    return [msgspec.to_builtins(call) for call in recorder.calls]


def _main(program: str, rank: int, folder: Path) -> None:
    import torch

    from graphguard.vllm.collectives import install

    faulthandler.dump_traceback_later(TIMEOUT_SECONDS - 10, exit=True)
    install()
    # The operators of the CPU build, as its worker loads them.
    import vllm._custom_ops  # noqa: F401
    from vllm.config import VllmConfig, set_current_vllm_config
    from vllm.distributed import parallel_state

    torch.set_num_threads(1)
    with set_current_vllm_config(VllmConfig()), torch.inference_mode():
        parallel_state.init_distributed_environment(
            RANKS, rank, f"file://{folder / 'rendezvous'}", rank, "gloo"
        )
        parallel_state.initialize_model_parallel(RANKS)
        result = globals()[program](rank)
    (folder / f"result.{rank}").write_text(json.dumps(result))
    parallel_state.destroy_model_parallel()
    parallel_state.destroy_distributed_environment()


if __name__ == "__main__":
    _main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
