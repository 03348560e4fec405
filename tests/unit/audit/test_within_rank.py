from __future__ import annotations

import msgspec
import pytest

from graphguard import manifest
from graphguard.audit import Finding, LoadedManifest, Severity, audit
from graphguard.manifest import Manifest
from graphguard.signature import GraphMode, Signature
from tests.unit.audit.jobs import call, graph, job, loaded, rules

PIECEWISE = GraphMode.PIECEWISE


def sizes(*tokens: int, role: str = "target") -> list[Signature]:
    return [graph(batch=f"{n}t", role=role, mode=PIECEWISE) for n in tokens]


def said(query_lens: dict[str, int], *signatures: Signature) -> list[LoadedManifest]:
    return [LoadedManifest("m", Manifest(0, 1, signatures, query_lens))]


def read_back(content: bytes) -> list[Finding]:
    return audit([LoadedManifest("m", manifest.decode(content))])


WRITTEN = manifest.encode(Manifest(0, 1, (graph(call(group="0[0]", size=1)),)))


def test_manifest_as_it_was_written_fits_its_digests() -> None:
    assert read_back(WRITTEN) == []


def test_changed_manifest_does_not_fit_its_digests() -> None:
    (finding,) = read_back(WRITTEN.replace(b'"count":1024', b'"count":1025'))
    assert (finding.rule, finding.graph) == ("digest-mismatch", "target/full 16x2")
    assert "the shared and the local digest" in finding.what


def test_change_that_only_the_local_digest_covers_is_found() -> None:
    document = msgspec.json.decode(WRITTEN)
    document["graphs"][0]["graph_kind"] = "other"
    (finding,) = read_back(msgspec.json.encode(document))
    assert "the local digest" in finding.what
    assert "shared" not in finding.what


def test_sizes_that_no_uniform_batch_fills_are_listed() -> None:
    (finding,) = audit(said({"target": 3}, *sizes(1, 3, 6, 8)))
    assert (finding.rule, finding.severity) == ("unfillable-size", Severity.WARNING)
    assert "1, 8 tokens" in finding.what


def test_fillable_sizes_give_no_finding() -> None:
    assert audit(said({"target": 2}, *sizes(2, 4, 8))) == []


def test_query_length_of_another_role_does_not_count() -> None:
    assert audit(said({"drafter": 3}, *sizes(4))) == []


def test_query_length_is_taken_from_the_full_decode_graphs() -> None:
    assert rules(audit(said({}, graph(batch="4x3"), graph(batch="4x1"), *sizes(4)))) == [
        "unfillable-size"
    ]


@pytest.mark.parametrize("full", [["4x3", "4x2"], ["4x1"], ["4x3:prefill"], ["4x3/11"]])
def test_sizes_are_not_judged_where_the_query_length_is_unknown(full: list[str]) -> None:
    assert audit(said({}, *(graph(batch=batch) for batch in full), *sizes(5))) == []


def test_query_length_given_to_the_audit_comes_first() -> None:
    manifests = said({"target": 2}, *sizes(4))
    assert audit(manifests) == []
    assert rules(audit(manifests, {"target": 3})) == ["unfillable-size"]


def test_full_graphs_are_not_judged_by_their_size() -> None:
    assert audit(said({"target": 3}, graph(batch="5x1"))) == []


def test_ranks_with_the_same_sizes_share_a_finding() -> None:
    findings = audit(job(sizes(3), sizes(3), sizes(5)), {"target": 2})
    assert [(f.rule, f.ranks) for f in findings] == [
        ("unfillable-size", (0, 1)),
        ("unfillable-size", (2,)),
    ]


def test_graph_captured_twice_is_found() -> None:
    (finding,) = audit([loaded(0, 1, graph(), graph(batch="8x2"), graph())])
    assert (finding.rule, finding.graph) == ("duplicate-capture", "target/full 16x2")
    assert "2 times" in finding.what


def test_graphs_that_differ_in_batch_or_key_are_no_duplicates() -> None:
    assert audit([loaded(0, 1, graph(), graph(batch="8x2"), graph(role="drafter"))]) == []


def disagreeing(*sentences: str, batch: str = "16x2") -> Signature:
    return msgspec.structs.replace(graph(batch=batch), disagreements=sentences)


def test_recorders_that_disagree_are_told_with_what_they_disagree_about() -> None:
    (finding,) = audit([loaded(0, 1, disagreeing("one call was seen by nobody"))])
    assert (finding.rule, finding.severity) == ("recorders-disagree", Severity.WARNING)
    assert finding.what.endswith("do not agree: one call was seen by nobody")
    assert (finding.graph, finding.evidence) == ("target/full 16x2", ("rank0.json",))


def test_the_same_disagreement_on_several_ranks_is_one_finding_for_each_graph() -> None:
    other = disagreeing("a", "c", batch="8x2")
    findings = audit(
        [
            loaded(0, 2, disagreeing("a"), other),
            loaded(1, 2, disagreeing("a", "b"), other),
        ]
    )
    told = [(f.graph, f.ranks, f.repeats) for f in findings if f.rule == "recorders-disagree"]
    assert told == [("target/full 16x2", (0, 1), 2), ("target/full 8x2", (0, 1), 2)]
