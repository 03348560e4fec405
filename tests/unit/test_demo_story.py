"""The demo says that it came out as claimed only if it did."""

import msgspec
import pytest

from graphguard.audit import Finding
from graphguard.audit.catalogue import finding
from graphguard.demo.story import Audit, Guarded, Story, Unguarded

PLANTED: Finding = finding("collective-count", (1,), "rank 1 has another count")
SEEN = Story(
    ranks=2,
    unguarded=Unguarded("hang", 8.0, 5.0, [], 2),
    guarded=Guarded("completed", 3.0, [], True),
    audit=Audit([], [PLANTED]),
    manifests=[],
)


def test_a_hang_a_guarded_run_and_both_audits_are_as_claimed() -> None:
    assert SEEN.as_claimed


@pytest.mark.parametrize(
    "otherwise",
    [
        {"unguarded": Unguarded("completed", 3.0, 0.0, [], 0)},
        {"unguarded": Unguarded("aborted", 3.0, 0.0, [], 0)},
        {"guarded": Guarded("hang", 9.0, [], True)},
        {"guarded": Guarded("completed", 3.0, [], False)},
        {"audit": Audit([PLANTED], [PLANTED])},
        {"audit": Audit([], [])},
    ],
)
def test_anything_else_is_not(otherwise: dict[str, object]) -> None:
    assert not msgspec.structs.replace(SEEN, **otherwise).as_claimed
