"""Loading torch's compiler, which the first operation under any dispatch mode does.

Left to that operation it would happen in the middle of a capture, and at a price: modules that
come with it define functions whose default argument is the default process group, if there is
one by then. They would keep it alive past ``destroy_process_group()``, with threads that abort
the process when it ends.
"""

from __future__ import annotations

import importlib
import sys
from types import FunctionType

from torch._C._distributed_c10d import ProcessGroup

_KEEPS_GROUP = "torch.distributed.nn.functional"


def load() -> None:
    """Load torch's compiler, and leave no process group in default arguments."""
    was_loaded = _KEEPS_GROUP in sys.modules
    importlib.import_module("torch._dynamo")
    if was_loaded or _KEEPS_GROUP not in sys.modules:
        return
    for function in vars(sys.modules[_KEEPS_GROUP]).values():
        if isinstance(function, FunctionType) and function.__defaults__:
            # None stands for the default group of the time of the call.
            function.__defaults__ = tuple(
                None if isinstance(value, ProcessGroup) else value
                for value in function.__defaults__
            )
