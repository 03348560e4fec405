"""Public threads whose circumstances a log shares. ``known_threads.json`` holds them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import resources

import msgspec

from graphguard.audit.logs.configuration import Configuration
from graphguard.audit.logs.model import Evidence, KnownThread

MAX_MATCHES = 8


class ThreadEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A thread, and what of a log makes it a lead.

    Attributes:
        thread: Repository and number.
        kind: ``issues`` or ``pull``.
        title: What it is about.
        status: What became of it.
        fixed_in: What fixes it; None where nothing is known to.
        signs: All of these signs must be there (``signs.py``).
        model: A regular expression that the model's name must hold.
        gpu: The same for the GPU, where the log tells it.
        versions_below: The first version in which it cannot be.
        source: Where this entry is from.
    """

    thread: str
    title: str
    status: str
    signs: tuple[str, ...]
    source: str
    kind: str = "issues"
    fixed_in: str | None = None
    model: str | None = None
    gpu: str | None = None
    versions_below: str | None = None


def matches(
    signs: Mapping[str, tuple[Evidence, ...]], configuration: Configuration
) -> tuple[KnownThread, ...]:
    """Return the threads that fit, those that share the most first."""
    found = [
        (len(entry.signs) + bool(entry.model), _known(entry, signs, why))
        for entry in entries()
        if (why := _fits(entry, signs, configuration)) is not None
    ]
    found.sort(key=lambda each: -each[0])
    return tuple(thread for _, thread in found[:MAX_MATCHES])


@cache
def entries() -> tuple[ThreadEntry, ...]:
    """Return all threads that are known."""
    content = resources.files(__package__).joinpath("known_threads.json").read_bytes()
    return msgspec.json.decode(content, type=tuple[ThreadEntry, ...])


def _fits(
    entry: ThreadEntry, signs: Mapping[str, tuple[Evidence, ...]], configuration: Configuration
) -> list[str] | None:
    """Return in what a log fits a thread beyond its signs, or None."""
    if f"names {entry.thread}" in signs:
        return ["the text names it"]
    if not all(sign in signs for sign in entry.signs):
        return None
    why = list(_compared(entry, configuration))
    return None if None in why else [each for each in why if each]


def _compared(entry: ThreadEntry, configuration: Configuration) -> Iterator[str | None]:
    """Yield a reason for each thing that fits, and None for one that does not."""
    model = configuration.settings.get("model")
    if entry.model:
        known = model is not None and re.search(entry.model, model.value, re.IGNORECASE)
        yield f"model {model.value}" if known and model else None
    gpu = configuration.settings.get("gpu")
    if entry.gpu and gpu is not None:
        yield f"GPU {gpu.value}" if re.search(entry.gpu, gpu.value) else None
    if entry.versions_below:
        version = configuration.version
        number = release(version.value) if version else None
        if number is None:
            yield "the version is not compared: the log tells no release"
        else:
            below = number < (release(entry.versions_below) or ())
            yield f"version {version.value if version else ''}" if below else None


def release(version: str) -> tuple[int, ...] | None:
    """Return the numbers of a release; None for a development build, which has no fixed place."""
    match = re.match(r"v?(\d+)\.(\d+)(?:\.(\d+))?(?!\.?dev|rc)", version)
    if match is None or "dev" in version:
        return None
    return tuple(int(number or 0) for number in match.groups())


def _known(
    entry: ThreadEntry, signs: Mapping[str, tuple[Evidence, ...]], why: list[str]
) -> KnownThread:
    shared = [sign for sign in (f"names {entry.thread}", *entry.signs) if sign in signs]
    evidence = dict.fromkeys(each for sign in shared for each in signs[sign][:1])
    return KnownThread(
        thread=entry.thread,
        title=entry.title,
        url=f"https://github.com/{entry.thread.replace('#', f'/{entry.kind}/')}",
        status=entry.status,
        fixed_in=entry.fixed_in,
        why=", ".join([*why, *(sign for sign in shared if sign in entry.signs)]),
        evidence=tuple(evidence),
    )
