"""The stages, in the order in which they run: what much else rests on comes first."""

from __future__ import annotations

from tests.gpu.suite.stage import Stage, if_there, program, pytest_file

_VLLM_SECONDS = 280.0

STAGES: tuple[Stage, ...] = (
    pytest_file(1, "torch-cuda", "the decorator on torch's CUDA graphs, 1,000 of them", 120.0),
    pytest_file(1, "graph-nodes", "the nodes of graphs, as the driver tells them", 120.0, True),
    pytest_file(1, "spine", "graphs of programs that know nothing of graphguard", 150.0),
    pytest_file(1, "cupy", "captures of cupy", 60.0),
    pytest_file(1, "padding-samples", "samples of padded slots on the device", 60.0),
    pytest_file(1, "run", "`graphguard run` on a program with graphs", 90.0),
    pytest_file(1, "agreement", "ranks that agree beside a CUDA context", 120.0),
    program(1, "captures", "digests and addresses over 1,000 replays; each way a step goes", 60.0),
    program(2, "cost", "bare replays against guarded ones; captures; the node walk", 120.0),
    pytest_file(3, "nccl-plugin", "NCCL's profiler plugin on real ranks", 120.0, True),
    pytest_file(3, "nccl-interposer", "the interposer before real NCCL", 120.0, True),
    program(3, "nccl", "two ranks: equal graphs with and without recording; the audit", 120.0),
    program(3, "nccl_threads", "two ranks as threads of one process", 60.0),
    program(4, "deadlock", "ranks that replay different graphs: off, observe, enforce", 150.0),
    program(4, "stall", "a replay that waits for a flag of the host", 90.0),
    *if_there(
        pytest_file(
            4, "breadcrumbs", "breadcrumbs by kind: outputs, cost, a stall's place", 120.0, True
        )
    ),
    *if_there(pytest_file(4, "evidence", "what is kept of a process that stalls", 120.0)),
    program(6, "topk", "persistent_topk with padded rows of length -1", 240.0),
    program(5, "vllm-0.20.1-piecewise", "vLLM's V1 runner", _VLLM_SECONDS, "0.20.1"),
    program(
        5, "vllm-0.20.1-full", "V1, full graphs only", _VLLM_SECONDS, "0.20.1", "FULL_DECODE_ONLY"
    ),
    program(5, "vllm-0.26.0-piecewise", "vLLM's V2 runner", _VLLM_SECONDS, "0.26.0"),
    program(
        5, "vllm-0.26.0-full", "V2, full graphs only", _VLLM_SECONDS, "0.26.0", "FULL_DECODE_ONLY"
    ),
    program(5, "vllm_ranks-0.20.1", "TP=2 on one device, V1", 200.0, "0.20.1"),
    program(5, "vllm_ranks-0.26.0", "TP=2 on one device, V2", 200.0, "0.26.0"),
    program(7, "soak", "random traffic, enforced, without a false finding", 120.0),
)
