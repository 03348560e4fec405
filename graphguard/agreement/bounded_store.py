"""A store whose every call ends.

A server that is stopped, or a network that swallows packets, leaves a call of a torch store
without an answer, and not every call has a timeout: ``TCPStore.check`` has none. So the calls are
made on a thread that may be left behind.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from threading import Thread
from types import TracebackType
from typing import Any, NamedTuple

from graphguard.agreement.store import Store
from graphguard.errors import AgreementError

GRACE_SECONDS = 1.0
"""How much longer than its bound a call may take, so that the last one gets an answer."""

MAX_VALUE_BYTES = 8 * 2**20


class _Answer(NamedTuple):
    value: Any = None
    error: Exception | None = None


_Request = tuple[Callable[..., Any], tuple[Any, ...], "SimpleQueue[_Answer]"]


class BoundedStore:
    """A store that answers or raises, entered for as long as it is used.

    Args:
        store: The store.
        deadline: Until when answers are waited for, as ``time.monotonic`` counts.
        who: This rank and its group, for errors.
    """

    def __init__(self, store: Store, deadline: float, who: str) -> None:
        self._store = store
        self._deadline = deadline
        self._who = who
        self._requests: SimpleQueue[_Request | None] = SimpleQueue()

    def __enter__(self) -> BoundedStore:
        # Not a thread of an executor: those are waited for when the process ends.
        Thread(target=_serve, args=(self._requests,), name="graphguard store", daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._requests.put(None)

    def set(self, key: str, value: bytes) -> None:
        """Write a value.

        Raises:
            AgreementError: If it is too large, or the store fails or does not answer.
        """
        if len(value) > MAX_VALUE_BYTES:
            raise AgreementError(
                f"{self._who}: {key} has {len(value):,} bytes, more than {MAX_VALUE_BYTES:,}",
                hint="capture fewer graphs under one key",
            )
        self._answer(self._store.set, key, value)

    def get(self, key: str) -> bytes:
        """Return a value that :meth:`check` found.

        Raises:
            AgreementError: If it is too large, or the store fails or does not answer.
        """
        value: bytes = self._answer(self._store.get, key)
        if len(value) > MAX_VALUE_BYTES:
            raise AgreementError(
                f"{self._who}: another rank posted {len(value):,} bytes as {key}, more than "
                f"{MAX_VALUE_BYTES:,}",
                hint="do all ranks run the same version of graphguard?",
            )
        return value

    def check(self, keys: list[str]) -> bool:
        """Whether all keys have values.

        Raises:
            AgreementError: If the store fails or does not answer.
        """
        return bool(self._answer(self._store.check, keys))

    def decide(self, key: str, value: str) -> bytes:
        """Write a value if there is none, and return the one that holds.

        Raises:
            AgreementError: If the store fails or does not answer.
        """
        decided: bytes = self._answer(self._store.compare_set, key, "", value)
        return decided

    def _answer(self, function: Callable[..., Any], *arguments: Any) -> Any:  # noqa: ANN401
        answers: SimpleQueue[_Answer] = SimpleQueue()
        self._requests.put((function, arguments, answers))
        patience = max(0.0, self._deadline - time.monotonic()) + GRACE_SECONDS
        try:
            answer = answers.get(timeout=patience)
        except Empty:
            raise AgreementError(
                f"{self._who}: the store of the group has not answered for {patience:.1f} s",
                hint="is the process that serves the store stopped, or its machine out of reach? "
                "With TCPStore it is most often rank 0",
            ) from None
        if answer.error is not None:
            raise AgreementError(
                f"{self._who}: the store of the group failed: {answer.error}",
                hint="has the process that serves the store ended? With TCPStore it is most often "
                "rank 0",
            ) from answer.error
        return answer.value


def _serve(requests: SimpleQueue[_Request | None]) -> None:
    while (request := requests.get()) is not None:
        function, arguments, answers = request
        try:
            answers.put(_Answer(function(*arguments)))
        except Exception as error:  # noqa: BLE001 - raised by who asked
            answers.put(_Answer(error=error))
        del request, function, arguments, answers
