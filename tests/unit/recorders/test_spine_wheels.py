"""The spine on the Python files of other versions of torch, fetched by ``make torch-wheels``.

The file ``torch/cuda/graphs.py`` of each is run as it is, over the C++ stand-in and with those
files of the same wheel that it imports.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import pytest
import torch

from graphguard.recorders.spine_hooks import HookAdapter
from graphguard.recorders.spine_patches import PatchAdapter
from tests import torch_wheels
from tests.unit.recorders.graph_libraries import Library, of_file
from tests.unit.recorders.spine_behaviour import *  # noqa: F403
from tests.unit.recorders.spine_fixtures import box, install
from tests.unit.recorders.spine_launches import *  # noqa: F403

__all__ = ["box", "install"]


@pytest.fixture(params=torch_wheels.VERSIONS)
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Library:
    folder = torch_wheels.cuda_files(request.param)
    if folder is None:
        reason = f"the wheel of torch {request.param} is not at hand: make torch-wheels"
        if os.environ.get("GRAPHGUARD_REQUIRE_TORCH_WHEELS") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    for name in ("_utils", "_graph_annotations"):
        if (folder / f"{name}.py").exists():
            _take(folder / f"{name}.py", f"torch.cuda.{name}", monkeypatch)
    return of_file(f"torch {request.param}", folder / "graphs.py")


def _take(path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(torch.cuda, name.rpartition(".")[2], module, raising=False)
    spec.loader.exec_module(module)


def test_the_adapter_is_the_one_for_the_version(library: Library) -> None:
    minor = int(library.name.split(".")[1])
    assert isinstance(library.adapter(), HookAdapter if minor >= 14 else PatchAdapter)
