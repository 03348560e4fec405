"""What the guard adds to a replay and to a capture, and what a walk over the nodes takes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.gpu.suite import needs
from tests.gpu.suite.lines import NotRun, tell
from tests.gpu.suite.measuring import host_microseconds, in_turn, tell_figures
from tests.gpu.suite.program import run_stage
from tests.gpu.suite.settings import Settings

NEEDS = (needs.device,)
NODES = (1, 100, 2_000)
ROUNDS = {1: 1_000, 100: 1_000, 2_000: 200}
CAPTURE_ROUNDS = 20
CAPTURE_NODES = 100


def run(settings: Settings) -> None:
    """Measure each of them."""
    import torch
    import torch.distributed as dist

    rendezvous = Path(settings.scratch, "rendezvous")
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=0, world_size=1)
    fewer = 20 if settings.emulated else 1
    with torch.no_grad():
        for nodes in NODES:
            _replays(settings, nodes, ROUNDS[nodes] // fewer)
        _captures(settings)
        if settings.emulated:
            tell(NotRun("the walk over nodes", "an emulated graph has no nodes"))
        else:
            for nodes in NODES:
                _walk(nodes)
    dist.destroy_process_group()


def _body(device: str, nodes: int) -> tuple[Any, Callable[[object], None]]:
    import torch

    x = torch.zeros(1024, device=device)

    def forward(_batch: object) -> None:
        for _ in range(nodes):
            x.add_(1)

    return x, forward


def _guarded(device: str, nodes: int, mode: str, *, group: bool = False) -> Any:
    import torch.distributed as dist

    from graphguard import BatchDescriptor, Captured, Session, graphs, guard

    x, forward = _body(device, nodes)

    def capture(batch: BatchDescriptor) -> Captured:
        forward(batch)
        graph = graphs.new()
        with graphs.capture(graph):
            forward(batch)
        return Captured(graph, inputs={"x": x}, outputs=x)

    options: dict[str, Any] = {"group": dist.group.WORLD} if group else {}
    made = guard("target", eager=forward, session=Session(), mode=mode, **options)(capture)
    made.warm_up([BatchDescriptor.of(16, 2)])
    return made


def _replays(settings: Settings, nodes: int, rounds: int) -> None:
    from graphguard import BatchDescriptor

    batch = BatchDescriptor.of(16, 2)
    steps = {
        "observe": _guarded(settings.device, nodes, "observe"),
        "enforce": _guarded(settings.device, nodes, "enforce"),
        "enforce with a ledger": _guarded(settings.device, nodes, "enforce", group=True),
    }
    bare = steps["enforce"]._graphs.captured[0].graph.replay
    candidates = {"bare replay": bare}
    candidates |= {name: lambda step=step: step(batch) for name, step in steps.items()}
    about = _nodes(nodes)

    def on_host(candidate: Callable[[], object]) -> float:
        _finish(settings.device)
        return host_microseconds(candidate)

    values = in_turn(candidates, rounds, on_host)
    tell_figures(values, "µs of the CPU", "bare replay", about)
    beyond = {
        f"{name} beyond bare": [
            own - base for own, base in zip(values[name], values["bare replay"], strict=True)
        ]
        for name in steps
    }
    tell_figures(beyond, "µs of the CPU", about=about)
    if settings.emulated:
        tell(NotRun(f"GPU time, {about}", "emulated graphs run on the CPU"))
        return
    values = in_turn(candidates, rounds, _gpu_microseconds)
    tell_figures(values, "µs of the GPU", "bare replay", about)


def _nodes(number: int) -> str:
    return f"{number} node" if number == 1 else f"{number} nodes"


def _finish(device: str) -> None:
    if device == "cuda":
        import torch

        torch.cuda.synchronize()


def _gpu_microseconds(candidate: Callable[[], object]) -> float:
    import torch

    torch.cuda.synchronize()
    began = torch.cuda.Event(enable_timing=True)
    ended = torch.cuda.Event(enable_timing=True)
    began.record()
    candidate()
    ended.record()
    ended.synchronize()
    return float(began.elapsed_time(ended)) * 1e3


def _captures(settings: Settings) -> None:
    def capture(mode: str) -> Callable[[], object]:
        return lambda: _guarded(settings.device, CAPTURE_NODES, mode)

    candidates = {"capture": capture("off"), "recorded capture": capture("enforce")}
    values = in_turn(candidates, CAPTURE_ROUNDS, host_microseconds, warm_up=2)
    tell_figures(values, "µs of the CPU", "capture", _nodes(CAPTURE_NODES))


def _walk(nodes: int) -> None:
    import torch

    from graphguard import _core
    from graphguard.graphs.contents import contents_of_handle

    _, forward = _body("cuda", nodes)
    forward(None)
    graph = torch.cuda.CUDAGraph(keep_graph=True)
    with torch.cuda.graph(graph):
        forward(None)
    handle = graph.raw_cuda_graph()
    candidates: dict[str, Callable[[], object]] = {
        "walk": lambda: _core.walk_graph(handle),
        "walk, counted and digested": lambda: contents_of_handle(handle),
    }
    values = in_turn(candidates, 50, host_microseconds, warm_up=3)
    tell_figures(values, "µs of the CPU", about=_nodes(nodes))


if __name__ == "__main__":
    run_stage("cost", NEEDS, run)
