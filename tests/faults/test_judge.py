"""Who a text blames: the ranks that stand against a strict majority of all."""

from __future__ import annotations

import pytest

from tests.faults.judge import _minority

LAUNCH = "replay of target/full 4x2"


@pytest.mark.parametrize(
    ("text", "ranks", "blamed"),
    [
        (f"rank 0 refused step 4 of 0[0-1]: rank 0: {LAUNCH}; rank 1: eager", 2, set()),
        (f"step 4 of 0[0-3] is refused. ranks 0, 2, 3: {LAUNCH}; rank 1: eager", 4, {1}),
        (f"ranks differ at step 4: ranks 0, 2-7: {LAUNCH}; rank 1: eager", 8, {1}),
        # Two of four are no majority, and who has not come yet is on no side.
        (f"ranks 0, 2: {LAUNCH}; rank 1: eager; rank 3: nothing yet", 4, set()),
        (f"ranks 0, 2, 3: {LAUNCH}; rank 1: nothing yet", 4, set()),
        (f"ranks 0-2: {LAUNCH}; rank 3: not to be read any more", 4, set()),
        (f"ranks 0-4: {LAUNCH}; rank 5: eager; ranks 6-7: capture", 8, {5, 6, 7}),
        (
            "rank 0: the ranks did not capture the same for target/full:\n"
            "  - target/full 1x2: rank 1 has another root than ranks 0, 2-3, first at call 1 "
            "(ranks 0, 2-3: broadcast(2 float32, root 0) on 0[0-3]; "
            "rank 1: broadcast(2 float32, root 1) on 0[0-3])",
            4,
            {1},
        ),
    ],
)
def test_only_a_minority_is_blamed(text: str, ranks: int, blamed: set[int]) -> None:
    assert _minority(text, ranks) == blamed
