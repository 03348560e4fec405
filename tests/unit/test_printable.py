from __future__ import annotations

import pytest

from graphguard.printable import printable


@pytest.mark.parametrize("text", ["target/full 16x2", "größe", "図", ""])
def test_printable_text_stays(text: str) -> None:
    assert printable(text) == text


@pytest.mark.parametrize(
    ("text", "safe"),
    [("\x1b[2J", "\\x1b[2J"), ("a\nb\t", "a\\nb\\t"), ("\u202e", "\\u202e"), ("\x00", "\\x00")],
)
def test_what_a_terminal_would_act_on_is_escaped(text: str, safe: str) -> None:
    assert printable(text) == safe
