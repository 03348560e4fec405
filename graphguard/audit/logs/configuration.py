"""The settings of an engine that matter for its graphs, as far as its log prints them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable

import msgspec

from graphguard.audit.logs.lines import Line
from graphguard.audit.logs.model import Setting

_MODES = {
    "0": "NONE",
    "1": "PIECEWISE",
    "2": "FULL",
    "[2,0]": "FULL_DECODE_ONLY",
    "[2,1]": "FULL_AND_PIECEWISE",
}
"""vLLM up to 0.11 prints the mode as a number (``CUDAGraphMode`` in ``config/compilation.py``)."""

_IS = r"['\"]?\s*[:=]\s*['\"]?"
_PATTERNS: dict[str, str] = {
    "model": r"\bmodel='(?P<v>[^']{1,300})'|\bmodel_path='(?P<w>[^']{1,300})'"
    r"|\bModel: (?P<x>[\w./-]{3,200})|(?:vllm serve|--model(?:-path)?)[ =](?P<y>[\w./-]{3,200})",
    "method": rf"(?:SpeculativeConfig\(|(?i:speculative).{{0,40}}?)['\"]?method{_IS}(?P<v>[\w-]+)"
    rf"|speculative_algorithm{_IS}(?!None)(?P<w>\w+)",
    "draft_tokens": rf"\bnum_spec(?:ulative)?_tokens{_IS}(?P<v>\d+)",
    "cudagraph_mode": rf"cudagraph_mode{_IS}(?:<CUDAGraphMode\.)?"
    r"(?P<v>[A-Z_]{4,}|\d\b|\[\d, ?\d\])",
    "capture_sizes": rf"(?<!replay_)cudagraph_capture_sizes{_IS}\[(?P<v>[^\]]{{0,4000}})\]"
    r"|\bcuda_graph_bs=\[(?P<w>[^\]]{0,4000})\]",
    "max_capture_size": rf"max_cudagraph_capture_size{_IS}(?P<v>\d+)",
    "max_num_seqs": rf"max[-_]num[-_]seqs(?:{_IS}|\s+)(?P<v>\d+)",
    "tensor_parallel_size": rf"\b(?:tensor[-_]parallel[-_]size|tp_size)(?:{_IS}|\s+)(?P<v>\d+)"
    r"|\bTP=(?P<w>\d+)",
    "pipeline_parallel_size": rf"\b(?:pipeline[-_]parallel[-_]size|pp_size)(?:{_IS}|\s+)(?P<v>\d+)",
    "data_parallel_size": rf"\b(?:data[-_]parallel[-_]size|dp_size)(?:{_IS}|\s+)(?P<v>\d+)",
    "expert_parallel": rf"enable[-_]expert[-_]parallel(?:{_IS}|\s+)(?P<v>True|False)"
    r"|(?P<w>--enable-expert-parallel)",
    "enforce_eager": rf"\benforce_eager{_IS}(?P<v>True|False)",
    "nccl": r"vLLM is using nccl==(?P<v>[\d.]+)|\bNCCL (?:version )?(?P<w>2\.\d+\.\d+)",
    "torch": r"PyTorch version\s*:\s*(?P<v>[\d.]+\S*)"
    r"|\btorch(?: version:?)? ?(?:==)?\s?(?P<w>\d\.\d+[\d.]*)",
    "runner": r"(?P<v>Using V2 Model Runner)|(?P<w>using the V1 model runner)",
    "async_scheduling": r"(?P<v>Asynchronous scheduling is (?:en|dis)abled)"
    rf"|async_scheduling{_IS}(?P<w>True|False)",
    "breakable_graphs": r"(?P<v>Breakable CUDA graph enabled)",
    "several_nodes": r"\bnnodes[=:' ]+(?P<v>[2-9]|\d\d+)\b|\bnode_rank=(?P<w>[1-9]\d*)\b",
    "flashinfer_all-reduce": r"(?P<v>flashinfer_trtllm_fused_allreduce|FlashInferAllReduce|"
    r"VLLM_ALLREDUCE_USE_FLASHINFER=1)",
    "nsys": r"(?P<v>nsys profile|NSYS_PROFILING_SESSION_ID)",
    "ascend": r"(?P<v>vllm[_-]ascend)",
    "gpu": r"\b(?P<v>(?:NVIDIA )?(?:H20|H100|H200|H800|GH200|B200|B300|GB200|GB300|GB10|A100|L40S?|"
    r"RTX PRO 6000))\b",
}  # fmt: skip
_COMPILED = {name: re.compile(pattern) for name, pattern in _PATTERNS.items()}
_HINT = re.compile(
    r"cudagraph|parallel|specul|num_spec|nccl|NCCL|[Tt]orch|Model Runner|model runner|cheduling|"
    r"Breakable|max[-_]num[-_]seqs|Speculative|[Mm]odel[: ]|vllm serve|nnodes|node_rank|llreduce|"
    r"ALLREDUCE|AllReduce|nsys|"
    r"NSYS|ascend|TP=|tp_size|model=|H20|H100|H800|B200|B300|GB10|A100|L40|RTX|cuda_graph_bs"
)
_RESOLVED = re.compile(r"with config: |server_args=ServerArgs\(|Dumping input data")
_VERSION = re.compile(
    r"LLM engine \(v?(?P<v>\d[^)\s]*)\)|vLLM API server version (?P<w>\S+)"
    r"|vLLM(?: version)?: v?(?P<x>\d+\.[\w.+-]+)|[Bb]uilt from v(?P<y>\d[\d.]+) tag"
    r"|\[TensorRT-LLM\] TensorRT-LLM version: (?P<z>\S+)|TensorRT[- ]LLM version: (?P<u>\S+)"
    r"|\bsglang(?:==|[ -]v?)(?P<s>\d+\.\d[\w.]*)"
)
_ENGINES = {
    "vllm": re.compile(
        r"\bvLLM\b|\bvllm[/.]|EngineCore|VllmWorker|shm_broadcast\.py|SchedulerOutput\("
    ),
    "sglang": re.compile(
        r"\bsglang(?:/|::|\.srt|==)|self\.watchdog_timeout=|#running-req|server_args=ServerArgs"
    ),
    "tensorrt-llm": re.compile(r"\[TRT-LLM\]|\[TensorRT-LLM\]|tensorrt_llm/"),
    "pytorch": re.compile(r"ProcessGroupNCCL"),
}
MAX_SEARCHED = 200_000
MAX_VALUE = 4000
MAX_VALUES = 2000
ENOUGH_LINES = 500
"""Of so many lines that tell their engine, the most decide which it is."""


class Configuration:
    """What the lines so far say of the configuration. A later resolved value wins.

    Attributes:
        version: Of the engine.
        settings: By name; what a name means is in ``docs/diagnose.md``.
    """

    def __init__(self) -> None:
        self.version: Setting | None = None
        self.settings: dict[str, Setting] = {}
        self._resolved: set[str] = set()
        self._said: dict[str, dict[str, Setting]] = {}
        self._times: Counter[tuple[str, str]] = Counter()
        self._engines: Counter[str] = Counter()

    @property
    def engine(self) -> str | None:
        """The engine that most lines are of. PyTorch only where no engine is seen above it."""
        seen = {name: count for name, count in self._engines.items() if name != "pytorch"}
        return max(seen or self._engines, key=lambda name: self._engines[name], default=None)

    def take(self, line: Line) -> None:
        """Take what a line says."""
        text = f"{line.source} {line.process} {line.message[:MAX_SEARCHED]}"
        if self._engines.total() < ENOUGH_LINES:
            self._engines.update(n for n, each in _ENGINES.items() if each.search(text[:4000]))
        if self.version is None and (match := _VERSION.search(text)):
            self.version = Setting(_found(match).rstrip(".,)"), line.number)
        if not _HINT.search(text):
            return
        resolved = bool(_RESOLVED.search(text))
        for name, compiled in _COMPILED.items():
            if match := compiled.search(text):
                self._put(name, _found(match), line.number, resolved)

    def integer(self, name: str) -> int | None:
        """Return a setting as a number, or None."""
        setting = self.settings.get(name)
        return int(setting.value) if setting and setting.value.isdigit() else None

    def _put(self, name: str, value: str, number: int, resolved: bool) -> None:
        value = value[:MAX_VALUE]
        setting = Setting(_WORDS[name](value) if name in _WORDS else value, number)
        if resolved and name not in self._resolved:
            self._resolved.add(name)
            self.settings[name] = setting
        if name in self._resolved or len(self._times) >= MAX_VALUES:
            return
        # A report may quote the settings of others too; its own are named most often.
        said = self._said.setdefault(name, {})
        said.setdefault(setting.value, setting)
        self._times[name, setting.value] += 1
        self.settings[name] = max(
            said.values(), key=lambda each: (self._times[name, each.value], each.line)
        )


class Sizes(msgspec.Struct, frozen=True):
    """Capture sizes, in tokens, ascending, and whether the log gives all of them."""

    values: tuple[int, ...]
    whole: bool


def capture_sizes(text: str) -> Sizes:
    """Read a list of capture sizes, of which some may be left out."""
    numbers = sorted({int(number) for number in re.findall(r"\d{1,6}", text)})
    return Sizes(tuple(numbers), "..." not in text and "…" not in text)


def _found(match: re.Match[str]) -> str:
    return next(value for value in match.groups() if value is not None)


def _mode(value: str) -> str:
    return _MODES.get(value.replace(" ", ""), value)


def _runner(value: str) -> str:
    return "V2" if "V2" in value else "V1"


def _switch(value: str) -> str:
    return "False" if value == "False" or "disabled" in value else "True"


_WORDS: dict[str, Callable[[str], str]] = {
    "cudagraph_mode": _mode,
    "runner": _runner,
    "expert_parallel": _switch,
    "async_scheduling": _switch,
    "breakable_graphs": _switch,
}
