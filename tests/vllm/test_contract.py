"""The contract against vLLM as it is published: the wheels, imported without a GPU."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.vllm import wheels
from tests.vllm.contract_cases import CASES, HOLDS, INSTALLED, NOT_THERE, VERSIONS, Case

MODULES_OF_MODELS = (
    "vllm.v1.spec_decode.llm_base_proposer",
    "vllm.v1.worker.gpu_model_runner",
    "vllm.v1.worker.gpu.model_runner",
)


@functools.cache
def _look(version: str) -> dict[str, Any]:
    """Return what a process finds that has this version of vLLM."""
    mutations = [case._asdict() for case in CASES if version in case.versions]
    environment = {**os.environ, "VLLM_LOGGING_LEVEL": "ERROR"}
    if version != INSTALLED:
        environment["PYTHONPATH"] = str(wheels.python_files(version))
    worker = "vllm.v1.worker." + ("cpu_worker" if version == INSTALLED else "gpu_worker")
    command = [sys.executable, "-m", "tests.vllm.contract_program", worker, json.dumps(mutations)]
    done = subprocess.run(
        command,
        cwd=wheels.REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_it_looks_at_the_version_that_is_meant(version: str) -> None:
    found = _look(version)
    assert (found["version"], found["known"]) == (version, True)
    if version != INSTALLED:
        assert Path(found["vllm"]).is_relative_to(wheels.python_files(version))


def test_every_part_holds_in_the_variant_that_the_version_has(version: str) -> None:
    place = VERSIONS.index(version)
    found = _look(version)
    assert found["variants"] == {part: variants[place] for part, variants in HOLDS.items()}
    assert {part for part, sentences in found["missing"].items() if sentences} == {
        part for part, variants in HOLDS.items() if variants[place] is None
    }


def test_a_version_without_breakable_graphs_is_told_by_the_module_that_is_not_there() -> None:
    assert _look("0.20.1")["missing"]["breakable"] == [
        f"{NOT_THERE} cannot be imported: ModuleNotFoundError: No module named '{NOT_THERE}'"
    ]


def test_a_part_holds_already_when_its_own_module_has_just_been_imported(version: str) -> None:
    found = _look(version)
    for module, parts in found["when imported"].items():
        for part, sentences in parts.items():
            assert sentences == [], f"{part} when {module} was imported"
    assert set(found["when imported"]) >= set(MODULES_OF_MODELS)


def test_looking_does_not_initialize_cuda(version: str) -> None:
    assert _look(version)["initialized"] is False


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.part}-{case.change}-{case.path}")
def test_what_has_changed_is_said_in_a_sentence(case: Case) -> None:
    for version in case.versions:
        cases = [other for other in CASES if version in other.versions]
        sentences = _look(version)["mutated"][cases.index(case)]
        assert sentences[:1] == [case.sentence], version
        assert all(sentence.startswith(case.module) for sentence in sentences), version
