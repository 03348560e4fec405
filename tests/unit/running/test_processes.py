from __future__ import annotations

import os
from pathlib import Path

from graphguard.running.processes import Reached, Refusal, read


def test_notes_are_counted_and_equal_refusals_told_together(tmp_path: Path) -> None:
    for pid in (1, 2, 3):
        (tmp_path / f"process.{pid}").write_text("/usr/bin/python\n\n")
    for pid in (4, 5):
        (tmp_path / f"process.{pid}").write_text("/old/python\nno msgspec\n")

    assert read(tmp_path) == Reached(3, (Refusal("/old/python", "no msgspec", 2),))


def test_other_files_are_no_notes(tmp_path: Path) -> None:
    for name in ("process", "process.x", "process.1.swp", "other.1", "process.12345678901"):
        (tmp_path / name).touch()
    assert read(tmp_path) == Reached(0)


def test_a_note_that_is_cut_off_or_no_file_or_too_long_is_a_process_that_was_not_reached(
    tmp_path: Path,
) -> None:
    (tmp_path / "process.1").write_text("/usr/bin/py")
    os.mkfifo(tmp_path / "process.2")
    (tmp_path / "process.3").symlink_to("/etc/passwd")
    (tmp_path / "process.4").write_bytes(b"\xff" * 10_000)

    reached = read(tmp_path)

    assert reached.loaded == 0
    assert sum(refusal.count for refusal in reached.refused) == 4
    assert {refusal.reason.split(":")[0] for refusal in reached.refused} == {
        "its note is cut off",
        "its note is not a file",
        "its note cannot be read",
    }
