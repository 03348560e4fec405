"""The second family of uniform graphs in vLLM's real dispatcher and runner functions."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from graphguard.vllm import uniform_graphs
from graphguard.vllm.patches import unwrap_all
from tests.vllm.dispatchers import SIZES, dispatcher

pytestmark = pytest.mark.filterwarnings("ignore")

MOST_REQUESTS = 16


@pytest.fixture(autouse=True)
def installed() -> Iterator[None]:
    assert uniform_graphs.install() == []
    yield
    unwrap_all()


def runner(made: Any, *, past_prompts: bool = True) -> Any:
    """Return a runner that has what dispatching a step takes, and no model."""
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner

    prompts = np.full(MOST_REQUESTS, 5)
    bare = GPUModelRunner.__new__(GPUModelRunner)
    vars(bare).update(
        cudagraph_dispatcher=made,
        uniform_decode_query_len=2,
        compilation_config=SimpleNamespace(
            cudagraph_num_of_warmups=0, pass_config=SimpleNamespace(enable_sp=False)
        ),
        parallel_config=SimpleNamespace(use_ubatching=False),
        model_config=SimpleNamespace(is_encoder_decoder=False),
        vllm_config=SimpleNamespace(
            parallel_config=SimpleNamespace(data_parallel_size=1, tensor_parallel_size=1),
            observability_config=SimpleNamespace(cudagraph_metrics=False),
        ),
        input_batch=SimpleNamespace(
            lora_id_to_lora_request={},
            num_computed_tokens_cpu=prompts + (1 if past_prompts else -1),
            num_prompt_tokens=prompts,
        ),
    )
    return bare


def chosen(made: Any, lengths: list[int], **how: Any) -> tuple[str, int, int | None]:
    """Return mode, tokens and requests of the graph for a step."""
    mode, descriptor, *_ = runner(made, **how)._determine_batch_execution_and_padding(
        num_tokens=sum(lengths),
        num_reqs=len(lengths),
        num_scheduled_tokens_np=np.array(lengths, dtype=np.int32),
        max_num_scheduled_tokens=max(lengths),
        use_cascade_attn=False,
    )
    return mode.name, descriptor.num_tokens, descriptor.num_reqs


def full(made: Any) -> set[tuple[int, int]]:
    from vllm.config import CUDAGraphMode

    keys = made.cudagraph_keys[CUDAGraphMode.FULL]
    assert all(key.uniform for key in keys)
    return {(key.num_tokens, key.num_reqs) for key in keys}


def test_both_families_have_their_keys() -> None:
    verify = {(n, n // 2) for n in SIZES}
    single = {(n, n) for n in SIZES if n <= MOST_REQUESTS}
    assert full(dispatcher()) == verify | single
    assert verify.isdisjoint(single)


@pytest.mark.parametrize("requests", [1, 3, 8, 15, 16])
def test_decodes_of_one_token_have_full_graphs(requests: int) -> None:
    fits = min(n for n in SIZES if n >= requests)
    assert chosen(dispatcher(), [1] * requests) == ("FULL", fits, fits)


@pytest.mark.parametrize("requests", [1, 3, 15, 16])
def test_verifications_keep_theirs(requests: int) -> None:
    fits = min(n for n in SIZES if n >= 2 * requests)
    assert chosen(dispatcher(), [2] * requests) == ("FULL", fits, fits // 2)


def test_prefills_of_one_token_do_not_take_a_decode_s_graph() -> None:
    assert chosen(dispatcher(), [1] * 8, past_prompts=False) == ("PIECEWISE", 8, None)


def test_steps_of_other_lengths_do_not_take_one() -> None:
    assert chosen(dispatcher(), [1, 1, 2]) == ("PIECEWISE", 4, None)
    assert chosen(dispatcher(), [3, 3]) == ("PIECEWISE", 8, None)


def test_without_it_vllm_has_no_full_graph_for_them() -> None:
    unwrap_all()
    assert chosen(dispatcher(), [1] * 8) == ("PIECEWISE", 8, None)


def test_where_no_graphs_are_piecewise_either() -> None:
    made = dispatcher("FULL_DECODE_ONLY")
    assert chosen(made, [1] * 8) == ("FULL", 8, 8)
    assert chosen(made, [1] * 8, past_prompts=False)[0] == "NONE"


@pytest.mark.parametrize(("mode", "length"), [("PIECEWISE", 2), ("FULL", 2), ("NONE", 2)])
def test_where_vllm_has_no_family_of_its_own_there_is_no_second(mode: str, length: int) -> None:
    made = dispatcher(mode, length)
    assert not getattr(made, "_graphguard_single_token_graphs", False)
    assert all(not key.uniform for keys in made.cudagraph_keys.values() for key in keys)


def test_without_drafts_the_family_is_vllm_s_own() -> None:
    made = dispatcher(query_len=1)
    assert full(made) == {(n, n) for n in SIZES if n <= MOST_REQUESTS}
    assert not made._graphguard_single_token_graphs


def test_every_rank_captures_in_one_order_from_the_largest() -> None:
    orders = []
    for backwards in (False, True):
        made = dispatcher()
        for mode, keys in made.cudagraph_keys.items():
            # A set gives its items in an order that depends on how it came about.
            made.cudagraph_keys[mode] = dict.fromkeys(sorted(keys, key=repr, reverse=backwards))
        orders.append(made.get_capture_descs())
    assert orders[0] == orders[1]
    for _, descriptors in orders[0]:
        sizes = [descriptor.num_tokens for descriptor in descriptors]
        assert sizes == sorted(sizes, reverse=True)


def test_each_family_is_captured_with_its_own_query_length() -> None:
    from vllm.config import CUDAGraphMode

    made = dispatcher()
    bare = runner(made)
    seen: dict[tuple[int, int], int] = {}

    def dummy_run(num_tokens: int, cudagraph_runtime_mode: Any, **how: Any) -> None:
        # As vLLM's own dummy run begins.
        length = bare.uniform_decode_query_len if how["uniform_decode"] else num_tokens
        requests = -(-num_tokens // length)
        mode, descriptor, *_ = bare._determine_batch_execution_and_padding(
            num_tokens=num_tokens,
            num_reqs=requests,
            num_scheduled_tokens_np=np.full(requests, length, dtype=np.int32),
            max_num_scheduled_tokens=length,
            use_cascade_attn=False,
            force_uniform_decode=how["uniform_decode"],
        )
        assert mode == cudagraph_runtime_mode
        seen[descriptor.num_tokens, descriptor.num_reqs] = length

    bare._dummy_run = dummy_run
    descriptors = dict(made.get_capture_descs())[CUDAGraphMode.FULL]
    for descriptor in descriptors:
        bare._warmup_and_capture(descriptor, CUDAGraphMode.FULL)
    assert seen == {(n, n // 2): 2 for n in SIZES} | {(n, n): 1 for n in SIZES if n <= 16}
    assert bare.uniform_decode_query_len == made.uniform_decode_query_len == 2


def test_lora_cases_are_captured_too() -> None:
    made = dispatcher()
    made.vllm_config.lora_config = SimpleNamespace(max_loras=2, specialize_active_lora=False)
    made.compilation_config.cudagraph_specialize_lora = True
    made.initialize_cudagraph_keys(made.cudagraph_mode, 2)
    from vllm.config import CUDAGraphMode

    keys = made.cudagraph_keys[CUDAGraphMode.FULL]
    loras = {k.num_active_loras for k in keys if k.num_tokens == k.num_reqs == 8}
    assert loras == {k.num_active_loras for k in keys if (k.num_tokens, k.num_reqs) == (8, 4)}
    assert len(loras) > 1


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"parallel_config": SimpleNamespace(data_parallel_size=2)}, "data-parallel"),
        ({"model_config": SimpleNamespace(is_hybrid=True)}, "state"),
        ({"model_config": SimpleNamespace(is_encoder_decoder=True)}, "encoder"),
    ],
)
def test_models_that_it_is_not_safe_for_do_not_get_it(
    config: dict[str, Any], why: str, caplog: pytest.LogCaptureFixture
) -> None:
    made = dispatcher()
    vars(made.vllm_config).update(config)
    before = full(made)
    made.cudagraph_keys = {mode: set() for mode in made.cudagraph_keys}
    with caplog.at_level("WARNING", "graphguard"):
        made.initialize_cudagraph_keys(made.cudagraph_mode, 2)
    assert full(made) == {(n, n // 2) for n in SIZES} < before
    assert why in caplog.text
    assert chosen(made, [1] * 8)[0] == "PIECEWISE"


def test_a_moved_name_is_said_and_nothing_is_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm.v1.cudagraph_dispatcher import CudagraphDispatcher

    unwrap_all()
    monkeypatch.delattr(CudagraphDispatcher, "_create_padded_batch_descriptor")
    assert uniform_graphs.install() == [
        "CudagraphDispatcher has no _create_padded_batch_descriptor"
    ]
    assert not hasattr(CudagraphDispatcher.dispatch, "__graphguard_wraps__")
