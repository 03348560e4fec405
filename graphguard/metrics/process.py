"""The counts of this process: made once, published by a thread, shown where Prometheus asks."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from typing import Any

from graphguard import environment
from graphguard.at_exit import at_exit
from graphguard.errors import GraphguardError
from graphguard.log import logger
from graphguard.metrics.counts import Metrics
from graphguard.metrics.files import SampleFile, is_run, new_run, read_run
from graphguard.metrics.samples import ProcessSamples, pack

PUBLISH_SECONDS = 1.0

_lock = threading.Lock()
_publisher: Publisher | None = None
_exposed: Any = None


class Publisher:
    """Publishes the counts of this process for others, each second.

    It begins with the first count. A process that has none, such as the front end of vLLM, has no
    thread by that, and can be forked as before.

    Args:
        metrics: The counts.
        run: Which processes belong together.
    """

    def __init__(self, metrics: Metrics, run: str) -> None:
        self.metrics = metrics
        self.run = run
        self.file: SampleFile | None = None
        self._begun = False
        self._ends = threading.Event()
        self._publishing = threading.Lock()
        metrics.first_use = self.start
        if metrics.used:
            self.start()

    def start(self) -> None:
        """Open the file and begin. Where that cannot be done, the log says so once."""
        with self._publishing:
            if self._begun:
                return
            self._begun = True
            try:
                self.file = SampleFile(self.run)
                self.file.write(pack(self.metrics.samples()))
                threading.Thread(target=self._run, name="graphguard-metrics", daemon=True).start()
            # RuntimeError: there can be no more threads, or the process ends.
            except (GraphguardError, OSError, RuntimeError) as error:
                logger().warning(
                    "other processes cannot show the metrics of this one: %s; "
                    "set XDG_RUNTIME_DIR to a directory of your own",
                    error.message if isinstance(error, GraphguardError) else error,
                )

    def publish(self) -> None:
        """Publish the counts as they are now."""
        with self._publishing:
            if self.file is not None:
                self.file.write(pack(self.metrics.samples()))

    def stop(self) -> None:
        """Take the file away, when the process ends."""
        self._ends.set()
        with self._publishing:
            if self.file is not None:
                self.file.remove()
                self.file = None

    def leave(self) -> None:
        """Leave everything to the parent: this is a forked child."""
        if self.file is not None:
            self.file.forget()
            self.file = None

    def _run(self) -> None:
        try:
            while not self._ends.wait(PUBLISH_SECONDS):
                self.publish()
        except OSError as error:
            logger().warning("the metrics of this process are no longer shown: %s", error)
            self.stop()


def process_metrics() -> Metrics | None:
    """Return the counts of this process, or None where there are to be none.

    There are none without the package prometheus-client, and with ``GRAPHGUARD_METRICS=off``.
    A forked child has counts of its own; it calls this again to have them published.
    """
    global _publisher  # noqa: PLW0603
    if _publisher is not None:
        return _publisher.metrics
    if not _is_wanted():
        return None
    with _lock:
        if _publisher is None:
            publisher = Publisher(_inherited or Metrics(), _run_name())
            _prepare(publisher)
            _publisher = publisher
        return _publisher.metrics


def publish() -> None:
    """Publish the counts of this process now rather than within a second."""
    if _publisher is not None:
        _publisher.publish()


def expose_in_this_process() -> bool:
    """Show the counts of this process and of its children where this process serves metrics.

    Call it before the children are started: they learn from the environment to whom they belong.
    It may be called again, and in every process.

    Returns:
        Whether they are shown. They are not where :func:`process_metrics` is None.
    """
    global _exposed  # noqa: PLW0603
    if process_metrics() is None:
        return False
    from graphguard.metrics.collector import RunCollector

    with _lock:
        if _exposed is None:
            _exposed = RunCollector(read_processes)
        _show(_exposed)
    return True


def read_processes() -> list[ProcessSamples]:
    """Return the counts of this process, if it has any, and of all others of its run."""
    publisher = _publisher
    if publisher is None:
        return []
    mine = publisher.metrics.samples()
    own = publisher.file.name if publisher.file is not None else None
    others: list[ProcessSamples] = []
    # Why the directory cannot be read, the log has said when this process began to publish.
    with suppress(GraphguardError, OSError):
        others = read_run(publisher.run, besides=own)
    return [process for process in (mine, *others) if process.roles or process.events]


@cache
def _is_wanted() -> bool:
    # Looked for, not imported: a process that only counts does not need it.
    from importlib.util import find_spec

    return environment.metrics_wanted() and find_spec("prometheus_client") is not None


def _run_name() -> str:
    """Return the run that this process was started in, or begin one for it and its children."""
    name = environment.METRICS_RUN.value or ""
    if not is_run(name):
        name = new_run()
        os.environ[environment.METRICS_RUN.name] = name
    return name


def _show(collector: Any) -> None:  # noqa: ANN401 - its class needs prometheus-client
    """Put a collector where this process' metrics come from.

    With PROMETHEUS_MULTIPROC_DIR that is no registry: vLLM and its HTTP instrumentation make a
    registry with a MultiProcessCollector for every scrape, and show nothing but that.
    """
    from prometheus_client import REGISTRY, multiprocess

    # Only one of the two, because a sample that is shown twice makes a scrape fail.
    several = "PROMETHEUS_MULTIPROC_DIR" in os.environ
    registered = collector in REGISTRY._collector_to_names
    if several:
        if registered:
            REGISTRY.unregister(collector)
        _add_to_all(multiprocess.MultiProcessCollector, collector)
    elif not registered:
        REGISTRY.register(collector)


def _add_to_all(owner: Any, collector: Any) -> None:  # noqa: ANN401
    original: Callable[[Any], Any] = owner.collect
    if getattr(original, "graphguard", None) is collector:
        return

    def collect(self: Any) -> Iterator[Any]:  # noqa: ANN401
        yield from original(self)
        yield from collector.collect()

    collect.graphguard = collector  # type: ignore[attr-defined]
    owner.collect = collect


_inherited: Metrics | None = None
_registered = False


def _prepare(publisher: Publisher) -> None:
    """See to the end of the process, and to forks."""
    global _registered  # noqa: PLW0603
    at_exit(publisher.stop)
    if not _registered:
        _registered = True
        os.register_at_fork(after_in_child=_forked)


def _forked() -> None:
    """Begin again at 0. The objects stay those that the program may have kept."""
    global _publisher, _inherited, _lock  # noqa: PLW0603
    _lock = threading.Lock()
    if _publisher is not None:
        _publisher.leave()
        _inherited = _publisher.metrics
        _inherited.reset()
        _inherited.first_use = process_metrics
        _publisher = None
