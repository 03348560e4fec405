"""The entry point that vLLM calls in each of its processes.

It imports neither torch nor vLLM: most of these processes run no model. The hooks are put in place
when a process imports a runner, which is before vLLM makes one.
"""

from __future__ import annotations

from collections.abc import Callable

from graphguard import environment
from graphguard.environment import Mode
from graphguard.log import logger
from graphguard.version import __version__
from graphguard.vllm import armed
from graphguard.vllm.importing import after_import
from graphguard.vllm.logs import speak_as_vllm

RUNNER_V1 = "vllm.v1.worker.gpu_model_runner"
PROPOSER_V1 = "vllm.v1.spec_decode.llm_base_proposer"
WORKERS = ("vllm.v1.worker.gpu_worker", "vllm.v1.worker.cpu_worker")


def register() -> None:
    """Get ready to guard this process. Called again, it does nothing more.

    Raises:
        ConfigurationError: If the environment asks for what does not exist.
    """
    from graphguard.vllm.options import read_options

    speak_as_vllm()
    options = read_options()
    if options.mode is Mode.OFF:
        logger().info("graphguard %s: vLLM is not guarded (%s=off)", __version__, _MODE)
        return
    after_import(RUNNER_V1, _arm_target_v1)
    after_import(PROPOSER_V1, _arm_drafter_v1)
    for module in WORKERS:
        after_import(module, _arm_workers)
    logger().info(
        "graphguard %s: vLLM is guarded where this process runs a model (%s=%s)",
        __version__,
        _MODE,
        options.mode,
    )


_MODE = environment.MODE.name


def _arm_target_v1() -> None:
    def install() -> None:
        from graphguard.vllm import collectives, runner_v1
        from graphguard.vllm.worker_guard import worker_guard

        collectives.install()
        runner_v1.install()
        worker_guard().cover(runner_v1.take_captures)

    _arm(("v1-target", "collectives"), install)


def _arm_drafter_v1() -> None:
    def install() -> None:
        from graphguard.vllm import drafter_v1
        from graphguard.vllm.worker_guard import worker_guard

        drafter_v1.install()
        worker_guard().cover(drafter_v1.take_captures)

    _arm(("v1-drafter",), install)


def _arm_workers() -> None:
    def install() -> None:
        from graphguard.vllm import workers

        workers.install()

    _arm(("capture",), install)


def _arm(parts: tuple[str, ...], install: Callable[[], None]) -> None:
    """Put the hooks of a part in place, if vLLM is what they were written for."""
    try:
        from graphguard.vllm.contract import Part, missing

        reasons = [sentence for part in parts for sentence in missing(Part(part))]
        if not reasons:
            install()
    except Exception as error:  # noqa: BLE001 - vLLM must start without us
        reasons = [f"{type(error).__name__}: {error}"]
    if reasons:
        armed.not_armed(parts[0], reasons)
    else:
        armed.armed(parts[0])
