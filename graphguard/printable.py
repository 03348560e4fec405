"""Text from files made safe for a terminal."""

from __future__ import annotations


def printable(text: str) -> str:
    """Return text with everything that a terminal would act on written as an escape.

    Names in a manifest may come from anywhere; they must not move the cursor or break a table.
    """
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )
