"""What is read from the log of an engine: every statement with the lines that it rests on."""

from __future__ import annotations

from enum import Enum

import msgspec


class Cause(str, Enum):
    """The classes of trouble that a log can speak for or against."""

    SHAPE = "shape"
    """The batch did not fit the graph that was chosen for it."""
    PADDING = "padding"
    """The batch fitted with padded slots, and what they hold broke a kernel."""
    RANK = "rank"
    """The ranks launched different things."""
    STALL = "stall"
    """A step did not end, and no process said why."""
    HOST_STUCK = "host-stuck"
    """A process did not come to launch: it waits or loops on the host."""
    PROCESS_DIED = "process-died"
    """A process ended without an exception of its own in the log."""
    WORKER_ERROR = "worker-error"
    """A worker raised, and what followed is a consequence."""
    MESSAGE_QUEUE = "message-queue"
    """The queue between the processes itself broke."""
    SLOW = "slow"
    """A step took long and ended."""
    HEALTHY = "healthy"
    """Steps ended to the end of the log."""

    def __str__(self) -> str:
        return self.value


class Strength(str, Enum):
    """How a class is supported."""

    DIRECT = "direct"
    """Lines of the log say so."""
    CONSISTENT = "consistent"
    """What it needs is there and nothing speaks against it; the log does not say that it was so."""

    def __str__(self) -> str:
        return self.value


class Evidence(msgspec.Struct, frozen=True):
    """A line of a log, numbered from 1, or a file of a bundle, with line 0."""

    line: int
    text: str


class Reading(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the evidence says about one class.

    Attributes:
        cause: The class; ``class`` in JSON.
        why: The reason, as one sentence.
        evidence: The lines that it rests on.
        strength: How it is supported; None for a class that is excluded or open.
    """

    cause: Cause = msgspec.field(name="class")
    why: str
    evidence: tuple[Evidence, ...]
    strength: Strength | None = None


class Moment(msgspec.Struct, frozen=True):
    """One entry of the timeline. ``time`` is as the log prints it, or empty."""

    what: str
    line: int
    time: str
    text: str


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """The step that was being run, as the engine dumped it; None for what the log does not tell.

    Attributes:
        num_reqs: Requests of the step.
        num_tokens: Their query tokens together, without padding.
        query_len: Query tokens of a request, the largest where they differ.
        uniform: Whether all have as many.
        phase: ``decode`` if every request is past its prompt, else ``prefill`` or ``mixed``.
        placeholders: Whether all scheduled draft tokens are -1.
        padded_slots: Requests that the graph has beyond those of the step.
        graph_tokens: Tokens of the graph that would serve it.
        words: The same in sentences, with what is assumed said as such.
        evidence: The lines of the dump.
    """

    num_reqs: int | None = None
    num_tokens: int | None = None
    query_len: int | None = None
    uniform: bool | None = None
    phase: str | None = None
    placeholders: bool | None = None
    padded_slots: int | None = None
    graph_tokens: int | None = None
    words: tuple[str, ...] = ()
    evidence: tuple[Evidence, ...] = ()


class Setting(msgspec.Struct, frozen=True):
    """A part of the configuration, as text, and the line that says so."""

    value: str
    line: int


class KnownThread(msgspec.Struct, frozen=True, kw_only=True):
    """A public thread that this log matches. That is a lead, not the cause.

    Attributes:
        thread: Its repository and number: ``vllm-project/vllm#35104``.
        title: What it is about.
        url: Where it is.
        status: What became of it.
        fixed_in: The version or change that fixes it, or None.
        why: In what the log matches.
        evidence: The lines that match.
    """

    thread: str
    title: str
    url: str
    status: str
    fixed_in: str | None
    why: str
    evidence: tuple[Evidence, ...]


class Advice(msgspec.Struct, frozen=True):
    """What to try or to collect next, and why."""

    what: str
    why: str
    evidence: tuple[Evidence, ...]


class FirstCause(msgspec.Struct, frozen=True):
    """The earliest line that tells of trouble which did not pass."""

    what: str
    line: int
    time: str
    text: str
    process: str


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """What one log says.

    Attributes:
        path: The log.
        engine: ``vllm``, ``sglang``, ``tensorrt-llm``, ``pytorch``, or None.
        version: Of the engine, as it prints it.
        fatal: The line with which the engine, or a process of it, gave up.
        step: The step that was dumped; None without a dump.
        supported: The classes that the evidence supports, the strongest first.
        excluded: Those that it excludes.
        undecided: Those that fit the symptom and that a log cannot tell apart.
        timeline: Last healthy step, first warning, what came then.
        known_threads: Public threads that match.
        first_cause: Where it began, or None.
        try_next: What to try or collect.
        configuration: The settings that matter, by name.
        notes: What was told apart or could not be read.
        lines: Lines of the log.
    """

    path: str
    engine: str | None
    version: str | None
    fatal: Moment | None
    step: Step | None
    supported: tuple[Reading, ...]
    excluded: tuple[Reading, ...]
    undecided: tuple[Reading, ...]
    timeline: tuple[Moment, ...]
    known_threads: tuple[KnownThread, ...]
    first_cause: FirstCause | None
    try_next: tuple[Advice, ...]
    configuration: dict[str, Setting]
    notes: tuple[str, ...]
    lines: int

    @property
    def trouble(self) -> bool:
        """Whether there is anything but a healthy engine."""
        return self.fatal is not None or any(
            reading.cause is not Cause.HEALTHY for reading in self.supported
        )
