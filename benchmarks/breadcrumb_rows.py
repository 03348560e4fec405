"""The lines of the table that are about breadcrumbs."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.figures import Row, Run

LAUNCHES = 1_000
"""How many are measured as one."""

_GRAPHS = (10, 1_000, 8_000)


def breadcrumb_rows(run: Run) -> Iterator[Row]:
    """Return them."""
    for size in ("1 collective", "8 collectives"):
        seconds = run.details(f"test_marked_replay[{size}]")["median_seconds"]
        yield Row(
            f"emulated replay with breadcrumbs, {size}",
            f"{seconds['with marks'] * 1e6:.1f} µs",
            f"without {seconds['without'] * 1e6:.1f} µs",
            f"{seconds['with marks'] / seconds['without']:.2f}",
            "",
            None,
        )
    seconds = run.details("test_marked_capture")["median_seconds"]
    yield Row(
        "emulated capture with breadcrumbs, 8 collectives",
        f"{seconds['with marks'] * 1e3:.2f} ms",
        f"without {seconds['without'] * 1e3:.2f} ms",
        f"{seconds['with marks'] / seconds['without']:.2f}",
        "",
        None,
    )
    seconds = run.details("test_counted_launches")["median_seconds"]
    each = {name: taken / LAUNCHES * 1e9 for name, taken in seconds.items()}
    for name in ("with marks", "without marks"):
        yield Row(
            f"a launch of a graph {name}, where breadcrumbs are on",
            f"{each[name]:.0f} ns",
            f"where they are off {each['bare']:.0f} ns",
            f"{each[name] - each['bare']:+.0f} ns",
            "",
            None,
        )
    for graphs in _GRAPHS:
        all_of_them = run.median(f"test_read_breadcrumbs[all-{graphs}]")
        in_flight = run.median(f"test_read_breadcrumbs[in flight-{graphs}]")
        yield Row(
            f"reading breadcrumbs of {graphs:,} graphs, one of them in flight",
            f"{in_flight * 1e6:.0f} µs",
            f"telling of all {all_of_them * 1e6:.0f} µs",
            f"{in_flight / all_of_them:.2f}",
            "",
            None,
        )
