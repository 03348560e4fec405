"""Bundles of stalls, as others left them: whole, half written, hostile."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path

import pytest

from graphguard.watch.looking.bundles import MAX_BUNDLES, MAX_VERDICT_BYTES, bundles

NAME = "stall-20261121T191410Z-host-a-0123abcd"
VERDICT = {
    "format": 1,
    "stall_class": "host-stuck",
    "ranks": [1],
    "waiting": [0],
    "group": "0[0-1]",
    "step": 41,
    "seconds": 5.1,
    "sentence": "rank 1 has not launched",
    "collective": None,
    "evidence": [{"what": "x", "source": "y"}],
    "not_known": [],
}


def bundle(directory: Path, name: str = NAME, **files: bytes) -> Path:
    path = directory / name
    path.mkdir(0o700)
    for file, content in files.items():
        (path / f"{file}.json").write_bytes(content)
    return path


def test_a_verdict_is_read_with_what_is_newer_in_it_left_out(tmp_path: Path) -> None:
    path = bundle(tmp_path, verdict=json.dumps({**VERDICT, "from_the_future": [1]}).encode())

    (found,) = bundles(tmp_path)

    assert found.path == str(path)
    assert found.verdict is not None
    assert found.verdict.stall_class == "host-stuck"
    assert found.verdict.ranks == (1,)
    assert found.verdict.sentence == "rank 1 has not launched"
    assert not found.examined
    assert found.over == ""


def test_what_all_nodes_say_is_read_if_it_can_be(tmp_path: Path) -> None:
    verdict = json.dumps(VERDICT).encode()
    bundle(tmp_path, verdict=verdict, nodes=b'{"sentence": "a sees a stall", "nodes": []}')
    bundle(tmp_path, f"{NAME}.1", verdict=verdict, nodes=b'{"sentence": 7}')

    assert {each.name: each.nodes for each in bundles(tmp_path)} == {
        NAME: "a sees a stall",
        f"{NAME}.1": "",
    }


@pytest.mark.parametrize("file", ["afterwards.jsonl", "later.jsonl"])
def test_what_became_of_a_stall_is_read(file: str, tmp_path: Path) -> None:
    lines = [
        {"event": "changed", "stall_class": "process-died", "ranks": [0], "sentence": "it died"},
        {"what": "recovered", "seconds": 8.25, "x": 1},
    ]
    path = bundle(tmp_path, verdict=json.dumps(VERDICT).encode())
    content = "no json\n" + "".join(json.dumps(line) + "\n" for line in lines) + '{"what": "re'
    (path / file).write_text(content)

    (found,) = bundles(tmp_path)
    assert (found.over, found.over_seconds) == ("recovered", 8.25)
    assert found.verdict is not None
    assert (found.verdict.stall_class, found.verdict.ranks) == ("process-died", (0,))
    assert found.verdict.sentence == "it died"


def test_a_stall_is_examined_while_the_lock_of_its_job_is_held(tmp_path: Path) -> None:
    bundle(tmp_path)
    lock = os.open(tmp_path / "stall-0123abcd9999.lock", os.O_RDWR | os.O_CREAT)
    try:
        assert not bundles(tmp_path)[0].examined
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert bundles(tmp_path)[0].examined
    finally:
        os.close(lock)
    assert not bundles(tmp_path)[0].examined


@pytest.mark.parametrize("name", [NAME, f"{NAME}.1"])
@pytest.mark.parametrize(
    ("job", "examined"), [("0123abcdef", True), ("0123abce", False), ("123abcd", False)]
)
def test_the_lock_of_another_job_does_not_count(
    name: str, job: str, examined: bool, tmp_path: Path
) -> None:
    bundle(tmp_path, name)
    lock = os.open(tmp_path / f"stall-{job}.lock", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert bundles(tmp_path)[0].examined is examined
    finally:
        os.close(lock)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "Input data was truncated"),
        (b"[]", "Expected `object`, got `array`"),
        (b'{"ranks": [-1]}', "Expected `int` >= 0"),
        (b'{"sentence": 3}', "Expected `str`, got `int`"),
        (b'{"sentence": "' + b"a" * 5000 + b'"}', "length <= 4096"),
        (b'{"sentence": "\xff"}', "can't decode"),
        (b" " * (MAX_VERDICT_BYTES + 1), "more than 262,144 bytes"),
        (b'{"x": ' + b"[" * 100_000, "maximum recursion depth exceeded"),
    ],
)
def test_a_verdict_that_cannot_be_read_is_said_to_be_one(
    content: bytes, problem: str, tmp_path: Path
) -> None:
    bundle(tmp_path, verdict=content)

    (found,) = bundles(tmp_path)

    assert found.verdict is None
    assert found.problem.startswith("its verdict cannot be read: ")
    assert problem in found.problem


def test_a_bundle_in_the_making_has_no_verdict_yet(tmp_path: Path) -> None:
    bundle(tmp_path)

    assert bundles(tmp_path)[0].problem == "there is no verdict yet"


def test_links_and_files_of_that_name_are_not_followed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    whole = bundle(elsewhere, verdict=json.dumps(VERDICT).encode())
    run = tmp_path / "run"
    run.mkdir()
    (run / NAME).symlink_to(whole)
    (run / "stall-a-file-0123abcd").write_bytes(b"")
    (bundle(run, "stall-b-0123abcd") / "verdict.json").symlink_to(whole / "verdict.json")
    os.mkfifo(bundle(run, "stall-c-0123abcd") / "verdict.json")

    found = {each.name: each for each in bundles(run)}

    assert set(found) == {"stall-b-0123abcd", "stall-c-0123abcd"}
    assert all(each.verdict is None for each in found.values())
    assert "not a regular file" in found["stall-c-0123abcd"].problem


def test_only_the_newest_of_this_job_are_looked_at(tmp_path: Path) -> None:
    for number in range(MAX_BUNDLES + 4):
        path = bundle(tmp_path, f"stall-{number:03}-host-0123abcd")
        os.utime(path, ns=(number * 10**9, number * 10**9))

    found = bundles(tmp_path)
    assert len(found) == MAX_BUNDLES
    assert found[0].name == f"stall-{MAX_BUNDLES + 3:03}-host-0123abcd"
    assert len(bundles(tmp_path, since_ns=(MAX_BUNDLES + 2) * 10**9)) == 2


def test_a_directory_that_is_not_there_has_none(tmp_path: Path) -> None:
    assert bundles(tmp_path / "nowhere") == ()
