"""Wrappers around functions of a framework: put in place once, and taken away again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from graphguard.vllm.patches import unwrap_all, wrap, wrapped_inside


@pytest.fixture(autouse=True)
def unwrapped() -> Iterator[None]:
    yield
    unwrap_all()


def louder(original: Callable[..., str]) -> Callable[..., str]:
    def call(*args: Any, **kwargs: Any) -> str:
        return original(*args, **kwargs).upper()

    return call


def twice(original: Callable[..., str]) -> Callable[..., str]:
    def call(*args: Any, **kwargs: Any) -> str:
        return original(*args, **kwargs) * 2

    return call


class Engine:
    def say(self, word: str) -> str:
        """Say a word."""
        return f"{word}!"

    @staticmethod
    def name() -> str:
        return "engine"


class Faster(Engine):
    pass


def test_a_method_is_wrapped_for_every_object() -> None:
    before = Engine()

    assert wrap(Engine, "say", louder)

    assert before.say("go") == "GO!"
    assert Engine.say.__doc__ == "Say a word."


def test_a_wrapper_is_put_in_place_once() -> None:
    assert wrap(Engine, "say", twice)
    assert not wrap(Engine, "say", twice)
    assert wrap(Engine, "say", louder)
    assert not wrap(Engine, "say", twice)

    assert Engine().say("a") == "A!A!"


def test_static_methods_stay_static() -> None:
    wrap(Engine, "name", louder)

    assert Engine.name() == Engine().name() == "ENGINE"


def test_a_subclass_gets_a_wrapper_of_its_own() -> None:
    wrap(Faster, "say", louder)

    assert Faster().say("go") == "GO!"
    assert Engine().say("go") == "go!"

    unwrap_all()
    assert "say" not in vars(Faster)


def test_functions_of_modules_are_wrapped_too() -> None:
    module = SimpleNamespace(greet=lambda: "hello")

    wrap(module, "greet", louder)

    assert module.greet() == "HELLO"


def test_all_wrappers_can_be_taken_away() -> None:
    original = vars(Engine)["say"], vars(Engine)["name"]
    for make in (louder, twice):
        wrap(Engine, "say", make)
        wrap(Engine, "name", make)

    unwrap_all()

    assert (vars(Engine)["say"], vars(Engine)["name"]) == original
    assert wrap(Engine, "say", louder)


def test_what_is_wrapped_for_a_while_is_as_before_afterwards() -> None:
    wrap(Engine, "name", louder)

    with wrapped_inside():
        wrap(Engine, "say", louder)
        assert Engine().say("go") == "GO!"

    assert Engine().say("go") == "go!"
    assert Engine.name() == "ENGINE"


def test_what_is_not_there_is_an_error() -> None:
    with pytest.raises(AttributeError):
        wrap(Engine, "shout", louder)
