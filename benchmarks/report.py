"""Write the figures of a benchmark run into ``docs/performance.md``.

    python -m benchmarks.report build/benchmark.json docs/performance.md

Only what lies between the two markers of that page is replaced. Each figure stands beside its
baseline from the same run; targets are those of ``docs/design.md``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.breadcrumb_rows import breadcrumb_rows
from benchmarks.figures import Row, Run
from benchmarks.stall_rows import stall_rows

BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"


def rows(run: Run) -> Iterator[Row]:
    """Return the lines of the table."""
    yield from _checks(run)
    yield from _native(run)
    yield from _replays(run)
    yield from _agreement(run)
    yield from _agreed_replays(run)
    yield from _graph_nodes(run)
    yield from _spine(run)
    yield from _rest(run)
    yield from _nccl_plugin(run)
    yield from _nccl_interposer(run)
    yield from stall_rows(run)
    yield from breadcrumb_rows(run)


def _checks(run: Run) -> Iterator[Row]:
    ratios = run.details("test_ratios")
    ns = ratios["ns_per_call"]
    beyond = ratios["check_minus_noop_ns"]
    yield Row(
        "`check` from Python, hit",
        f"{ns['check']:.0f} ns",
        f"empty call {ns['noop']:.0f} ns",
        f"{beyond:+.0f} ns",
        "≤ +60 ns",
        beyond <= 60,
    )
    over = ratios["check_over_dict"]
    yield Row(
        "the same",
        f"{ns['check']:.0f} ns",
        f"dict, frozen dataclass as key {ns['dict']:.0f} ns",
        f"{over:.2f}",
        "≤ 1/3",
        over <= 1 / 3,
    )
    yield Row(
        "the same",
        f"{ns['check']:.0f} ns",
        f"dict, key made for the step {ns['dict_making_the_key']:.0f} ns",
        f"{ratios['check_over_dict_making_the_key']:.2f}",
        "",
        None,
    )


def _native(run: Run) -> Iterator[Row]:
    results = run.details("test_check_in_cpp")["native"]["results"]
    for result in results:
        yield Row(
            f"`check` in C++, {result['signatures']:,} signatures, mixed batches",
            f"{result['mixed']:.1f} ns",
            f"empty call {result['empty']:.1f} ns, "
            f"`unordered_map` {result['unordered_map']:.1f} ns",
            f"{result['mixed'] / results[0]['mixed']:.2f} of 10 signatures",
            "≤ 10 ns, flat",
            result["mixed"] <= 10,
        )


def _replays(run: Run) -> Iterator[Row]:
    bare = run.median("test_bare")
    for batch in ("exact", "padded"):
        for mode in ("enforce", "observe"):
            guarded = run.median(f"test_guarded[{batch}-{mode}]")
            yield Row(
                f"guarded replay of a graph that does nothing, {mode}, {batch}",
                f"{guarded * 1e9:.0f} ns",
                f"bare {bare * 1e9:.0f} ns",
                f"{(guarded - bare) * 1e9:+.0f} ns",
                "≤ +1 µs",
                guarded - bare <= 1e-6,
            )
    for size in ("1 operation", "25 operations"):
        seconds = run.details(f"test_replay[{size}]")["median_seconds"]
        yield Row(
            f"guarded emulated replay, {size}",
            f"{seconds['guarded'] * 1e6:.1f} µs",
            f"bare {seconds['bare'] * 1e6:.1f} µs, eager {seconds['eager'] * 1e6:.1f} µs",
            f"{seconds['guarded'] / seconds['bare']:.2f} of bare",
            "",
            None,
        )
    seconds = run.details("test_capture")["median_seconds"]
    ratio = seconds["recorded"] / seconds["not recorded"]
    yield Row(
        "emulated capture, recorded: 25 operations, 8 of them all-reduces",
        f"{seconds['recorded'] * 1e3:.2f} ms",
        f"not recorded {seconds['not recorded'] * 1e3:.2f} ms",
        f"{ratio:.2f}",
        "≤ 1.05",
        ratio <= 1.05,
    )


def _agreement(run: Run) -> Iterator[Row]:
    ledger = run.details("test_ledger_in_cpp")["native"]
    for result in ledger["results"]:
        yield Row(
            f"one step on the ledger in C++, {result['way']}, {_peers(result['peers'])}",
            f"{result['warm']:.0f} ns; {result['other_core']:.0f} ns (p99 "
            f"{result['other_core_p99']:.0f} ns) with the peers on another core",
            f"one exchange on a line of its own {ledger['exchange']:.1f} ns",
            f"{result['warm'] / ledger['exchange']:.1f}",
            "",
            None,
        )
    for ranks in (2, 8):
        seconds = run.details(f"test_vote[{ranks}]")["median_seconds"]
        for name, what in (("publish", "one step on the ledger"), ("vote", "a vote")):
            yield Row(
                f"{what}, from Python, {ranks} processes",
                f"{seconds[name] * 1e6:.1f} µs",
                f"gloo all-reduce of one int64 {seconds['all_reduce'] * 1e6:.0f} µs",
                f"{seconds[name] / seconds['all_reduce']:.3f}",
                "",
                None,
            )
    for result in run.details("test_record_in_cpp")["native"]["results"]:
        yield Row(
            f"a record of the black box in C++, {result['capacity']:,} records kept",
            f"{result['write']:.1f} ns",
            f"copying 64 bytes {result['memcpy']:.1f} ns, `clock_gettime` "
            f"{result['clock_gettime']:.1f} ns",
            f"{result['write'] / result['memcpy']:.1f} of copying",
            "≤ 20 ns",
            result["write"] <= 20,
        )


def _agreed_replays(run: Run) -> Iterator[Row]:
    for peers in (1, 3, 7):
        for mode in ("observe", "enforce"):
            seconds = run.details(f"test_agreed_replay[{peers}-{mode}]")["seconds"]
            beyond = seconds["guarded"] - seconds["bare"]
            ninety_ninth = seconds["guarded_p99"] - seconds["bare"]
            yield Row(
                f"guarded replay of nothing, ledger and black box on, {mode}, {_peers(peers)}",
                f"{seconds['guarded'] * 1e9:.0f} ns, p99 {seconds['guarded_p99'] * 1e9:.0f} ns",
                f"bare {seconds['bare'] * 1e9:.0f} ns",
                f"{beyond * 1e9:+.0f} ns, p99 {ninety_ninth * 1e9:+.0f} ns",
                "≤ +1 µs, p99 ≤ +5 µs",
                beyond <= 1e-6 and ninety_ninth <= 5e-6,
            )


def _nccl_plugin(run: Run) -> Iterator[Row]:
    figures = run.details("test_recorded_collective")["native"]
    nothing = figures["nothing_ns"]
    for state in ("idle", "recording"):
        yield Row(
            f"a collective told to NCCL's profiler plugin, {state}",
            f"{figures[f'{state}_ns']:.0f} ns",
            f"a plugin that does nothing {nothing:.0f} ns",
            f"{figures[f'{state}_ns'] - nothing:+.0f} ns",
            "",
            None,
        )


def _nccl_interposer(run: Run) -> Iterator[Row]:
    for driver in ("without a driver", "with a driver"):
        details = run.details(f"test_call_through_the_interposer[{driver}]")
        figures, beyond = details["ns_per_call"], details["beyond_direct_ns"]
        for state, told in (("idle", "nothing is recorded"), ("recorded", "recorded")):
            yield Row(
                f"a collective through NCCL's interposer, {told}, {driver}",
                f"{figures[state]:.0f} ns",
                f"the same without it {figures['direct']:.0f} ns",
                f"{beyond[state]:+.0f} ns",
                "",
                None,
            )


def _peers(number: int) -> str:
    return f"{number} peer{'' if number == 1 else 's'}"


def _graph_nodes(run: Run) -> Iterator[Row]:
    for result in run.details("test_walk_in_cpp")["native"]["results"]:
        yield Row(
            f"walk of a graph in C++, 3,000 nodes, {result['different']:,} different",
            f"{result['walk']:.0f} ns a node",
            f"the same questions, nothing kept {result['asked']:.0f} ns a node",
            f"{result['walk'] / result['asked']:.2f}",
            "",
            None,
        )
    for different in ("60", "300", "3,000"):
        seconds = run.median(f"test_counted_and_digested[{different} different]")
        walk = run.median(f"test_baseline_walk_alone[{different} different]")
        yield Row(
            f"nodes of a graph counted and digested, 3,000 nodes, {different} different",
            f"{seconds * 1e3:.2f} ms",
            f"the walk alone {walk * 1e3:.2f} ms",
            f"{seconds / walk:.2f}",
            "≤ 5 ms",
            seconds <= 5e-3,
        )


def _spine(run: Run) -> Iterator[Row]:
    for adapter, what in (("patched", "methods wrapped"), ("hooked", "torch's hooks")):
        launch = run.details(f"test_launch[{adapter}]")["median_seconds"]
        beyond = launch["watched"] - launch["bare"]
        # Each round is a thousand launches, so that milliseconds are microseconds.
        yield Row(
            f"a launch under `install()`, black box on, {what}",
            f"{launch['watched'] * 1e6:.0f} ns",
            f"bare {launch['bare'] * 1e6:.0f} ns",
            f"{beyond * 1e6:+.0f} ns",
            "≤ +1 µs",
            beyond <= 1e-3,
        )
        empty = run.details(f"test_empty_capture[{adapter}]")["median_seconds"]
        yield Row(
            f"a capture of nothing under `install()`, {what}",
            f"{empty['watched'] * 1e6:.0f} µs",
            f"bare {empty['bare'] * 1e6:.0f} µs",
            f"{(empty['watched'] - empty['bare']) * 1e6:+.0f} µs",
            "",
            None,
        )
    seconds = run.details("test_watched_capture")["median_seconds"]
    yield Row(
        "emulated capture under `install()`: 25 operations, 8 of them all-reduces",
        f"{seconds['recorded'] * 1e3:.2f} ms",
        f"not recorded {seconds['not recorded'] * 1e3:.2f} ms",
        f"{seconds['recorded'] / seconds['not recorded']:.2f}",
        "≤ 1.05",
        seconds["recorded"] <= 1.05 * seconds["not recorded"],
    )


def _rest(run: Run) -> Iterator[Row]:
    start = run.details("test_start")
    for name, target in (("import graphguard", 30), ("graphguard --help", 150)):
        beyond, whole = start["beyond_python_ms"][name], start["median_ms"][name]
        is_import = name.startswith("import")
        measured = beyond if is_import else whole
        yield Row(
            f"`{name}`",
            f"{whole:.0f} ms",
            f"bare Python {start['median_ms']['python']:.0f} ms",
            f"{beyond:+.0f} ms",
            f"≤ {'+' if is_import else ''}{target} ms",
            measured <= target,
        )
    for case in ("equal", "one rank differs"):
        audit = run.median(f"test_audit_of_a_job[{case}]")
        loads = run.median(f"test_baseline_json_loads_of_the_same_bytes[{case}]")
        yield Row(
            f"audit of 8 ranks × 100 graphs × 500 collectives, {case}",
            f"{audit * 1e3:.0f} ms",
            f"`json.loads` of the files {loads * 1e3:.0f} ms",
            f"{audit / loads:.1f}",
            "≤ 1 s",
            audit <= 1.0,
        )


def render(run: Run) -> str:
    """Return the table as Markdown, with the machine named."""
    head = "| what | measured | baseline, same run | ratio or difference | target | met |"
    lines = [f"Measured on: {run.machine()}.", "", head, "|---|---|---|---|---|---|"]
    return "\n".join([*lines, *(row.markdown() for row in rows(run))])


def main(source: Path, page: Path) -> None:
    """Replace the figures of a page."""
    table = render(Run(json.loads(source.read_text())))
    before, rest = page.read_text().split(BEGIN)
    after = rest.split(END)[1]
    page.write_text(f"{before}{BEGIN}\n\n{table}\n\n{END}{after}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
