"""What every Python process of ``graphguard run`` does first: it loads graphguard.

Python imports the first ``sitecustomize`` on its path when it starts, and this one is put there.
The one that the machine has is run as if this were not here. The file is kept plain: a program may
start a Python that is older than those that graphguard supports.
"""

import os
import sys


def _run_that_of_the_machine() -> None:
    own = os.path.realpath(os.path.dirname(__file__))
    this = sys.modules.pop("sitecustomize")
    entries = [entry for entry in sys.path if os.path.realpath(entry) == own]
    sys.path[:] = [entry for entry in sys.path if entry not in entries]
    try:
        import sitecustomize  # type: ignore[import-not-found]  # noqa: F401 - it is another one
    except ImportError as error:
        if error.name != "sitecustomize":
            raise
        # The import that brought this here looks for it when it is done.
        sys.modules["sitecustomize"] = this
    finally:
        # Children may be given this path as theirs.
        sys.path[:0] = entries


def _load_graphguard() -> str:
    """Load graphguard; what is wrong with it is no matter of the program."""
    try:
        from graphguard.running import kept_manifest

        kept_manifest.keep()
    except Exception as error:  # noqa: BLE001
        return f"{type(error).__name__}: {error}"
    return ""


def _say_so(directory: str, reason: str) -> None:
    """Leave a note for ``graphguard run``: which Python this is, and what went wrong."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        note = os.open(os.path.join(directory, f"process.{os.getpid()}"), flags, 0o600)
        try:
            in_one_line = " ".join(reason.split())
            text = f"{sys.executable}\n{in_one_line}\n"
            os.write(note, text.encode("utf-8", "backslashreplace"))
        finally:
            os.close(note)
    except OSError:
        pass  # The run has ended and its directory is gone, or the process id was used before.


def _start() -> None:
    directory = os.environ.get("GRAPHGUARD_RUN")
    if directory:
        _say_so(directory, _load_graphguard())


try:
    _run_that_of_the_machine()
finally:
    _start()
