"""Signs of a log that known threads are looked up by, each with its evidence."""

from __future__ import annotations

import re

from graphguard.audit.logs.collecting import Collected, quotes
from graphguard.audit.logs.configuration import capture_sizes
from graphguard.audit.logs.events import Event
from graphguard.audit.logs.known_threads import release
from graphguard.audit.logs.model import Evidence, Step
from graphguard.audit.logs.situation import Situation
from graphguard.audit.logs.step import draft_tokens

Signs = dict[str, tuple[Evidence, ...]]

# DeepSeek's multi-token prediction and its kin; `mtp` stands for all of them in newer versions.
_MTP = re.compile(r"mtp|nextn|eagle", re.IGNORECASE)
_FIXED_NCCL = (2, 30, 4)
# Settings that are signs by being there.
_AS_THEY_ARE = ("breakable_graphs", "several_nodes", "flashinfer_all-reduce", "nsys", "ascend")


def signs_of(situation: Situation, step: Step | None, wrong_phase: bool) -> Signs:
    """Return the signs that a log shows."""
    told = situation.told
    signs: Signs = {}
    if engine := told.configuration.engine:
        signs[engine] = ()
    symptoms = [*situation.waiting, *situation.timeouts]
    if situation.hung:
        signs["stall"] = quotes(symptoms)
        if not situation.progress and not told.of("ready") and told.of("start", "loading"):
            signs["stall in start-up"] = quotes(symptoms)
        if told.of("idle"):
            signs["idle before the stall"] = quotes(told.of("idle")[-1:])
    _of_events(signs, situation)
    _of_configuration(signs, told)
    if step is not None:
        _of_step(signs, step, wrong_phase)
    return signs


def _of_events(signs: Signs, situation: Situation) -> None:
    told = situation.told
    if situation.queue:
        signs["pycfunction"] = quotes(situation.queue)
    for kind in ("sglang-watchdog", "nccl-timeout", "trt-hang"):
        if events := told.of(kind):
            signs[kind] = quotes(events)
    illegal = [e for e in told.of("cuda-error") if "illegal" in "".join(e.values.values())]
    if illegal:
        signs["illegal memory access"] = quotes(illegal)
    if situation.deaths:
        signs["process died"] = quotes(situation.deaths)
    ray = [e for e in situation.deaths if _says(e, "Ray", "actor")]
    if ray:
        signs["ray"] = quotes(ray)


def _says(event: Event, *words: str) -> bool:
    return any(word in event.line.message or word in event.line.process for word in words)


def _of_configuration(signs: Signs, told: Collected) -> None:
    configuration = told.configuration
    settings = configuration.settings

    def put(sign: str, name: str) -> None:
        signs[sign] = (Evidence(settings[name].line, f"{name} {settings[name].value}"),)

    if "method" in settings:
        put("speculative decoding", "method")
        if _MTP.search(settings["method"].value):
            put("mtp", "method")
    if "cudagraph_mode" in settings:
        put(f"cudagraph mode {settings['cudagraph_mode'].value}", "cudagraph_mode")
        if settings["cudagraph_mode"].value not in ("NONE",):
            put("graphs", "cudagraph_mode")
    for name in ("data_parallel_size", "tensor_parallel_size", "pipeline_parallel_size"):
        if (configuration.integer(name) or 1) > 1:
            put(f"several ranks of {name}", name)
    if "expert_parallel" in settings and settings["expert_parallel"].value == "True":
        put("expert parallel", "expert_parallel")
    nccl = release(settings["nccl"].value) if "nccl" in settings else None
    if nccl is not None and nccl < _FIXED_NCCL:
        put("nccl before 2.30.4", "nccl")
    for name in _AS_THEY_ARE:
        if name in settings:
            put(name.replace("_", " "), name)
    if _misaligned(told):
        put("piecewise sizes that are no multiples of 1 + k", "capture_sizes")


def _misaligned(told: Collected) -> bool:
    settings = told.configuration.settings
    extra = draft_tokens(told.dump, told.configuration)
    mode = settings.get("cudagraph_mode")
    if not extra or mode is None or mode.value != "PIECEWISE" or "capture_sizes" not in settings:
        return False
    return any(size % (1 + extra) for size in capture_sizes(settings["capture_sizes"].value).values)


def _of_step(signs: Signs, step: Step, wrong_phase: bool) -> None:
    if step.padded_slots:
        signs["padded slots"] = step.evidence
    if step.padded_slots == 0 and step.graph_tokens and step.uniform:
        signs["exact size"] = step.evidence
    if step.phase == "decode":
        signs["decode"] = step.evidence
    if wrong_phase:
        signs["prefill of 1 + k tokens"] = step.evidence
