from __future__ import annotations

from msgspec.json import decode

from graphguard.audit import Coverage
from graphguard.audit.catalogue import finding
from graphguard.audit.findings import Side
from graphguard.reporters import json

COVERAGE = Coverage((0, 1), {"target/full 16x2": (0, 1)}, 1000, ("a", "b"))


def test_schema_is_stable() -> None:
    found = finding(
        "collective-count",
        (1,),
        "what",
        graph="g",
        position=3,
        sides=(Side((0,), "left"), Side((1,), "right")),
        evidence=("a",),
    )
    document = decode(json.render([found], COVERAGE))
    reason, advice = document["findings"][0].pop("why"), document["findings"][0].pop("advice")
    assert reason
    assert advice
    assert document == {
        "schema": "graphguard.audit",
        "version": 1,
        "summary": {
            "errors": 1,
            "warnings": 0,
            "rules": {"collective-count": 1},
            "collectives": 1000,
        },
        "ranks": [0, 1],
        "graphs": [{"graph": "target/full 16x2", "ranks": [0, 1]}],
        "files": ["a", "b"],
        "findings": [
            {
                "rule": "collective-count",
                "severity": "error",
                "ranks": [1],
                "what": "what",
                "graph": "g",
                "position": 3,
                "sides": [{"ranks": [0], "text": "left"}, {"ranks": [1], "text": "right"}],
                "evidence": ["a"],
                "repeats": 1,
            }
        ],
    }


def test_all_findings_are_there() -> None:
    many = [finding("versions-differ", (n,), "what") for n in range(50)]
    document = decode(json.render(many, COVERAGE))
    assert len(document["findings"]) == document["summary"]["warnings"] == 50
