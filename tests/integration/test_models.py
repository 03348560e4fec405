"""The models of the ledger's protocol hold, their mutations do not, and the checker can tell."""

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

MODELS = Path(__file__).parents[2] / "models"
SECONDS = 1_500

SOUND = "Full statespace search for:\nState-vector 96 byte, depth reached 10, errors: {errors}\n"
STORED = "     1000 states, stored\n  140.5\ttotal actual memory usage\n"


def check(*arguments: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(MODELS / "check.py"), *arguments],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        env={**os.environ, **({} if path is None else {"PATH": path})},
        check=False,
    )


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    result = check("--short", "--json")
    assert result.returncode == 0, result.stderr
    found: list[dict[str, Any]] = json.loads(result.stdout)
    return found


@pytest.fixture
def checker(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(MODELS))
    return importlib.import_module("check")


@pytest.mark.timeout(SECONDS)
def test_every_claim_holds_with_two_and_three_ranks(rows: list[dict[str, Any]]) -> None:
    sound = [row for row in rows if not row["mutation"]]

    assert {row["verdict"] for row in sound} == {"holds"}
    assert {(row["model"], row["ranks"]) for row in sound} == {
        (model, ranks) for model in ("observe", "enforce", "vote", "notices") for ranks in (2, 3)
    }
    assert min(row["states"] for row in sound) > 50_000


@pytest.mark.timeout(SECONDS)
def test_every_mutation_breaks_a_claim(rows: list[dict[str, Any]]) -> None:
    found = {
        (row["model"], row["variant"], row["mutation"]): row["found"]
        for row in rows
        if row["mutation"]
    }

    assert found["observe", "observe", "NO_FENCE"] == "O1_one_of_two_knew"
    assert found["enforce", "wait-free", "PLAIN_DECISION"] == "E1_all_launch_the_same"
    assert found["enforce", "without lead rule", "NO_STAMP_CHECK"] == "E2_one_step"
    assert found["enforce", "wait-free", "QUIET_LEAD_RULE"] == "no_deadlock"
    assert found["vote", "vote", "VOTE_WITHOUT_CELL"] == "V1_one_outcome"
    assert found["vote", "waits end", "UNBOUNDED_WAIT"] == "every_wait_ends"
    assert found["notices", "one announcer", "NO_CONFIRM"] == "N1_all_or_none"
    assert found["notices", "one announcer", "NO_WITHDRAW"] == "N1_all_or_none"
    assert all(found.values())


def test_every_switch_in_the_models_is_a_mutation_that_the_readme_explains(
    checker: ModuleType,
) -> None:
    text = "".join(path.read_text() for path in MODELS.glob("*.pml"))
    text += "".join(path.read_text() for path in MODELS.glob("*.inc"))
    switches = set(re.findall(r"#ifn?def (\w+)", text))
    sizes = {"RANKS", "SLOTS", "STEPS", "DEATHS", "ANNOUNCERS", "TRIES", "LEAD"}
    ways = {"COARSE", "POLLING", "ALL_VOTE", "MAY_BE_LAPPED"}
    mutations = {run.mutation.partition("=")[0] for run in checker.MUTATIONS}

    assert switches - sizes - ways == mutations - {"LEAD"}
    readme = (MODELS / "README.md").read_text()
    assert [run.mutation for run in checker.MUTATIONS if f"`{run.mutation}`" not in readme] == []


def test_the_figures_in_the_readme_are_of_the_runs(
    checker: ModuleType, rows: list[dict[str, Any]]
) -> None:
    readme = (MODELS / "README.md").read_text()
    figures = {
        tuple(cells[:4]): cells[4]
        for line in readme.partition("## Figures")[2].splitlines()
        if len(cells := [cell.strip() for cell in line.strip("|").split("|")]) == 7
    }
    steps = {
        (row["model"], row["variant"], str(row["ranks"]), row["defines"][0][6:]): row["states"]
        for row in rows
        if not row["mutation"]
    }

    assert len(figures) == len(checker.RUNS) + 2  # its head and the line below it
    # A compiler or a version of spin may order a search differently, not change its size by much.
    for key, states in steps.items():
        assert int(figures[key].replace(",", "")) == pytest.approx(states, rel=0.1), key


def test_a_search_that_is_cut_short_is_a_failure() -> None:
    result = check("--quick", "--json", "--max-depth", "50", "observe")

    assert result.returncode == 1
    first = json.loads(result.stdout)[0]
    assert first["verdict"].startswith("FAILED: not all states were searched: max search depth")


def test_a_claim_that_is_broken_is_a_failure(checker: ModuleType) -> None:
    output = (
        "pan:1: assertion violated ((a==b)||E2_one_step) (at depth 9)\n"
        + SOUND.format(errors=1)
        + STORED
    )
    sound, mutation = checker.RUNS[2], checker.MUTATIONS[0]

    assert checker.read(sound, output, 1.0).verdict == "FAILED: E2_one_step is broken"
    # Found, but not for the reason that the mutation stands for.
    assert checker.read(mutation, output, 1.0).verdict == "FAILED: E2_one_step is broken"


def test_a_mutation_that_passes_is_a_failure(checker: ModuleType) -> None:
    output = SOUND.format(errors=0) + STORED

    assert checker.read(checker.RUNS[0], output, 1.0).as_expected
    result = checker.read(checker.MUTATIONS[0], output, 1.0)
    assert not result.as_expected
    assert result.verdict == "FAILED: not found, should break O1_one_of_two_knew"


@pytest.mark.parametrize(
    "told",
    ["pan: reached -DMEMLIM bound\n", "pan: out of memory\n", "Warning: Search not completed\n"],
)
def test_a_search_without_memory_is_a_failure(checker: ModuleType, told: str) -> None:
    output = told + SOUND.format(errors=0) + STORED

    assert not checker.read(checker.RUNS[0], output, 1.0).as_expected


def test_a_search_that_crashed_is_a_failure(checker: ModuleType) -> None:
    assert not checker.read(checker.RUNS[0], "", 1.0).as_expected


def test_without_spin_it_says_how_to_get_it(tmp_path: Path) -> None:
    result = check(path=str(tmp_path))

    assert result.returncode == 2
    assert "spin is not installed: apt-get install spin" in result.stderr
