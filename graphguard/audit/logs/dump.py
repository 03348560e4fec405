"""Reading vLLM's dump of a scheduler output, without evaluating it.

``vllm/logging_utils/dump_input.py`` prints objects as ``Name(key=value, …)``, dictionaries with
keys that are not quoted and in any order, lists and tuples in brackets, None and bools as JSON. It
may be cut off. Reports often leave out entries (``…: 2, ... (15 entries)``); that is noticed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

MAX_ENTRIES = 100_000
_OPENING = "([{<"
_CLOSING = ")]}>"
_ELIDED = re.compile(r"\.\.\.|…|<truncated>")
_NUMBER = re.compile(r"-?\d{1,18}")


class ScheduledStep(msgspec.Struct, frozen=True, kw_only=True):
    """What a dump says of a step; None for what it does not hold whole.

    Attributes:
        scheduled: Query tokens of each request.
        total: Query tokens together.
        drafts: Draft tokens of each request that has some.
        new: Requests that are scheduled for the first time.
        output_tokens: Tokens that each running request had put out.
        cached: Requests that had been scheduled before.
        running: Running requests, as the scheduler counts them.
        elided: Whether entries were left out, by a person or by being cut off.
        graph: Padding as ``--cudagraph-metrics`` records it: unpadded tokens, padded tokens.
    """

    scheduled: tuple[int, ...] | None = None
    total: int | None = None
    drafts: tuple[tuple[int, ...], ...] | None = None
    new: int | None = None
    output_tokens: tuple[int, ...] | None = None
    cached: int | None = None
    running: int | None = None
    elided: bool = False
    graph: tuple[int, int] | None = None


def read_dump(text: str) -> ScheduledStep:
    """Read the text of a ``SchedulerOutput(…)``, a ``SchedulerStats(…)``, or parts of one."""
    scheduled = _argument(text, "num_scheduled_tokens")
    drafts = _argument(text, "scheduled_spec_decode_tokens")
    output = _argument(text, "num_output_tokens")
    requests = _argument(text, "req_ids")
    new = _argument(text, "scheduled_new_reqs")
    return ScheduledStep(
        scheduled=None if scheduled is None else tuple(_values(scheduled)),
        total=_integer(text, "total_num_scheduled_tokens"),
        drafts=None if drafts is None else tuple(_drafts(drafts)),
        new=None if new is None else new.count("NewRequestData("),
        output_tokens=None if output is None else _numbers(output),
        cached=None if requests is None else sum(1 for _ in _entries(requests)),
        running=_integer(text, "num_running_reqs"),
        elided=any(part is not None and bool(_ELIDED.search(part)) for part in (scheduled, drafts)),
        graph=_graph(text),
    )


def depth_of(text: str) -> int:
    """Return how many more brackets a text opens than it closes."""
    return sum(map(text.count, "([{")) - sum(map(text.count, ")]}"))


def _integer(text: str, name: str) -> int | None:
    match = re.search(rf"\b{name}=(\d{{1,9}})\b", text)
    return int(match[1]) if match else None


def _graph(text: str) -> tuple[int, int] | None:
    unpadded, padded = _integer(text, "num_unpadded_tokens"), _integer(text, "num_padded_tokens")
    return None if unpadded is None or padded is None else (unpadded, padded)


def _argument(text: str, name: str) -> str | None:
    """Return the bracketed value of an argument, without its brackets.

    Of a value that is cut off, what there is.
    """
    match = re.search(rf"(?<!\w){name}=\s*([\[{{(])", text)
    if match is None:
        return None
    depth, quote = 1, ""
    for bracket in re.compile(r"[\[\](){}']").finditer(text, match.end()):
        character = bracket[0]
        if character == "'":
            # Quotes inside a string are not escaped; one that ends it has a separator after it.
            if quote and text[bracket.end() : bracket.end() + 1] in ",]}):=":
                quote = ""
            elif not quote and text[bracket.start() - 1] in "[{(,=: ":
                quote = character
        elif not quote:
            depth += 1 if character in _OPENING else -1
            if depth == 0:
                return text[match.end() : bracket.start()]
    return text[match.end() :] + "..."


def _entries(text: str) -> Iterator[str]:
    """Yield the entries of a list or dictionary, which commas outside brackets part."""
    depth = start = count = 0
    for match in re.finditer(r"[\[\](){},]", text):
        character = match[0]
        if character == ",":
            if depth == 0:
                if entry := text[start : match.start()].strip():
                    yield entry
                    count += 1
                    if count >= MAX_ENTRIES:
                        return
                start = match.end()
        else:
            depth += 1 if character in _OPENING else -1
    if entry := text[start:].strip():
        yield entry


def _values(text: str) -> Iterator[int]:
    """Yield the numbers of ``{key: number}``."""
    for entry in _entries(text):
        match = re.search(r":\s*(\d{1,9})\s*(?:$|\.\.\.|\()", entry)
        if match:
            yield int(match[1])


def _drafts(text: str) -> Iterator[tuple[int, ...]]:
    """Yield the lists of ``{key: [number, …]}``."""
    for match in re.finditer(r":\s*\[([^\[\]]*)\]?", text):
        numbers = _numbers(match[1])
        if numbers:
            yield numbers


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in _NUMBER.findall(text)[:MAX_ENTRIES])
