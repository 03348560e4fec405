"""A real engine with MTP: off, observing and enforcing, live together and measured in turn.

``python -m tests.gpu.suite.stages.vllm SETTINGS VERSION [CUDAGRAPH-MODE]``
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

from tests.gpu.suite import engines, needs
from tests.gpu.suite.engines import Engine, EngineError
from tests.gpu.suite.lines import Claim, NotRun, tell
from tests.gpu.suite.measuring import tell_figures, tell_value
from tests.gpu.suite.program import run_stage
from tests.gpu.suite.settings import Settings

MODES = ("off", "observe", "enforce")
DRAFTS = 1
START_SECONDS = 120.0
ANSWER_SECONDS = 60.0
TOKENS = 32
MEASURED_TOKENS = 64
ROUNDS = 8
VERIFY_LENGTH = 1 + DRAFTS
"""Tokens of a prompt that has the shape of a step that verifies drafts."""


def run_version(settings: Settings, version: str, cudagraph_mode: str) -> None:
    """Start an engine in each mode, and compare what they do."""
    deadline = time.monotonic() + settings.seconds
    about = f"vLLM {version}, {cudagraph_mode}"
    # The drafter of the first has graphs of its own on the V1 runner, that of the second none.
    model = "deepseek-v3" if cudagraph_mode == "FULL_AND_PIECEWISE" else "mimo"
    more = {"VLLM_USE_V2_MODEL_RUNNER": "1" if version == "0.26.0" else "0"}
    given = engines.arguments(model, cudagraph_mode, DRAFTS)
    started: dict[str, Engine] = {}
    with ExitStack() as stack:
        for mode in MODES:
            left = deadline - time.monotonic()
            if left < 30:
                tell(NotRun(f"{about}, {mode}", "no time was left to start it"))
                continue
            folder = Path(settings.scratch, mode)
            began = time.monotonic()
            engine = Engine(settings.vllm[version], given, mode, folder, more)
            stack.callback(engine.close)
            try:
                engine.answer(min(START_SECONDS, left))
            except EngineError as error:
                tell(Claim(f"{about}, {mode}: the engine starts", False, str(error)[:1_500]))
                continue
            tell_value(f"start-up, {about}, {mode}", "s", time.monotonic() - began)
            started[mode] = engine
        _compare(started, about, deadline)


def _compare(started: dict[str, Engine], about: str, deadline: float) -> None:
    parts = (_equal_outputs, _graphs, _phases, _padding, _false_findings, _throughput)
    for part in parts:
        if time.monotonic() > deadline - 10:
            tell(NotRun(f"{about}: {part.__name__.strip('_').replace('_', ' ')}", "no time left"))
            continue
        try:
            part(started, about)
        except EngineError as error:
            tell(Claim(f"{about}: {part.__name__.strip('_')}", False, str(error)[:1_500]))


def _prompts(count: int, length: int = 0) -> list[list[int]]:
    """Return prompts of a length, or of lengths that differ and are none of a verify step."""
    return [[3 + number] * (length or 4 + number) for number in range(count)]


def _equal_outputs(started: dict[str, Engine], about: str) -> None:
    prompts = [*_prompts(14), [3] * VERIFY_LENGTH]
    tokens = {m: e.generate(prompts, TOKENS, ANSWER_SECONDS) for m, e in started.items()}
    if "off" not in tokens:
        tell(NotRun(f"{about}: equal outputs", "there is no engine without graphguard"))
        return
    for mode in ("observe", "enforce"):
        if mode in tokens:
            differ = sum(a != b for a, b in zip(tokens[mode], tokens["off"], strict=True))
            what = f"{about}: the tokens in {mode} are those without graphguard"
            tell(Claim(what, not differ, f"{differ} of {len(prompts)} requests differ"))


def _graphs(started: dict[str, Engine], about: str) -> None:
    for mode in ("observe", "enforce"):
        if mode not in started:
            continue
        (report,) = started[mode].ask(ANSWER_SECONDS, call="rpc", method="graphguard_report")
        models = {m["role"]: len(m["graphs"]) for m in report["models"]}
        seen = f"graphs recorded: {models}; parts: {report.get('parts')}"
        # How many graphs a drafter has is the engine's business, and worth knowing.
        held = bool(models.get("target")) and report["sealed"]
        tell(Claim(f"{about}, {mode}: the graphs of target and drafter are recorded", held, seen))
        names = sorted(p.name for p in (started[mode].folder / "boxes").glob("manifest.*"))
        tell(Claim(f"{about}, {mode}: a manifest is written", bool(names), ", ".join(names)))


def _phases(started: dict[str, Engine], about: str) -> None:
    """Send prompts of exactly 1+k tokens, alone in their step."""
    for mode in ("observe", "enforce"):
        if mode not in started:
            continue
        engine = started[mode]
        before = len(engine.decisions())
        for _ in range(2):
            engine.generate(_prompts(2, VERIFY_LENGTH), 4, ANSWER_SECONDS)
        # Decisions are written by a thread, beside the steps.
        time.sleep(1.5)
        wrong = [d for d in engine.decisions()[before:] if d.get("reason") == "wrong_phase"]
        seen = "; ".join(f"{d['batch']} {d['action']} {d.get('graph')}" for d in wrong[:3])
        what = f"{about}, {mode}: a prefill of {VERIFY_LENGTH} tokens in a verify graph is seen"
        # A version that looks at the phase itself gives nothing to see.
        tell(Claim(what, True if wrong else None, seen or "no such decision"))
        told = [line for line in engine.log().splitlines() if "another phase" in line]
        if mode == "observe" and told:
            what = f"{about}: vLLM itself chose that graph (observe does not interfere)"
            tell(Claim(what, True, told[0][-500:]))


def _padding(started: dict[str, Engine], about: str) -> None:
    for mode in ("observe", "enforce"):
        if mode not in started:
            continue
        engine = started[mode]
        for requests in (15, 16):
            before = len(engine.decisions())
            engine.generate(_prompts(requests), TOKENS, ANSWER_SECONDS)
            time.sleep(1.5)
            made = Counter(
                f"{d['role']} {d['action']} ({d['reason']})" for d in engine.decisions()[before:]
            )
            what = f"{about}, {mode}: steps of {requests} requests that are no exact replay"
            tell(Claim(what, None, str(dict(made))))


def _false_findings(started: dict[str, Engine], about: str) -> None:
    for mode in ("observe", "enforce"):
        if mode in started:
            lines = started[mode].log().splitlines()
            words = ("padded slot", "ranks differ", "PaddingMismatch", "RanksDiverged")
            found = [line for line in lines if any(word in line for word in words)]
            what = f"{about}, {mode}: no finding of padding or ranks in an engine without a fault"
            tell(Claim(what, not found, found[0][-500:] if found else ""))


def _throughput(started: dict[str, Engine], about: str) -> None:
    if set(started) != set(MODES):
        tell(NotRun(f"{about}: tokens per second", "not all engines have started"))
        return
    for requests in (16, 15):
        prompts = _prompts(requests)
        rates: dict[str, list[float]] = {mode: [] for mode in MODES}
        for number in range(-1, ROUNDS):
            for place in range(len(MODES)):
                mode = MODES[(number + place) % len(MODES)]
                began = time.monotonic()
                started[mode].generate(prompts, MEASURED_TOKENS, ANSWER_SECONDS)
                took = time.monotonic() - began
                if number >= 0:
                    rates[mode].append(requests * MEASURED_TOKENS / took)
        tell_figures(rates, "tokens/s", "off", f"{requests} requests, {about}")


def main() -> None:
    """Run the version that the command line names."""
    version = sys.argv[2] if len(sys.argv) > 2 else "0.20.1"
    cudagraph_mode = sys.argv[3] if len(sys.argv) > 3 else "FULL_AND_PIECEWISE"
    run_stage(
        f"vLLM {version}",
        (needs.vllm(version), needs.real_graphs),
        lambda settings: run_version(settings, version, cudagraph_mode),
    )


NEEDS = (needs.vllm("0.20.1"),)

if __name__ == "__main__":
    main()
