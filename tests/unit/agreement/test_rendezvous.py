"""The rendezvous: every rank gets what all brought, or every rank gets the same error."""

import json
import logging
import threading
import time
from functools import partial
from typing import cast

import pytest
from torch._C._distributed_c10d import HashStore, PrefixStore

from graphguard import environment
from graphguard.agreement import bounded_store, waiting
from graphguard.agreement.bounded_store import MAX_VALUE_BYTES
from graphguard.agreement.rendezvous import Rendezvous
from graphguard.agreement.store import Store
from graphguard.environment import Mode
from graphguard.errors import AgreementError, ConfigurationError, RankMissing
from tests.unit.agreement.ranks import all_at_once, group, memory

SECONDS = 30.0
SHORT = 0.2


def meet(rendezvous: Rendezvous, payload: bytes, seconds: float = SECONDS) -> list[bytes]:
    return rendezvous.exchange("seal", payload, seconds)


@pytest.mark.parametrize("ranks", [1, 2, 5])
def test_every_rank_gets_what_all_ranks_brought_in_the_order_of_the_group(ranks: int) -> None:
    brought = [b"", b"\x00\xff", *(b"%d" % rank for rank in range(2, ranks))][:ranks]
    members = group(memory(), range(ranks))

    results = all_at_once([partial(meet, m, b) for m, b in zip(members, brought, strict=True)])

    assert results == [brought] * ranks


def test_a_topic_can_be_used_again() -> None:
    def twice(rendezvous: Rendezvous) -> list[list[bytes]]:
        first = meet(rendezvous, b"first %d" % rendezvous.rank)
        return [first, meet(rendezvous, b"second %d" % rendezvous.rank)]

    results = all_at_once([partial(twice, member) for member in group(memory())])

    assert results == [[[b"first 0", b"first 1"], [b"second 0", b"second 1"]]] * 2


def test_two_groups_meet_over_one_server_at_the_same_time() -> None:
    store = HashStore()
    first = group(cast(Store, PrefixStore("first", store)), (0, 1), "1[0-1]")
    second = group(cast(Store, PrefixStore("second", store)), (1, 2), "2[1-2]")

    results = all_at_once([partial(meet, m, m.name.encode()) for m in (*first, *second)])

    assert results == [[b"1[0-1]"] * 2] * 2 + [[b"2[1-2]"] * 2] * 2


def test_what_an_earlier_life_of_the_group_left_in_the_store_is_not_taken_for_now() -> None:
    store = memory()
    assert all_at_once([partial(meet, m, b"old") for m in group(store)]) == [[b"old"] * 2] * 2
    later = group(store)

    results = all_at_once([partial(meet, later[0], b"new", SHORT)])

    # Rank 1 of the earlier life has come to this meeting; that of the later one has not.
    assert isinstance(results[0], RankMissing)
    assert results[0].missing == (1,)
    assert all_at_once([partial(meet, m, b"new") for m in later]) == [[b"new"] * 2] * 2


def test_left_overs_of_a_life_with_fewer_ranks_are_not_taken_for_now() -> None:
    store = memory()
    assert all_at_once([partial(meet, m, b"old") for m in group(store)]) == [[b"old"] * 2] * 2
    later = group(store, range(3))

    results = all_at_once([partial(meet, later[2], b"new", SHORT)])

    assert isinstance(results[0], RankMissing)
    assert all_at_once([partial(meet, m, b"new") for m in later]) == [[b"new"] * 3] * 3


def test_ranks_that_never_came_are_named_on_every_other_rank() -> None:
    members = group(memory(), (4, 5, 6, 7), "1[4-7]")

    results = all_at_once([partial(meet, members[rank], b"", SHORT) for rank in (0, 2)])

    for rank, error in zip((4, 6), results, strict=True):
        assert isinstance(error, RankMissing)
        assert error.missing == (5, 7)
        assert f"rank {rank} of 1[4-7]: ranks 5, 7 have not joined within 0.2 s" in str(error)
        assert "GRAPHGUARD_AGREE_SECONDS" in error.hint


@pytest.mark.parametrize(
    ("name", "ranks"),
    [("1[2-3,6]", (2, 3, 6)), ("1[6,2-3]", (6, 2, 3)), ("1[2-3]", (0, 1, 2)), ("tp", (0, 1, 2))],
)
def test_global_ranks_are_read_from_the_name_of_the_group(name: str, ranks: tuple[int]) -> None:
    assert Rendezvous(memory(), 0, 3, name).ranks == ranks


def test_where_a_missing_rank_came_last_is_told() -> None:
    members = group(memory(), range(3))

    def some(rendezvous: Rendezvous) -> None:
        rendezvous.exchange("seal", b"", SECONDS, note="target/full")
        if rendezvous.rank != 1:
            rendezvous.exchange("seal", b"", SHORT, note="drafter/full")

    results = all_at_once([partial(some, member) for member in members])

    assert results[1] is None
    for error in (results[0], results[2]):
        assert isinstance(error, RankMissing)
        assert error.missing == (1,)
        assert "rank 1 did not come to 'seal', number 2 (drafter/full) in time" in str(error)
        assert "rank 1 came last to 'seal', number 1 (target/full)" in str(error)


def test_a_rank_that_comes_when_the_others_have_given_up_gets_the_same_error() -> None:
    members = group(memory(), range(3))
    assert all_at_once([partial(meet, m, b"") for m in members]) == [[b""] * 3] * 3
    early = all_at_once([partial(meet, members[rank], b"", SHORT) for rank in (0, 2)])

    late = all_at_once([partial(meet, members[1], b"")])

    for error in (*early, *late):
        assert isinstance(error, RankMissing)
        assert error.missing == (1,)
    assert "this rank came when the others had given up" in str(late[0])
    # All are at the same place now.
    assert all_at_once([partial(meet, m, b"on") for m in members]) == [[b"on"] * 3] * 3


def test_ranks_that_wait_on_learn_at_once_that_another_has_given_up() -> None:
    members = group(memory(), range(3))
    assert all_at_once([partial(meet, m, b"") for m in members]) == [[b""] * 3] * 3
    began = time.monotonic()

    results = all_at_once([partial(meet, members[0], b"", SHORT), partial(meet, members[2], b"")])

    assert all(isinstance(error, RankMissing) for error in results)
    assert time.monotonic() - began < SECONDS


def test_who_is_missing_is_told_while_a_rank_waits(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    members = group(memory(), (0, 3), "1[0,3]")
    assert all_at_once([partial(meet, m, b"") for m in members]) == [[b""] * 2] * 2
    monkeypatch.setattr(waiting, "FIRST_LINE_SECONDS", 0.1)
    caplog.set_level(logging.INFO, logger="graphguard")

    with pytest.raises(RankMissing):
        meet(members[0], b"", 0.3)

    lines = [record.getMessage() for record in caplog.records]
    assert lines == [
        "rank 0: 'seal' in 1[0,3] has waited for 0 s, of at most 0.3 s: rank 3 did not come yet"
    ]


def test_a_payload_that_is_too_large_is_refused_where_it_is_brought() -> None:
    one, other = group(memory())

    results = all_at_once(
        [partial(meet, one, bytes(MAX_VALUE_BYTES + 1)), partial(meet, other, b"", 0.5)]
    )

    assert isinstance(results[0], AgreementError)
    assert "8,388,609 bytes, more than 8,388,608" in str(results[0])
    assert isinstance(results[1], RankMissing)


class Huge:
    """A store in which another rank has left too much."""

    def __init__(self, store: Store) -> None:
        self.set, self.check, self.compare_set = store.set, store.check, store.compare_set
        self._get = store.get

    def get(self, key: str, /) -> bytes:
        value = self._get(key)
        return bytes(MAX_VALUE_BYTES + 1) if key.endswith("/1/1") else value


def test_a_payload_that_is_too_large_is_refused_where_it_is_read() -> None:
    store = memory()
    one = Rendezvous(Huge(store), 0, 2, "0[0-1]")
    other = Rendezvous(store, 1, 2, "0[0-1]")

    results = all_at_once([partial(meet, one, b"0"), partial(meet, other, b"1")])

    assert isinstance(results[0], AgreementError)
    assert "another rank posted 8,388,609 bytes" in str(results[0])
    assert results[1] == [b"0", b"1"]


def test_a_store_whose_server_is_gone_is_an_error_with_the_cause() -> None:
    class Gone:
        def check(self, keys: list[str], /) -> bool:
            raise RuntimeError("Connection reset by peer")

    with pytest.raises(
        AgreementError, match="the store of the group failed: Connection reset"
    ) as e:
        meet(group(cast(Store, Gone()))[0], b"")
    assert isinstance(e.value.__cause__, RuntimeError)
    assert not isinstance(e.value, RankMissing)


def test_a_store_that_never_answers_does_not_hold_a_rank_beyond_its_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answer = threading.Event()

    class Silent:
        def check(self, keys: list[str], /) -> bool:
            return answer.wait(2 * SECONDS)

    monkeypatch.setattr(bounded_store, "GRACE_SECONDS", 0.1)
    began = time.monotonic()

    with pytest.raises(AgreementError, match=r"has not answered for 0\.[23] s"):
        meet(group(cast(Store, Silent()))[0], b"", SHORT)

    assert time.monotonic() - began < SECONDS / 2
    answer.set()


@pytest.mark.parametrize("left", [b"", b"\xff\xff", b"\x92\x00\x91\xc0", json.dumps({}).encode()])
def test_what_no_rank_would_post_is_an_error(left: bytes) -> None:
    store = memory()
    store.set("join/1", left)

    with pytest.raises(AgreementError, match="what rank 1 of the group posted cannot be read"):
        meet(group(store)[0], b"", SHORT)


@pytest.mark.parametrize(
    ("text", "mode", "seconds"),
    [
        (None, "enforce", 300.0),
        ("", "enforce", 300.0),
        (None, "observe", 30.0),
        ("0.5", "enforce", 0.5),
        ("86400", "observe", 86_400.0),
    ],
)
def test_how_long_ranks_wait_is_read_from_the_environment(
    text: str | None, mode: str, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GRAPHGUARD_AGREE_SECONDS", raising=False)
    if text is not None:
        monkeypatch.setenv("GRAPHGUARD_AGREE_SECONDS", text)

    assert environment.agree_seconds(Mode(mode)) == seconds


@pytest.mark.parametrize("text", ["soon", "0", "-1", "nan", "inf", "86401"])
def test_a_wait_that_cannot_be_meant_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHGUARD_AGREE_SECONDS", text)

    with pytest.raises(ConfigurationError, match="GRAPHGUARD_AGREE_SECONDS is"):
        environment.agree_seconds(Mode.ENFORCE)
