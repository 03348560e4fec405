"""What a worker does, as its pulse shows it, with vLLM's own worker and outputs of both runners.

The bodies of the worker's methods stand in: they want a device. Their outputs are waited for by
vLLM's own code.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import vllm.v1.worker.gpu.model_runner
import vllm.v1.worker.gpu_model_runner
from vllm.v1.worker.gpu.async_utils import AsyncOutput
from vllm.v1.worker.gpu_model_runner import AsyncGPUModelRunnerOutput
from vllm.v1.worker.gpu_worker import Worker

from graphguard.blackbox import writer
from graphguard.blackbox.events import Event
from graphguard.blackbox.pulse import Activity, read_pulse
from graphguard.blackbox.reading import read
from graphguard.vllm import patches, stalls
from graphguard.vllm.activities import activities

STARTED = ("load_model", "determine_available_memory", "compile_or_warm_up_model")
STEPS = ("execute_model", "sample_tokens", "execute_dummy_batch")
RUNNERS = (
    vllm.v1.worker.gpu_model_runner.GPUModelRunner,
    vllm.v1.worker.gpu.model_runner.GPUModelRunner,
)
OUTPUTS = [
    pytest.param(AsyncGPUModelRunnerOutput, "async_copy_ready_event", id="V1"),
    pytest.param(AsyncOutput, "copy_event", id="V2"),
]

Look = Callable[[], tuple[Activity, ...]]


class LostError(RuntimeError):
    """What a stand-in raises."""


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """A worker whose methods say what the pulse shows meanwhile, with all hooks in place."""
    monkeypatch.setenv("GRAPHGUARD_DIR", str(tmp_path))
    monkeypatch.setenv("GRAPHGUARD_RING_ENTRIES", "64")
    monkeypatch.setenv("GRAPHGUARD_STALL_SECONDS", "0")
    monkeypatch.setattr(writer, "_process", writer._ProcessBox())
    for owner, names in (
        (Worker, ("init_device", *STARTED, *STEPS)),
        *((runner, ("capture_model",)) for runner in RUNNERS),
    ):
        for name in names:
            monkeypatch.setattr(owner, name, stand_in(name))
    stalls.install()
    stalls.install_in_runner_v1()
    stalls.install_in_runner_v2()
    made = object.__new__(Worker)
    made.run = lambda: None
    yield made
    patches.unwrap_all()
    activities.forget()


def started(worker: Any) -> None:
    worker.init_device()
    worker.run = shown


def stand_in(name: str) -> Callable[..., Any]:
    def method(self: Any, *args: Any) -> Any:
        return self.run(*args)

    method.__name__ = name
    return method


def shown() -> tuple[Activity, ...]:
    box = writer.process_box()
    assert box is not None
    pulse = read_pulse(box.path)
    assert pulse is not None
    return pulse.activities


def notes() -> list[str]:
    box = writer.process_box()
    assert box is not None
    return [record.name for record in read(box.path).records if record.event == Event.NOTE]


def lost() -> Any:
    raise LostError("with the prompt in it")


def test_before_the_rank_is_known_nothing_is_opened(worker: Any) -> None:
    worker.run = lambda: writer._process._box
    assert [call() for call in (worker.load_model, worker.execute_model)] == [None, None]
    assert writer._process._box is None

    worker.init_device()

    worker.run = shown
    assert [activity.name for activity in worker.load_model()] == ["load_model"]


@pytest.mark.parametrize("name", STARTED)
def test_start_up_is_an_activity_of_its_own_kind(worker: Any, name: str) -> None:
    started(worker)

    (activity,) = getattr(worker, name)()

    assert (activity.kind, activity.name) == ("startup", name)
    assert activity.thread == threading.get_native_id()
    assert shown() == ()


@pytest.mark.parametrize("runner", RUNNERS, ids=["V1", "V2"])
def test_captures_are_told_apart_inside_of_start_up(worker: Any, runner: type) -> None:
    started(worker)
    capturing: Any = object.__new__(runner)
    capturing.run = shown

    def warm_up() -> Any:
        # Inside the same kind of activity it is that one, and its end does not end it.
        worker.run = shown
        assert [a.name for a in worker.load_model()] == ["compile_or_warm_up_model"]
        return capturing.capture_model(), shown()

    worker.run = warm_up
    during, after = worker.compile_or_warm_up_model()

    assert {a.kind: a.name for a in during} == {
        "startup": "compile_or_warm_up_model",
        "capture": "capture_model",
    }
    assert [a.kind for a in after] == ["startup"]


@pytest.mark.parametrize("name", STEPS)
def test_a_worker_is_in_a_step_and_idle_between_steps(worker: Any, name: str) -> None:
    started(worker)

    seen = [getattr(worker, name)() for _ in range(3)]

    assert [[(a.kind, a.name, a.step) for a in found] for found in seen] == [
        [("step", name, number)] for number in (1, 2, 3)
    ]
    assert shown() == ()


@pytest.mark.parametrize("name", STEPS)
def test_a_step_that_fails_leaves_its_class_in_the_black_box_and_nothing_else(
    worker: Any, name: str
) -> None:
    worker.init_device()
    worker.run = lost

    with pytest.raises(LostError, match="with the prompt in it") as caught:
        getattr(worker, name)()

    assert caught.value.__cause__ is None
    assert shown() == ()
    assert notes() == ["step failed: LostError"]


def test_a_start_up_that_fails_is_noted_once(worker: Any) -> None:
    worker.init_device()

    def inside_another() -> Any:
        worker.run = lost
        return worker.determine_available_memory()

    worker.run = inside_another
    with pytest.raises(LostError):
        worker.load_model()

    assert notes() == ["start-up failed: LostError"]
    assert shown() == ()


def test_what_asks_the_process_to_end_is_no_failure(worker: Any) -> None:
    worker.init_device()

    def ended() -> None:
        raise SystemExit

    worker.run = ended
    with pytest.raises(SystemExit):
        worker.execute_model()

    assert notes() == []
    assert shown() == ()


@pytest.mark.parametrize(("made", "event"), OUTPUTS)
def test_the_wait_for_an_output_is_seen_from_the_thread_that_waits(
    worker: Any, made: type, event: str
) -> None:
    """What comes after the wait finds no tensors here, and fails as vLLM's own code would."""
    worker.init_device()
    output: Any = object.__new__(made)
    seen: list[tuple[Activity, ...]] = []

    class Copied:
        def synchronize(self) -> None:
            seen.append(shown())

    setattr(output, event, Copied())
    output.sampled_token_ids_cpu = torch.zeros(1, 1)
    errors: list[BaseException] = []

    def wait() -> None:
        try:
            output.get_output()
        except AttributeError as error:
            errors.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    thread.join(30)

    assert len(errors) == 1
    ((activity,),) = seen
    assert (activity.kind, activity.name) == ("output", "get_output")
    assert activity.thread == thread.native_id
    assert notes() == ["output failed: AttributeError"]
    assert shown() == ()
