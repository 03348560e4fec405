"""What the environment asks of the vLLM plugin."""

from __future__ import annotations

from enum import Enum

import msgspec

from graphguard import environment
from graphguard.environment import Mode
from graphguard.policy import parse_setting


class OnMismatch(str, Enum):
    """What is done with a step whose graph does not fit, when enforcing."""

    DEGRADE = "degrade"
    """As vLLM does where there is no graph: from full to piecewise to none."""
    EAGER = "eager"
    """No graph at all."""
    RAISE = "raise"
    """An error that names the step."""


class Padded(str, Enum):
    """What is done with a step that fits a full graph with padded slots, when enforcing."""

    ALLOW = "allow"
    AVOID = "avoid"
    """Its attention runs outside of graphs."""


class Options(msgspec.Struct, frozen=True):
    """The settings of the plugin.

    Attributes:
        mode: How far it goes.
        on_mismatch: What is done with a step whose graph does not fit.
        padded: What is done with a padded step.
    """

    mode: Mode
    on_mismatch: OnMismatch = OnMismatch.DEGRADE
    padded: Padded = Padded.ALLOW

    @property
    def avoids_padding(self) -> bool:
        """Whether full graphs are only used by batches that fit them exactly."""
        return self.padded is Padded.AVOID


def read_options() -> Options:
    """Read the settings from the environment.

    Raises:
        ConfigurationError: If one of them does not exist.
    """
    mismatch, padded = environment.ON_MISMATCH, environment.PADDED
    environment.check_stall_settings()
    return Options(
        mode=environment.mode(),
        on_mismatch=parse_setting(OnMismatch, mismatch.value or mismatch.default, mismatch.name),
        padded=parse_setting(Padded, padded.value or padded.default, padded.name),
    )
