"""Tests of this folder need a vLLM that can be imported: ``make vllm`` runs them with one."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = [item for item in items if item.path.is_relative_to(_HERE)]
    for item in here:
        # vLLM and what it imports warn of what they use; whichever test imports them first.
        item.add_marker(pytest.mark.filterwarnings("default"))
    if not here or importlib.util.find_spec("vllm") is not None:
        return
    if os.environ.get("GRAPHGUARD_REQUIRE_VLLM") == "1":
        raise pytest.UsageError(
            "vLLM is not installed here, and GRAPHGUARD_REQUIRE_VLLM asks for it"
        )
    for item in here:
        item.add_marker(pytest.mark.skip(reason="vLLM is not installed here; make vllm has it"))
