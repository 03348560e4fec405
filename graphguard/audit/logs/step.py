"""What a dumped step was, and which captured graph would serve it.

Which graph: ``CudagraphDispatcher.dispatch`` (``vllm/v1/cudagraph_dispatcher.py``) looks for a FULL
graph of exactly the padded tokens where the batch is uniform with 1 + k query tokens, then for a
piecewise one. The sizes are rounded up to multiples of 1 + k
(``CompilationConfig.adjust_cudagraph_sizes_for_spec_decode``).
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from graphguard.audit.logs.configuration import Configuration, Sizes, capture_sizes
from graphguard.audit.logs.dump import ScheduledStep
from graphguard.audit.logs.model import Evidence, Step

DEFAULT_SIZES = (1, 2, 4, *range(8, 256, 8), *range(256, 513, 16))
"""vLLM's own capture sizes, where none are given (``VllmConfig._set_cudagraph_sizes``)."""

_FULL_DECODE = ("FULL", "FULL_DECODE_ONLY", "FULL_AND_PIECEWISE")


class Graph(msgspec.Struct, frozen=True):
    """The graph that would serve a step.

    Attributes:
        mode: ``FULL``, ``PIECEWISE``, or ``NONE`` where it would run eagerly.
        tokens: Its tokens; 0 without one.
        slots: Requests that it is padded by; None where tokens are padded and requests are not.
        source: Where the size is from: the log's sizes, vLLM's defaults, or what was recorded.
    """

    mode: str
    tokens: int
    slots: int | None
    source: str


def step_of(
    dump: ScheduledStep, configuration: Configuration, evidence: tuple[Evidence, ...]
) -> Step:
    """Return what a dump says of the step, and what follows from the configuration."""
    lens = dump.scheduled or ()
    num_reqs = _num_reqs(dump)
    uniform = _uniform(dump, num_reqs)
    num_tokens = dump.total if dump.total is not None else None if dump.elided else sum(lens)
    num_tokens = num_tokens or None
    placeholders = None if not dump.drafts else all(set(each) == {-1} for each in dump.drafts)
    step = Step(
        num_reqs=num_reqs,
        num_tokens=num_tokens,
        query_len=max(lens) if lens else None,
        uniform=uniform,
        phase=_phase(dump, num_reqs),
        placeholders=placeholders,
        evidence=evidence,
    )
    graph = _graph(step, dump, configuration)
    if graph is not None:
        step = msgspec.structs.replace(
            step, padded_slots=graph.slots, graph_tokens=graph.tokens or None
        )
    return msgspec.structs.replace(step, words=tuple(_words(step, dump, graph)))


def draft_tokens(dump: ScheduledStep | None, configuration: Configuration) -> int | None:
    """Return k, the draft tokens of a request in a step, or None where the log does not tell."""
    if (number := configuration.integer("draft_tokens")) is not None:
        return number
    if dump is not None and dump.drafts and not dump.elided:
        return max(map(len, dump.drafts))
    return None


def _num_reqs(dump: ScheduledStep) -> int | None:
    if dump.scheduled and not dump.elided:
        return len(dump.scheduled)
    if dump.elided and dump.output_tokens:
        return len(dump.output_tokens)
    if dump.cached is not None and dump.new is not None and dump.cached + dump.new:
        return dump.cached + dump.new
    return dump.running


def _uniform(dump: ScheduledStep, num_reqs: int | None) -> bool | None:
    if not dump.scheduled:
        return None
    same = len(set(dump.scheduled)) == 1
    if not dump.elided:
        return same
    # Of entries that were left out, the total tells whether they were like the others.
    whole = None not in (num_reqs, dump.total)
    return dump.total == (num_reqs or 0) * dump.scheduled[0] if same and whole else None


def _phase(dump: ScheduledStep, num_reqs: int | None) -> str | None:
    new, output = dump.new, dump.output_tokens
    if output is None or (new is None and len(output) != num_reqs):
        # A dump of before 0.11 does not say how far the running requests are.
        return "prefill" if new and new == num_reqs else None
    started = sum(1 for number in output if number > 0)
    if started == len(output) and not new:
        return "decode" if output else None
    return "mixed" if started else "prefill"


def _graph(step: Step, dump: ScheduledStep, configuration: Configuration) -> Graph | None:
    length = step.query_len
    if dump.graph is not None and length:
        unpadded, padded = dump.graph
        recorded = "recorded by --cudagraph-metrics"
        return Graph("", padded, max(padded - unpadded, 0) // length, recorded)
    mode = configuration.settings.get("cudagraph_mode")
    if mode is None or not (step.num_tokens and step.num_reqs and length):
        return None
    if mode.value == "NONE":
        # The emulation of graphs and some platforms set the mode later than the line is printed.
        return None
    extra = draft_tokens(dump, configuration) or 0
    full = step.uniform and length == 1 + extra and mode.value in _FULL_DECODE
    sizes, source = _sizes(configuration, 1 + extra if full else 1)
    tokens = next((size for size in sizes if size >= step.num_tokens), 0)
    if full and tokens:
        return Graph("FULL", tokens, tokens // length - step.num_reqs, source)
    if tokens and mode.value in ("PIECEWISE", "FULL_AND_PIECEWISE"):
        return Graph("PIECEWISE", tokens, 0 if tokens == step.num_tokens else None, source)
    return Graph("NONE", 0, 0, source)


def _sizes(configuration: Configuration, multiple: int) -> tuple[list[int], str]:
    setting = configuration.settings.get("capture_sizes")
    given = capture_sizes(setting.value) if setting else Sizes((), False)
    source = "the capture sizes that the log prints"
    values = given.values
    if not given.whole:
        # Part of a list may be quoted; it must be the start of vLLM's own to be completed by it.
        if values != DEFAULT_SIZES[: len(values)]:
            return [], source
        values, source = DEFAULT_SIZES, "vLLM's default capture sizes; the log does not list all"
    rounded = {-(-size // multiple) * multiple for size in values}
    return sorted(size for size in rounded if size <= max(values, default=0)), source


def _words(step: Step, dump: ScheduledStep, graph: Graph | None) -> Iterator[str]:
    if step.num_reqs is not None:
        kind = ", ".join(filter(None, (step.phase, _evenness(step))))
        tokens = f" = {step.num_tokens} tokens" if step.num_tokens else ""
        length = f" × {step.query_len} tokens{tokens}" if step.query_len and step.uniform else ""
        if not length and step.num_tokens:
            length = f", {step.num_tokens} tokens"
        requests = f"{step.num_reqs} request{'s' * (step.num_reqs != 1)}"
        yield f"{requests}{length}{', ' * bool(kind)}{kind}"
    if graph is not None:
        yield _graph_words(step, graph)
    if step.placeholders:
        yield (
            "[-1] are placeholders: under async scheduling the scheduler does not know the drafts, "
            "which are on the GPU; it does not say that drafts were rejected"
        )
    if dump.elided:
        yield "entries of the dump were left out or cut off; what is said rests on the others"


def _evenness(step: Step) -> str:
    return "" if step.uniform is None else "uniform" if step.uniform else "not uniform"


def _graph_words(step: Step, graph: Graph) -> str:
    slots = f"{graph.slots} padded slot{'s' * (graph.slots != 1)}" if graph.slots else "no padding"
    if not graph.mode:
        return f"it ran padded to {graph.tokens} tokens, with {slots} ({graph.source})"
    if graph.mode == "NONE":
        return f"no captured graph would serve it ({graph.source}); it would run eagerly"
    if graph.mode == "PIECEWISE":
        return f"piecewise graphs for {graph.tokens} tokens would serve it ({graph.source})"
    shape = f"{graph.tokens // (step.query_len or 1)} × {step.query_len}"
    return (
        f"the FULL graph for {graph.tokens} tokens ({shape}) would serve it, with {slots} "
        f"({graph.source})"
    )
