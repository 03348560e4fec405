"""One line of a log without prompts and token ids.

Engines print both: vLLM at a request (``prompt: '…'``, ``prompt_token_ids: […]``) and, up to 0.9,
in the dump of a step; SGLang with ``input_ids=[…]`` and ``text='…'``. Drafted tokens stand in
``scheduled_spec_decode_tokens``. Numbers that say what was run (sizes, counts, blocks) stay.
"""

from __future__ import annotations

import re

MAX_CHARACTERS = 8192
"""Of a line; the rest is cut."""

_MAX_QUOTED = 160
"""A text in quotes that is longer is taken for something that a person wrote."""

_LONG_RUN = 8
"""So many numbers after each other are a list of token ids, unless they are known not to be."""

_LEVEL = r"(?:TRACE|DEBUG|INFO|WARN|WARNING|ERROR|CRITICAL|FATAL)"
_DAY = r"\d{4}[-/]\d\d[-/]\d\d[T ]\d\d:\d\d:\d\d[\d.,]*(?:Z|[+-]\d\d:?\d\d)?"
_WRAPPER = re.compile(
    # Colour codes; Ray's and vLLM's processes; docker's and Kubernetes's times; journald.
    rf"(?:\x1b\[[\d;]*m|\s*\([A-Za-z_][^()\n]{{0,80}}? ?pid=\d+[^()\n]{{0,60}}\) ?|\[rank\d+\]:\s?|"
    rf"{_DAY} (?:std(?:out|err) [FP] )?(?={_LEVEL}|\(|\x1b|\[|Traceback|File )|"
    r"[\w.-]{1,80}\s+\|\s|[A-Z][a-z]{2} +\d+ \d\d:\d\d:\d\d \S{1,80} [\w./@-]{1,80}\[\d+\]: )"
)
_MAX_WRAPPERS = 6
_LOGGED = re.compile(
    rf"{_LEVEL} +(?:{_DAY}|\d\d-\d\d \d\d:\d\d:\d\d)|{_LEVEL}:|"
    rf"\[?{_DAY}\]? ?.{{0,80}}?\b{_LEVEL}\b|"
    r"graphguard: |\[?[IWEF]\d{4} ?\d\d:\d\d|\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[^\]]{0,40}\]|"
    r"\[\d\d/\d\d/\d{4}-\d\d:\d\d:\d\d\] \[TRT-LLM\]|\S{1,100}:\d+:\d+ \[\d+\] .{0,40}?NCCL |"
    r"\{\"(?:log|message|msg|level|levelname|time|timestamp|severity|asctime)\": ?\""
)
_TRACEBACK = re.compile(
    r"\s*(?:Traceback \(most recent|File \"[^\"]*\", line \d+|Fatal Python error|Current thread 0x|"
    r"Thread 0x|During handling of the above exception|The above exception was|\^+\s*$|[~^]+\s*$)|"
    r"(?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Interrupt|Exit|Warning)(?::|$)"
)
_FRAME = re.compile(r".{0,120}?File \"[^\"]*\", line \d+")

_TEXT_KEY = re.compile(
    r"(?<![\w.])(?:prompts?|prompt_(?:text|str|token_ids|ids|embeds)|text|texts|content|contents|"
    r"messages|inputs?|input_ids|input_text|token_ids|output_ids|new_token_ids|all_token_ids|"
    r"sampled_token_ids|draft_token_ids|output_text|output_tokens|outputs?|generated_text|"
    r"generation|completion|completions|response|query|question|answer|instruction|chat|"
    r"conversation|system_prompt|user_prompt|body|stop|stop_token_ids|bad_words|"
    r"guided_json|structured_outputs|grammar|json_schema|regex|choices?)"
    r"\\*[\"']?\s*[:=]\s*",
    re.IGNORECASE,
)
_PLAIN = re.compile(r"(?:-?\d+(?:\.\d+)?|None|null|true|false)(?=$|[\s,;)\]}])", re.IGNORECASE)
_CLOSING = {"[": "]", "{": "}", "(": ")"}
_NEXT = re.compile(r"[)\]}\s]*(?:$|[,;]\s*[\"']?[A-Za-z_][\w.]*[\"']?\s*[:=])")
_PREFIXED_QUOTE = re.compile(r"[bBrRuUfF]{0,2}(?:\\*)(['\"])")

_LIST = re.compile(r"[\[({]\s*-?\d+(?:[\s,]+-?\d+)*\s*,?\s*[\])}]")
_RUN = re.compile(rf"(?<![\w.])-?\d+(?:[,;\s]+-?\d+){{{_LONG_RUN - 1},}}(?![\w.])")
_KNOWN_LIST = re.compile(
    r"(?:cudagraph_capture_sizes|capture_sizes|compile_sizes|cudagraph_sizes|compile_ranges\w*|"
    r"block_ids|new_block_ids|num_computed_tokens|num_output_tokens|num_common_prefix_blocks|"
    r"all_token_ids_lens|new_token_ids_lens|num_prompt_tokens|prompt_lens|seq_lens|query_lens|"
    r"shape|size|sizes|stride|strides|ranks?|missing|gpus?|devices?|cudagraph_mode|Size|"
    r"[A-Z_]+: )[\"']?\s*[=:]?\s*\(?$"
)
_QUOTED = re.compile(rf"(['\"])(?:(?!\1).){{{_MAX_QUOTED},}}\1")


def wanted(line: str, before: str) -> bool:
    """Return whether a logger or a traceback wrote a line.

    Args:
        line: The line.
        before: The line before it, if that is kept; the source of a frame stands under it.
    """
    begin = _after_wrappers(line)
    if _LOGGED.match(line, begin) or _TRACEBACK.match(line, begin):
        return True
    return line.startswith("    ", begin) and _FRAME.match(before) is not None


def safe_line(line: str) -> str:
    """Return a line without texts and token ids."""
    cut = len(line) - MAX_CHARACTERS
    line = line[:MAX_CHARACTERS].rstrip("\r")
    line = _without_values(line)
    line = _LIST.sub(_list, line)
    line = _RUN.sub(_run, line)
    line = _QUOTED.sub(lambda found: f"<text of {len(found[0]) - 2} characters>", line)
    return f"{line} <{cut} more characters>" if cut > 0 else line


def _after_wrappers(line: str) -> int:
    begin = 0
    for _ in range(_MAX_WRAPPERS):
        if _LOGGED.match(line, begin) or not (found := _WRAPPER.match(line, begin)):
            break
        begin = found.end()
    return begin


def _without_values(line: str) -> str:
    """Take out the values of the keys under which engines print texts and token ids."""
    parts = []
    position = 0
    while found := _TEXT_KEY.search(line, position):
        parts.append(line[position : found.end()])
        end = _end_of_value(line, found.end())
        value = line[found.end() : end]
        parts.append(value if _PLAIN.fullmatch(value) else _left_out(value))
        position = end
    parts.append(line[position:])
    return "".join(parts)


def _end_of_value(line: str, begin: int) -> int:
    if plain := _PLAIN.match(line, begin):
        return plain.end()
    if quote := _PREFIXED_QUOTE.match(line, begin):
        return _end_of_quoted(line, quote.end(), quote[1])
    if line[begin : begin + 1] in _CLOSING:
        return _end_of_bracketed(line, begin)
    # A text without quotes ends nobody knows where.
    return len(line)


def _end_of_quoted(line: str, begin: int, quote: str) -> int:
    position = begin
    while position < len(line):
        if line[position] == "\\":
            position += 2
            continue
        if line[position] == quote and _closes(line, position + 1):
            return position + 1
        position += 1
    return len(line)


def _closes(line: str, after: int) -> bool:
    """Return whether a quotation mark ends a text: the line ends there, or another key follows."""
    return _NEXT.match(line, after) is not None or line[after : after + 1] in tuple(")]}")


def _end_of_bracketed(line: str, begin: int) -> int:
    waiting: list[str] = []
    position = begin
    while position < len(line):
        character = line[position]
        if character in "'\"":
            position = _end_of_quoted(line, position + 1, character)
            continue
        if character in _CLOSING:
            waiting.append(_CLOSING[character])
        elif waiting and character == waiting[-1]:
            waiting.pop()
            if not waiting:
                return position + 1
        position += 1
    return len(line)


def _left_out(value: str) -> str:
    if value[:1] in _CLOSING:
        return f"<{value.count(',') + 1} left out>" if value[1:-1].strip() else value
    return f"<text of {len(value)} characters>" if value.strip("'\" ") else value


def _list(found: re.Match[str]) -> str:
    numbers = re.findall(r"-?\d+", found[0])
    before = found.string[max(0, found.start() - 40) : found.start()]
    if set(numbers) == {"-1"} or _KNOWN_LIST.search(before):
        return found[0]
    if found[0][0] != "[":
        return found[0] if len(numbers) < _LONG_RUN else f"<{len(numbers)} numbers>"
    standing_alone = before[-1:] in ("", " ") and before.rstrip()[-1:] not in tuple("=:({[,")
    if len(numbers) == 1 and standing_alone:
        return found[0]
    return f"[<{len(numbers)} numbers>]"


def _run(found: re.Match[str]) -> str:
    before = found.string[max(0, found.start() - 41) : found.start()]
    if before.endswith(("[", "(", "{")) and _KNOWN_LIST.search(before[:-1]):
        return found[0]
    return f"<{len(re.findall(r'-?[0-9]+', found[0]))} numbers>"
