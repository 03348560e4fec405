"""What to try or to collect next, for what a log supports and for what it leaves open."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from graphguard.audit.logs.model import Advice, Cause, Evidence, Reading, Step
from graphguard.audit.logs.reasoning import Readings
from graphguard.audit.logs.situation import Situation

_CURES = {
    Cause.MESSAGE_QUEUE: (
        "take vllm-project/vllm#40303 (the reported cure; it was not merged), or another Python "
        "than 3.12",
        "the error is that of #35104, whose reporter saw no more of it with this change",
    ),
    Cause.WORKER_ERROR: (
        "look at the error that the worker raised, with CUDA_LAUNCH_BLOCKING=1 where it is a CUDA "
        "error: the line that raises is often not the kernel that failed",
        "the time-outs after it are a consequence",
    ),
    Cause.PROCESS_DIED: (
        "look for what ended it: the kernel's log (dmesg, oom), the container's memory limit, the "
        "exit code (-9 killed, -11 crashed), core files, Xid messages",
        "the log says that a process ended and not why",
    ),
    Cause.SLOW: (
        "look at what was compiled or tuned then; where it is expected, nothing is to be done",
        "the step ended",
    ),
}


def advise(situation: Situation, step: Step | None, readings: Readings) -> tuple[Advice, ...]:
    """Return what to do next, what narrows it down most first."""
    return tuple(_advice(situation, step, readings))


def _advice(situation: Situation, step: Step | None, readings: Readings) -> Iterator[Advice]:
    by_cause = {reading.cause: reading for reading in readings.supported}
    for cause, (what, why) in _CURES.items():
        if cause in by_cause:
            yield Advice(what, why, by_cause[cause].evidence)
    if Cause.RANK in by_cause:
        reading = by_cause[Cause.RANK]
        what = (
            "record what every rank captures and launches (GRAPHGUARD_DIR), then graphguard audit"
        )
        yield Advice(what, "it names the first difference", reading.evidence)
    if Cause.SHAPE in by_cause:
        what = "run with VLLM_USE_V2_MODEL_RUNNER=1 on vLLM 0.33, or with cudagraph_mode PIECEWISE"
        why = "the V2 runner of 0.33 asks for the phase (#51865); piecewise graphs do not need it"
        yield Advice(what, why, by_cause[Cause.SHAPE].evidence)
    if not situation.hung:
        return
    stall = by_cause[Cause.STALL].evidence if Cause.STALL in by_cause else ()
    if step is not None and step.padded_slots:
        yield from _of_padding(step)
    yield from _of_graphs(situation, stall)
    yield from _to_collect(situation, readings.undecided, stall)


def _of_padding(step: Step) -> Iterator[Advice]:
    tokens = step.num_tokens
    what = f"capture {tokens} tokens exactly (in cudagraph_capture_sizes), and see if it hangs"
    why = f"it takes the {step.padded_slots} padded slot(s) away and changes nothing else"
    yield Advice(what, why, step.evidence)


def _of_graphs(situation: Situation, stall: Sequence[Evidence]) -> Iterator[Advice]:
    settings = situation.told.configuration.settings
    mode, method = settings.get("cudagraph_mode"), settings.get("method")
    if situation.told.configuration.engine == "vllm":
        runner = settings.get("runner")
        # The drafter of the V1 runner has piecewise graphs only, and none in this mode.
        eager = mode is not None and mode.value == "FULL_DECODE_ONLY"
        if method is not None and not (eager and (runner is None or runner.value == "V1")):
            what = 'run the drafter eagerly: --speculative-config with "enforce_eager": true'
            said = Evidence(method.line, f"method {method.value}")
            yield Advice(what, "it tells the drafter's graphs from the target's", (said,))
        if mode is None or mode.value != "NONE":
            known = [Evidence(mode.line, f"cudagraph_mode {mode.value}")] if mode else stall
            why = "if it hangs too, it is not the graphs"
            yield Advice("run once with --enforce-eager", why, tuple(known))
    nccl = settings.get("nccl")
    if nccl is not None and nccl.value.startswith("2.28.") and "several_nodes" in settings:
        what = "try NCCL 2.30.4 or newer (VLLM_NCCL_SO_PATH)"
        why = "captured collectives hung across nodes, and reporters were rid of it so (#40969)"
        yield Advice(what, why, (Evidence(nccl.line, f"nccl {nccl.value}"),))


def _to_collect(
    situation: Situation, undecided: Sequence[Reading], stall: Sequence[Evidence]
) -> Iterator[Advice]:
    evidence = tuple(stall)
    if not situation.told.stacks:
        what = "collect stacks of all workers while it hangs: py-spy dump --native --pid <worker>"
        why = "they tell a process that is stuck on the host from one that waits for the device"
        yield Advice(what, why, evidence)
    if any(reading.cause in (Cause.RANK, Cause.SHAPE, Cause.PADDING) for reading in undecided):
        what = "run with graphguard's plugin in observe mode and GRAPHGUARD_DIR, and use --bundle"
        why = "manifests and black boxes say what each rank captured and launched last"
        yield Advice(what, why, evidence)
    if situation.told.dump is None and situation.told.configuration.engine == "vllm":
        what = "keep the whole log: the lines 'Dumping input data' and 'Dumping scheduler output'"
        yield Advice(what, "they tell which step hung", evidence)
