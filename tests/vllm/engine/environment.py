"""The environment of an engine under test."""

from __future__ import annotations

import os
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec

from tests.vllm.engine.emulation import settings
from tests.vllm.engine.emulation.settings import Emulation, Fault, Piecewise, Settings

REPOSITORY = Path(__file__).parents[3]
ENTRY_POINT = "emulated-graphs"
_OF_GRAPHGUARD = "GRAPHGUARD_"


def environment(
    directory: Path,
    *,
    emulation: Emulation,
    faults: tuple[Fault, ...],
    graphguard: str | None,
    step_seconds: int,
    extra: dict[str, str],
) -> dict[str, str]:
    """Return the environment for an engine that works in a directory of its own.

    Args:
        directory: Where traces, manifests and the plugin's entry point go.
        emulation: The graphs.
        faults: What goes wrong.
        graphguard: The mode of graphguard's own plugin, or None to leave the plugin out.
        step_seconds: After how long a step that does not end is an error of vLLM.
        extra: More variables; they win.
    """
    plugins = [ENTRY_POINT] if graphguard is None else [ENTRY_POINT, "graphguard"]
    told = Settings(emulation=emulation, faults=faults, directory=str(directory))
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(_OF_GRAPHGUARD)}
    paths = [str(_entry_point(directory)), str(REPOSITORY), os.environ.get("PYTHONPATH", "")]
    variables = {
        # The first on the path is the first that vLLM finds: see README.md.
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        "VLLM_PLUGINS": ",".join(plugins),
        settings.VARIABLE: msgspec.json.encode(told).decode(),
        "GRAPHGUARD_DIR": str(directory / "graphguard"),
        "GRAPHGUARD_MODE": graphguard or "off",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "0|1",
        "VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS": str(step_seconds),
        "VLLM_RINGBUFFER_WARNING_INTERVAL": "5",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    if emulation.piecewise is Piecewise.BREAKABLE:
        variables["VLLM_USE_BREAKABLE_CUDAGRAPH"] = "1"
    return inherited | variables | extra


def _entry_point(directory: Path) -> Path:
    """Make a folder that holds nothing but the entry point of the emulation's plugin."""
    folder = directory / "entry-point"
    information = _write_metadata(folder, "graphguard-test-emulation", "0")
    (information / "entry_points.txt").write_text(
        f"[vllm.general_plugins]\n{ENTRY_POINT} = tests.vllm.engine.emulation.plugin:register\n"
    )
    try:
        version("vllm")
    except PackageNotFoundError:
        # `vllm serve` asks for its version by that name, also in the build for the CPU.
        _write_metadata(folder, "vllm", f"{version('vllm-cpu')}+cpu")
    return folder


def _write_metadata(folder: Path, name: str, number: str) -> Path:
    information = folder / f"{name.replace('-', '_')}-{number}.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {name}\nVersion: {number}\n"
    )
    return information
