"""The processes of one engine: a session of their own, watched, stopped, killed and swept up."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where Linux keeps it
_WORKER = "VLLM::Worker_TP"
_EXAMINER = "graphguard.watch.examining.examiner"
_SWEEP_SECONDS = 20.0


class EngineProcesses:
    """A program in a session of its own, and everything that it starts.

    Args:
        command: The program and its arguments.
        environment: Its environment.
        log: The file that its output goes to.
        directory: Where it runs.
        niceness: How far it stands back for other processes.
    """

    def __init__(
        self,
        command: list[str],
        environment: dict[str, str],
        log: Path,
        directory: Path,
        niceness: int = 5,
    ) -> None:
        self.log = log
        self._directory = directory
        self.left: set[str] = set()
        self._shared: set[str] = set()
        with log.open("wb") as output:
            self.leader = subprocess.Popen(
                ["nice", "-n", str(niceness), *command],
                env=environment,
                cwd=directory,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def pids(self) -> list[int]:
        """Return every living process of the session."""
        return [
            pid
            for pid in _all_pids()
            if _session_of(pid) == self.leader.pid and not _is_zombie(pid)
        ]

    def worker(self, rank: int) -> int:
        """Return the process of a worker.

        Raises:
            ProcessLookupError: If there is none.
        """
        for pid in self.pids():
            if _title_of(pid).startswith(f"{_WORKER}{rank}"):
                return pid
        raise ProcessLookupError(f"no {_WORKER}{rank} in session {self.leader.pid}")

    def workers(self) -> dict[int, int]:
        """Return the processes of all workers, by rank."""
        titles = {pid: _title_of(pid) for pid in self.pids()}
        return {
            int(title.removeprefix(_WORKER).split("_")[0]): pid
            for pid, title in titles.items()
            if title.startswith(_WORKER)
        }

    def stop(self, rank: int) -> None:
        """Let a worker stand still (SIGSTOP)."""
        os.kill(self.worker(rank), signal.SIGSTOP)

    def resume(self, rank: int) -> None:
        """Let a worker that stands still go on (SIGCONT)."""
        os.kill(self.worker(rank), signal.SIGCONT)

    def kill(self, rank: int) -> None:
        """Kill a worker (SIGKILL)."""
        os.kill(self.worker(rank), signal.SIGKILL)

    def text(self) -> str:
        """Return what the engine has printed so far."""
        return self.log.read_text(errors="replace")

    def end(self, gently: float = 0.0) -> None:
        """End every process of the session, those too that outlive their engine.

        What they leave in /dev/shm is noted in ``left`` and removed.

        Args:
            gently: How many seconds they get to end by themselves when the leader's input closes.
        """
        self.note_shared_memory()
        if self.leader.stdin is not None:
            self.leader.stdin.close()
        wait_until(lambda: self.leader.poll() is not None and not self.pids(), gently)
        deadline = time.monotonic() + _SWEEP_SECONDS
        while (pids := self.pids()) or self.leader.poll() is None:
            for pid in pids or [self.leader.pid]:
                _kill(pid)
            if time.monotonic() > deadline:
                raise TimeoutError(f"processes {pids} of session {self.leader.pid} do not end")
            time.sleep(0.05)
        self.leader.wait()
        self._end_examiners()
        self.left = self.left_in_shared_memory()
        for name in self.left:
            (_SHARED_MEMORY / name).unlink(missing_ok=True)

    def examiners(self) -> list[int]:
        """Return the processes that examine a stall of this engine, and what they have started.

        Each examiner is in a session of its own, so that it outlives what it examines.
        """
        known = str(self._directory)
        leaders = {
            _session_of(pid)
            for pid in _all_pids()
            if _EXAMINER in _title_of(pid) and known in _title_of(pid)
        }
        leaders -= {-1, self.leader.pid}
        return [pid for pid in _all_pids() if _session_of(pid) in leaders and not _is_zombie(pid)]

    def _end_examiners(self) -> None:
        deadline = time.monotonic() + _SWEEP_SECONDS
        while pids := self.examiners():
            for pid in pids:
                _kill(pid)
            if time.monotonic() > deadline:
                raise TimeoutError(f"examiners {pids} do not end")
            time.sleep(0.05)

    def note_shared_memory(self) -> None:
        """Remember what of /dev/shm the processes have mapped. Other engines may run beside."""
        self._shared |= {name for pid in self.pids() for name in _shared_memory_of(pid)}

    def left_in_shared_memory(self) -> set[str]:
        """Return what the processes had mapped of /dev/shm and is still there."""
        return {name for name in self._shared if (_SHARED_MEMORY / name).exists()}


def wait_until(condition: Callable[[], bool], seconds: float, interval: float = 0.05) -> bool:
    """Wait until a condition holds, for no longer than ``seconds``; return whether it does."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(interval)
    return True


def _all_pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _session_of(pid: int) -> int:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return -1


def _title_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    except OSError:
        return ""


def _shared_memory_of(pid: int) -> set[str]:
    try:
        lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    except OSError:
        return set()
    paths = (Path(line.split(maxsplit=5)[-1].removesuffix(" (deleted)")) for line in lines)
    return {path.name for path in paths if path.parent == _SHARED_MEMORY}


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
