"""Taking a line of a log apart: what wrapped it, who printed it and when, and the message.

Formats: vLLM 0.10 to 0.33 (``vllm/logger.py``), its JSON formatter, Ray, docker (json-file,
``compose``, ``-t``), Kubernetes (CRI), journald, SGLang (``[date time TP0] message``), PyTorch's
C++ log (``[rank0]:[E1121 …]``) and TensorRT-LLM (``[11/21/2026-10:00:00] [TRT-LLM] [E] …``).
"""

from __future__ import annotations

import re
from typing import NamedTuple

import msgspec

_COLOURS = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]{0,200}(?:\x07|\x1b\\))")
_WRAPPERS = re.compile(
    r"""\s*(?:
      (?P<time>\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d[\d.,]*(?:Z|[+-]\d\d:?\d\d)?)\s+
      (?:std(?:out|err)\s+(?P<tag>[FP])\s+)?(?=\S)
    | (?P<service>[\w.-]{1,80})\s+\|\s
    | [A-Z][a-z]{2}\s+\d+\s\d\d:\d\d:\d\d\s\S{1,80}\s[\w./@-]{1,80}\[\d+\]:\s
    | (?P<clock>\d\d:\d\d:\d\d)\s-\s
    | >\s
    )""",
    re.VERBOSE,
)
_PROCESS = re.compile(
    r"\s*\((?P<name>[A-Za-z_][^()\n]{0,80}?)\s*pid=(?P<pid>\d+)[^()\n]{0,60}\)\s?"
)
_VLLM = re.compile(
    r"(?P<level>DEBUG|INFO|WARNING|ERROR|CRITICAL|FATAL) (?P<time>\d\d-\d\d \d\d:\d\d:\d\d) "
    r"\[?(?P<source>[\w./<>-]+:\d+)\] ?"
)
_SGLANG = re.compile(r"\[(?P<time>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)(?P<who>(?: [A-Z]+\d+)*)\] ?")
_TORCH = re.compile(
    r"(?:\[rank(?P<rank>\d+)\]:\s?)?\[(?P<level>[IWEF])(?P<day>\d{4})? ?"
    r"(?P<time>\d\d:\d\d:\d\d)?[.\d]* ?(?P<source>[\w.]+:\d+)\] ?"
)
_TENSORRT = re.compile(
    r"\[(?P<time>\d\d/\d\d/\d{4}-\d\d:\d\d:\d\d)\] \[TRT-LLM\](?: \[RANK (?P<rank>\d+)\])? "
    r"\[(?P<level>[A-Z])\] ?"
)
_MESSAGE_KEYS = ("log", "message", "msg", "textPayload", "MESSAGE")
_LEVEL_KEYS = ("levelname", "level", "severity")
_TIME_KEYS = ("asctime", "timestamp", "time", "ts")
_PROCESS_KEYS = ("processName", "process_name", "container_name")
MAX_WRAPPERS = 4
_MAX_PREFIX = 2000
"""A prefix is looked for in so many characters; a progress bar may stand before it."""


class Line(NamedTuple):
    """A line that was taken apart. What it does not tell is empty.

    Attributes:
        number: From 1.
        time: As printed.
        process: Who printed it: ``EngineCore``, ``Worker_TP0``, ``rank3``, ``TP1``.
        pid: Its process id, as printed.
        level: The level, as printed.
        source: File and line of the program.
        message: The rest.
        partial: Whether the container runtime cut it, so that the next line goes on with it.
    """

    number: int
    time: str
    process: str
    pid: str
    level: str
    source: str
    message: str
    partial: bool = False


def take_apart(number: int, raw: bytes) -> Line:
    """Take one line apart. Any bytes will do."""
    text = raw.decode("utf-8", "replace").rstrip("\r\n")
    if "\x1b" in text:
        text = _COLOURS.sub("", text)
    line = Line(number, "", "", "", "", "", text)
    for _ in range(MAX_WRAPPERS):
        unwrapped = _json(line) or _wrapper(line)
        if unwrapped is None:
            break
        line = unwrapped
    return _prefix(line)


def _json(line: Line) -> Line | None:
    text = line.message.strip()
    if not (text.startswith("{") and text.endswith("}")):
        return None
    try:
        content = msgspec.json.decode(text)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    if not isinstance(content, dict):
        return None
    message = _first(content, _MESSAGE_KEYS)
    if not message:
        return None
    # docker splits a line of more than 16 KiB; only the last part ends with a newline.
    partial = "log" in content and "stream" in content and not message.endswith("\n")
    return line._replace(
        message=_COLOURS.sub("", message).rstrip("\r\n"),
        partial=partial,
        time=line.time or _first(content, _TIME_KEYS),
        level=line.level or _first(content, _LEVEL_KEYS),
        process=line.process or _first(content, _PROCESS_KEYS),
    )


def _first(content: dict[str, object], keys: tuple[str, ...]) -> str:
    return next((value for key in keys if isinstance(value := content.get(key), str)), "")


def _wrapper(line: Line) -> Line | None:
    match = _WRAPPERS.match(line.message[:_MAX_PREFIX])
    if match is None or not match.end():
        return None
    return line._replace(
        message=line.message[match.end() :],
        partial=line.partial or match["tag"] == "P",
        time=match["time"] or match["clock"] or line.time,
    )


def _prefix(line: Line) -> Line:
    processes: list[tuple[str, str]] = []
    while (match := _PROCESS.match(line.message[:_MAX_PREFIX])) and len(processes) < MAX_WRAPPERS:
        processes.append((match["name"], match["pid"]))
        line = line._replace(message=line.message[match.end() :])
    head = line.message[:_MAX_PREFIX]
    if match := _VLLM.search(head):
        before = line.message[: match.start()]
        # A progress bar does not end its line, so the next message begins after it.
        if not processes and (glued := list(_PROCESS.finditer(before))):
            processes = [(each["name"], each["pid"]) for each in glued]
        line = _named(line, match, match["level"], match["source"])
    elif match := _SGLANG.match(head):
        line = _named(line, match, "", "", match["who"].strip())
    elif match := _TENSORRT.match(head):
        line = _named(line, match, match["level"], "", _rank(match["rank"]))
    elif match := _TORCH.search(head):
        who = _rank(match["rank"]) or line.process
        time = " ".join(filter(None, (match["day"], match["time"]))) or line.time
        line = _named(line, match, match["level"], match["source"], who)._replace(time=time)
    if processes:
        # Ray names its actor before vLLM names the process, and the inner one says more.
        line = line._replace(process=processes[-1][0].strip(), pid=processes[-1][1])
    return line


def _named(line: Line, match: re.Match[str], level: str, source: str, process: str = "") -> Line:
    return line._replace(
        time=match["time"] or line.time,
        level=level or line.level,
        source=source,
        process=process or line.process,
        message=line.message[match.end() :],
    )


def _rank(number: str | None) -> str:
    return f"rank{number}" if number else ""
