"""The lines of the table that are about stalls."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.figures import Row, Run


def stall_rows(run: Run) -> Iterator[Row]:
    """Return them."""
    yield from _launch_records(run)
    yield from _watchdog(run)


def _launch_records(run: Run) -> Iterator[Row]:
    result = run.details("test_record_in_cpp")["native"]["results"][0]
    yield Row(
        "a record in C++ that begins or ends a launch, which the pulse tells too",
        f"{result['launch_record']:.1f} ns",
        f"another record {result['write']:.1f} ns",
        f"{result['launch_record'] - result['write']:+.1f} ns",
        "≤ 20 ns",
        result["launch_record"] <= 20,
    )


def _watchdog(run: Run) -> Iterator[Row]:
    seconds = run.details("test_a_step_beside_it")["median_seconds"]
    yield Row(
        "telling the pulse of a step, its begin and its end, from Python",
        f"{seconds['alone'] * 1e9:.0f} ns",
        f"two empty calls {seconds['empty'] * 1e9:.0f} ns",
        f"{(seconds['alone'] - seconds['empty']) * 1e9:+.0f} ns",
        "",
        None,
    )
    yield Row(
        "the same beside a watchdog that looks",
        f"{seconds['watched'] * 1e9:.0f} ns",
        f"without one {seconds['alone'] * 1e9:.0f} ns",
        f"{seconds['watched'] / seconds['alone']:.2f}",
        "",
        None,
    )
    share = run.details("test_share")["share"]
    yield Row(
        "the watchdog of one process, of one core",
        f"{share * 100:.3f} %",
        "a process that sleeps",
        "",
        "",
        None,
    )
