"""The logger of graphguard.

The module logging takes a seventh of the time that importing graphguard takes. It is loaded when
there is something to say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from logging import Logger


def logger() -> Logger:
    """Return the logger ``graphguard``."""
    from logging import getLogger

    return getLogger("graphguard")
