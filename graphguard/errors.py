"""Every error that graphguard raises, each with a hint of what to do next."""

from __future__ import annotations


class GraphguardError(Exception):
    """The root of all errors that graphguard raises.

    Args:
        message: What happened, on which rank and graph.
        hint: What to do next.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  Hint: {self.hint}" if self.hint else self.message


class ConfigurationError(GraphguardError):
    """A setting, an environment variable or an argument that cannot be meant."""


class DescriptorError(GraphguardError, ValueError):
    """A batch descriptor whose numbers contradict each other."""


class CaptureError(GraphguardError):
    """A capture that could not be made or recorded."""


class OperationNotRecordable(CaptureError):
    """An operation that a graph cannot hold, such as one whose result the host must see."""


class NestedCapture(CaptureError):
    """A capture begun while another one runs on the same thread."""


class GuardMismatch(GraphguardError):
    """A step that the guard refused to launch. ``verdict`` says why."""

    def __init__(self, message: str, *, verdict: object = None, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.verdict = verdict


class PaddingMismatch(GuardMismatch):
    """A padded step that is refused because of what its padded slots hold."""


class RanksDiverged(GuardMismatch):
    """A step that is refused because the ranks of a group would not launch the same.

    Attributes:
        step: Which launch of the group.
        ranks: Ranks in the group that differ from this one, or that cannot go on.
    """

    def __init__(
        self,
        message: str,
        *,
        step: int,
        ranks: tuple[int, ...] = (),
        verdict: object = None,
        hint: str = "",
    ) -> None:
        super().__init__(message, verdict=verdict, hint=hint)
        self.step = step
        self.ranks = ranks


class ManifestError(GraphguardError):
    """A manifest that cannot be written, or is not what it says it is."""


class BlackBoxError(GraphguardError):
    """A black box that cannot be opened, or a file that is none."""


class LedgerError(GraphguardError):
    """A ledger that cannot be made, joined or trusted."""


class AgreementError(GraphguardError):
    """Ranks that captured different graphs, or that could not compare what they captured."""


class RankMissing(AgreementError):
    """A rank that did not come to a comparison in time.

    Attributes:
        missing: The global ranks that did not come.
    """

    def __init__(self, message: str, *, missing: tuple[int, ...], hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.missing = missing


class BlackBoxNotReady(BlackBoxError):
    """A black box that its process is opening just now, or was ended while it did."""


class CommandError(GraphguardError):
    """A command that could not run. ``exit_code`` is what the process ends with."""

    exit_code = 2


class ProgramNotStarted(CommandError):
    """A program that ``graphguard run`` could not start. Its exit code is that of a shell."""

    def __init__(self, program: str, cause: OSError) -> None:
        reason = cause.strerror or str(cause)
        super().__init__(
            f"cannot run {program!r}: {reason}",
            hint="name a program after --, with its arguments: graphguard run -- python serve.py",
        )
        absent = isinstance(cause, FileNotFoundError | NotADirectoryError)
        self.exit_code = 127 if absent else 126
