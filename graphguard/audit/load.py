"""Finding the manifests of a job and reading them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from graphguard import manifest
from graphguard.audit.catalogue import finding
from graphguard.audit.findings import Finding
from graphguard.errors import CommandError, ManifestError


class LoadedManifest(NamedTuple):
    """A manifest and the file that it was read from."""

    path: str
    manifest: manifest.Manifest


class Loaded(NamedTuple):
    """What could be read, by rank and path, and a finding for each file that could not."""

    manifests: list[LoadedManifest]
    unreadable: list[Finding]


def load(paths: Iterable[Path]) -> Loaded:
    """Read manifest files, and those in directories.

    Args:
        paths: Manifest files, or directories that hold ``manifest.rank<N>.json``. A file that is
            named twice is read once.

    Raises:
        CommandError: If a directory holds no manifest, or if no manifest could be read.
    """
    manifests: list[LoadedManifest] = []
    unreadable: list[Finding] = []
    reasons: list[ManifestError] = []
    for path in _files(paths):
        result = _read(path)
        if isinstance(result, LoadedManifest):
            manifests.append(result)
        else:
            reasons.append(result)
            what = result.message
            unreadable.append(finding("unreadable-manifest", (), what, evidence=(str(path),)))
    if not manifests:
        raise _nothing_read(reasons)
    manifests.sort(key=lambda loaded: (loaded.manifest.rank, loaded.path))
    return Loaded(manifests, unreadable)


def _read(path: Path) -> LoadedManifest | ManifestError:
    try:
        return LoadedManifest(str(path), manifest.read(path))
    except ManifestError as error:
        return error


def _files(paths: Iterable[Path]) -> list[Path]:
    files: dict[str, Path] = {}
    for path in paths:
        for file in _in_directory(path) if os.path.isdir(path) else (path,):
            files.setdefault(os.path.realpath(file), file)
    return list(files.values())


def _in_directory(directory: Path) -> Sequence[Path]:
    try:
        files = sorted(directory.glob(manifest.FILE_PATTERN))
    except OSError as error:
        raise CommandError(
            f"cannot list {directory}: {error.strerror}", hint="check its permissions"
        ) from error
    if not files:
        raise CommandError(
            f"{directory} holds no manifest ({manifest.FILE_PATTERN})",
            hint="run the engine with GRAPHGUARD_DIR set, or name the directory that it was set to",
        )
    return files


def _nothing_read(reasons: Sequence[ManifestError]) -> CommandError:
    if not reasons:
        return CommandError("no manifest was named", hint="name a manifest or a directory of them")
    more = f" (and {len(reasons) - 1} more like it)" if len(reasons) > 1 else ""
    return CommandError(
        f"no manifest could be read: {reasons[0].message}{more}", hint=reasons[0].hint
    )
