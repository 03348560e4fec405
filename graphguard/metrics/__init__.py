"""Counts of what the guard does, for Prometheus.

A step only adds to plain integers. A thread publishes them in a file, and the process that serves
``/metrics`` turns the files of all processes of the run into samples when it is asked.
"""

from __future__ import annotations

from graphguard.metrics.counts import Metrics, RoleCounts
from graphguard.metrics.process import expose_in_this_process, process_metrics

__all__ = ["Metrics", "RoleCounts", "expose_in_this_process", "process_metrics"]
