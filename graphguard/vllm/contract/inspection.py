"""Looking at vLLM's internals without running them: names, parameters, fields, assignments."""

from __future__ import annotations

import dataclasses
import dis
import functools
import importlib
import inspect
import sys
from collections.abc import Callable, Iterator
from types import CodeType
from typing import Any, NamedTuple

from graphguard.vllm.contract.expectation import Expectation

Thing = Any
"""A class, a function, a descriptor or a constant of vLLM."""

_MISSING = object()


class Lack(NamedTuple):
    """Something that vLLM does not have as expected.

    Attributes:
        sentence: What it is.
        whole_module: Whether it is a module that cannot be imported.
    """

    sentence: str
    whole_module: bool = False


def lacks(expectation: Expectation) -> list[Lack]:
    """Return what vLLM does not have as expected; it never raises."""
    if expectation.if_loaded and expectation.module not in sys.modules:
        return []
    try:
        module = importlib.import_module(expectation.module)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - importing vLLM may fail in any way
        why = f"{type(error).__name__}: {error}"
        return [Lack(f"{expectation.module} cannot be imported: {why}", whole_module=True)]
    try:
        return [Lack(sentence) for sentence in _differences(module, expectation)]
    except Exception as error:  # noqa: BLE001 - what cannot be looked at is not as expected
        why = f"{type(error).__name__}: {error}"
        return [Lack(f"{expectation.name} cannot be looked at: {why}")]


def _differences(module: Thing, expectation: Expectation) -> Iterator[str]:
    thing, reached = module, expectation.module
    owner: Thing = None
    for step in expectation.path.split("."):
        owner, thing = thing, _attribute(thing, step)
        if thing is _MISSING:
            yield f"{reached} has no {step!r}"
            return
        reached = f"{reached}.{step}"
    yield from _parameter_differences(owner, thing, expectation)
    if expectation.fields:
        yield from _absent(expectation.fields, _fields(thing), f"{reached} has no field")
    for name in expectation.sets:
        if not _sets(thing, name):
            yield f"{reached} does not set {name!r}"
    if expectation.uses:
        used = {name for code in _codes(_function(thing)) for name in _names(code)}
        yield from _absent(expectation.uses, used, f"{reached} does not use")


def _parameter_differences(owner: Thing, thing: Thing, expectation: Expectation) -> Iterator[str]:
    if not (expectation.parameters or expectation.begins_with):
        return
    if not callable(_function(thing)):
        yield f"{expectation.name} is not a function"
        return
    names = list(inspect.signature(_function(thing)).parameters)
    if inspect.isclass(thing) or (inspect.isclass(owner) and not isinstance(thing, staticmethod)):
        del names[:1]
    needed = dict.fromkeys(expectation.begins_with + expectation.parameters)
    lacking = list(_absent(needed, names, f"{expectation.name} has no parameter"))
    yield from lacking
    first = list(expectation.begins_with)
    if not lacking and names[: len(first)] != first:
        yield f"{expectation.name} does not begin with the parameters {', '.join(first)}"


def _absent(needed: Any, present: Any, sentence: str) -> Iterator[str]:  # noqa: ANN401 - names
    return (f"{sentence} {name!r}" for name in needed if name not in present)


def _attribute(owner: Thing, name: str) -> Thing:
    if inspect.isclass(owner):
        # A descriptor stays what it is: its function is looked at, and nothing is run.
        return inspect.getattr_static(owner, name, _MISSING)
    return getattr(owner, name, _MISSING)


def _function(thing: Thing) -> Callable[..., Any]:
    """Return the function behind decorators, descriptors, or a class's construction."""
    if inspect.isclass(thing):
        thing = inspect.getattr_static(thing, "__init__")
    if isinstance(thing, (staticmethod, classmethod)):
        thing = thing.__func__
    elif isinstance(thing, property):
        thing = thing.fget
    elif isinstance(thing, functools.cached_property):
        thing = thing.func
    function: Callable[..., Any] = inspect.unwrap(thing)
    return function


def _fields(thing: Thing) -> set[str]:
    if dataclasses.is_dataclass(thing):
        return {field.name for field in dataclasses.fields(thing)}
    return set(getattr(thing, "_fields", ()))


def _sets(owner: type, name: str) -> bool:
    """Whether instances have an attribute, as far as a class tells without making one.

    The bytecode is asked and not the source: vLLM may have been installed without it, and to parse
    a runner of 7,000 lines takes longer.
    """
    if inspect.getattr_static(owner, name, _MISSING) is not _MISSING:
        return True
    for base in owner.__mro__[:-1]:
        for member in sorted(vars(base).values(), key=_is_not_init):
            if any(_stores(code, name) for code in _codes(_function_or_none(member))):
                return True
    return False


def _is_not_init(member: Thing) -> bool:
    return getattr(member, "__name__", "") != "__init__"


def _function_or_none(member: Thing) -> Callable[..., Any] | None:
    return None if inspect.isclass(member) else _function(member)


def _stores(code: CodeType, name: str) -> bool:
    return name in code.co_names and any(
        instruction.opname == "STORE_ATTR" and instruction.argval == name
        for instruction in dis.get_instructions(code)
    )


def _codes(function: Callable[..., Any] | None) -> Iterator[CodeType]:
    """Yield the code of a function and of what is defined inside it."""
    code = getattr(function, "__code__", None)
    waiting = [code] if isinstance(code, CodeType) else []
    while waiting:
        code = waiting.pop()
        yield code
        waiting += [constant for constant in code.co_consts if isinstance(constant, CodeType)]


def _names(code: CodeType) -> tuple[str, ...]:
    return code.co_names + code.co_freevars + code.co_varnames
