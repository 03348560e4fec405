"""What is done when this process ends by itself."""

from __future__ import annotations

import atexit
import sys
from collections.abc import Callable


def at_exit(call: Callable[[], None]) -> None:
    """Call a function when the process ends; in children of multiprocessing it may be twice."""
    atexit.register(call)
    # A child of multiprocessing that was forked ends without what atexit knows, before 3.14.
    util = sys.modules.get("multiprocessing.util")
    process = sys.modules.get("multiprocessing.process")
    if util is not None and process is not None and process.parent_process() is not None:
        util.Finalize(None, call, exitpriority=0)


def ends_by_error() -> bool:
    """Whether the process ends since its program failed, asked from what is called then."""
    # multiprocessing catches the error of a child, and it is on its way when this is asked.
    error = sys.exc_info()[1] or getattr(sys, "last_value", None)
    if isinstance(error, SystemExit):
        return error.code not in (None, 0)
    return error is not None
