"""Whatever is recorded and whatever is asked, the native table says what the rules say."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from graphguard.signature import GraphKey, GraphMode
from graphguard.table import SignatureTable
from graphguard.verdict import Phase
from tests.unit import rules_model
from tests.unit.rules_model import Answer, Graph, Shape

EXAMPLES = 2_000
BATCHES_PER_TABLE = 8
PAIRS_PROMISED = 10_000

# Small, so that batches hit and nearly miss; 65,536 is where the native index changes its way.
LARGE_SIZES = [65_534, 65_535, 65_536, 65_537, 2**32 - 1]
small = st.integers(0, 6)
sizes = st.one_of(small, small, small, st.sampled_from(LARGE_SIZES))
# 256 is where the native table changes from loading to probing.
query_lens = st.one_of(small, small, small, st.sampled_from([255, 256, 257]))


@st.composite
def shapes(draw: st.DrawFn) -> Shape:
    num_reqs, query_len = draw(sizes), draw(query_lens)
    product = num_reqs * query_len
    # What a multiplication of 32 bits would leave of the product is worth asking about too.
    num_tokens = draw(st.sampled_from([product % 2**32, max(product - 1, 0) % 2**32, query_len]))
    return Shape(num_reqs, query_len, num_tokens, draw(st.sampled_from(Phase)))


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[bool], list[Graph]]:
    piecewise = draw(st.lists(st.booleans(), min_size=1, max_size=3))
    graph = st.builds(Graph, st.integers(0, len(piecewise) - 1), shapes())
    return piecewise, draw(st.lists(graph, max_size=10))


def native_table(piecewise: list[bool], graphs: list[Graph]) -> SignatureTable:
    table = SignatureTable()
    for index, pieces in enumerate(piecewise):
        mode = GraphMode.PIECEWISE if pieces else GraphMode.FULL
        assert table.family(GraphKey(f"role {index}", mode)) == index
    for index, graph in enumerate(graphs):
        assert table.insert(graph.family, *graph.shape, []) == index
    return table


def test_the_native_table_follows_the_rules() -> None:
    pairs = 0

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(
        tables(),
        st.lists(shapes(), min_size=BATCHES_PER_TABLE, max_size=BATCHES_PER_TABLE),
    )
    def ask(recorded: tuple[list[bool], list[Graph]], batches: list[Shape]) -> None:
        nonlocal pairs
        piecewise, graphs = recorded
        table = native_table(piecewise, graphs)
        # Recorded batches are asked as well, or exact answers would be rare.
        for batch in [*batches, *(graph.shape for graph in graphs)]:
            for family in range(len(piecewise)):
                verdict = table.check(family, *batch)
                got = Answer(verdict.action, verdict.reason, verdict.graph)
                assert got == rules_model.answer(piecewise, graphs, family, batch), batch
            pairs += 1

    ask()
    assert pairs >= PAIRS_PROMISED


@settings(max_examples=500, derandomize=True, database=None, deadline=None)
@given(st.booleans(), shapes(), shapes())
def test_check_graph_follows_the_rules(piecewise: bool, recorded: Shape, batch: Shape) -> None:
    table = native_table([piecewise], [Graph(0, recorded)])
    reason = rules_model.fit(piecewise, recorded, batch)
    assert table.check_graph(0, *batch).reason == reason
    assert table.check(0, *batch) is table.check_graph(0, *batch)
