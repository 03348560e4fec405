"""The uniform scheduler over vLLM's own: real schedulers, a played worker."""

from __future__ import annotations

import itertools
import logging
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from graphguard.environment import decode_steps
from tests.vllm import wheels
from tests.vllm.scheduling import PlayedEngine, make_scheduler, token, vllm_config, waits

# What vLLM and torch warn of while vLLM is imported is none of graphguard's doing.
pytestmark = pytest.mark.filterwarnings("ignore")
PATIENCE = decode_steps()
_WITH_A_WHEEL = "GRAPHGUARD_TEST_WITH_A_WHEEL"
_RUN_WITH_A_WHEEL = """
import os, sys
from importlib.metadata import version
from tests.vllm.scheduling import do_without_gguf
do_without_gguf()
import pytest
assert version("vllm") == os.environ["GRAPHGUARD_TEST_WITH_A_WHEEL"]
files = ["tests/vllm/test_scheduler.py", "tests/vllm/test_uniform_graphs.py"]
sys.exit(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *files]))
"""
ADD, STEPS, ABORT = "add", "steps", "abort"

_requests = st.tuples(
    st.just(ADD), st.sampled_from([1, 2, 3, 4, 17, 18, 19, 33, 90]), st.sampled_from([1, 9, 30])
)
_actions = st.lists(
    st.one_of(
        _requests,
        _requests,
        st.tuples(st.just(STEPS), st.sampled_from([1, 3, 9]), st.just(0)),
        st.tuples(st.just(ABORT), st.integers(0, 30), st.just(0)),
    ),
    min_size=5,
    max_size=30,
)


@pytest.fixture(scope="module")
def configured(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    numbers = itertools.count()

    def configure(**settings: Any) -> Any:
        directory: Path = tmp_path_factory.getbasetemp() / f"model-{next(numbers)}"
        return vllm_config(directory, **settings)

    return configure


def engine(
    configured: Any, *, asynchronous: bool, blocks: int = 1000, plain: bool = False, **settings: Any
) -> PlayedEngine:
    from graphguard.vllm.scheduler import UniformScheduler

    config = configured(asynchronous=asynchronous, **settings)
    cls = config.scheduler_config.get_scheduler_cls() if plain else UniformScheduler
    return PlayedEngine(make_scheduler(cls, config, blocks), asynchronous=asynchronous)


def load(played: PlayedEngine) -> None:
    """Add requests of many lengths while others run."""
    for number in range(30):
        length = (2, 40, 3, 17, 1, 18, 100, 2)[number % 8]
        played.add(f"r{number}", [5] * length, 3 + 5 * number % 23)
        for _ in range(number % 4):
            played.step()
    played.run()


def see_that_steps_are_uniform(played: PlayedEngine) -> None:
    verify = 1 + played.scheduler.num_spec_tokens
    for step in played.steps:
        assert step.is_uniform, step
        assert verify == 1 or verify not in [step.lengths[name] for name in step.prefills], step


def see_that_outputs_are_whole(played: PlayedEngine, asked: dict[str, int]) -> None:
    assert played.finished == set(asked)
    for name, most in asked.items():
        assert played.outputs[name] == [token(name, i) for i in range(len(played.outputs[name]))]
        assert len(played.outputs[name]) <= most


@pytest.mark.parametrize("drafts", [0, 1, 3])
@pytest.mark.parametrize("asynchronous", [False, True])
class TestUniform:
    def test_every_step_is_of_one_kind(
        self, configured: Any, asynchronous: bool, drafts: int
    ) -> None:
        played = engine(configured, asynchronous=asynchronous, drafts=drafts)
        load(played)
        see_that_steps_are_uniform(played)
        assert played.scheduler._armed

    def test_vllm_alone_mixes_them(self, configured: Any, asynchronous: bool, drafts: int) -> None:
        played = engine(configured, asynchronous=asynchronous, drafts=drafts, plain=True)
        load(played)
        assert not all(step.is_uniform for step in played.steps)

    def test_all_requests_get_the_tokens_that_they_get_from_vllm(
        self, configured: Any, asynchronous: bool, drafts: int
    ) -> None:
        both = [
            engine(configured, asynchronous=asynchronous, drafts=drafts, plain=plain)
            for plain in (False, True)
        ]
        for played in both:
            load(played)
        assert both[0].outputs == both[1].outputs
        assert len(both[0].finished) == 30


@pytest.mark.parametrize("asynchronous", [False, True])
def test_prompts_as_long_as_a_verification_are_not_prefilled_as_one(
    configured: Any, asynchronous: bool
) -> None:
    played = engine(configured, asynchronous=asynchronous, drafts=1)
    for number in range(3):
        played.add(f"r{number}", [5, 6], 4)
    played.run()
    assert [step.lengths for step in played.steps if step.prefills][:2] == [
        {"r0": 1, "r1": 1, "r2": 1},
        {"r0": 1, "r1": 1, "r2": 1},
    ]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_the_rest_of_a_prompt_after_a_prefix_hit_is_not_prefilled_as_a_verification(
    configured: Any, asynchronous: bool
) -> None:
    played = engine(configured, asynchronous=asynchronous, drafts=1)
    played.add("long", [5] * 40, 2)
    played.run()
    # MTP lets vLLM drop the last block that was found: 16 of these 34 or 18 tokens are known.
    played.add("again", [5] * 34, 2)
    played.add("once more", [5] * 18, 2)
    played.run()
    see_that_steps_are_uniform(played)
    assert played.finished == {"long", "again", "once more"}


def test_decodes_go_on_while_a_long_prompt_is_prefilled(configured: Any) -> None:
    played = engine(configured, asynchronous=True, drafts=1, budget=16)
    played.add("short", [5] * 3, 60)
    for _ in range(4):
        played.step()
    played.add("long", [6] * 400, 1)
    begun = len(played.steps)
    played.run()
    kinds = ["prefill" if s.prefills else "decode" for s in played.steps[begun:] if s.lengths]
    first, last = kinds.index("prefill"), len(kinds) - kinds[::-1].index("prefill")
    assert kinds[first:last].count("decode") >= kinds[first:last].count("prefill") - 1


def test_a_prefill_waits_for_few_decodes(configured: Any) -> None:
    played = engine(configured, asynchronous=True, drafts=1)
    played.add("first", [5] * 3, 60)
    for _ in range(6):
        played.step()
    played.add("second", [5] * 3, 2)
    begun = len(played.steps)
    played.run()
    waited = [step.lengths for step in played.steps[begun:]]
    assert next(i for i, lengths in enumerate(waited) if "second" in lengths) <= PATIENCE


def test_a_decode_unlike_all_others_is_not_left_out(configured: Any) -> None:
    played = engine(configured, asynchronous=False, drafts=1)
    played.without_drafts = {"lone"}
    for name in ("a", "b", "c", "lone"):
        played.add(name, [5] * 3, 40)
    played.run()
    assert max(waits(played.steps)) == 1
    see_that_steps_are_uniform(played)


def test_prefills_are_gathered_while_decodes_run(configured: Any) -> None:
    played = engine(configured, asynchronous=False, drafts=1, budget=512)
    played.add("first", [5] * 3, 60)
    for number in range(20):
        played.step()
        played.add(f"r{number}", [5] * 3, 2)
    prefills = sum(bool(step.prefills) for step in played.steps)
    assert prefills <= 20 // PATIENCE + 1


@settings(
    max_examples=50,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(
    actions=_actions,
    drafts=st.integers(0, 3),
    asynchronous=st.booleans(),
    room=st.tuples(st.sampled_from([400, 20, 14]), st.sampled_from([16, 40, 256])),
)
def test_whatever_comes_nothing_is_lost_or_left_out_for_long(
    configured: Any,
    actions: list[tuple[str, int, int]],
    drafts: int,
    asynchronous: bool,
    room: tuple[int, int],
) -> None:
    blocks, budget = room
    played = engine(
        configured,
        asynchronous=asynchronous,
        drafts=drafts,
        blocks=blocks,
        budget=budget,
        max_num_seqs=8,
    )
    asked: dict[str, int] = {}
    for kind, size, tokens in actions:
        if kind == ADD:
            name = f"r{len(asked)}"
            asked[name] = tokens
            played.add(name, [5] * size, tokens)
        elif kind == ABORT and (live := sorted(set(asked) - played.finished)):
            played.abort(live[size % len(live)])
        elif kind == STEPS:
            for _ in range(size):
                played.step()
    played.run()
    see_that_outputs_are_whole(played, asked)
    assert played.scheduler._armed
    # Where the blocks do not suffice, a decode also waits for room, as it does without graphguard,
    # and one that was preempted may come back in a step of prefills.
    if blocks == 400:
        see_that_steps_are_uniform(played)
        assert max(waits(played.steps), default=0) <= 2 * (drafts + 1)
        assert longest_wait_for_a_prefill(played) <= PATIENCE


def longest_wait_for_a_prefill(played: PlayedEngine) -> int:
    """Return the most decode steps in a row with requests waiting that could have been admitted."""
    longest = waited = 0
    for step in played.steps:
        could = step.waiting > 0 and step.running < played.scheduler.max_num_running_reqs
        waited = waited + 1 if could and not step.prefills and step.lengths else 0
        longest = max(longest, waited)
    return longest


def test_preempted_requests_come_back(configured: Any) -> None:
    played = engine(configured, asynchronous=True, drafts=1, blocks=14, max_num_seqs=8)
    preempted: Counter[str] = Counter()
    for number in range(6):
        played.add(f"r{number}", [number + 1] * 30, 60)
    while played.scheduler.has_requests():
        played.step()
        for request in played.scheduler.requests.values():
            preempted[request.request_id] = request.num_preemptions
    assert preempted.total() > 0
    assert len(played.finished) == 6
    assert all(len(tokens) == 60 for tokens in played.outputs.values())
    see_that_steps_are_uniform(played)


def test_what_vllm_changes_for_a_step_is_changed_back(configured: Any) -> None:
    played = engine(configured, asynchronous=True, drafts=1)
    scheduler = played.scheduler
    limits = {name: value for name, value in vars(scheduler).items() if name.startswith("max_num")}
    load(played)
    assert limits == {name: getattr(scheduler, name) for name in limits}


def test_an_unknown_vllm_schedules_on_its_own(
    configured: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(
        "graphguard.vllm.scheduler.missing", lambda part: [f"the {part} is not what it was."]
    )
    with caplog.at_level(logging.WARNING, "graphguard"):
        played = engine(configured, asynchronous=True, drafts=1)
    said = [record for record in caplog.records if record.name == "graphguard"]
    assert len(said) == 1
    assert "the scheduler is not what it was" in said[0].getMessage()
    load(played)
    assert len(played.finished) == 30
    assert not all(step.is_uniform for step in played.steps)


def test_a_step_that_is_not_what_was_planned_ends_it(
    configured: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    played = engine(configured, asynchronous=True, drafts=1)
    # As if vLLM no longer asked.
    played.scheduler.need_mamba_block_aligned_split = False
    with caplog.at_level(logging.WARNING, "graphguard"):
        load(played)
    assert len(played.finished) == 30
    assert not played.scheduler._armed
    assert "vLLM's own: a step of" in caplog.text


def test_the_class_is_what_async_scheduling_asks_for(configured: Any) -> None:
    from vllm.v1.core.sched.async_scheduler import AsyncScheduler

    asynchronous = engine(configured, asynchronous=True, drafts=1).scheduler
    synchronous = engine(configured, asynchronous=False, drafts=1).scheduler
    assert isinstance(asynchronous, AsyncScheduler)
    assert not isinstance(synchronous, AsyncScheduler)


def test_it_is_found_by_the_name_that_is_given_to_vllm(configured: Any) -> None:
    from graphguard.vllm.scheduler import UniformScheduler

    config = configured(asynchronous=True, drafts=1)
    config.scheduler_config.scheduler_cls = "graphguard.vllm.scheduler.UniformScheduler"
    assert config.scheduler_config.get_scheduler_cls() is UniformScheduler


@pytest.mark.timeout(600)
@pytest.mark.parametrize("version", wheels.CUDA_VERSIONS)
def test_it_does_the_same_with_other_versions(version: str) -> None:
    """All other tests of this file, and those of the second family, with vLLM from its wheel."""
    if os.environ.get(_WITH_A_WHEEL):
        pytest.skip("this is the run with a wheel")
    environment = os.environ | {
        _WITH_A_WHEEL: version,
        "PYTHONPATH": f"{wheels.python_files(version)}{os.pathsep}{wheels.REPOSITORY}",
        "VLLM_USE_V2_MODEL_RUNNER": "0",
    }
    run = subprocess.run(
        [sys.executable, "-c", _RUN_WITH_A_WHEEL],
        env=environment,
        cwd=wheels.REPOSITORY,
        capture_output=True,
        text=True,
        timeout=570,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
