from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.json import decode

from graphguard.audit import audit
from graphguard.blackbox.choosing import Rings
from graphguard.blackbox.merge import merge
from graphguard.reporters import run
from graphguard.running.outcome import Outcome
from graphguard.running.processes import Reached, Refusal
from graphguard.signature import Signature
from tests.unit.audit.jobs import call, graph, job
from tests.unit.blackbox.rings import open_ranks

TWO = Reached(2)


def outcome(
    *ranks: list[Signature],
    exit_code: int = 0,
    reached: Reached = TWO,
    boxes: Path | None = None,
) -> Outcome:
    manifests = job(*ranks)
    chosen = None if boxes is None else Rings([boxes]).read()
    return Outcome(
        exit_code=exit_code,
        directory=Path("/run"),
        reached=reached,
        manifests=tuple(manifests),
        findings=tuple(audit(manifests)),
        boxes=chosen,
        timeline=None if chosen is None else merge(chosen.boxes),
    )


@pytest.mark.parametrize(
    ("code", "text"),
    [(0, "with 0\n"), (1, "with 1\n"), (137, "with 137 (SIGKILL)\n"), (255, "with 255\n")],
)
def test_the_end_of_the_program_is_told_and_the_signal_named(code: int, text: str) -> None:
    assert run.render(outcome(exit_code=code)).startswith(f"graphguard: the program ended {text}")


def test_processes_are_counted_and_those_that_were_not_reached_named() -> None:
    reached = Reached(1, (Refusal("/old/\x1b[2Jpython", "no msgspec", 2),))
    text = run.render(outcome(reached=reached))
    assert "graphguard: 1 Python process loaded graphguard\n" in text
    assert "2 Python processes of /old/\\x1b[2Jpython could not load it: no msgspec\n" in text
    assert "no Python process was reached" in run.render(outcome(reached=Reached(0)))


def test_the_audit_and_the_black_boxes_follow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for rank in open_ranks(tmp_path / "run", 2, monkeypatch):
        rank.run(1)
    ranks = [[graph(call(count=count, group="0[0-1]", size=2))] for count in (1, 2)]

    text = run.render(outcome(*ranks, boxes=tmp_path / "run"))

    assert text.index("error: collective-count") < text.index("no difference: ranks 0-1 did")


def test_a_run_without_a_manifest_does_not_look_like_one_without_a_difference() -> None:
    text = run.render(outcome())
    assert "no manifest was written" in text
    assert "no difference" not in text


def test_json_holds_what_the_commands_print(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for rank in open_ranks(tmp_path / "run", 2, monkeypatch):
        rank.run(1)
    same = [graph(call(group="0[0-1]", size=2))]

    document = decode(run.render_json(outcome(same, same, boxes=tmp_path / "run", exit_code=3)))

    assert (document["schema"], document["exit_code"]) == ("graphguard.run", 3)
    assert document["found"] is False
    assert document["processes"] == {"loaded": 2, "refused": []}
    assert document["audit"]["schema"] == "graphguard.audit"
    assert document["blackbox"]["compared"] == [{"group": "tp", "ranks": [0, 1], "steps": 1}]
    assert decode(run.render_json(outcome(same)))["blackbox"] is None
