"""What NCCL itself says of its communicators: an answer of its RAS subsystem.

NCCL 2.24 and newer listen on ``localhost:28028`` or ``NCCL_RAS_ADDR``. The protocol is lines of
text (``src/ras/client.cc`` of NCCL): a handshake, settings that are answered with ``OK``, and
``STATUS``, after whose answer the server closes the connection. JSON came with 2.28. RAS knows of
peers that are gone and of errors; captured collectives are not in its counts.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

DEFAULT_ADDRESS = "localhost:28028"
VARIABLE = "NCCL_RAS_ADDR"
MAX_ANSWER = 2 * 2**20
_PROTOCOL = 2
_MAX_LINE = 1024
_TIMEOUT = b"TIMEOUT 1\n"
"""How long NCCL waits for its peers, in whole seconds."""


class NoAnswer(Exception):
    """Why RAS said nothing."""


def address_of(environments: Iterable[Mapping[str, str]]) -> str:
    """Return where the RAS of processes listens, by their environments."""
    named = (environment.get(VARIABLE) for environment in environments)
    return next((address for address in named if address), DEFAULT_ADDRESS)


def ask(address: str, seconds: float) -> dict[str, Any]:
    """Ask for the status of all communicators.

    Args:
        address: Host and port.
        seconds: How long it may take in all.

    Returns:
        ``address``, ``protocol`` (of the server), ``format`` (``json`` or ``text``), ``answer``,
        and ``whole``: whether it had ended.

    Raises:
        NoAnswer: If nothing listens, or it is no RAS.
    """
    until = time.monotonic() + seconds
    host, _, port = address.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise NoAnswer(f"{address!r} is no address of a host and a port")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), _left(until)) as connection:
            return _converse(connection, address, until)
    except TimeoutError as error:
        raise NoAnswer(f"{address} did not answer in {seconds:g} s") from error
    except ConnectionRefusedError as error:
        raise NoAnswer(f"nothing listens on {address}") from error
    except OSError as error:
        raise NoAnswer(f"{address}: {error.strerror or error}") from error


def _converse(connection: socket.socket, address: str, until: float) -> dict[str, Any]:
    lines = _Lines(connection, until)
    lines.say(b"CLIENT PROTOCOL %d\n" % _PROTOCOL)
    greeting = lines.next()
    if not greeting.startswith("SERVER PROTOCOL "):
        raise NoAnswer(f"{address} is no RAS of NCCL: it said {greeting[:80]!r}")
    lines.say(_TIMEOUT)
    lines.next()
    lines.say(b"SET FORMAT json\n")
    # A version without JSON calls that an error, and goes on with text.
    lines.next()
    lines.say(b"VERBOSE STATUS\n")
    answer, whole = lines.rest()
    document: object
    try:
        document, form = msgspec.json.decode(answer), "json"
    except (msgspec.DecodeError, RecursionError):
        document, form = answer.decode("utf-8", "replace"), "text"
    return {
        "address": address,
        "protocol": greeting.removeprefix("SERVER PROTOCOL ").strip(),
        "format": form,
        "whole": whole,
        "answer": document,
    }


class _Lines:
    """A connection on which lines are said and heard, until a moment."""

    def __init__(self, connection: socket.socket, until: float) -> None:
        self._connection = connection
        self._until = until
        self._heard = b""

    def say(self, line: bytes) -> None:
        self._connection.settimeout(_left(self._until))
        self._connection.sendall(line)

    def next(self) -> str:
        while b"\n" not in self._heard:
            block = self._receive()
            if not block or len(self._heard) > _MAX_LINE:
                raise NoAnswer("it ended the connection, or says no lines")
            self._heard += block
        line, _, self._heard = self._heard.partition(b"\n")
        return line.decode("utf-8", "replace")

    def rest(self) -> tuple[bytes, bool]:
        """Return all that comes to the end, and whether the end was reached."""
        blocks, size = [self._heard], len(self._heard)
        try:
            while block := self._receive():
                blocks.append(block)
                size += len(block)
                if size > MAX_ANSWER:
                    return b"".join(blocks)[:MAX_ANSWER], False
        except TimeoutError:
            # Peers that do not answer keep it waiting; what it knew at once is here.
            if size == 0:
                raise
            return b"".join(blocks), False
        return b"".join(blocks), True

    def _receive(self) -> bytes:
        self._connection.settimeout(_left(self._until))
        return self._connection.recv(65536)


def _left(until: float) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
