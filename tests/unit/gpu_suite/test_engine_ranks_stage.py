"""The stage of two ranks on one device, with a stand-in for vLLM's engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.gpu.suite.lines import read
from tests.gpu.suite.settings import Settings
from tests.gpu.suite.stages import vllm_ranks

STAND_IN = r"""
import os
from pathlib import Path

from graphguard import manifest
from graphguard.manifest import Manifest

MODE, RANK = os.environ["GRAPHGUARD_MODE"], int(os.environ["RANK"])
FAULT = os.environ.get("STAND_IN_FAULT", "")


class SamplingParams:
    def __init__(self, **given):
        self.max_tokens = given["max_tokens"]


class Output:
    def __init__(self, tokens):
        self.token_ids = tokens
        self.outputs = [self]


class LLM:
    def __init__(self, **given):
        assert given["distributed_executor_backend"] == "external_launcher"
        assert (given["tensor_parallel_size"], os.environ["WORLD_SIZE"]) == (2, "2")
        assert os.environ["LOCAL_RANK"] == "0"
        assert int(os.environ["MASTER_PORT"]) > 0
        if FAULT == f"starts not, {MODE}" and RANK == 1:
            raise RuntimeError("Duplicate GPU detected")
        if MODE != "off":
            world = 3 if FAULT == "manifest" and RANK == 1 else 2
            manifest.write(Manifest(RANK, world, ()), Path(os.environ["GRAPHGUARD_DIR"]))

    def generate(self, prompts, sampling, use_tqdm):
        wrong = FAULT == f"tokens, {MODE}" or (FAULT == f"one rank, {MODE}" and RANK == 1)
        if FAULT == "finding" and MODE != "off":
            print("graphguard: ranks differ", flush=True)
        return [Output([len(p["prompt_token_ids"]) + wrong] * sampling.max_tokens) for p in prompts]

    def collective_rpc(self, method):
        assert method == "graphguard_report"
        calls = 0 if FAULT == "no calls" else 6
        target = {"role": "target", "graphs": ["a", "b"], "collectives": calls}
        return [{"models": [target], "sealed": True, "rank": RANK, "world_size": 2}]
"""

ABOUT = "vLLM 0.26.0, TP=2 on one device"


def run(
    folder: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> tuple[dict[str, bool | None], list[str]]:
    (folder / "vllm").mkdir()
    (folder / "vllm" / "__init__.py").write_text(STAND_IN)
    (folder / "vllm" / "inputs.py").write_text("TokensPrompt = dict\n")
    settings = Settings(str(folder / "scratch"), 200.0, {"0.26.0": str(folder)}, emulated=True)
    vllm_ranks.run_version(settings, "0.26.0")
    told = read(capfdbinary.readouterr().out)
    assert told.garbled == 0
    return {c.what: c.held for c in told.claims}, [each.what for each in told.not_run]


def test_both_modes_are_served_by_both_ranks_and_compared(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    held, not_run = run(tmp_path, capfdbinary)
    assert not_run == []
    assert held == {
        f"{ABOUT}, off: both ranks serve the same tokens": True,
        f"{ABOUT}, enforce: both ranks serve the same tokens": True,
        f"{ABOUT}, enforce: rank 0 has graphs, with their collectives": True,
        f"{ABOUT}, enforce: rank 1 has graphs, with their collectives": True,
        f"{ABOUT}, enforce: the audit passes the manifests of both ranks": True,
        f"{ABOUT}, enforce: no finding in an engine without a fault": True,
        f"{ABOUT}: the tokens in enforce are those without graphguard": True,
    }


@pytest.mark.parametrize(
    ("fault", "wrong"),
    [
        ("tokens, enforce", [": the tokens in enforce are those without graphguard"]),
        ("one rank, enforce", [", enforce: both ranks serve the same tokens"]),
        ("starts not, enforce", [", enforce: both ranks start and serve"]),
        ("manifest", [", enforce: the audit passes the manifests of both ranks"]),
        ("finding", [", enforce: no finding in an engine without a fault"]),
        (
            "no calls",
            [f", enforce: rank {rank} has graphs, with their collectives" for rank in (0, 1)],
        ),
    ],
)
def test_what_is_wrong_with_graphguard_is_a_claim_that_does_not_hold(
    fault: str,
    wrong: list[str],
    tmp_path: Path,
    capfdbinary: pytest.CaptureFixture[bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("STAND_IN_FAULT", fault)
    held, _ = run(tmp_path, capfdbinary)
    assert [what for what, holds in held.items() if holds is False] == [ABOUT + w for w in wrong]


def test_an_nccl_that_takes_no_two_ranks_is_told_and_no_failure(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAND_IN_FAULT", "starts not, off")
    held, not_run = run(tmp_path, capfdbinary)
    assert held == {f"{ABOUT}, off: both ranks start and serve": None}
    assert not_run == [f"{ABOUT}, enforced"]
