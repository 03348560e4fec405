"""Data-parallel ranks: which are coupled, and what the V2 runner makes of their agreement."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest

from graphguard.vllm import data_parallel_v2, patches, worker_guard
from graphguard.vllm.groups import Coupling, data_parallel_coupling
from tests.vllm.test_data_parallel import Launches
from tests.vllm.v2 import stand_ins
from tests.vllm.v2.check_ranks import _DataParallel


def coupling(experts: bool | None = True, **arguments: Any) -> Coupling:
    """Return what is said of a config: the version's own, but for the model."""
    from vllm.config import ParallelConfig

    model = None if experts is None else SimpleNamespace(is_moe=experts)
    parallel = ParallelConfig(**arguments)
    return data_parallel_coupling(SimpleNamespace(parallel_config=parallel, model_config=model))


def test_ranks_of_a_model_with_experts_are_coupled_with_expert_parallelism_and_without() -> None:
    assert coupling(data_parallel_size=2) == Coupling(True)
    assert coupling(
        data_parallel_size=2, tensor_parallel_size=2, enable_expert_parallel=True
    ) == Coupling(True)


def test_one_data_parallel_rank_is_compared_with_none() -> None:
    assert coupling(tensor_parallel_size=2, enable_expert_parallel=True) == Coupling(False)


@pytest.mark.parametrize("experts", [False, None])
def test_ranks_of_a_dense_model_are_not_coupled(experts: bool | None) -> None:
    coupled, why_not = coupling(experts, data_parallel_size=2)

    assert not coupled
    assert "on their own" in why_not


def test_vllm_tells_the_workers_of_a_dense_model_that_there_is_one_rank() -> None:
    from vllm.config import ParallelConfig

    parallel = ParallelConfig(data_parallel_size=2)
    if not hasattr(parallel, "reconfigure_for_independent_dp_rank"):
        pytest.skip("this version does it in EngineCoreProc.run_engine_core")
    parallel.reconfigure_for_independent_dp_rank()

    model = SimpleNamespace(is_moe=False)
    config = SimpleNamespace(parallel_config=parallel, model_config=model)
    assert data_parallel_coupling(config) == Coupling(False)


@pytest.mark.parametrize("field", ["enable_elastic_ep", "enable_fault_tolerance"])
def test_ranks_that_may_change_while_they_serve_are_left_alone(field: str) -> None:
    from vllm.config import ParallelConfig

    parallel = ParallelConfig(data_parallel_size=2)
    if not hasattr(parallel, field):
        pytest.skip(f"this version has no {field}")
    setattr(parallel, field, True)

    model = SimpleNamespace(is_moe=True)
    config = SimpleNamespace(parallel_config=parallel, model_config=model)
    coupled, why_not = data_parallel_coupling(config)
    assert not coupled
    assert why_not


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> Iterator[Launches]:
    found = Launches()
    monkeypatch.setattr(worker_guard, "_worker", SimpleNamespace(data_parallel=found))
    data_parallel_v2.install()
    yield found
    patches.unwrap_all()


def dispatch(runner: Any, reqs: int, other: int, **more: Any) -> tuple[str, int]:
    """Dispatch a decode of two tokens a request as the runner does; the other rank has decodes."""
    from vllm.v1.worker.gpu import dp_utils, model_runner

    group = _DataParallel(other)
    arguments = (runner.cudagraph_manager, reqs, 2 * reqs, 2 if reqs else None)
    with (
        mock.patch.object(dp_utils, "get_dp_group", return_value=group),
        mock.patch.object(
            dp_utils.__dict__.get("dist", dp_utils.torch.distributed),
            "all_reduce",
            group.cpu_all_reduce_,
        ),
    ):
        descriptor, _ = model_runner.dispatch_cg_and_sync_dp(*arguments, **more)
    return descriptor.cg_mode.name, descriptor.num_tokens


@pytest.fixture
def runner() -> Any:
    made = stand_ins.runner("FULL_AND_PIECEWISE")
    made.capture_model()
    return made


def test_what_the_v2_runner_has_settled_on_is_published(runner: Any, launches: Launches) -> None:
    assert dispatch(runner, 3, 8, dp_size=2, dp_rank=0) == ("FULL", 16)
    assert dispatch(runner, 3, 8, dp_size=2, dp_rank=0, need_eager=True) == ("NONE", 6)

    assert launches.told == [("target", "FULL", 6, 16), ("target", "NONE", 6, 6)]


def test_what_ranks_have_not_agreed_on_is_not_published(runner: Any, launches: Launches) -> None:
    assert dispatch(runner, 3, 8, dp_size=1, dp_rank=0) == ("FULL", 8)
    # No rank has anything to run.
    dispatch(runner, 0, 0, dp_size=2, dp_rank=0)

    assert launches.told == []
    assert launches.failed == []
