"""What decides whether there is a second family of uniform graphs, without vLLM."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from graphguard.environment import DECODE_STEPS, decode_steps, uniform_graphs_wanted
from graphguard.errors import ConfigurationError
from graphguard.vllm.uniform_graphs import not_for


def config(data_parallel_size: int = 1, **model: bool) -> SimpleNamespace:
    return SimpleNamespace(
        parallel_config=SimpleNamespace(data_parallel_size=data_parallel_size),
        model_config=SimpleNamespace(**model),
    )


def test_models_with_attention_only_get_it() -> None:
    assert not_for(config(is_hybrid=False, is_attention_free=False)) is None


def test_data_parallel_ranks_do_not_get_it() -> None:
    assert "data-parallel" in str(not_for(config(data_parallel_size=2)))


@pytest.mark.parametrize("kind", ["is_hybrid", "is_attention_free", "is_encoder_decoder"])
def test_models_with_other_layers_do_not_get_it(kind: str) -> None:
    assert not_for(config(**{kind: True}))


@pytest.mark.parametrize(("text", "wanted"), [("", False), ("0", False), ("1", True)])
def test_it_is_asked_for_by_the_environment(
    monkeypatch: pytest.MonkeyPatch, text: str, wanted: bool
) -> None:
    monkeypatch.setenv("GRAPHGUARD_UNIFORM_GRAPHS", text)
    assert uniform_graphs_wanted() is wanted


def test_what_cannot_be_meant_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHGUARD_UNIFORM_GRAPHS", "yes")
    with pytest.raises(ConfigurationError, match="GRAPHGUARD_UNIFORM_GRAPHS"):
        uniform_graphs_wanted()


@pytest.mark.parametrize("text", ["0", "-1", "x", "1001", "99999", "\uff11"])
def test_numbers_of_steps_that_cannot_be_meant_are_refused(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv(DECODE_STEPS.name, text)
    with pytest.raises(ConfigurationError, match=DECODE_STEPS.name):
        decode_steps()
