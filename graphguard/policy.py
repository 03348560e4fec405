"""What to do about a batch that does not fit, and how far the guard goes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import TypeVar

import msgspec

from graphguard.environment import Mode
from graphguard.errors import ConfigurationError
from graphguard.verdict import Action, Reason

Setting = TypeVar("Setting", bound=Enum)

OnDivergence = str | Mapping[str, str]
"""``eager``, ``recapture`` or ``raise``; or one of these for each reason, with ``default``."""

ACTIONS = {"eager": Action.EAGER, "recapture": Action.RECAPTURE, "raise": Action.ABORT}
DEFAULT = "default"

_NO_FALLBACK = (Reason.EXACT, Reason.PADDED, Reason.ADOPTED)


class InputCheck(str, Enum):
    """What is checked of static tensors before a graph is launched."""

    OFF = "off"
    SPEC = "spec"
    """dtype, shape and device."""
    ADDRESS = "address"
    """And that they have not moved."""


class Policy(msgspec.Struct, frozen=True):
    """What a guard does.

    Attributes:
        mode: How far it goes.
        fallbacks: The action for each reason that a batch does not fit.
        max_recaptures: How many graphs may be captured after warm-up.
        max_recapture_bytes: How much device memory these may reserve in all, or None for any.
        check_inputs: What is checked of the static tensors that a call names.
        vote_seconds: How long ranks wait for each other in every step, or None for no vote.
    """

    mode: Mode
    fallbacks: Mapping[Reason, Action]
    max_recaptures: int = 16
    max_recapture_bytes: int | None = None
    check_inputs: InputCheck = InputCheck.OFF
    vote_seconds: float | None = None

    def actions(self) -> set[Action]:
        """Return every action that this policy may take on a divergence."""
        return set(self.fallbacks.values())


def parse_on_divergence(on_divergence: OnDivergence) -> dict[Reason, Action]:
    """Return the action for each reason that a batch does not fit.

    What only one rank can see (a static tensor that changed or moved) is refused with an error
    unless it is named: an action that one rank takes alone is the hang that graphguard prevents.

    Raises:
        ConfigurationError: If a reason or an action does not exist.
    """
    if isinstance(on_divergence, str):
        on_divergence = {DEFAULT: on_divergence}
    default = _action(on_divergence.get(DEFAULT, "eager"))
    reasons = [reason for reason in Reason if reason not in _NO_FALLBACK]
    fallbacks = {reason: Action.ABORT if reason.rank_local else default for reason in reasons}
    known = {str(reason): reason for reason in reasons}
    for name, action in on_divergence.items():
        if name == DEFAULT:
            continue
        if name not in known:
            raise ConfigurationError(
                f"on_divergence names the reason {name!r}, which does not exist",
                hint=f"use {DEFAULT}, {_listed(known)}",
            )
        fallbacks[known[name]] = _action(action)
    return fallbacks


def parse_setting(kind: type[Setting], value: Setting | str, name: str) -> Setting:
    """Return the member of an enum that a program names.

    Raises:
        ConfigurationError: If there is none; ``name`` says of which setting.
    """
    try:
        return kind(value)
    except ValueError:
        raise ConfigurationError(
            f"{name}={value!r} does not exist",
            hint=f"use {_listed(str(member.value) for member in kind)}",
        ) from None


def _action(name: str) -> Action:
    if name not in ACTIONS:
        raise ConfigurationError(
            f"on_divergence asks for {name!r}, which does not exist",
            hint=f"use {_listed(ACTIONS)}",
        )
    return ACTIONS[name]


def _listed(names: Iterable[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} or {last}"
