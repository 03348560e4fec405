"""The entry point that vLLM calls in each of its processes.

It imports neither torch nor vLLM: most of these processes run no model. The hooks are put in place
when a process imports a runner, which is before vLLM makes one.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

from graphguard import environment
from graphguard.environment import Mode
from graphguard.errors import ConfigurationError
from graphguard.importing import after_import
from graphguard.log import logger
from graphguard.version import __version__
from graphguard.vllm import armed
from graphguard.vllm.logs import speak_as_vllm

RUNNER_V1 = "vllm.v1.worker.gpu_model_runner"
PROPOSER_V1 = "vllm.v1.spec_decode.llm_base_proposer"
RUNNER_V2 = "vllm.v1.worker.gpu.model_runner"
SPECULATORS_V2 = tuple(
    f"vllm.v1.worker.gpu.spec_decode.{name}.speculator"
    for name in ("eagle", "autoregressive", "target_dependent_ar", "multi_module_mtp")
)
BREAKABLE = "vllm.compilation.breakable_cudagraph"
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
    _expose_metrics()
    after_import(RUNNER_V1, _arm_target_v1)
    after_import(PROPOSER_V1, _arm_drafter_v1)
    after_import(RUNNER_V2, _arm_target_v2)
    for module in SPECULATORS_V2:
        after_import(module, _arm_drafter_v2)
    after_import(BREAKABLE, _arm_breakable)
    for module in WORKERS:
        after_import(module, _arm_workers)
    logger().info(
        "graphguard %s: vLLM is guarded where this process runs a model (%s=%s)",
        __version__,
        _MODE,
        options.mode,
    )


_MODE = environment.MODE.name


def _expose_metrics() -> None:
    """Let this process show the metrics of all, if it is the one that serves them."""
    from graphguard.metrics import expose_in_this_process

    try:
        expose_in_this_process()
    except ConfigurationError:
        raise
    except Exception as error:  # noqa: BLE001 - vLLM must start without us
        logger().warning("graphguard's metrics are not shown: %r", error)


def _arm_target_v1() -> None:
    def install() -> None:
        from graphguard.vllm import data_parallel_v1, drafter_v1, runner_v1, uniform_graphs
        from graphguard.vllm.worker_guard import worker_guard

        if environment.uniform_graphs_wanted() and (reasons := uniform_graphs.install()):
            armed.not_armed("uniform-graphs", reasons)
        # Above the second family of graphs: what that chooses is checked like any other choice.
        runner_v1.install()
        # The proposer is imported while the runner still is, so not with its other hooks.
        drafter_v1.install_in_runner()
        worker_guard().cover(runner_v1.take_captures, RUNNER_V1)
        _arm_data_parallel(data_parallel_v1.install)

    _arm(("v1-target", "collectives"), install)
    _arm_stalls("v1-stalls", lambda hooks: hooks.install_in_runner_v1())


def _arm_drafter_v1() -> None:
    def install() -> None:
        from graphguard.vllm import data_parallel_v1, drafter_v1
        from graphguard.vllm.worker_guard import worker_guard

        drafter_v1.install()
        worker_guard().cover(drafter_v1.take_captures, RUNNER_V1)
        _arm_data_parallel(data_parallel_v1.install_in_proposer)

    _arm(("v1-drafter",), install)


def _arm_target_v2() -> None:
    def install() -> None:
        from graphguard.vllm import data_parallel_v2, runner_v2
        from graphguard.vllm.worker_guard import worker_guard

        runner_v2.install()
        worker_guard().cover(runner_v2.take_captures, RUNNER_V2)
        _arm_data_parallel(data_parallel_v2.install)

    _arm(("v2-target", "collectives"), install)
    _arm_stalls("v2-stalls", lambda hooks: hooks.install_in_runner_v2())


def _arm_drafter_v2() -> None:
    def install() -> None:
        from graphguard.vllm import data_parallel_v2, drafter_v2
        from graphguard.vllm.worker_guard import worker_guard

        drafter_v2.install()
        worker_guard().cover(drafter_v2.take_captures, RUNNER_V2)
        _arm_data_parallel(data_parallel_v2.install_in_speculators)

    # What its first pass runs is what the target ran.
    _arm(("v2-drafter", "v2-target"), install)


def _arm_breakable() -> None:
    def install() -> None:
        from graphguard.vllm import breakable

        breakable.install()

    _arm(("breakable",), install)


def _arm_workers() -> None:
    def install() -> None:
        from graphguard.vllm import workers

        workers.install()

    _arm(("capture",), install)
    _arm_stalls("stalls", lambda hooks: hooks.install())


def _arm_data_parallel(install: Callable[[], None]) -> None:
    """Put a hook in place above those of a runner: it sees what the runner launches in the end."""
    _arm(("data-parallel",), install)


def _arm_stalls(part: str, install: Callable[[ModuleType], None]) -> None:
    """Put the hooks around what is there by now: what they see lasts as long as it really does."""

    def install_hooks() -> None:
        from graphguard.vllm import stalls

        install(stalls)

    _arm((part,), install_hooks)


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
