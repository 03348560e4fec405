"""The entry point. It changes vLLM's classes before graphguard's own plugin wraps them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.vllm.engine.emulation import (
    asynchronous,
    delays,
    experts,
    faults,
    settings,
    stand_ins,
)
from tests.vllm.engine.emulation.patching import replace
from tests.vllm.engine.emulation.recording import descriptor_fields, worker
from tests.vllm.engine.emulation.settings import Emulation, Piecewise, Place, Settings

_registered = False


def register() -> None:
    """Change vLLM in this process; without settings, or the second time, do nothing."""
    global _registered  # noqa: PLW0603 - one process, one vLLM
    told = settings.from_environment()
    if told is None or _registered:
        return
    _registered = True
    if told.emulation.graphs:
        stand_ins.install()
    if told.emulation.piecewise is Piecewise.BREAKABLE:
        stand_ins.break_at_attention()
    if told.emulation.asynchronous:
        asynchronous.install()
    experts.install()
    _trace_the_worker(told)
    _capture_at_start(told.emulation)
    faults.install(told)
    delays.install(told)


def _trace_the_worker(told: Settings) -> None:
    from vllm.v1.spec_decode.llm_base_proposer import SpecDecodeBaseProposer
    from vllm.v1.worker.cpu_worker import CPUWorker
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner

    def init_device(original: Callable[..., Any]) -> Callable[..., Any]:
        def started(self: Any) -> None:
            parallel = self.parallel_config
            first = parallel.data_parallel_index * parallel.world_size
            worker.start(first + self.rank, told.directory)
            original(self)

        return started

    def execute_model(original: Callable[..., Any]) -> Callable[..., Any]:
        def counted(self: Any, scheduler_output: Any, *args: Any, **kwargs: Any) -> Any:
            if tokens := scheduler_output.total_num_scheduled_tokens:
                faults.faults.look()
                drafts = scheduler_output.scheduled_spec_decode_tokens.values()
                unknown = any(-1 in tokens_of for tokens_of in drafts)
                num_reqs = len(scheduler_output.num_scheduled_tokens)
                worker.begin_step(num_reqs, tokens, unknown=unknown)
                delays.happen(Place.STEP)
            try:
                return original(self, scheduler_output, *args, **kwargs)
            finally:
                # In the order of the batch, which the step has brought up to date by now.
                worker.requests = list(self.input_batch.req_ids)

        return counted

    def propose(original: Callable[..., Any]) -> Callable[..., Any]:
        def drafting(self: Any, *args: Any, **kwargs: Any) -> Any:
            with worker.drafting():
                drafts = original(self, *args, **kwargs)
            by_request = dict(zip(worker.requests, drafts.tolist(), strict=True))
            worker.write("drafts", role="drafter", drafts=by_request)
            return drafts

        return drafting

    def dummy_run(original: Callable[..., Any]) -> Callable[..., Any]:
        def drafting(self: Any, *args: Any, **kwargs: Any) -> None:
            with worker.drafting():
                original(self, *args, **kwargs)

        return drafting

    replace(CPUWorker, "init_device", init_device)
    replace(GPUModelRunner, "execute_model", execute_model)
    replace(SpecDecodeBaseProposer, "propose", propose)
    replace(SpecDecodeBaseProposer, "dummy_run", dummy_run)


def _capture_at_start(emulation: Emulation) -> None:
    from vllm.v1.worker.cpu_model_runner import CPUModelRunner
    from vllm.v1.worker.cpu_worker import CPUWorker
    from vllm.v1.worker.workspace import init_workspace_manager

    def load_model(original: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(self: Any, *args: Any, **kwargs: Any) -> None:
            original(self, *args, **kwargs)
            for model in (self.model, self.drafter.model):
                model.register_forward_pre_hook(_note_eager_run)
            if emulation.graphs:
                # As the GPU worker does when it is started. Capturing locks the workspace.
                init_workspace_manager(self.device, 1)
                _configure(self.compilation_config, emulation)
                _wrap_models(self, emulation)

        return wrapped

    def determine_available_memory(original: Callable[..., Any]) -> Callable[..., Any]:
        def profiled(self: Any) -> Any:
            self.model_runner.profile_cudagraph_memory()
            return original(self)

        return profiled

    def compile_or_warm_up_model(original: Callable[..., Any]) -> Callable[..., Any]:
        def captured(self: Any) -> Any:
            self.model_runner.capture_model()
            return original(self)

        return captured

    replace(CPUModelRunner, "load_model", load_model)
    if emulation.graphs:
        replace(CPUWorker, "compile_or_warm_up_model", compile_or_warm_up_model)
    if emulation.profile:
        replace(CPUWorker, "determine_available_memory", determine_available_memory)


def _configure(compilation: Any, emulation: Emulation) -> None:
    """Undo what the CPU platform did to the configuration.

    After the drafter is loaded, since loading it makes a configuration that shares this part, and
    empties it once more. The mode is resolved and the keys are made later, by vLLM itself.
    """
    from vllm.config import CUDAGraphMode

    compilation.cudagraph_mode = CUDAGraphMode[emulation.mode]
    compilation.cudagraph_capture_sizes = list(emulation.sizes)
    compilation.max_cudagraph_capture_size = max(emulation.sizes)
    compilation.cudagraph_num_of_warmups = emulation.warmups


def _wrap_models(runner: Any, emulation: Emulation) -> None:
    """Wrap target and drafter as ``GPUModelRunner.load_model`` does, which the CPU build skips."""
    from vllm.compilation.breakable_cudagraph import BreakableCUDAGraphWrapper
    from vllm.compilation.cuda_graph import CUDAGraphWrapper
    from vllm.config import CUDAGraphMode

    config, mode = runner.vllm_config, CUDAGraphMode[emulation.mode]
    if emulation.piecewise is Piecewise.BREAKABLE:
        runner.model = BreakableCUDAGraphWrapper(
            runner.model, config, runtime_mode=CUDAGraphMode.PIECEWISE
        )
        runner.drafter.model = BreakableCUDAGraphWrapper(
            runner.drafter.model, config, runtime_mode=CUDAGraphMode.PIECEWISE
        )
    else:
        runner.drafter.model = CUDAGraphWrapper(
            runner.drafter.model, config, runtime_mode=CUDAGraphMode.PIECEWISE
        )
    if mode.has_full_cudagraphs():
        runner.model = CUDAGraphWrapper(runner.model, config, runtime_mode=CUDAGraphMode.FULL)


def _note_eager_run(_module: Any, _args: Any) -> None:
    from graphguard.graphs import emulated

    if not emulated.is_capturing():
        worker.write("eager", **descriptor_fields())
