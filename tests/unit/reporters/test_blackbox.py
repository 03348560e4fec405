from __future__ import annotations

from pathlib import Path

import pytest

from graphguard.blackbox import words
from graphguard.blackbox.choosing import load
from graphguard.blackbox.events import NO_NAME, NOT_SET, DivergenceKind, Event, Flag
from graphguard.blackbox.merge import merge
from graphguard.blackbox.records import Record
from graphguard.blackbox.writer import open_box
from graphguard.reporters import blackbox
from tests.unit.blackbox.rings import EAGER, PADDED, Rank, open_ranks


@pytest.fixture(autouse=True)
def _wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Rank]:
    return open_ranks(tmp_path / "run", 3, monkeypatch)


def told(ranks: list[Rank], last: int = 10) -> str:
    chosen = load([ranks[0].box.path.parent])
    return blackbox.render(merge(chosen.boxes), chosen, last)


def row(text: str, rank: int) -> list[str]:
    """Return the cells of the table's row of a rank."""
    (line,) = (line for line in text.splitlines() if line.startswith(f"  {rank}   "))
    return [cell.strip() for cell in line.split("  ") if cell.strip()]


def record(**fields: int | str) -> Record:
    given: dict[str, int | str] = dict.fromkeys(Record.__struct_fields__, 0)
    given.update(name="", group="", action=NOT_SET, reason=NOT_SET, phase=NOT_SET, peer=NO_NAME)
    return Record(**{**given, **fields})  # type: ignore[arg-type]


def test_table_says_where_each_rank_stands(ranks: list[Rank]) -> None:
    for rank, steps in zip(ranks, (7, 5, 7), strict=True):
        for step in range(1, steps + 1):
            rank.run(step)
    ranks[0].check(8)
    ranks[0].begin()
    ranks[2].box.close()
    text = told(ranks)
    assert row(text, 0)[:3] == ["0", "tp", "8"]
    assert "began replay of target 16x2 and has not ended" in row(text, 0)
    assert row(text, 1)[:4] == ["1", "tp", "5", "3 steps"]
    assert "ended replay of target 16x2" in row(text, 1)
    assert row(text, 2)[:4] == ["2", "tp", "7", "1 step"]
    assert row(text, 0)[-1].endswith(", running")
    assert row(text, 2)[-1].endswith(", closed")


def test_what_was_seen_of_others_does_not_hide_what_a_rank_did(ranks: list[Rank]) -> None:
    for rank in ranks:
        rank.run(1)
    ranks[0].check(2)
    ranks[0].begin()
    for rank in ranks[:2]:
        rank.diverge(1, DivergenceKind.DIFFERS, peer=2)
    text = told(ranks)
    assert (
        "began replay of target 16x2 and has not ended; then saw that rank 2 does something else"
    ) in row(text, 0)
    assert "ended replay of target 16x2; then saw that rank 2 does something else" in row(text, 1)


def test_age_of_the_last_record_is_told(ranks: list[Rank]) -> None:
    for rank in ranks:
        rank.run(1)
    text = told(ranks)
    assert "the newest" in row(text, 2)
    assert any(cell.endswith((" µs", " ms")) for cell in row(text, 0))


def test_no_difference_says_what_was_compared(ranks: list[Rank]) -> None:
    for step in (1, 2):
        for rank in ranks:
            rank.run(step)
    assert "no difference: ranks 0-2 did the same in 2 steps of group tp\n" in told(ranks)


def test_nothing_compared_is_not_told_as_no_difference(ranks: list[Rank]) -> None:
    ranks[0].run(1)
    assert "nothing was compared" in told(ranks)
    assert "no difference" not in told(ranks)


def test_first_difference_is_told_with_both_sides(ranks: list[Rank]) -> None:
    for rank in ranks:
        rank.run(1)
    ranks[0].run(2)
    ranks[1].run(2, EAGER, "15x1", digest=7)
    ranks[2].run(2)
    text = told(ranks)
    assert "first difference: step 2 of group tp, at " in text
    assert (
        "  ranks 0, 2: decided to replay target 16x2 (exact), digest 000000000000abcd; "
        "began replay of target 16x2\n"
    ) in text
    assert (
        "  rank 1: decided to run target 15x1 eagerly (query_length), digest 0000000000000007; "
        "began the eager run of target 15x1\n"
    ) in text
    assert "  They launched different things.\n" in text


def test_what_was_launched_after_a_difference_is_told(ranks: list[Rank]) -> None:
    ranks[0].run(1)
    ranks[1].check(1, EAGER, digest=7)
    ranks[1].check(1, PADDED, "15x2", flags=Flag.ADOPTED)
    ranks[1].begin()
    text = told(ranks)
    assert "All of them launched the same." in text
    assert "as another rank decided, digest 000000000000abcd" in text
    ranks[2].run(2)
    text = told(ranks)
    assert "rank 2: went on without this step; launched nothing" in text
    assert "Not all of them launched anything." in text


def test_what_the_ranks_saw_themselves_is_told(ranks: list[Rank]) -> None:
    for step in range(1, 13):
        ranks[0].run(step)
        ranks[1].diverge(step, DivergenceKind.DIFFERS, peer=0)
    text = told(ranks)
    assert "the ranks recorded 12 divergences themselves" in text
    assert "rank 1, tp step 1: saw that rank 0 does something else" in text
    assert "  and 2 more (--json lists all)" in text


def test_damage_and_files_that_were_not_used_are_told(
    ranks: list[Rank], monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = ranks[0].box.path.parent
    ranks[0].run(1)
    with ranks[0].box.path.open("r+b") as file:
        file.seek(4096 + 128 * 128 + 64 + 20)
        file.write(b"\xff")
    older = ranks[1].box.path
    monkeypatch.setenv("RANK", "1")
    open_box(directory, 64)
    (directory / "blackbox.rank9.1.ring").write_bytes(b"x")
    text = told(ranks)
    assert f"rank 0: 1 damaged record skipped in {ranks[0].box.path}" in text
    assert f"left out: {older} (rank 1, pid " in text
    assert f"not readable: {directory}/blackbox.rank9.1.ring is not a black box" in text
    assert "1" in row(text, 0)


def test_last_steps_are_one_line_where_ranks_did_the_same(ranks: list[Rank]) -> None:
    for step in range(1, 6):
        for rank in ranks:
            rank.run(step)
    ranks[0].run(6)
    ranks[1].run(6, EAGER)
    ranks[2].check(6)
    ranks[2].begin()
    lines = told(ranks, last=2).splitlines()
    at = lines.index("last 2 steps of group tp")
    shown = [line[line.index("rank") :] for line in lines[at + 1 :]]
    assert lines[at + 1].startswith("  step 5  ")
    assert lines[at + 2].startswith("  step 6  ")
    assert shown == [
        "ranks 0-2: decided to replay target 16x2 (exact); replayed",
        "rank 0: decided to replay target 16x2 (exact); replayed",
        "rank 1: decided to run target 16x2 eagerly (query_length); ran eagerly",
        "rank 2: decided to replay target 16x2 (exact); began replay of target 16x2 "
        "and has not ended",
    ]


def test_ranks_that_only_differ_in_the_digest_are_told_with_it(ranks: list[Rank]) -> None:
    for place, rank in enumerate(ranks):
        rank.run(1, digest=1 + place % 2)
    text = told(ranks)
    did = "decided to replay target 16x2 (exact); replayed"
    assert f"ranks 0, 2: {did}, digest 0000000000000001\n" in text
    assert f"rank 1: {did}, digest 0000000000000002\n" in text


def test_step_that_a_rank_does_not_have_says_why(ranks: list[Rank]) -> None:
    for step in (1, 2, 3):
        ranks[0].run(step)
    ranks[1].run(1)
    ranks[1].run(3)
    ranks[2].run(1)
    text = told(ranks)
    assert "rank 1: nothing\n" in text
    assert "rank 2: not there yet\n" in text


def test_step_that_was_overwritten_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small, large = (
        open_ranks(tmp_path / "run", 2, monkeypatch, entries=entries)[place]
        for place, entries in enumerate((8, 256))
    )
    for step in range(1, 6):
        small.run(step)
        large.run(step)
    chosen = load([small.box.path, large.box.path])
    text = blackbox.render(merge(chosen.boxes), chosen, 5)
    assert "rank 0: no longer in its box" in text


def test_records_without_a_step_are_listed(ranks: list[Rank]) -> None:
    ranks[0].run(1)
    ranks[1].box.note("warm-up ended")
    ranks[1].box.record(Event.SEALED, role="target/full", group="tp")
    text = told(ranks)
    assert "rank 1: noted: warm-up ended" in text
    assert "rank 1, tp: sealed the graphs of target/full" in text


def test_names_from_a_file_cannot_move_the_cursor(ranks: list[Rank]) -> None:
    for rank in ranks:
        rank.group = "\x1b[2J\nfirst difference: forged {0} {role}"
        rank.run(1, role="\x1b]0;\x07\n{subject}")
    ranks[0].run(2, EAGER, role="\u202e")
    ranks[1].run(2, role="\u202e")
    ranks[1].box.note("\x1b[31m")
    text = told(ranks)
    assert text.replace("\n", "").isprintable()
    assert "\nfirst difference: forged" not in text


def test_two_processes_of_one_rank_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (open_ranks(tmp_path / "run", 1, monkeypatch)[0] for _ in range(2))
    first.run(1)
    second.run(1, EAGER)
    chosen = load([first.box.path, second.box.path])
    text = blackbox.render(merge(chosen.boxes), chosen, 3)
    assert f"rank 0 (pid {chosen.boxes[0].pid} on {chosen.boxes[0].host})" in text


@pytest.mark.parametrize("kind", DivergenceKind)
def test_every_divergence_is_a_sentence_of_its_own(kind: DivergenceKind) -> None:
    told = words.told(record(event=Event.DIVERGENCE, detail=kind, peer=3))
    assert "recorded" not in told
    about_no_rank = (DivergenceKind.DAMAGED, DivergenceKind.PADDING)
    assert ("rank 3" in told) is (kind not in about_no_rank)


@pytest.mark.parametrize("event", [e for e in Event if e is not Event.CLOCK])
def test_every_event_is_a_sentence_of_its_own(event: Event) -> None:
    assert "recorded" not in words.told(record(event=event, name="target", detail=1))


def test_what_has_no_words_is_told_by_its_number() -> None:
    assert words.told(record(event=99)) == "recorded event 99"
    odd = record(event=Event.DIVERGENCE, detail=99)
    assert words.told(odd) == "recorded divergence 99 with another rank"
    assert words.told(record(event=Event.CHECK, action=99)) == "checked a step"


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "0.0 µs"),
        (1_500, "1.5 µs"),
        (2_000_000, "2.0 ms"),
        (61_000_000_000, "61.0 s"),
        (180_000_000_000, "3.0 min"),
        (3 * 3_600_000_000_000, "3.0 h"),
    ],
)
def test_duration_has_a_unit_that_fits(nanoseconds: int, text: str) -> None:
    assert words.duration(nanoseconds) == text


@pytest.mark.parametrize("time_ns", [1, 1_795_227_459_831_623_676, 2**63 - 1])
def test_every_time_of_a_record_can_be_shown(time_ns: int) -> None:
    assert words.day_and_moment(time_ns).endswith(" UTC")
    assert words.moment(1_795_227_459_831_623_676) == "02:17:39.831623"


def test_unknown_time_is_not_the_epoch() -> None:
    assert words.moment(0) == "at no known time"
