"""The kinds of steps of the uniform scheduler, without vLLM."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from graphguard.vllm.step_kinds import Decodes, Prefills


def request(name: str) -> SimpleNamespace:
    return SimpleNamespace(request_id=name)


class TestDecodes:
    STEP = Decodes(2, {"a", "b"})

    def test_takes_its_own(self) -> None:
        assert self.STEP.tokens(request("a"), 2, 2) == 2

    def test_takes_nothing_of_others(self) -> None:
        assert self.STEP.tokens(request("c"), 2, 2) == 0

    @pytest.mark.parametrize("tokens", [1, 3])
    def test_takes_no_other_length(self, tokens: int) -> None:
        assert self.STEP.tokens(request("a"), tokens, tokens) == 0

    def test_allows_steps_of_its_length_only(self) -> None:
        assert self.STEP.allows({"a": 2, "b": 2})
        assert self.STEP.allows({})
        assert not self.STEP.allows({"a": 2, "c": 1})


class TestPrefills:
    STEP = Prefills({"d"}, forbidden=2, unpads=True)

    def test_takes_nothing_of_decodes(self) -> None:
        assert self.STEP.tokens(request("d"), 2, 2) == 0

    @pytest.mark.parametrize("tokens", [1, 3, 100])
    def test_takes_prompts_whole(self, tokens: int) -> None:
        assert self.STEP.tokens(request("p"), tokens, tokens) == tokens

    def test_cuts_a_prompt_that_is_as_long_as_a_verification(self) -> None:
        assert self.STEP.tokens(request("p"), 2, 2) == 1
        assert self.STEP.tokens(request("p"), 2, 40) == 1

    def test_takes_the_padding_off_the_last_token_of_a_prompt(self) -> None:
        assert self.STEP.tokens(request("p"), 2, 1) == 1
        step = Prefills(frozenset(), forbidden=4, unpads=True)
        assert step.tokens(request("p"), 4, 1) == 1

    def test_leaves_the_padding_where_vllm_would_not_notice(self) -> None:
        assert self.STEP._replace(unpads=False).tokens(request("p"), 2, 1) == 2

    def test_takes_any_length_where_prompts_cannot_be_cut(self) -> None:
        assert self.STEP._replace(forbidden=0).tokens(request("p"), 2, 2) == 2

    def test_allows_steps_without_decodes_only(self) -> None:
        assert self.STEP.allows({"p": 2, "q": 90})
        assert not self.STEP.allows({"p": 2, "d": 2})
