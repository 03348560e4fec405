"""What the steps of a guard are made of, in every mode."""

from __future__ import annotations

import msgspec

from graphguard.fallbacks import Fallbacks
from graphguard.graph_set import GraphSet
from graphguard.launching import Launcher
from graphguard.policy import Policy
from graphguard.static_inputs import VerdictCounts
from graphguard.step_records import StepRecords


class StepParts(msgspec.Struct, frozen=True):
    """The parts of one guard.

    Attributes:
        graphs: Its captured graphs.
        policy: What it does about a batch that does not fit.
        launcher: Runs a step.
        fallbacks: Refuses one, and says why.
        records: Its part of the black box.
        counts: How often each verdict was given.
    """

    graphs: GraphSet
    policy: Policy
    launcher: Launcher
    fallbacks: Fallbacks
    records: StepRecords
    counts: VerdictCounts
