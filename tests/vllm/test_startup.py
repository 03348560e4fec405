"""Reading the facts of an engine off vLLM's own classes, on the CPU.

What a GPU engine alone has is not real here: the custom all-reduce's list of buffers and NCCL's
version are stand-ins, set into vLLM's own registry of groups.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from graphguard.vllm.startup import EngineFacts, audit_engine
from graphguard.vllm.startup.facts import AllReduceFact, GraphFact, PoolFact
from graphguard.vllm.startup.reading import engine_facts

# vLLM and what it imports warn about much that is not ours to mend.
pytestmark = pytest.mark.filterwarnings("default")

SIZES = [1, 2, 4, 8, 16]


def config(mode: str, num_speculative_tokens: int = 1, **speculative: Any) -> Any:
    """A configuration for the CPU, with the graphs that the CPU platform takes away put back."""
    from vllm.config import CompilationConfig, CUDAGraphMode, DeviceConfig, VllmConfig

    vllm_config = VllmConfig(device_config=DeviceConfig(device="cpu"))
    compilation = CompilationConfig(
        mode=3, cudagraph_mode=CUDAGraphMode[mode], cudagraph_capture_sizes=list(SIZES)
    )
    compilation.max_cudagraph_capture_size = max(SIZES)
    compilation.set_splitting_ops_for_v1(all2all_backend="naive")
    vllm_config.compilation_config = compilation
    # Making a real one loads a drafter's configuration.
    vllm_config.speculative_config = SimpleNamespace(
        num_speculative_tokens=num_speculative_tokens,
        method="mtp",
        enforce_eager=None,
        disable_padded_drafter_batch=False,
        **speculative,
    )
    return vllm_config


def v1_runner(vllm_config: Any) -> Any:
    """The dispatchers of target and drafter, and a drafter that vLLM does not compile."""
    import torch
    from vllm.config import CUDAGraphMode
    from vllm.v1.cudagraph_dispatcher import CudagraphDispatcher

    query_len = 1 + vllm_config.speculative_config.num_speculative_tokens
    dispatchable = SimpleNamespace(
        compilation_config=vllm_config.compilation_config,
        scheduler_config=vllm_config.scheduler_config,
        speculative_config=vllm_config.speculative_config,
        num_speculative_tokens=query_len - 1,
        lora_config=None,
    )
    target, drafter = CudagraphDispatcher(dispatchable), CudagraphDispatcher(dispatchable)
    mode = vllm_config.compilation_config.cudagraph_mode
    target.initialize_cudagraph_keys(mode, query_len)
    mixed = mode.mixed_mode()
    drafter.initialize_cudagraph_keys(
        CUDAGraphMode.PIECEWISE if mixed is CUDAGraphMode.PIECEWISE else CUDAGraphMode.NONE
    )
    return SimpleNamespace(
        cudagraph_dispatcher=target,
        uniform_decode_query_len=query_len,
        drafter=SimpleNamespace(cudagraph_dispatcher=drafter, model=torch.nn.Linear(2, 2)),
    )


def rules(facts: EngineFacts) -> list[str]:
    return [finding.rule for finding in audit_engine(facts)]


def test_the_facts_of_a_v1_engine_are_read_from_its_configuration_and_dispatchers() -> None:
    vllm_config = config("FULL_AND_PIECEWISE")
    facts = engine_facts(vllm_config, v1_runner(vllm_config))

    assert (facts.runner, facts.decode_mode, facts.mixed_mode) == ("v1", "FULL", "PIECEWISE")
    assert facts.capture_sizes == tuple(SIZES)
    assert facts.query_len == 2
    assert facts.release >= (0, 20)
    assert GraphFact("target", "FULL", 16, 8, 2) in facts.graphs
    assert GraphFact("drafter", "PIECEWISE", 16) in facts.graphs
    assert facts.drafter is not None
    assert (facts.drafter.method, facts.drafter.model) == ("mtp", "Linear")
    assert (facts.drafter.capturable, facts.drafter.padded) == (False, True)
    assert (facts.capability, facts.nccl_version, facts.all_reduces) == (None, None, ())
    assert (facts.sparse_topk, facts.indexer_clamps) == (0, None)
    assert rules(facts) == ["eager-drafter"]


def test_sizes_that_vllm_does_not_round_are_found_in_its_own_keys() -> None:
    """Rounding is left out here as it is in PIECEWISE mode, so 1 token is a size for 2 each."""
    piecewise = config("PIECEWISE")
    assert "piecewise-size-not-aligned" in rules(engine_facts(piecewise, v1_runner(piecewise)))


def test_sizes_that_vllm_has_rounded_are_left_alone() -> None:
    vllm_config = config("FULL_AND_PIECEWISE", num_speculative_tokens=2)
    vllm_config.compilation_config.adjust_cudagraph_sizes_for_spec_decode(3)
    facts = engine_facts(vllm_config, v1_runner(vllm_config))
    assert facts.capture_sizes != tuple(SIZES)
    assert GraphFact("target", "FULL", 9, 3, 3) in facts.graphs
    assert "uniform-size-not-aligned" not in rules(facts)


def test_a_drafter_with_the_decorator_is_known_as_compiled() -> None:
    import torch
    from vllm.compilation.wrapper import TorchCompileWithNoGuardsWrapper

    class Compiled(torch.nn.Module, TorchCompileWithNoGuardsWrapper):  # type: ignore[misc]
        do_not_compile = False

        def __init__(self) -> None:
            torch.nn.Module.__init__(self)

    vllm_config = config("FULL_AND_PIECEWISE")
    runner = v1_runner(vllm_config)
    runner.drafter.model = torch.nn.Sequential(Compiled())
    facts = engine_facts(vllm_config, runner)
    assert facts.drafter is not None
    assert facts.drafter.capturable
    assert "eager-drafter" not in rules(facts)


def test_a_drafter_inside_a_wrapper_is_known_as_capturable() -> None:
    import torch

    vllm_config = config("FULL_AND_PIECEWISE")
    runner = v1_runner(vllm_config)
    runner.drafter.model = SimpleNamespace(runnable=torch.nn.Linear(2, 2))
    facts = engine_facts(vllm_config, runner)
    assert facts.drafter is not None
    assert (facts.drafter.capturable, facts.drafter.model) == (True, "Linear")


def test_the_pool_of_all_wrappers_is_known_to_be_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm.compilation.cuda_graph import CUDAGraphWrapper
    from vllm.platforms import current_platform

    pool = (0, 7)
    wrapper = CUDAGraphWrapper.__new__(CUDAGraphWrapper)
    wrapper.graph_pool = pool
    monkeypatch.setattr(CUDAGraphWrapper, "_all_instances", {wrapper})
    monkeypatch.setattr(type(current_platform), "_global_graph_pool", pool)

    vllm_config = config("FULL_AND_PIECEWISE")
    facts = engine_facts(vllm_config, v1_runner(vllm_config))
    assert facts.pools == (
        PoolFact("target", "CUDAGraphWrapper", "(0, 7)", True),
        PoolFact("drafter", "CUDAGraphWrapper", "(0, 7)", True),
    )


def test_communicators_are_read_from_vllms_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm import _custom_ops
    from vllm.distributed import parallel_state

    used = SimpleNamespace(disabled=False, _IS_CAPTURING=False, _ptr=1)
    unused = SimpleNamespace(disabled=True, _IS_CAPTURING=False, _ptr=0)
    tp = SimpleNamespace(
        device_communicator=SimpleNamespace(
            ca_comm=used, pynccl_comm=SimpleNamespace(nccl_version=22809)
        )
    )
    pp = SimpleNamespace(device_communicator=SimpleNamespace(ca_comm=unused, pynccl_comm=None))
    gone: Any = None
    groups = {"tp:0": lambda: tp, "pp:0": lambda: pp, "dp:0": lambda: gone}
    monkeypatch.setattr(parallel_state, "_groups", groups)
    monkeypatch.setattr(parallel_state, "_NODE_COUNT", 2)
    monkeypatch.setattr(
        _custom_ops, "get_graph_buffer_ipc_meta", lambda _pointer: ([1, 2, 3], [0, 8])
    )

    facts = engine_facts(config("FULL_AND_PIECEWISE"))
    assert facts.all_reduces == (AllReduceFact("tp:0", False, 2),)
    assert (facts.nccl_version, facts.num_nodes) == (22809, 2)
    assert rules(facts)[:2] == ["unregistered-all-reduce-buffers", "nccl-replay-hangs"]


def test_the_indexer_of_this_vllm_is_read_for_models_that_have_one() -> None:
    vllm_config = config("FULL_AND_PIECEWISE")
    vllm_config.model_config = SimpleNamespace(
        hf_text_config=SimpleNamespace(index_topk=2048), hf_config=None
    )
    facts = engine_facts(vllm_config)
    assert facts.sparse_topk == 2048
    assert facts.indexer_clamps is (facts.release >= (0, 32))


def test_the_graphs_and_pools_of_a_v2_runner_are_read_from_its_managers() -> None:
    from vllm.config import CUDAGraphMode
    from vllm.v1.worker.gpu.cudagraph_utils import BatchExecutionDescriptor

    def manager(pool: tuple[int, int], *sizes: tuple[int, int, int]) -> Any:
        descs = [
            BatchExecutionDescriptor(
                cg_mode=CUDAGraphMode.FULL,
                num_tokens=tokens,
                num_reqs=reqs,
                uniform_token_count=query_len,
            )
            for tokens, reqs, query_len in sizes
        ]
        return SimpleNamespace(pool=pool, _capture_descs={CUDAGraphMode.FULL: descs})

    runner = SimpleNamespace(
        cudagraph_manager=manager((0, 1), (32, 16, 2)),
        speculator=SimpleNamespace(
            prefill_cudagraph_manager=manager((0, 2), (32, 16, 2)),
            decode_cudagraph_manager=manager((0, 2), (16, 16, 1)),
        ),
    )
    facts = engine_facts(config("FULL_AND_PIECEWISE"), runner)
    assert facts.runner == "v2"
    assert facts.graphs == (
        GraphFact("target", "FULL", 32, 16, 2),
        GraphFact("drafter", "FULL", 32, 16, 2),
        GraphFact("drafter", "FULL", 16, 16, 1),
    )
    assert [(pool.role, pool.pool) for pool in facts.pools] == [
        ("target", "(0, 1)"),
        ("drafter", "(0, 2)"),
        ("drafter", "(0, 2)"),
    ]
    assert rules(facts) == []


@pytest.mark.parametrize("nothing", [None, object(), SimpleNamespace(compilation_config=3)])
def test_an_unknown_engine_is_read_as_knowing_nothing(nothing: object) -> None:
    facts = engine_facts(nothing, nothing)
    assert facts == EngineFacts(vllm_version=facts.vllm_version, breakable=facts.breakable)
