"""Results as a table of Markdown. What stages have told goes through here, and nothing else."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from tests.gpu.suite.lines import Claim, Figure, NotRun, Spread
from tests.gpu.suite.machine import Machine
from tests.gpu.suite.result import Result, StageResult

_MACHINE_ROWS = (
    ("GPU", "gpu"),
    ("devices", "gpus"),
    ("compute capability", "capability"),
    ("memory of a device, GiB", "memory_gib"),
    ("driver", "driver"),
    ("CUDA", "cuda"),
    ("torch", "torch"),
    ("NCCL of torch", "nccl"),
    ("NCCL that was brought", "nccl_brought"),
    ("triton", "triton"),
    ("cupy", "cupy"),
    ("vLLM", "vllm"),
    ("Python", "python"),
    ("system", "system"),
    ("cores", "cores"),
    ("graphguard", "graphguard"),
)
_HELD = {True: "yes", False: "**no**", None: "told"}
MAX_CELL = 300


def markdown(result: Result) -> str:
    """Return results as a document."""
    parts = [
        f"# Results on {_cell(result.machine.gpu) or 'no GPU'}\n",
        f"Begun {_cell(result.began)}. Written by `python -m tests.gpu.suite`, not by hand; what "
        "each row means is in [docs/gpu-results.md](../../docs/gpu-results.md).\n",
        _machine(result.machine),
        _stages(result.stages),
        _claims(result.stages),
        _figures(result.stages),
        _left_out(result.stages),
    ]
    return "\n".join(part for part in parts if part)


def _machine(machine: Machine) -> str:
    rows = [(name, getattr(machine, field)) for name, field in _MACHINE_ROWS]
    if machine.no_device:
        rows.insert(0, ("no device", machine.no_device))
    return _table(("machine", ""), [(name, str(value) or "—") for name, value in rows])


def _stages(stages: Iterable[StageResult]) -> str:
    rows = [
        (s.title, s.about, f"**{s.status}**" if s.wrong else s.status, f"{s.seconds:.0f}", _why(s))
        for s in stages
    ]
    return "## Stages\n\n" + _table(("stage", "what", "result", "seconds", ""), rows)


def _why(stage: StageResult) -> str:
    parts = [stage.why] if stage.why else []
    if stage.garbled:
        parts.append(f"{stage.garbled} lines could not be read")
    if stage.left_behind:
        parts.append(f"{stage.left_behind} processes it left behind were killed")
    return "; ".join(parts)


def _claims(stages: Iterable[StageResult]) -> str:
    claims = [(s.title, c) for s in stages for c in s.claims]
    rows = [(title, c.what, _HELD[c.held], c.seen) for title, c in claims if isinstance(c, Claim)]
    if not rows:
        return ""
    return "## What was seen\n\n" + _table(("stage", "claim", "held", "seen"), rows)


def _figures(stages: Iterable[StageResult]) -> str:
    rows = [(s.title, *_figure(f)) for s in stages for f in s.figures]
    if not rows:
        return ""
    head = ("stage", "what", "unit", "n", "median", "p10 to p90", "p99", "ratio", "against")
    return (
        "## Figures\n\nA ratio is the median over the pairs of a round, with its p10 and p90.\n\n"
        + _table(head, rows)
    )


def _figure(figure: Figure) -> tuple[str, ...]:
    spread = figure.spread
    ratio = "" if figure.ratio is None else _ratio(figure.ratio)
    alone = spread.n == 1
    return (
        figure.what,
        figure.unit,
        str(spread.n),
        _number(spread.median),
        "" if alone else f"{_number(spread.p10)} to {_number(spread.p90)}",
        "" if spread.p99 is None else _number(spread.p99),
        ratio,
        figure.against,
    )


def _ratio(ratio: Spread) -> str:
    return f"{ratio.median:.3f} ({ratio.p10:.3f} to {ratio.p90:.3f})"


def _left_out(stages: Iterable[StageResult]) -> str:
    rows = [(s.title, "all of it", s.why) for s in stages if s.status == "not run"]
    lines = [(s.title, line) for s in stages if s.status != "not run" for line in s.not_run]
    rows += [(title, line.what, line.why) for title, line in lines if isinstance(line, NotRun)]
    if not rows:
        return ""
    return "## What was not run\n\n" + _table(("stage", "what", "why"), rows)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(_cell(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    """Return a text that cannot leave its cell, nor become markup of another kind."""
    plain = "".join(" " if unicodedata.category(c)[0] in "CZ" else c for c in text)
    plain = " ".join(plain.split())
    if len(plain) > MAX_CELL:
        plain = plain[: MAX_CELL - 1] + "…"
    for character in "\\|`<>[]":
        plain = plain.replace(character, f"\\{character}")
    return plain


def _number(value: float) -> str:
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"
