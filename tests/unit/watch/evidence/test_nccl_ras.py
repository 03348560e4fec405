"""Asking NCCL's RAS, of a server that speaks its protocol.

The real server is in NCCL and starts with the first communicator, for which a GPU is needed. This
one follows ``src/ras/client.cc`` of NCCL 2.28.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from graphguard.watch.evidence import nccl_ras

ANSWER = {"nccl_version": "2.28.9", "communicators_count": 1, "communicators": [{"ranks": 8}]}


@contextmanager
def server(serve: Callable[[socket.socket], None]) -> Iterator[str]:
    """Serve one connection."""
    listening = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        try:
            connection, _ = listening.accept()
        except OSError:
            return
        with connection:
            try:
                serve(connection)
            except OSError:
                return

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{listening.getsockname()[1]}"
    finally:
        # shutdown wakes a thread that still waits in accept.
        with suppress(OSError):
            listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join(10)


def ras(*, json_known: bool = True, before_answer: float = 0.0, slow_end: float = 0.0) -> Any:
    """A server that speaks as NCCL does."""

    def serve(connection: socket.socket) -> None:
        lines = connection.makefile("rb")
        as_json = False
        for line in lines:
            command = line.decode().strip()
            if command.startswith("CLIENT PROTOCOL "):
                connection.sendall(b"SERVER PROTOCOL 2\n")
            elif command.startswith("TIMEOUT "):
                connection.sendall(b"OK\n")
            elif command == "SET FORMAT json":
                as_json = json_known
                connection.sendall(b"OK\n" if json_known else b"ERROR: Unknown command\n")
            elif command == "VERBOSE STATUS":
                time.sleep(before_answer)
                answer = json.dumps(ANSWER) if as_json else "NCCL version 2.24.3\nJob summary\n"
                connection.sendall(answer.encode())
                time.sleep(slow_end)
                return

    return serve


def test_the_answer_is_json_where_nccl_knows_it() -> None:
    with server(ras()) as address:
        told = nccl_ras.ask(address, 10.0)
    assert told == {
        "address": address,
        "protocol": "2",
        "format": "json",
        "whole": True,
        "answer": ANSWER,
    }


def test_an_older_nccl_answers_with_text() -> None:
    with server(ras(json_known=False)) as address:
        told = nccl_ras.ask(address, 10.0)
    assert told["format"] == "text"
    assert told["answer"].startswith("NCCL version 2.24.3")


def test_what_was_said_before_the_time_was_up_is_kept() -> None:
    with server(ras(slow_end=2.0)) as address:
        began = time.monotonic()
        told = nccl_ras.ask(address, 1.0)
        took = time.monotonic() - began
    assert told["answer"] == ANSWER
    assert not told["whole"]
    assert took < 1.9


def test_a_ras_that_waits_for_its_peers_is_not_waited_for() -> None:
    with server(ras(before_answer=2.0)) as address:
        began = time.monotonic()
        with pytest.raises(nccl_ras.NoAnswer, match=r"did not answer in 0.3 s"):
            nccl_ras.ask(address, 0.3)
        assert time.monotonic() - began < 3.0


def test_where_nothing_listens_that_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
    with pytest.raises(nccl_ras.NoAnswer, match="nothing listens"):
        nccl_ras.ask(address, 5.0)


@pytest.mark.parametrize("said", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"", b"\xff" * 5000])
def test_another_server_is_not_taken_for_ras(said: bytes) -> None:
    with (
        server(lambda connection: connection.sendall(said)) as address,
        pytest.raises(nccl_ras.NoAnswer),
    ):
        nccl_ras.ask(address, 5.0)


def test_an_endless_answer_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nccl_ras, "MAX_ANSWER", 100_000)

    def serve(connection: socket.socket) -> None:
        for reply in (b"SERVER PROTOCOL 2\n", b"OK\n", b"OK\n"):
            connection.recv(100)
            connection.sendall(reply)
        while True:
            connection.sendall(b"x" * 65536)

    with server(serve) as address:
        told = nccl_ras.ask(address, 20.0)
    assert len(told["answer"]) == 100_000
    assert not told["whole"]


@pytest.mark.parametrize("address", ["", "host", ":1", "host:", "host:x", "host:99999"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(nccl_ras.NoAnswer, match="no address"):
        nccl_ras.ask(address, 1.0)


def test_the_address_is_that_of_the_processes() -> None:
    assert nccl_ras.address_of([{}, {"NCCL_RAS_ADDR": "10.0.0.1:4000"}]) == "10.0.0.1:4000"
    assert nccl_ras.address_of([{}]) == "localhost:28028"
