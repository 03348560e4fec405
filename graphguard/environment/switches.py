"""Variables that are 0 or 1."""

from __future__ import annotations

from graphguard.environment.variable import Variable
from graphguard.errors import ConfigurationError


def switched_on(variable: Variable) -> bool:
    """Return what such a variable says.

    Raises:
        ConfigurationError: If it says neither.
    """
    text = variable.value or variable.default
    if text not in ("0", "1"):
        raise ConfigurationError(
            f"the environment variable {variable.name} is {text!r}", hint="use 0 or 1"
        )
    return text == "1"
