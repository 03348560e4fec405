from __future__ import annotations

import time
from itertools import combinations

from hypothesis import given, settings
from hypothesis import strategies as st

from graphguard.audit import Finding, Severity, audit
from graphguard.signature import Signature, TensorSpec
from tests.unit.audit.jobs import graph, loaded, tensor


def reads(*tensors: TensorSpec, batch: str = "16x2", role: str = "target") -> Signature:
    return graph(batch=batch, role=role, tensors=tensors, num_inputs=len(tensors))


def writes(*tensors: TensorSpec, batch: str = "8x2", role: str = "target") -> Signature:
    return graph(batch=batch, role=role, tensors=tensors)


def found(*signatures: Signature) -> list[Finding]:
    return audit([loaded(0, 1, *signatures)])


def test_output_over_the_middle_of_another_graphs_input_is_found() -> None:
    (finding,) = found(reads(tensor(1000, 100, "tokens")), writes(tensor(1050, 100, "logits")))
    assert (finding.rule, finding.ranks) == ("overlapping-buffers", (0,))
    assert [side.text.split(":")[0] for side in finding.sides] == [
        "input tokens of target/full 16x2",
        "output logits of target/full 8x2",
    ]


def test_output_that_begins_before_an_input_is_found() -> None:
    assert len(found(reads(tensor(1000, 100)), writes(tensor(950, 100)))) == 1


def test_buffers_that_touch_do_not_overlap() -> None:
    assert found(reads(tensor(1000, 100)), writes(tensor(1100, 100), tensor(900, 100))) == []


def test_slices_of_the_same_input_are_sharing() -> None:
    assert found(reads(tensor(1000, 100)), reads(tensor(1000, 50), batch="8x2")) == []


def test_inputs_that_overlap_are_never_written_by_a_graph() -> None:
    assert found(reads(tensor(1000, 100)), reads(tensor(1010, 50), batch="8x2")) == []


def test_outputs_of_one_role_share_a_pool() -> None:
    assert found(writes(tensor(1000, 100)), writes(tensor(1010, 100), batch="4x2")) == []
    assert found(writes(tensor(1000, 100)), writes(tensor(1000, 50), batch="4x2")) == []


def test_output_over_another_roles_output_is_an_error() -> None:
    (finding,) = found(writes(tensor(1000, 100)), writes(tensor(1010, 100), role="drafter"))
    assert finding.severity is Severity.ERROR


def test_overlap_within_one_role_is_a_warning() -> None:
    (finding,) = found(reads(tensor(1000, 100)), writes(tensor(1010, 100)))
    assert finding.severity is Severity.WARNING


def test_output_that_begins_where_another_roles_input_does_is_found() -> None:
    assert len(found(reads(tensor(1000, 100)), writes(tensor(1000, 50), role="drafter"))) == 1
    assert len(found(writes(tensor(1000, 50), role="drafter"), reads(tensor(1000, 100)))) == 1


def test_output_that_begins_where_an_input_of_its_role_does_is_sharing() -> None:
    assert found(reads(tensor(1000, 100)), writes(tensor(1000, 50))) == []


def test_other_device_is_no_overlap() -> None:
    assert found(reads(tensor(1000, 9)), writes(tensor(1001, 9, device="cuda:1"))) == []


def test_graph_may_write_over_its_own_buffers() -> None:
    own = graph(tensors=(tensor(1000, 100), tensor(1010, 100)), num_inputs=1)
    assert found(own) == []


def test_empty_tensors_lie_nowhere() -> None:
    assert found(reads(tensor(1000, 100)), writes(tensor(1050, 0))) == []


def test_buffer_behind_a_nearer_harmless_one_is_found() -> None:
    far = reads(tensor(1000, 500))
    near = writes(tensor(1100, 300), tensor(1150, 200), tensor(1160, 300), batch="4x2")
    (finding,) = found(far, near)
    assert finding.sides[0].text.startswith("input of target/full 16x2")


def test_repeated_overlaps_are_one_finding_with_their_number() -> None:
    tensors = [tensor(1000 * i, 100) for i in range(1, 6)]
    over = [tensor(1000 * i + 50, 100) for i in range(1, 6)]
    (finding,) = found(reads(*tensors), writes(*over))
    assert finding.repeats == 5


def test_many_buffers_are_swept_not_paired() -> None:
    tensors = tuple(tensor(10 * i, 100_000) for i in range(20_000))
    started = time.process_time()
    assert len(found(reads(*tensors), writes(*tensors))) == 1
    assert time.process_time() - started < 10


def test_far_input_behind_the_writers_own_is_found() -> None:
    mine = graph(batch="8x2", tensors=(tensor(900, 2000), tensor(1200, 10)), num_inputs=1)
    (finding,) = found(reads(tensor(1000, 500)), mine)
    assert finding.sides[0].text.startswith("input of target/full 16x2")


def test_input_behind_two_of_another_start_is_found() -> None:
    three = reads(tensor(900, 200), tensor(1000, 400), tensor(1000, 500))
    assert len(found(three, writes(tensor(1000, 600)))) == 1


PLACES = st.tuples(
    st.integers(0, 3), st.sampled_from("ab"), st.booleans(), st.integers(1, 12), st.integers(0, 6)
)


@given(st.lists(PLACES, max_size=14))
@settings(max_examples=400)
def test_sweep_finds_what_comparing_all_pairs_finds(
    places: list[tuple[int, str, bool, int, int]],
) -> None:
    signatures = [
        graph(
            batch=f"{number + 1}x1",
            role=role,
            tensors=tuple(
                tensor(start, nbytes)
                for output in (False, True)
                for g, r, o, start, nbytes in places
                if (g, r, o) == (number, role, output)
            ),
            num_inputs=sum((g, r, o) == (number, role, False) for g, r, o, _, _ in places),
        )
        for number in range(4)
        for role in "ab"
    ]
    expected = set()
    for (g, r, o, start, size), (h, q, p, begin, length) in combinations(places, 2):
        apart = (g, r) == (h, q) or not size or not length
        if apart or start >= begin + length or begin >= start + size or not (o or p):
            continue
        if (start != begin or o != p) if r != q else (start != begin and o != p):
            expected.add(Severity.ERROR if r != q else r)
    told = {f.severity if f.severity is Severity.ERROR else f.graph[0] for f in found(*signatures)}
    assert told == expected
