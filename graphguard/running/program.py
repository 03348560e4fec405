"""Running a program in the place of this process: its signals and its exit code are passed on."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence

from graphguard.errors import ProgramNotStarted

SIGNALLED = 128
"""A program that a signal ended has this plus its number as exit code, as in a shell."""

_KERNEL = 0x80
"""``SI_KERNEL`` of siginfo(7): nobody sent it but the kernel, for the terminal or a timer."""

# Those that stop and continue have to do their work on this process, too; SIGCHLD is its own.
_NOT_PASSED_ON = frozenset(
    {
        signal.SIGKILL,
        signal.SIGSTOP,
        signal.SIGTSTP,
        signal.SIGTTIN,
        signal.SIGTTOU,
        signal.SIGCONT,
        signal.SIGCHLD,
        signal.SIGSEGV,
        signal.SIGBUS,
        signal.SIGFPE,
        signal.SIGILL,
        signal.SIGABRT,
        signal.SIGTRAP,
        signal.SIGSYS,
        # What a write into a closed pipe or past a limit causes is this process's own matter.
        signal.SIGPIPE,
        signal.SIGXFSZ,
        signal.SIGXCPU,
        signal.SIGPROF,
        signal.SIGVTALRM,
    }
)
PASSED_ON = frozenset(signal.valid_signals() & set(signal.Signals)) - _NOT_PASSED_ON

# Python ignores these in its own process, and a program that is started would inherit that.
_RESTORED = (signal.SIGPIPE, signal.SIGXFSZ)


def run(
    command: Sequence[str], environment: Mapping[str, str], *, output: int | None = None
) -> int:
    """Run a program until it ends, and return its exit code as a shell would.

    The program is in the process group of this one, and has its terminal. What the terminal sends
    reaches both; any other signal that reaches this process is sent on to the program.

    Args:
        command: The program, which is looked for on ``PATH``, and its arguments.
        environment: Its environment.
        output: A descriptor that its standard output goes to, if not to that of this process.

    Raises:
        ProgramNotStarted: If there is no such program, or it cannot be run.
    """
    if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
        # Then the system would forget how the program ended.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON | {signal.SIGCHLD})
    try:
        pid = _start(command, environment, before, output)
        status = _wait(pid)
        # What came while the program ended was for it, and must not end this process now.
        while signal.sigtimedwait(PASSED_ON, 0) is not None:
            pass
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else SIGNALLED - code


def _start(
    command: Sequence[str],
    environment: Mapping[str, str],
    mask: set[signal.Signals | int],
    output: int | None,
) -> int:
    actions = [] if output is None else [(os.POSIX_SPAWN_DUP2, output, 1)]
    try:
        return os.posix_spawnp(
            command[0],
            list(command),
            dict(environment),
            file_actions=actions,
            setsigmask=mask,
            setsigdef=_RESTORED,
        )
    except OSError as error:
        raise ProgramNotStarted(command[0], error) from error
    except ValueError as error:
        # A null byte; execve has no way to pass it.
        raise ProgramNotStarted(command[0], OSError(0, str(error))) from error


def _wait(pid: int) -> int:
    awaited = PASSED_ON | {signal.SIGCHLD}
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return status
        told = signal.sigwaitinfo(awaited)
        if told.si_signo != signal.SIGCHLD and told.si_code != _KERNEL:
            # It is our child and was not waited for: the id is still its own.
            os.kill(pid, told.si_signo)
