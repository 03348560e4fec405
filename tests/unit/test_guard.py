"""The guard: what becomes of a step, in each mode and for each policy."""

import logging
import stat
from pathlib import Path

import pytest
import torch

from graphguard import (
    Action,
    BatchDescriptor,
    Captured,
    CaptureError,
    ConfigurationError,
    GuardedCapture,
    GuardMismatch,
    ManifestError,
    Phase,
    Reason,
    Session,
    guard,
    manifest,
)
from tests.unit.emulated_step import Step

OF = BatchDescriptor.of


def reason_of(guarded: GuardedCapture) -> Reason:
    assert guarded.last_verdict is not None
    return guarded.last_verdict.reason


@pytest.fixture
def step() -> Step:
    step = Step()
    step.tokens.copy_(torch.arange(64.0))
    return step


def test_an_exact_batch_replays_its_graph(step: Step, session: Session) -> None:
    guarded = step.guarded(session)

    out = guarded(OF(16, 2))

    assert torch.equal(out, torch.arange(32.0) * 2)
    assert guarded.last_verdict is not None
    assert (guarded.last_verdict.action, guarded.last_verdict.reason) == (
        Action.REPLAY,
        Reason.EXACT,
    )
    assert step.eager_runs == []


def test_fifteen_requests_are_padded_into_the_graph_of_sixteen(
    step: Step, session: Session
) -> None:
    filled = []

    def fill_padding(batch: BatchDescriptor, padded: BatchDescriptor) -> None:
        filled.append((str(batch), str(padded)))
        step.tokens[batch.num_tokens : padded.num_tokens] = -1

    guarded = step.guarded(session, fill_padding=fill_padding)

    out = guarded(OF(15, 2))

    assert guarded.last_verdict is not None
    assert guarded.last_verdict.action is Action.PAD
    assert filled == [("15x2", "16x2")]
    assert out.shape == (32,)
    assert torch.equal(out[:30], torch.arange(30.0) * 2)
    assert torch.equal(out[30:], torch.full((2,), -2.0))


def test_padded_rows_are_cut_off_when_asked(step: Step, session: Session) -> None:
    assert step.guarded(session, unpad="tokens")(OF(15, 2)).shape == (30,)
    assert step.guarded(
        session, unpad=lambda outputs, batch, padded: outputs[: padded.num_tokens - 1]
    )(OF(15, 2)).shape == (31,)
    with pytest.raises(ConfigurationError):
        step.guarded(session, unpad="rows")


@pytest.mark.parametrize(
    ("batch", "reason"),
    [
        (OF(15, 1), Reason.QUERY_LENGTH),
        (OF(1, 2, Phase.PREFILL), Reason.WRONG_PHASE),
        (OF(17, 2), Reason.TOO_MANY_REQUESTS),
        (BatchDescriptor.ragged([1, 2, 2]), Reason.NOT_UNIFORM),
    ],
)
def test_what_does_not_fit_runs_eagerly_by_default(
    step: Step, session: Session, batch: BatchDescriptor, reason: Reason
) -> None:
    guarded = step.guarded(session)

    out = guarded(batch)

    assert guarded.last_verdict is not None
    assert (guarded.last_verdict.action, guarded.last_verdict.reason) == (Action.EAGER, reason)
    assert step.eager_runs == [batch]
    assert torch.equal(out, torch.arange(float(batch.num_tokens)) * 2)
    assert len(step.captures) == 5


def test_each_reason_is_said_once(
    step: Step, session: Session, caplog: pytest.LogCaptureFixture
) -> None:
    guarded = step.guarded(session)
    with caplog.at_level(logging.WARNING, "graphguard"):
        for batch in (OF(15, 1), OF(14, 1), OF(40, 2)):
            guarded(batch)

    assert len(caplog.records) == 2
    assert "rank 0: target/full cannot replay 15x1" in caplog.messages[0]
    assert "1x2, 2x2, 4x2, 8x2, 16x2" in caplog.messages[0]


def test_raising_names_the_rank_the_graph_and_what_to_do(step: Step, session: Session) -> None:
    guarded = step.guarded(session, on_divergence={"wrong_phase": "raise"})

    with pytest.raises(GuardMismatch, match=r"rank 0: target/full cannot replay 2x2:prefill") as e:
        guarded(OF(2, 2, Phase.PREFILL))

    assert e.value.verdict == guarded.last_verdict
    assert e.value.hint
    assert guarded(OF(2, 2)).shape == (4,)


def test_recapturing_captures_exactly_the_missing_descriptor_and_once(
    step: Step, session: Session
) -> None:
    guarded = step.guarded(session, on_divergence="recapture")

    first, second = guarded(OF(15, 1)), guarded(OF(15, 1))

    assert step.captures[5:] == [OF(15, 1)]
    assert guarded.last_verdict is not None
    assert guarded.last_verdict.reason is Reason.EXACT
    assert torch.equal(first, torch.arange(15.0) * 2)
    assert torch.equal(second, first)
    assert [str(s.batch) for s in session.signatures][-1] == "15x1"
    assert step.eager_runs == []


def test_after_the_limit_of_recaptures_steps_run_eagerly_and_it_is_said_once(
    step: Step, session: Session, caplog: pytest.LogCaptureFixture
) -> None:
    guarded = step.guarded(session, on_divergence="recapture", max_recaptures=2)
    with caplog.at_level(logging.WARNING, "graphguard"):
        for num_reqs in (3, 5, 6, 7, 6):
            guarded(OF(num_reqs, 1))

    # 3x1 is captured, 5x1 is captured; 6x1 and 7x1 find the limit reached.
    assert step.captures[5:] == [OF(3, 1), OF(5, 1)]
    assert step.eager_runs == [OF(6, 1), OF(7, 1), OF(6, 1)]
    assert [m for m in caplog.messages if "2 graphs have been captured since warm-up" in m] == (
        caplog.messages
    )
    assert len(caplog.messages) == 1


def test_a_recapture_that_failed_is_not_tried_again(step: Step, session: Session) -> None:
    guarded = step.guarded(session, on_divergence="recapture")
    step.fail_with = RuntimeError("out of memory")

    for _ in range(2):
        with pytest.raises(CaptureError, match="rank 0: capturing target/full 15x1 failed: out of"):
            guarded(OF(15, 1))

    assert step.captures[5:] == [OF(15, 1)]


def test_the_memory_limit_counts_what_recaptures_reserved(
    step: Step, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Stands for CUDA's allocator, which only a GPU has.
    guarded = step.guarded(session, on_divergence="recapture", max_recapture_bytes=1000)
    for num_reqs in (3, 5, 6):
        guarded(OF(num_reqs, 1))
        guarded._graphs._reserved(600)

    assert step.captures[5:] == [OF(3, 1), OF(5, 1)]
    assert step.eager_runs == [OF(6, 1)]


@pytest.mark.parametrize(
    ("mode", "line"),
    [
        ("off", "rank 0: target/full is not guarded (mode off)"),
        ("enforce", "rank 0: target/full is guarded (mode enforce): 5 graphs with 0 collective"),
    ],
)
def test_one_line_says_whether_the_guard_is_armed(
    step: Step, session: Session, caplog: pytest.LogCaptureFixture, mode: str, line: str
) -> None:
    with caplog.at_level(logging.INFO, "graphguard"):
        step.guarded(session, mode=mode)

    assert len([message for message in caplog.messages if message.startswith(line)]) == 1


def test_warm_up_captures_a_descriptor_once(step: Step, session: Session) -> None:
    guarded = step.guarded(session, "2x2", "4x2", "2x2")

    assert guarded.batches == (OF(2, 2), OF(4, 2))
    assert len(session.signatures) == 2


def test_an_error_in_the_capture_function_is_named_with_its_cause(
    step: Step, session: Session
) -> None:
    step.fail_with = ValueError("no such kernel")

    with pytest.raises(CaptureError, match="capturing target/full 1x2 failed: no such kernel") as e:
        step.guarded(session)

    assert e.value.__cause__ is step.fail_with


@pytest.mark.parametrize("mode", ["off", "observe"])
def test_a_program_that_is_only_observed_sees_its_own_errors(
    step: Step, session: Session, mode: str
) -> None:
    step.fail_with = torch.OutOfMemoryError("out of memory")

    with pytest.raises(torch.OutOfMemoryError) as raised:
        step.guarded(session, mode=mode)

    assert raised.value is step.fail_with


def test_a_capture_function_must_return_what_it_captured(session: Session) -> None:
    guarded = guard("target", mode="observe", session=session)(lambda batch: None)  # type: ignore[arg-type, return-value]

    with pytest.raises(CaptureError, match="returned a NoneType for 1x2"):
        guarded.warm_up([OF(1, 2)])


def test_piecewise_graphs_match_on_tokens_alone(step: Step, session: Session) -> None:
    guarded = step.guarded(session, "8t", "16t", graph_mode="piecewise", unpad="tokens")

    assert guarded(BatchDescriptor.ragged([5, 2], Phase.MIXED)).shape == (7,)
    assert guarded(OF(2, 8, Phase.PREFILL)).shape == (16,)
    assert step.eager_runs == []
    guarded(OF(17, 1))
    assert step.eager_runs == [OF(17, 1)]


class TestStaticInputs:
    def test_a_moved_tensor_is_refused(self, step: Step, session: Session) -> None:
        guarded = step.guarded(session, check_inputs="address")
        guarded(OF(2, 2))

        step.tokens.data = torch.zeros(64)

        with pytest.raises(GuardMismatch, match="has moved since it was recorded"):
            guarded(OF(2, 2))

    def test_a_moved_tensor_passes_where_only_specs_are_checked(
        self, step: Step, session: Session
    ) -> None:
        guarded = step.guarded(session, check_inputs="spec")
        step.tokens.data = torch.zeros(64)

        assert guarded(OF(2, 2)).shape == (4,)

    @pytest.mark.parametrize(
        ("inputs", "words"),
        [
            ({"tokens": torch.zeros(63)}, "another shape"),
            ({"tokens": torch.zeros(64, dtype=torch.int64)}, "another dtype"),
            ({"tokens": torch.zeros(64, device="meta")}, "another device"),
            ({"ids": torch.zeros(64)}, "another number of static tensors"),
            ({}, "another number of static tensors"),
        ],
    )
    def test_named_inputs_are_compared(
        self, step: Step, session: Session, inputs: dict[str, torch.Tensor], words: str
    ) -> None:
        guarded = step.guarded(session, check_inputs="spec")

        with pytest.raises(GuardMismatch, match=words):
            guarded(OF(2, 2), inputs=inputs)

    def test_a_moved_tensor_can_be_captured_again_when_no_other_rank_takes_part(
        self, step: Step, session: Session
    ) -> None:
        guarded = step.guarded(
            session, check_inputs="address", on_divergence={"input_address": "recapture"}
        )
        step.tokens.data = torch.full((64,), 3.0)

        assert torch.equal(guarded(OF(2, 2)), torch.full((4,), 6.0))
        assert reason_of(guarded) is Reason.INPUT_ADDRESS
        guarded(OF(2, 2))
        assert reason_of(guarded) is Reason.EXACT
        assert step.captures[5:] == [OF(2, 2)]
        assert len(session.signatures) == 5


class TestObserve:
    def test_it_replays_what_fits_and_runs_the_rest_eagerly(
        self, step: Step, session: Session
    ) -> None:
        guarded = step.guarded(session, mode="observe", on_divergence="raise")

        guarded(OF(16, 2))
        guarded(OF(15, 1))

        assert step.eager_runs == [OF(15, 1)]
        assert {str(v.reason): n for v, n in guarded.verdicts().items()} == {
            "exact": 1,
            "query_length": 1,
        }

    def test_the_programs_own_choice_is_launched_and_its_fault_recorded(
        self, step: Step, session: Session, caplog: pytest.LogCaptureFixture
    ) -> None:
        guarded = step.guarded(session, mode="observe", choose=lambda batch, captured: captured[-1])

        with caplog.at_level(logging.WARNING, "graphguard"):
            out = guarded(OF(15, 1))

        assert out.shape == (32,)
        assert step.eager_runs == []
        assert guarded.last_verdict is not None
        assert guarded.last_verdict.reason is Reason.QUERY_LENGTH
        assert "cannot replay 15x1" in caplog.text

    def test_a_recorder_that_fails_does_not_reach_the_program(
        self,
        step: Step,
        session: Session,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        def fails(inputs: object) -> None:
            raise OSError("recorder fault")

        monkeypatch.setattr("graphguard.recording.input_specs", fails)
        with caplog.at_level(logging.WARNING, "graphguard"):
            guarded = step.guarded(session, mode="observe")

        assert torch.equal(guarded(OF(16, 2)), torch.arange(32.0) * 2)
        assert "recorder fault" in caplog.text

    def test_a_manifest_that_cannot_be_written_does_not_reach_the_program(
        self,
        step: Step,
        session: Session,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        occupied = tmp_path / "file"
        occupied.write_text("")
        monkeypatch.setenv("GRAPHGUARD_DIR", str(occupied))

        with caplog.at_level(logging.WARNING, "graphguard"):
            step.guarded(session, mode="observe")

        assert "the manifest is not written" in caplog.text
        with pytest.raises(ManifestError):
            step.guarded(session, mode="enforce")

    def test_checking_inputs_never_stops_a_step(self, step: Step, session: Session) -> None:
        guarded = step.guarded(session, mode="observe", check_inputs="address")
        step.tokens.data = torch.zeros(64)

        guarded(OF(2, 2))
        assert reason_of(guarded) is Reason.INPUT_ADDRESS
        guarded(OF(2, 2), inputs={"tokens": 3})
        assert reason_of(guarded) is Reason.EXACT


class TestOff:
    def test_nothing_is_recorded(
        self, step: Step, session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("GRAPHGUARD_DIR", str(tmp_path / "manifests"))
        guarded = step.guarded(session, mode="off")

        assert torch.equal(guarded(OF(16, 2)), torch.arange(32.0) * 2)
        guarded(OF(15, 1))

        assert step.eager_runs == [OF(15, 1)]
        assert session.signatures == []
        assert guarded.last_verdict is None
        assert not (tmp_path / "manifests").exists()


class TestEnforce:
    def test_the_programs_own_choice_is_not_asked(self, step: Step, session: Session) -> None:
        def choose(batch: BatchDescriptor, captured: object) -> BatchDescriptor:
            raise AssertionError("asked")

        guarded = step.guarded(session, choose=choose)
        guarded(OF(15, 1))

        assert step.eager_runs == [OF(15, 1)]

    @pytest.mark.parametrize("on_divergence", ["eager", "recapture", {"wrong_phase": "raise"}])
    def test_it_needs_an_eager_function_where_it_may_have_to_use_one(
        self, on_divergence: str | dict[str, str]
    ) -> None:
        with pytest.raises(ConfigurationError, match="has no eager function"):
            guard("target", mode="enforce", on_divergence=on_divergence)

        guard("target", mode="enforce", on_divergence="raise")
        guard("target", mode="observe", on_divergence=on_divergence)


def test_without_an_eager_function_a_step_that_does_not_fit_is_an_error(
    step: Step, session: Session
) -> None:
    guarded = step.guarded(session, mode="observe", eager=None)

    with pytest.raises(GuardMismatch, match="there is no eager function"):
        guarded(OF(15, 1))


def test_the_mode_is_taken_from_the_environment_where_none_is_given(
    step: Step, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRAPHGUARD_MODE", "enforce")
    assert str(step.guarded(session, mode=None).policy.mode) == "enforce"
    with pytest.raises(ConfigurationError, match=r"guard\(\) asks for the mode 'loud'"):
        step.guarded(session, mode="loud")


def test_the_manifest_is_written_at_the_end_of_warm_up_and_after_a_recapture(
    step: Step, session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "manifests"
    monkeypatch.setenv("GRAPHGUARD_DIR", str(directory))
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "4")
    guarded = step.guarded(session, on_divergence="recapture", query_len=2)

    path = directory / "manifest.rank3.json"
    written = manifest.read(path)
    assert (written.rank, written.world_size, written.mode) == (3, 4, "enforce")
    assert written.query_lens == {"target": 2}
    assert written.signatures == tuple(session.signatures)
    assert written.signatures[4].graph_kind == "emulated"
    assert [t.name for t in written.signatures[4].tensors] == ["tokens", "output"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700

    guarded(OF(15, 1))
    assert len(manifest.read(path).signatures) == 6


def test_any_object_with_replay_and_reset_is_a_graph(session: Session) -> None:
    class Graph:
        replays = 0

        def replay(self) -> None:
            self.replays += 1

        def reset(self) -> None: ...

    graph = Graph()
    guarded = guard("mine", mode="enforce", on_divergence="raise", session=session)(
        lambda batch: Captured(graph, outputs="out")
    )
    guarded.warm_up([OF(4, 1)])

    assert guarded(OF(4, 1)) == "out"
    assert graph.replays == 1
    assert session.signatures[0].graph_kind.endswith("Graph")
