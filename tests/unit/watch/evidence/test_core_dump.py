"""Asking for a core dump of the GPUs, by a pipe as CUDA makes it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from graphguard.watch.evidence import core_dump
from graphguard.watch.evidence.core_dump import NotTriggered

ON = {"CUDA_ENABLE_USER_TRIGGERED_COREDUMP": "1"}


def test_a_process_that_listens_is_asked(tmp_path: Path) -> None:
    pipe = tmp_path / f"pipe.{os.getpid()}"
    os.mkfifo(pipe)
    listening = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        environment = {**ON, "CUDA_COREDUMP_PIPE": str(tmp_path / "pipe.%p")}
        assert core_dump.trigger(os.getpid(), environment) == str(pipe)
        assert os.read(listening, 10)
    finally:
        os.close(listening)


def test_the_pipe_is_where_cuda_makes_it_if_nothing_is_set() -> None:
    expected = f"{os.getcwd()}/corepipe.cuda.{os.uname().nodename}.{os.getpid()}"
    assert core_dump.pipe_of(os.getpid(), ON) == expected


def test_a_process_that_was_not_told_to_is_not_asked(tmp_path: Path) -> None:
    with pytest.raises(NotTriggered, match="CUDA_ENABLE_USER_TRIGGERED_COREDUMP"):
        core_dump.trigger(os.getpid(), {"CUDA_COREDUMP_PIPE": str(tmp_path / "pipe")})


def test_a_pipe_that_nobody_reads_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(NotTriggered):
        core_dump.trigger(os.getpid(), {**ON, "CUDA_COREDUMP_PIPE": str(tmp_path / "pipe")})


def test_what_is_no_pipe_is_not_written_to(tmp_path: Path) -> None:
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_text("kept")
    link.symlink_to(file)
    for path in (file, link, tmp_path / "absent"):
        with pytest.raises(NotTriggered):
            core_dump.trigger(os.getpid(), {**ON, "CUDA_COREDUMP_PIPE": str(path)})
    assert file.read_text() == "kept"
