"""The evidence bundle of real processes: whole, private, in time, and without secrets."""

from __future__ import annotations

import errno
import json
import os
import signal
import stat
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from graphguard import manifest
from graphguard.agreement.segment import Segment
from graphguard.blackbox import choosing
from graphguard.breadcrumbs.process import open_breadcrumbs
from graphguard.errors import BlackBoxError
from graphguard.manifest import Manifest
from graphguard.watch.evidence import bundle, bundle_parts, ledger_summary
from graphguard.watch.evidence.evidence_directory import EvidenceDirectory, NotKept
from graphguard.watch.evidence.ledger_summary import Ledger
from graphguard.watch.looking.ranks import RankState, rank_states
from graphguard.watch.stack_traces import stack_engines
from graphguard.watch.stack_traces.stack_model import ProcessStacks
from tests.unit.agreement.ledgers import Place
from tests.unit.watch.stuck_processes import SLEEPER, running, wait_for_state

RANK = """
import os, sys, time
from graphguard.blackbox.events import Event
from graphguard.blackbox.writer import process_box
box = process_box()
box.record(Event.REPLAY_BEGIN, role="target", group="tp:0", step=7)
def stuck_in_the_model():
    print("up", flush=True)
    while True:
        time.sleep(0.001)
stuck_in_the_model()
"""


class Verdict(msgspec.Struct):
    stall_class: str
    ranks: tuple[int, ...]


def verdict_of(stacks: Mapping[int, ProcessStacks]) -> Verdict:
    return Verdict("host-stuck", (len(stacks) - 1,))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "evidence"
    path.mkdir(mode=0o700)
    return path


@pytest.fixture
def ranks(directory: Path) -> Iterator[tuple[RankState, ...]]:
    environment = {
        "GRAPHGUARD_DIR": str(directory),
        "GRAPHGUARD_RING_ENTRIES": "256",
        "WORLD_SIZE": "2",
    }
    secrets = {"VLLM_API_KEY": "sesame-open-up", "NCCL_DEBUG": "INFO"}
    with (
        running(RANK, RANK="0", **environment, **secrets),
        running(RANK, RANK="1", **environment, **secrets),
    ):
        states = rank_states(directory)
        assert [state.rank for state in states] == [0, 1]
        yield states


def soon(seconds: float = 20.0) -> float:
    """A deadline for a loaded machine, where completeness is looked at and not the time."""
    return time.monotonic() + seconds


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def test_how_far_replays_in_flight_got_is_in_the_bundle(
    directory: Path, ranks: tuple[RankState, ...]
) -> None:
    crumbs = open_breadcrumbs(directory)
    path = directory / f"breadcrumbs.rank0.{ranks[1].pid}.crumbs"
    crumbs.path.rename(path)
    for launches in (0, 1):
        marks = crumbs.native.add(["first", "second"], 0, 0)
        assert marks is not None
        for _ in range(launches):
            marks.launch()
            marks.passed(0)
    made = bundle.collect(directory, "job", rank_states(directory), verdict_of, (), soon())
    told = read(made / "breadcrumbs" / f"{path.stem}.json")
    (graph,) = told["graphs"]
    assert (graph["reached"], graph["positions"], graph["next_call"]) == (1, 2, "second")
    (crumb,) = rank_states(directory)[1].crumbs
    assert crumb.next_call == "second"


def test_a_bundle_holds_the_evidence_of_all_ranks(
    directory: Path, ranks: tuple[RankState, ...]
) -> None:
    made = bundle.collect(directory, "0123456789abcdef", ranks, verdict_of, (), soon())
    assert made.parent == directory
    assert bundle.is_bundle_name(made.name)
    assert made.name.endswith("-01234567")
    index = read(made / "index.json")
    became = {each["name"]: each["became"] for each in index["collectors"]}
    for part in ("stacks", "processes", "states", "rings", "environment"):
        assert became[part] == "complete", index["collectors"]
    for part in ("ledgers", "manifests", "breadcrumbs"):
        assert became[part] == "absent"
        assert index["missing"][part]
    assert {each["name"] for each in index["files"]} == {
        str(path.relative_to(made))
        for path in made.rglob("*")
        if path.is_file() and path.name not in ("index.json", "README.txt")
    }
    assert read(made / "verdict.json") == {"format": 1, "stall_class": "host-stuck", "ranks": [1]}
    states = read(made / "states.json")["states"]
    assert [state["rank"] for state in states] == [0, 1]
    assert [box.rank for box in choosing.load([made / "rings"]).boxes] == [0, 1]
    for state in ranks:
        text = (made / "stacks" / f"{state.pid}.txt").read_text()
        assert "stuck_in_the_model" in text
        assert "main" in text
        native = read(made / "stacks" / f"{state.pid}.native.json")
        assert any(frame.get("native") for frame in native["threads"][0]["frames"])
        process = read(made / "processes.json")["processes"][str(state.pid)]
        assert process["status"]["Threads"]
    assert "graphguard diagnose --bundle" in (made / "README.txt").read_text()


def test_breadcrumbs_that_are_none_are_left_out_and_said_to_be(
    directory: Path, ranks: tuple[RankState, ...]
) -> None:
    crumbs = directory / f"breadcrumbs.rank1.{ranks[1].pid}.crumbs"
    crumbs.write_bytes(b"how far")

    made = bundle.collect(directory, "job", ranks, verdict_of, [], soon())

    assert not (made / "breadcrumbs" / f"{crumbs.stem}.json").exists()
    assert crumbs.name in (made / "index.json").read_text()


def test_what_lies_beside_the_rings_is_copied_with_the_ledger_and_the_log(
    directory: Path,
    ranks: tuple[RankState, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    manifest.write(Manifest(0, 2, ()), directory)
    manifest.write(Manifest(7, 8, ()), directory)
    log = tmp_path / "engine.log"
    log.write_text("INFO 11-21 10:00:00 [x.py:1] last healthy step\nthe prompt of a user\n")
    monkeypatch.setenv("GRAPHGUARD_STALL_LOG", str(log))
    segment = Segment.create(2)
    try:
        Place(segment, 0, enforces=False).propose(0)
        ledger = Ledger(segment.descriptor, segment.size, "tp:0", (0, 1))
        made = bundle.collect(directory, "job", ranks, verdict_of, [ledger], soon())
    finally:
        segment.remove_name()
        segment.close()
    assert [path.name for path in (made / "manifests").iterdir()] == ["manifest.rank0.json"]
    (told,) = read(made / "ledger.json")["ledgers"]
    assert told["group"] == "tp:0"
    assert [rank["passed"] for rank in told["ranks"]] == [1, 0]
    assert told["behind"] == [1]
    assert ledger_summary.summarise((made / "ledgers" / "0.ledger").read_bytes()).num_ranks == 2
    assert "last healthy step" in (made / "log-tail.txt").read_text()
    assert "prompt of a user" not in (made / "log-tail.txt").read_text()


def test_all_of_a_bundle_is_private(directory: Path, ranks: tuple[RankState, ...]) -> None:
    before = os.umask(0)
    try:
        made = bundle.collect(directory, "job", ranks, verdict_of, (), soon())
    finally:
        os.umask(before)
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    for path in made.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_no_secret_of_the_environment_is_in_a_bundle(
    directory: Path, ranks: tuple[RankState, ...]
) -> None:
    made = bundle.collect(directory, "job", ranks, verdict_of, (), soon())
    for path in made.rglob("*"):
        if path.is_file():
            assert b"sesame-open-up" not in path.read_bytes(), path
    variables = read(made / "environment.json")["processes"][str(ranks[0].pid)]["variables"]
    assert variables["VLLM_API_KEY"] == "<redacted>"
    assert variables["NCCL_DEBUG"] == "INFO"


def test_a_stopped_rank_is_in_the_bundle_and_stays_stopped(
    directory: Path, ranks: tuple[RankState, ...]
) -> None:
    os.kill(ranks[1].pid, signal.SIGSTOP)
    wait_for_state(ranks[1].pid, "T")
    made = bundle.collect(directory, "job", rank_states(directory), verdict_of, (), soon())
    process = read(made / "processes.json")["processes"][str(ranks[1].pid)]
    assert process["state"] == "stopped"
    assert "stuck_in_the_model" in (made / "stacks" / f"{ranks[1].pid}.txt").read_text()
    wait_for_state(ranks[1].pid, "T")


def test_a_rank_that_is_gone_is_named_and_the_rest_is_there(
    directory: Path, ranks: tuple[RankState, ...]
) -> None:
    os.kill(ranks[0].pid, signal.SIGKILL)
    wait_for_state(ranks[0].pid, "Z")
    made = bundle.collect(directory, "job", rank_states(directory), verdict_of, (), soon())
    missing = read(made / "index.json")["missing"]
    assert f"stacks of process {ranks[0].pid}" in missing["stacks"]
    assert (made / "stacks" / f"{ranks[1].pid}.txt").exists()
    assert len(list((made / "rings").iterdir())) == 2


@pytest.mark.parametrize("where", ["gone", "elsewhere"])
def test_a_process_that_has_the_id_of_a_rank_elsewhere_is_not_looked_at(
    where: str, directory: Path, ranks: tuple[RankState, ...]
) -> None:
    with running(SLEEPER, NCCL_OF_A_STRANGER="his own") as stranger:
        process = msgspec.structs.replace(ranks[0].process, pid=stranger, state=where, alive=False)
        rank = msgspec.structs.replace(ranks[0], pid=stranger, process=process)
        made = bundle.collect(directory, "job", [rank, ranks[1]], verdict_of, (), soon())
    assert str(stranger) not in read(made / "processes.json")["processes"]
    assert not (made / "stacks" / f"{stranger}.txt").exists()
    assert "his own" not in (made / "environment.json").read_text()
    missing = read(made / "index.json")["missing"]
    assert f"process {stranger}: it is" in missing["stacks"]
    assert f"process {stranger}: it is" in missing["processes"]


def test_a_full_disk_costs_no_more_than_what_does_not_fit(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(EvidenceDirectory, "_write_in", full)
    made = bundle.collect(directory, "job", [], verdict_of, (), soon(1.0))
    assert list(made.iterdir()) == []


def test_what_hangs_is_named_and_the_bundle_is_there_in_time(
    directory: Path,
    ranks: tuple[RankState, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slow = tmp_path / "engine"
    slow.write_text("#!/bin/sh\nsleep 600\n")
    slow.chmod(0o700)
    monkeypatch.setattr(stack_engines, "_program", lambda _: str(slow))
    monkeypatch.setattr(bundle_parts.Parts, "_manifests", lambda _: time.sleep(60), raising=True)
    began = time.monotonic()
    made = bundle.collect(directory, "job", ranks, verdict_of)
    took = time.monotonic() - began
    index = read(made / "index.json")
    became = {each["name"]: each["became"] for each in index["collectors"]}
    assert became["manifests"] == "late"
    assert became["stacks"] in ("partly", "late")
    assert (made / "rings").exists()
    # Two seconds are promised. On a loaded machine the threads themselves come late.
    assert took < 6.0
    assert index["seconds"] <= took + 0.01


def test_a_verdict_that_fails_costs_nothing_else(
    directory: Path, ranks: tuple[RankState, ...]
) -> None:
    def fails(_: Mapping[int, ProcessStacks]) -> Verdict:
        raise RuntimeError("no verdict")

    made = bundle.collect(directory, "job", ranks, fails, (), soon())
    assert not (made / "verdict.json").exists()
    assert "no verdict" in read(made / "index.json")["missing"]["stacks"]
    assert (made / "stacks" / f"{ranks[0].pid}.txt").exists()


def test_stacks_that_were_taken_before_are_not_taken_again(
    directory: Path, ranks: tuple[RankState, ...]
) -> None:
    samples = {state.pid: ProcessStacks(state.pid, "", (), "said before") for state in ranks}
    made = bundle.collect(directory, "job", ranks, verdict_of, (), soon(), samples=samples)
    assert "said before" in read(made / "index.json")["missing"]["stacks"]
    assert not (made / "stacks").exists()


def test_stacks_that_nobody_has_taken_are_taken_after_the_verdict(
    directory: Path, ranks: tuple[RankState, ...]
) -> None:
    given: list[int] = []

    def verdict(stacks: Mapping[int, ProcessStacks]) -> Verdict:
        given.append(len(stacks))
        return verdict_of(stacks)

    samples = {ranks[0].pid: ProcessStacks(ranks[0].pid, "", (), "said before")}
    made = bundle.collect(directory, "job", ranks, verdict, (), soon(), samples=samples)
    assert given == [1]
    assert not (made / "stacks" / f"{ranks[0].pid}.txt").exists()
    assert "stuck_in_the_model" in (made / "stacks" / f"{ranks[1].pid}.txt").read_text()


def test_a_ring_that_is_a_link_is_not_followed(
    directory: Path, ranks: tuple[RankState, ...], tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("what is not to be copied")
    link = directory / "blackbox.rank9.1.ring"
    link.symlink_to(secret)
    state = msgspec.structs.replace(ranks[0], ring=str(link))
    made = bundle.collect(directory, "job", [state], verdict_of, (), soon())
    assert not (made / "rings").exists()
    assert "blackbox.rank9.1.ring" in read(made / "index.json")["missing"]["rings"]


def test_two_bundles_of_one_second_do_not_meet(directory: Path) -> None:
    made = {bundle.collect(directory, "job", [], verdict_of, (), soon(1.0)) for _ in range(3)}
    assert len(made) == 3


def test_the_directory_that_all_runs_share_keeps_the_newest_bundles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle, "default_directory", lambda: tmp_path)
    monkeypatch.setattr(bundle, "KEPT_BUNDLES", 2)
    tmp_path.chmod(0o700)
    outside = tmp_path.parent / "outside"
    outside.mkdir(exist_ok=True)
    (outside / "kept").touch()
    (tmp_path / "stall-of-somebody").mkdir()
    for day in (1, 2, 3):
        older = tmp_path / f"stall-2020010{day}T000000Z-host-job"
        older.mkdir()
        (older / "link").symlink_to(outside)
    made = bundle.collect(tmp_path, "job", [], verdict_of, (), soon(1.0))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "stall-20200103T000000Z-host-job",
        made.name,
        "stall-of-somebody",
    ]
    assert (outside / "kept").exists()


def test_a_directory_that_others_can_write_to_gets_no_bundle(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(BlackBoxError, match="others could replace"):
        bundle.collect(tmp_path, "job", [], verdict_of)


def test_what_became_of_a_stall_is_added(directory: Path) -> None:
    made = bundle.collect(directory, "job", [], verdict_of, (), soon(1.0))
    bundle.append(made, "recovered", seconds=8.5)
    bundle.append(made, "gone", pids=[1, 2])
    lines = [json.loads(line) for line in (made / "afterwards.jsonl").read_text().splitlines()]
    assert [line["what"] for line in lines] == ["recovered", "gone"]
    assert lines[0]["seconds"] == 8.5
    assert stat.S_IMODE((made / "afterwards.jsonl").stat().st_mode) == 0o600


def test_the_size_of_the_evidence_is_bounded(directory: Path) -> None:
    opened = os.open(directory, os.O_RDONLY)
    try:
        kept = EvidenceDirectory.create(opened, directory / "stall-x", 100)
    finally:
        os.close(opened)
    kept.put("a/one", b"x" * 60, "one")
    with pytest.raises(NotKept, match="room for 40"):
        kept.put("two", b"x" * 41, "two")
    kept.put("three", b"x" * 40, "three")
    assert [file.name for file in kept.seal()] == ["a/one", "three"]
    with pytest.raises(NotKept, match="too late"):
        kept.put("four", b"", "four")
    kept.close({"index.json": b"{}"})
    assert (directory / "stall-x" / "index.json").read_bytes() == b"{}"


def test_a_disk_that_is_slow_holds_up_nothing_and_leaves_no_half_file(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = os.open(directory, os.O_RDONLY)
    try:
        kept = EvidenceDirectory.create(opened, directory / "stall-x", 100)
    finally:
        os.close(opened)
    begun, go_on = threading.Event(), threading.Event()
    write = EvidenceDirectory._write_in

    def slow(self: EvidenceDirectory, into: int, file: str, content: bytes) -> None:
        write(self, into, file, content)
        if file.startswith("slow"):
            begun.set()
            go_on.wait(60)

    monkeypatch.setattr(EvidenceDirectory, "_write_in", slow)
    said: list[str] = []

    def put() -> None:
        try:
            kept.put("a/slow", b"x", "slow")
        except NotKept as why:
            said.append(str(why))

    thread = threading.Thread(target=put)
    thread.start()
    assert begun.wait(30)
    kept.put("quick", b"x", "quick")
    assert [file.name for file in kept.seal()] == ["quick"]
    kept.close({"index.json": b"{}"})
    go_on.set()
    thread.join(30)
    assert said == ["a/slow came too late"]
    assert {path.name for path in (directory / "stall-x").rglob("*")} == {
        "quick",
        "index.json",
        "a",
    }


def test_what_is_there_is_not_written_again(directory: Path) -> None:
    opened = os.open(directory, os.O_RDONLY)
    try:
        kept = EvidenceDirectory.create(opened, directory / "stall-x", 100)
    finally:
        os.close(opened)
    kept.put("one", b"first", "one")
    with pytest.raises(NotKept, match="there already"):
        kept.put("one", b"second", "one")
    kept.close({})
    assert (directory / "stall-x" / "one").read_bytes() == b"first"


@pytest.mark.parametrize("name", ["../up", "a/../../up", "/up", ".up", ""])
def test_evidence_stays_in_its_directory(directory: Path, name: str) -> None:
    opened = os.open(directory, os.O_RDONLY)
    try:
        kept = EvidenceDirectory.create(opened, directory / "stall-x", 100)
    finally:
        os.close(opened)
    with pytest.raises(NotKept):
        kept.put(name, b"", "")
