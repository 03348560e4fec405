from __future__ import annotations

from graphguard.audit import Coverage
from graphguard.audit.catalogue import finding
from graphguard.audit.findings import Finding, Severity, Side
from graphguard.reporters import text

COVERAGE = Coverage((0, 1), {"target/full 16x2": (0, 1)}, 1000, ("a", "b"))


def count(graph: str, position: int = 3) -> Finding:
    sides = (Side((0, 2, 3), "all_reduce(4)"), Side((1,), "all_reduce(8)"))
    return finding(
        "collective-count",
        (1,),
        "rank 1 has another count",
        graph=graph,
        position=position,
        sides=sides,
        evidence=("a", "b"),
    )


def test_no_findings_say_what_was_looked_at() -> None:
    assert text.render([], COVERAGE) == (
        "2 ranks, 1 graph, 1,000 collective calls: no difference found\n"
    )


def test_finding_is_told_with_its_sides_reason_and_advice() -> None:
    told = text.render([count("target/full 16x2")], COVERAGE)
    assert told.startswith("error: collective-count\n  rank 1 has another count\n")
    assert "graph: target/full 16x2" in told
    assert "first at call 3" in told
    assert "ranks 0, 2-3: all_reduce(4)" in told
    assert "rank 1: all_reduce(8)" in told
    assert "files: a to b" in told
    assert "why: NCCL does not check this" in told
    assert "do:  look for a tensor" in told
    assert told.endswith("1 error, 0 warnings\n")


def test_same_finding_on_many_graphs_is_told_once() -> None:
    told = text.render([count(f"target/full {n}x2") for n in range(100)], COVERAGE)
    assert told.count("rank 1 has another count") == 1
    assert "target/full 2x2 and 97 more" in told
    assert "100 errors" in told


def test_many_different_findings_of_a_rule_are_cut_short() -> None:
    told = text.render([count("g", position) for position in range(10)], COVERAGE)
    assert told.count("first at call") == 3
    assert "and 7 more (--json lists all)" in told


def test_errors_come_before_warnings() -> None:
    warning = finding("versions-differ", (1,), "torch differs")
    told = text.render([warning, count("g")], COVERAGE)
    assert told.index("error: ") < told.index("warning: ")
    assert "1 error, 1 warning\n" in told
    assert warning.severity is Severity.WARNING


def test_names_from_a_file_cannot_move_the_cursor() -> None:
    told = text.render([count("\x1b[2J\nerror: forged")], COVERAGE)
    assert "\x1b" not in told
    assert "\nerror: forged" not in told


def test_long_lines_are_cut() -> None:
    told = text.render([count("x" * 10_000)], COVERAGE)
    assert max(map(len, told.splitlines())) <= text.MAX_TEXT
