from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from graphguard import manifest
from graphguard.running import kept_manifest
from graphguard.running.kept_manifest import KeptManifest
from graphguard.session import Session
from tests.unit.audit.jobs import call, graph

TIMEOUT_SECONDS = 60

RECORDS = """
import os, sys, time
from graphguard import default_session
from graphguard.running import kept_manifest
from tests.unit.audit.jobs import call, graph
kept_manifest.keep()
default_session.record(graph(call()))
"""


def run(code: str, directory: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", RECORDS + code],
        env={**os.environ, "GRAPHGUARD_DIR": str(directory), **environment},
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_SECONDS,
    )


def read(directory: Path, rank: int = 0) -> manifest.Manifest:
    return manifest.read(directory / f"manifest.rank{rank}.json")


@pytest.fixture
def kept(session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KeptManifest:
    monkeypatch.setenv("GRAPHGUARD_DIR", str(tmp_path / "run"))
    monkeypatch.setattr(kept_manifest, "SECONDS_BETWEEN_WRITES", 0.01)
    monkeypatch.setattr(kept_manifest, "at_exit", lambda call: None)
    kept = KeptManifest(session)
    session.on_change = kept.note_change
    return kept


def wait_for(directory: Path, graphs: int) -> None:
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        if (directory / "manifest.rank0.json").exists() and len(
            read(directory).signatures
        ) == graphs:
            return
        time.sleep(0.01)
    raise AssertionError(f"{directory} has no manifest of {graphs} graphs")


def test_what_was_recorded_is_written_soon_and_again_after_each_change(
    kept: KeptManifest, session: Session, tmp_path: Path
) -> None:
    first = graph(call())
    session.record(first)
    wait_for(tmp_path / "run", 1)
    session.record(graph(call(), batch="8x2"))
    wait_for(tmp_path / "run", 2)
    session.replace(first, graph(call(count=1)))
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while read(tmp_path / "run").signatures[0].collectives[0].count != 1:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_manifest_that_cannot_be_written_is_a_warning_and_the_program_goes_on(
    kept: KeptManifest, session: Session, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "run").touch()
    session.record(graph(call()))
    kept.write()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "the manifest is not written" in caplog.text


def test_no_error_of_keeping_reaches_the_program(
    kept: KeptManifest,
    session: Session,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def no_thread(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("threading.Timer", no_thread)
    session.record(graph(call()))
    assert len(session.signatures) == 1
    assert "may not be up to date" in caplog.text


def test_a_process_that_ends_at_once_leaves_its_manifest(tmp_path: Path) -> None:
    ended = run("", tmp_path / "run", RANK="3", WORLD_SIZE="4")
    assert ended.stderr == ""
    assert len(read(tmp_path / "run", rank=3).signatures) == 1


def test_a_process_that_is_killed_leaves_its_manifest(tmp_path: Path) -> None:
    ended = run(
        "path = os.environ['GRAPHGUARD_DIR'] + '/manifest.rank0.json'\n"
        "deadline = time.monotonic() + 30\n"
        "while not os.path.exists(path) and time.monotonic() < deadline: time.sleep(0.02)\n"
        "os.kill(os.getpid(), 9)\n",
        tmp_path / "run",
    )
    assert ended.returncode == -9
    assert len(read(tmp_path / "run").signatures) == 1


def test_the_rank_is_that_of_the_recording_though_the_process_leaves_its_group(
    tmp_path: Path,
) -> None:
    ended = run(
        "del os.environ['RANK'], os.environ['WORLD_SIZE']",
        tmp_path / "run",
        RANK="2",
        WORLD_SIZE="4",
    )
    assert ended.stderr == ""
    assert (read(tmp_path / "run", rank=2).rank, read(tmp_path / "run", rank=2).world_size) == (
        2,
        4,
    )
    assert not (tmp_path / "run" / "manifest.rank0.json").exists()


def test_a_forked_child_writes_only_what_it_recorded_itself(tmp_path: Path) -> None:
    ended = run(
        "for rank, records in (('1', False), ('2', True)):\n"
        "    pid = os.fork()\n"
        "    if pid == 0:\n"
        "        os.environ['RANK'] = rank\n"
        "        if records: default_session.record(graph(call(), batch='8x2'))\n"
        "        sys.exit()\n"
        "    os.waitpid(pid, 0)\n",
        tmp_path / "run",
        RANK="0",
        WORLD_SIZE="3",
    )
    # Python 3.12 and newer warn of a fork beside a thread.
    assert "Traceback" not in ended.stderr
    written = sorted(path.name for path in (tmp_path / "run").iterdir())
    assert written == ["manifest.rank0.json", "manifest.rank2.json"]


def test_a_child_of_multiprocessing_leaves_its_manifest(tmp_path: Path) -> None:
    ended = run(
        "import multiprocessing\n"
        "def child():\n"
        "    os.environ['RANK'] = '1'\n"
        "    default_session.record(graph(call()))\n"
        "process = multiprocessing.get_context('fork').Process(target=child)\n"
        "process.start(); process.join()\n",
        tmp_path / "run",
        RANK="0",
        WORLD_SIZE="2",
    )
    assert "Traceback" not in ended.stderr
    assert len(read(tmp_path / "run", rank=1).signatures) == 2


def test_without_a_change_or_a_place_nothing_is_written(
    kept: KeptManifest, session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept.write()
    monkeypatch.delenv("GRAPHGUARD_DIR")
    session.record(graph(call()))
    kept.write()
    assert list(tmp_path.iterdir()) == []
