"""The frame of a stage's program: say why it cannot run, or run it."""

from __future__ import annotations

import sys
from collections.abc import Callable

from tests.gpu.suite import needs, settings
from tests.gpu.suite.lines import NotRun, tell
from tests.gpu.suite.settings import Settings


def run_stage(name: str, wanted: tuple[needs.Need, ...], run: Callable[[Settings], None]) -> None:
    """Run a stage with the settings that the command line names.

    A stage that cannot run is no failure: it tells why, and ends with 0.
    """
    given = settings.from_arguments()
    if why := needs.unmet(given, wanted):
        tell(NotRun(name, why))
        print(f"{name} is not run: {why}", file=sys.stderr)
        return
    run(given)
