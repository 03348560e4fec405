"""The evidence of a stall: one directory for each node, collected once, within two seconds.

All parts are collected at once and have a common deadline. What failed or came late is named with
why; nothing that goes wrong here is more than an entry in the index.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from graphguard import environment, log
from graphguard.blackbox.directory import (
    FILE_MODE,
    default_directory,
    private_directory,
    refused,
)
from graphguard.errors import ConfigurationError
from graphguard.version import __version__
from graphguard.watch.evidence import bundle_contents as contents
from graphguard.watch.evidence.bundle_contents import is_bundle_name
from graphguard.watch.evidence.bundle_parts import Parts
from graphguard.watch.evidence.collectors import Account, Became, Deadline, run
from graphguard.watch.evidence.evidence_directory import EvidenceDirectory
from graphguard.watch.evidence.ledger_summary import Ledger

if TYPE_CHECKING:
    from graphguard.watch.looking.ranks import RankState
    from graphguard.watch.stack_traces.stack_model import ProcessStacks

__all__ = ["append", "collect", "is_bundle_name"]

MAX_BYTES = 64 * 2**20
SECONDS = 2.0
KEPT_BUNDLES = 8
"""How many bundles stay in the default directory."""

_TO_CLOSE = 0.15
"""Seconds of the deadline that are kept for the index."""

_MAX_AFTERWARDS = 2**20
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")


def collect(  # noqa: PLR0917 - whoever calls it has all of these
    directory: Path,
    job: str,
    states: Sequence[RankState],
    verdict_fn: Callable[[Mapping[int, ProcessStacks]], object],
    ledgers: Sequence[Ledger] = (),
    deadline: float | None = None,
    *,
    samples: Mapping[int, ProcessStacks] | None = None,
) -> Path:
    """Collect the evidence of a stall on this node.

    Args:
        directory: Where the rings are. The bundle is made in it.
        job: The job; the name of the bundle has the beginning of it.
        states: The ranks of this node.
        verdict_fn: Is given the stacks and returns the verdict, which is written as it is (a
            ``msgspec.Struct`` or a dict).
        ledgers: Those of the ranks' groups, inherited.
        deadline: When it has to be done, by ``time.monotonic()``; two seconds from now if None.
        samples: Stacks that have been taken already; then they are not taken again.

    Returns:
        The bundle.

    Raises:
        BlackBoxError: If the directory is not private, or no bundle can be made in it.
    """
    began = time.monotonic()
    until = Deadline((began + SECONDS if deadline is None else deadline) - _TO_CLOSE)
    made = datetime.now(timezone.utc)
    with private_directory(directory, follow_links=True) as parent:
        try:
            kept = EvidenceDirectory.create(parent, directory / _name(made, job), MAX_BYTES)
        except OSError as error:
            raise refused(directory, error) from error
    parts = Parts(
        kept=kept,
        directory=directory,
        states=tuple(states),
        verdict_fn=verdict_fn,
        ledgers=tuple(ledgers),
        samples=samples,
        deadline=until,
        log_file=environment.stall_log(),
    )
    accounts = [*run(parts.collectors(), until)]
    if _core_dump_wanted():
        # Last, because it stops the GPUs.
        accounts += run([parts.core_dump()], Deadline(time.monotonic() + _TO_CLOSE / 2))
    _close(kept, job, made.isoformat(), accounts, began)
    if directory == default_directory():
        _remove_old(directory)
    return kept.path


def append(bundle: Path, what: str, **more: object) -> None:
    """Add to a bundle what became of the stall; a line of ``afterwards.jsonl``.

    Args:
        bundle: The bundle.
        what: ``recovered``, ``gone`` …
        more: What else is to be said.
    """
    entry = {"time": datetime.now(timezone.utc).isoformat(), "what": what, **more}
    line = msgspec.json.encode(entry, enc_hook=str) + b"\n"
    if not bundle.is_dir():
        # It would be made by the next call.
        return
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with private_directory(bundle, follow_links=False) as opened:
            descriptor = os.open(contents.AFTERWARDS, flags, FILE_MODE, dir_fd=opened)
            try:
                if os.fstat(descriptor).st_size + len(line) <= _MAX_AFTERWARDS:
                    os.write(descriptor, line)
            finally:
                os.close(descriptor)
    except OSError as error:
        log.logger().warning("cannot add to the evidence in %s: %s", bundle, error.strerror)


def _remove_old(directory: Path) -> None:
    """Remove all bundles but the newest from the directory that all runs of a user share."""
    names = sorted(name for name in os.listdir(directory) if is_bundle_name(name))
    for name in names[:-KEPT_BUNDLES]:
        # Links within a bundle are removed and not followed.
        shutil.rmtree(directory / name, ignore_errors=True)


def _core_dump_wanted() -> bool:
    try:
        return environment.core_dump_wanted()
    except ConfigurationError as error:
        log.logger().warning("%s", error.message)
        return False


def _name(made: datetime, job: str) -> str:
    host = _UNSAFE.sub("-", os.uname().nodename)[:64] or "host"
    return f"stall-{made:%Y%m%dT%H%M%SZ}-{host}-{_UNSAFE.sub('-', job)[:8] or 'job'}"


def _close(
    kept: EvidenceDirectory, job: str, made: str, accounts: Sequence[Account], began: float
) -> None:
    host = os.uname().nodename
    files = kept.seal()
    index: dict[str, Any] = {
        "format": contents.FORMAT,
        "graphguard": __version__,
        "job": job,
        "host": host,
        "made": made,
        "seconds": round(time.monotonic() - began, 3),
        "bytes": sum(file.bytes for file in files),
        "max_bytes": MAX_BYTES,
        "missing": {
            account.name: account.reason
            for account in accounts
            if account.became is not Became.COMPLETE
        },
        "collectors": accounts,
        "files": files,
    }
    readme = contents.readme(__version__, host, made, str(kept.path))
    content = msgspec.json.format(msgspec.json.encode(index), indent=2)
    try:
        kept.close({contents.INDEX: content, contents.README: readme.encode("utf-8", "replace")})
    except OSError as error:
        # The disk is full. What was collected before that is there.
        log.logger().warning("the index of %s cannot be written: %s", kept.path, error.strerror)
