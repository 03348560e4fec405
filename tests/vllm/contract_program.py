"""Looks at the vLLM on its path, in a process of its own, and prints what it found as JSON.

Arguments: the module of the worker, which is imported first, as in an engine; and the mutations
to try, as JSON, see :class:`Mutation`.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import json
import sys
from types import FunctionType, ModuleType
from typing import Any, TypedDict

from graphguard.importing import after_import
from graphguard.vllm import contract

MOMENTS = {
    "vllm.v1.spec_decode.llm_base_proposer": ("v1-drafter",),
    "vllm.v1.worker.gpu_model_runner": (
        "v1-target",
        "v1-padding",
        "piecewise",
        "collectives",
        "uniform-graphs",
        "v1-stalls",
    ),
    "vllm.v1.worker.gpu.model_runner": ("v2-target", "v2-padding", "v2-stalls"),
    **{
        f"vllm.v1.worker.gpu.spec_decode.{name}.speculator": ("v2-drafter", "v2-target")
        for name in ("eagle", "autoregressive", "target_dependent_ar", "multi_module_mtp")
    },
    "vllm.compilation.breakable_cudagraph": ("breakable",),
    "vllm.v1.worker.gpu_worker": ("capture", "stalls"),
    "vllm.v1.worker.cpu_worker": ("capture", "stalls"),
    "vllm.v1.core.sched.async_scheduler": ("scheduler",),
    "vllm.v1.metrics.prometheus": ("metrics",),
}
"""When the plugin asks for a part: when vLLM has just imported one of these modules."""

DRAFTER = "vllm.v1.worker.gpu.spec_decode.mtp.speculator"
"""vLLM imports it for an MTP drafter, and in the middle of that the modules that are hooked."""

CARRIERS = (
    "cuda_communicator",
    "pynccl",
    "custom_all_reduce",
    "symm_mem",
    "quick_all_reduce",
    "flashinfer_all_reduce",
    "cpu_communicator",
    "all2all",
)
"""Modules that are looked at only where they are loaded. Here, all of them."""


class Mutation(TypedDict):
    """Something of vLLM that is changed before a part is asked for.

    Keys:
        part: The part.
        change: ``delete`` it, ``rename`` its parameter, ``forget`` a field, ``empty`` its code.
        module: Where it is.
        path: Its name in there; empty for the module itself.
        name: The parameter or field.
    """

    part: str
    change: str
    module: str
    path: str
    name: str


def main() -> None:
    asked: dict[str, dict[str, list[str]]] = {}
    for module, parts in MOMENTS.items():
        after_import(module, functools.partial(_ask, asked, module, parts))
    importlib.import_module(sys.argv[1])
    for module in (DRAFTER, *MOMENTS):
        _import_if_it_is_there(module)
    for name in CARRIERS:
        importlib.import_module(f"vllm.distributed.device_communicators.{name}")
    import torch
    import vllm

    found = {
        "vllm": vllm.__file__,
        "version": contract.vllm_version(),
        "known": contract.known_version(),
        "when imported": asked,
        "variants": {part.value: contract.variant(part) for part in contract.Part},
        "missing": {part.value: contract.missing(part) for part in contract.Part},
        "mutated": [_mutated(mutation) for mutation in json.loads(sys.argv[2])],
        "initialized": torch.cuda.is_initialized(),
    }
    print(json.dumps(found))


def _import_if_it_is_there(module: str) -> None:
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        if not f"{module}.".startswith(f"{error.name}."):
            raise


def _ask(asked: dict[str, dict[str, list[str]]], module: str, parts: tuple[str, ...]) -> None:
    asked[module] = {part: contract.missing(contract.Part(part)) for part in parts}


def _mutated(mutation: Mutation) -> list[str]:
    """Return what is missing for a part after a change, which is then taken back."""
    part = contract.Part(mutation["part"])
    if not mutation["path"]:
        taken = sys.modules[mutation["module"]]
        sys.modules[mutation["module"]] = None  # type: ignore[assignment]
        try:
            return contract.missing(part)
        finally:
            sys.modules[mutation["module"]] = taken
    owner: Any = importlib.import_module(mutation["module"])
    *owners, name = mutation["path"].split(".")
    for step in owners:
        owner = getattr(owner, step)
    original = vars(owner)[name]
    delattr(owner, name)
    try:
        if mutation["change"] != "delete":
            setattr(owner, name, _changed(original, mutation))
        return contract.missing(part)
    finally:
        setattr(owner, name, original)


def _changed(original: Any, mutation: Mutation) -> Any:
    if mutation["change"] == "forget":
        fields = {k: v for k, v in original.__dataclass_fields__.items() if k != mutation["name"]}
        return type(original.__name__, (), {"__dataclass_fields__": fields})
    if mutation["change"] == "empty":
        return _emptied(original)
    code = original.__code__
    names = [f"{n}_" if n == mutation["name"] else n for n in code.co_varnames]
    renamed = code.replace(co_varnames=tuple(names))
    return FunctionType(renamed, vars(ModuleType("changed")), original.__name__)


def _emptied(original: Any) -> Any:
    def empty(*args: Any, **kwargs: Any) -> None:
        """Do nothing, with the original's parameters."""

    empty.__signature__ = inspect.signature(original)  # type: ignore[attr-defined]
    return empty


if __name__ == "__main__":
    main()
