"""What the documentation shows of ``graphguard diagnose`` is what it prints."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from graphguard.commands import main

REPOSITORY = Path(__file__).parents[3]
SHOWN = [
    (page, *shown)
    for page in ("diagnose.md", "case-studies.md")
    for shown in re.findall(
        r"```\n\$ graphguard diagnose (\S+\.log)\n(.*?)```",
        (REPOSITORY / "docs" / page).read_text(encoding="utf-8"),
        re.DOTALL,
    )
]


def test_the_three_reports_are_shown() -> None:
    logs = {log for page, log, _ in SHOWN if page == "case-studies.md"}
    assert logs == {"seed-42271.log", "seed-40926.log", "seed-41530.log"}


@pytest.mark.parametrize(("page", "log", "text"), SHOWN)
def test_what_is_shown_is_what_is_printed(
    page: str,
    log: str,
    text: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("rich", reason="the documentation shows tables as rich draws them")
    monkeypatch.chdir(REPOSITORY / "tests" / "data" / "logs")
    monkeypatch.setenv("COLUMNS", "100")
    assert main(["diagnose", log]) == 1
    assert capsys.readouterr().out == text, f"run it again and paste it into docs/{page}"
