"""The stage of vLLM with a stand-in for its engine: what it asks, and what it makes of answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.gpu.suite.lines import read
from tests.gpu.suite.settings import Settings
from tests.gpu.suite.stages import vllm

STAND_IN = r"""
import json, os
from pathlib import Path

MODE = os.environ["GRAPHGUARD_MODE"]


class SamplingParams:
    def __init__(self, **given):
        self.max_tokens = given["max_tokens"]


class Output:
    def __init__(self, tokens):
        self.token_ids = tokens
        self.outputs = [self]


class LLM:
    def __init__(self, **given):
        if os.environ.get("STAND_IN_FAILS") == MODE:
            raise RuntimeError("no kernel image")
        assert given["compilation_config"]["cudagraph_mode"] == "FULL_DECODE_ONLY"
        assert (Path(given["model"]) / "config.json").is_file()
        if MODE != "off":
            boxes = Path(os.environ["GRAPHGUARD_DIR"])
            boxes.mkdir(parents=True)
            (boxes / "manifest.rank0.json").write_text("{}")

    def generate(self, prompts, sampling, use_tqdm):
        assert not use_tqdm
        wrong = os.environ.get("STAND_IN_WRONG") == MODE
        lengths = {len(p["prompt_token_ids"]) for p in prompts}
        if lengths == {2} and MODE != "off":
            path = Path(os.environ["GRAPHGUARD_DECISIONS"]) / "decisions.rank0.1.jsonl"
            with path.open("a") as log:
                log.write(json.dumps({"role": "target", "batch": "2x2:prefill", "action": "replay",
                                      "reason": "wrong_phase", "graph": "2x2"}) + "\n")
            print("the only graphs of this shape were recorded for another phase", flush=True)
        return [Output([len(p["prompt_token_ids"]) + wrong] * sampling.max_tokens) for p in prompts]

    def collective_rpc(self, method):
        assert method == "graphguard_report"
        models = [{"role": "target", "graphs": ["a", "b"]}, {"role": "drafter", "graphs": []}]
        return [{"models": models, "sealed": True, "parts": {}}]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "vllm").mkdir()
    (tmp_path / "vllm" / "__init__.py").write_text(STAND_IN)
    (tmp_path / "vllm" / "inputs.py").write_text("TokensPrompt = dict\n")
    return tmp_path


def run(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> dict[str, bool | None]:
    monkeypatch.setattr(vllm, "ROUNDS", 2)
    settings = Settings(str(folder / "scratch"), 200.0, {"0.20.1": str(folder)})
    vllm.run_version(settings, "0.20.1", "FULL_DECODE_ONLY")
    told = read(capfdbinary.readouterr().out)
    figures = [figure.what.partition(",")[0] for figure in told.figures]
    assert told.garbled == 0
    return {claim.what: claim.held for claim in told.claims} | {"figures": bool(figures)}


def test_engines_of_each_mode_are_compared_and_ended(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    held = run(folder, monkeypatch, capfdbinary)
    about = "vLLM 0.20.1, FULL_DECODE_ONLY"
    assert [what for what, holds in held.items() if holds is False] == []
    for what in (
        "the tokens in enforce are those without graphguard",
        "vLLM itself chose that graph (observe does not interfere)",
    ):
        assert held[f"{about}: {what}"]
    for mode in ("observe", "enforce"):
        assert held[f"{about}, {mode}: a prefill of 2 tokens in a verify graph is seen"]
        assert held[f"{about}, {mode}: a manifest is written"]


def test_other_tokens_and_an_engine_that_does_not_start_are_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    monkeypatch.setenv("STAND_IN_WRONG", "observe")
    monkeypatch.setenv("STAND_IN_FAILS", "enforce")
    held = run(folder, monkeypatch, capfdbinary)
    about = "vLLM 0.20.1, FULL_DECODE_ONLY"
    wrong = [what for what, holds in held.items() if holds is False]
    assert wrong == [
        f"{about}, enforce: the engine starts",
        f"{about}: the tokens in observe are those without graphguard",
    ]
