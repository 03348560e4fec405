"""A stage: a program, its limits, and what it is about."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

REPOSITORY = Path(__file__).parents[3]
PYTEST_OPTIONS = (
    "-q",
    "-p",
    "timeout",
    "-p",
    "tests.gpu.suite.pytest_lines",
    "-p",
    "no:cacheprovider",
)
_CHOICE = re.compile(r"([1-9])([a-z0-9.:+_-]*)\Z")


class Stage(msgspec.Struct, frozen=True):
    """A stage of the proof.

    Attributes:
        number: Of the issue's list, which ``--stages`` chooses by.
        name: Its own name, unique in the catalogue.
        about: What it shows, in one clause.
        command: The program after the interpreter; ``{settings}`` is replaced by a file's path.
        seconds: Its time limit.
        least: With less time than that it is not started.
        shares_device: Whether its processes need an NCCL that takes two ranks on one device.
        needs_device: Whether it is of no use without a CUDA device.
    """

    number: int
    name: str
    about: str
    command: tuple[str, ...]
    seconds: float
    least: float = 15.0
    shares_device: bool = False
    needs_device: bool = True

    @property
    def title(self) -> str:
        """Number and name: ``4:deadlock``."""
        return f"{self.number}:{self.name}"

    def full_command(self, settings: str) -> list[str]:
        """Return what is started."""
        return [sys.executable, *(part.replace("{settings}", settings) for part in self.command)]


def program(number: int, name: str, about: str, seconds: float, *arguments: str) -> Stage:
    """Return the stage of a program in ``tests/gpu/suite/stages``, whose name it has."""
    module = f"tests.gpu.suite.stages.{name.partition('-')[0]}"
    command = ("-m", module, "{settings}", *arguments)
    return Stage(number, name, about, command, seconds, least=min(30.0, seconds / 2))


def pytest_file(
    number: int, name: str, about: str, seconds: float, shares_device: bool = False
) -> Stage:
    """Return the stage of a file of tests in ``tests/gpu``."""
    file = f"tests/gpu/test_{name.replace('-', '_')}.py"
    command = ("-m", "pytest", *PYTEST_OPTIONS, "-m", "gpu", file)
    return Stage(number, name, about, command, seconds, shares_device=shares_device)


def if_there(stage: Stage) -> list[Stage]:
    """Return a stage whose tests this version of graphguard may not have yet."""
    return [stage] if (REPOSITORY / stage.command[-1]).is_file() else []


def chosen(stages: Sequence[Stage], choice: str) -> list[Stage]:
    """Return the stages that a choice like ``1,3`` or ``5:vllm-0.20.1,7`` names, in their order.

    Raises:
        ValueError: If it names one that is not there.
    """
    if not choice.strip():
        return list(stages)
    wanted: set[str] = set()
    for word in filter(None, (part.strip() for part in choice.split(","))):
        if _CHOICE.match(word) is None:
            raise ValueError(f"{word!r} names no stage: use numbers, or a number:name")
        found = {s.title for s in stages if word in (str(s.number), s.title)}
        if not found:
            raise ValueError(f"{word!r} names no stage; --list shows them")
        wanted |= found
    return [stage for stage in stages if stage.title in wanted]
