"""Metrics: what is counted, what other processes see of it, and what cannot break a scrape."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from graphguard import environment
from graphguard.errors import ConfigurationError
from graphguard.metrics import counts, files
from graphguard.metrics.collector import RunCollector
from graphguard.metrics.counts import SAMPLED_EVERY, Metrics
from graphguard.metrics.files import SampleFile, new_run, read_run
from graphguard.metrics.samples import MAX_EVENTS, MAX_ROLES, ProcessSamples, pack, unpack
from graphguard.verdict import Action, Reason, Verdict

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]
RUN = "0123456789abcdef"


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's directory, in which the files lie."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    for name in ("GRAPHGUARD_METRICS", "GRAPHGUARD_METRICS_RUN", "PROMETHEUS_MULTIPROC_DIR"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "graphguard"


def parse(text: str) -> Samples:
    samples = [s for family in text_string_to_metric_families(text) for s in family.samples]
    found = {(s.name, frozenset(s.labels.items())): s.value for s in samples}
    assert len(found) == len(samples), "a series is shown twice, and Prometheus refuses that"
    return found


def scrape(*processes: ProcessSamples) -> Samples:
    registry = CollectorRegistry()
    registry.register(RunCollector(lambda: processes))
    return parse(generate_latest(registry).decode())


def value(samples: Samples, name: str, **labels: str) -> float | None:
    return samples.get((name, frozenset(labels.items())))


def of_rank(rank: str = "0") -> Metrics:
    metrics = Metrics()
    metrics.rank = rank
    return metrics


def test_verdicts_are_counted_by_role_action_and_reason() -> None:
    metrics = of_rank("3")
    for _ in range(5):
        metrics.check("target", Action.PAD, Reason.PADDED)
    metrics.check("drafter", Action.REPLAY, Reason.EXACT)

    seen = scrape(metrics.samples())

    name = "graphguard_checks_total"
    assert value(seen, name, rank="3", role="target", action="pad", reason="padded") == 5
    assert value(seen, name, rank="3", role="drafter", action="replay", reason="exact") == 1
    assert sum(key[0] == name for key in seen) == 2


def test_every_event_has_its_own_series() -> None:
    metrics = of_rank()
    metrics.divergence("target", "peer_gone")
    metrics.vote("agreed")
    metrics.recapture("target")
    metrics.quarantine("drafter")
    metrics.quarantine("drafter")
    metrics.release("drafter")
    metrics.degraded("target", Reason.WRONG_PHASE)
    metrics.padding_violation("slot_mapping")

    seen = scrape(metrics.samples())

    for name, labels in {
        "graphguard_divergences_total": {"role": "target", "kind": "peer_gone"},
        "graphguard_votes_total": {"outcome": "agreed"},
        "graphguard_recaptures_total": {"role": "target"},
        "graphguard_quarantined_graphs": {"role": "drafter"},
        "graphguard_degraded_steps_total": {"role": "target", "reason": "wrong_phase"},
        "graphguard_padding_violations_total": {"invariant": "slot_mapping"},
    }.items():
        assert value(seen, name, rank="0", **labels) == 1, name


def test_counts_of_a_guard_are_read_where_they_are() -> None:
    metrics = of_rank()
    given = {Verdict(Action.REPLAY, Reason.EXACT, 7): 10, Verdict(Action.REPLAY, Reason.EXACT): 2}
    metrics.watch("target", lambda: given)
    metrics.check("target", Action.REPLAY, Reason.EXACT)

    exact = {"rank": "0", "role": "target", "action": "replay", "reason": "exact"}
    assert value(scrape(metrics.samples()), "graphguard_checks_total", **exact) == 13


def test_source_that_fails_costs_its_own_role_only(caplog: pytest.LogCaptureFixture) -> None:
    metrics = of_rank()
    metrics.watch("broken", lambda: 1 / 0)  # type: ignore[arg-type, return-value]
    metrics.check("target", Action.PAD, Reason.PADDED)

    for _ in range(3):
        roles = [role.role for role in metrics.samples().roles]

    assert roles == ["target"]
    assert len(caplog.records) == 1


def test_launches_are_in_flight_between_begin_and_end_and_timed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [10**9]
    monkeypatch.setattr(time, "monotonic_ns", lambda: now[0])
    monkeypatch.setattr(counts, "monotonic_ns", lambda: now[0])
    metrics = of_rank()
    labels = {"rank": "0", "role": "target"}

    metrics.replay_begin("target")
    now[0] += 3_000_000_000
    seen = scrape(metrics.samples())
    assert value(seen, "graphguard_replays_in_flight", **labels) == 1
    assert value(seen, "graphguard_step_age_seconds", **labels) == 3.0

    metrics.replay_end("target")
    metrics.replay_end("target")
    seen = scrape(metrics.samples())
    assert value(seen, "graphguard_replays_in_flight", **labels) == 0
    assert value(seen, "graphguard_step_seconds_count", **labels) == 1
    assert value(seen, "graphguard_step_seconds_sum", **labels) == 3.0

    now[0] += 10**9
    metrics.step("target")
    now[0] += 5 * 10**8
    assert value(scrape(metrics.samples()), "graphguard_step_age_seconds", **labels) == 0.5


@pytest.mark.parametrize("nanoseconds", [0, 1, 63, 64, 65, 5_000, 65_535, 65_536, 10**9, 10**12])
def test_durations_fall_into_the_buckets_whose_limits_hold_them(nanoseconds: int) -> None:
    metrics = of_rank()
    metrics.check_took(nanoseconds)

    seen = scrape(metrics.samples())

    buckets = {
        float(dict(labels)["le"]): count
        for (name, labels), count in seen.items()
        if name == "graphguard_check_seconds_bucket"
    }
    assert len(buckets) == 12
    for limit, count in buckets.items():
        # A duration of exactly the limit may be counted in the next bucket.
        if nanoseconds / 1e9 != limit:
            assert count == (nanoseconds / 1e9 < limit), (limit, count)
    assert value(seen, "graphguard_check_seconds_count", rank="0") == 1


def test_one_check_in_256_is_sampled() -> None:
    metrics = Metrics()
    assert [metrics.is_sampled() for _ in range(3 * SAMPLED_EVERY)] == (
        [True] + [False] * (SAMPLED_EVERY - 1)
    ) * 3


def test_processes_with_the_same_labels_are_added_up() -> None:
    one, two = of_rank(), of_rank()
    for metrics, count in ((one, 2), (two, 3)):
        for _ in range(count):
            metrics.check("target", Action.PAD, Reason.PADDED)
            metrics.divergence("target", "differs")
            metrics.replay_begin("target")
            metrics.replay_end("target")
        metrics.replay_begin("target")

    seen = scrape(one.samples(), two.samples())

    both = {"rank": "0", "role": "target"}
    assert value(seen, "graphguard_checks_total", **both, action="pad", reason="padded") == 5
    assert value(seen, "graphguard_divergences_total", **both, kind="differs") == 5
    assert value(seen, "graphguard_replays_in_flight", **both) == 2
    assert value(seen, "graphguard_step_seconds_count", **both) == 5
    assert value(seen, "graphguard_processes") == 2


def test_labels_are_short_and_printable_and_few() -> None:
    metrics = of_rank("0\n")
    metrics.vote('a"b\n\x00' + "x" * 100)
    for number in range(MAX_EVENTS + 50):
        metrics.vote(number)
    for number in range(MAX_ROLES + 10):
        metrics.check(f"role {number}", Action.PAD, Reason.PADDED)

    samples = metrics.samples()
    seen = scrape(samples)

    assert unpack(pack(samples)) == samples
    assert value(seen, "graphguard_votes_total", rank="0?", outcome='a"b??' + "x" * 59) == 1
    assert value(seen, "graphguard_votes_total", rank="0?", outcome="other") == 51
    other = {"rank": "0?", "role": "other", "action": "pad", "reason": "padded"}
    assert value(seen, "graphguard_checks_total", **other) == 10


def write(directory: Path, name: str, content: bytes) -> Path:
    directory.mkdir(mode=0o700, exist_ok=True)
    path = directory / f"metrics.{RUN}.{name}.samples"
    path.write_bytes(content)
    return path


@pytest.fixture
def good(directory: Path) -> Iterator[bytes]:
    """The content of a file, beside which others lie."""
    file = SampleFile(RUN)
    metrics = of_rank("1")
    metrics.vote("agreed")
    content = pack(metrics.samples())
    file.write(content)
    yield content
    file.remove()


def damaged(content: bytes) -> dict[str, bytes]:
    negative = content.replace(b'"pid":', b'"pid":-')
    return {
        "empty": b"",
        "short": content[:10],
        "cut": content[:-1],
        "flipped": content[:-2] + b"!" + content[-1:],
        "changed": content.replace(b"agreed", b"abreed"),
        "magic": b"x" + content[1:],
        "long": content[:8] + b"\xff\xff\xff\x7f" + content[12:],
        "negative": negative,
        "noise": os.urandom(4096),
        "large": content + b"\0" * (2**21),
    }


@pytest.mark.parametrize("kind", list(damaged(b"")))
def test_file_that_is_damaged_is_left_out(
    kind: str, directory: Path, good: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "is_held", lambda _descriptor: True)
    path = write(directory, "1.00000000", good)
    assert len(read_run(RUN)) == 2
    path.write_bytes(damaged(good)[kind])

    assert [process.rank for process in read_run(RUN)] == ["1"]


@pytest.mark.parametrize(
    "samples",
    [
        b"[]",
        b'{"pid":1,"rank":"0","published":-1}',
        b'{"pid":1,"rank":"0\\n","published":1}',
        b'{"pid":1,"rank":"' + b"x" * 65 + b'","published":1}',
        b'{"pid":1,"rank":"0","published":1,"events":[["unknown",["a"],1]]}',
        b'{"pid":1,"rank":"0","published":99999999999999999999}',
        b"[" * 100_000,
        b'{"pid":1,"rank":"\xff","published":1}',
    ],
)
def test_samples_that_no_process_publishes_are_refused(samples: bytes) -> None:
    import zlib

    header = b"ggmetr1\n" + len(samples).to_bytes(4, "little")
    assert unpack(header + zlib.crc32(samples).to_bytes(4, "little") + samples) is None


def test_links_pipes_and_directories_in_the_place_of_a_file_are_left_out(
    directory: Path, good: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "is_held", lambda _descriptor: True)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(good)
    (directory / f"metrics.{RUN}.1.00000000.samples").symlink_to(elsewhere)
    os.mkfifo(directory / f"metrics.{RUN}.2.00000000.samples")
    (directory / f"metrics.{RUN}.3.00000000.samples").mkdir()

    assert [process.rank for process in read_run(RUN)] == ["1"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_file_of_another_user_is_left_out(
    directory: Path, good: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "is_held", lambda _descriptor: True)
    os.chown(write(directory, "1.00000000", good), 65_534, -1)

    assert len(read_run(RUN)) == 1


def test_directory_that_others_may_write_to_ends_in_an_empty_answer(
    directory: Path, good: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    directory.chmod(0o777)
    collector = RunCollector(lambda: read_run(RUN))

    assert collector.collect() == []
    assert collector.collect() == []
    assert len(caplog.records) == 1
    directory.chmod(0o700)


def test_file_is_private_and_goes_with_its_process(directory: Path, good: bytes) -> None:
    (path,) = directory.iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    assert directory.stat().st_mode & 0o777 == 0o700


def test_files_of_dead_processes_are_removed_but_no_young_ones(directory: Path) -> None:
    old, young = (write(directory, f"{n}.00000000", b"") for n in (1, 2))
    os.utime(old, (0, 0))

    SampleFile(new_run()).remove()

    assert not old.exists()
    assert young.exists()


PROGRAM = """
import os, sys, time
from graphguard.metrics import process_metrics, expose_in_this_process
from graphguard.verdict import Action, Reason
metrics = process_metrics()
metrics.rank = "5"
def bump(): metrics.check("target", Action.PAD, Reason.PADDED)
def tell(*words): print(*words, flush=True)
def scrape():
    from prometheus_client import REGISTRY, generate_latest
    return [l for l in generate_latest(REGISTRY).decode().splitlines() if "graphguard_" in l]
def checks(lines):
    return [l.split()[-1] for l in lines if l.startswith("graphguard_checks_total")]
"""


class Program:
    """A process that counts, and does what lines on its stdin say."""

    def __init__(self, text: str, **settings: str) -> None:
        settings = {**os.environ, "GRAPHGUARD_METRICS_RUN": RUN, **settings}
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", PROGRAM + text],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=settings,
        )

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def end(self) -> int:
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(20)


Start = Callable[..., Program]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start programs, which end with the test."""
    programs: list[Program] = []

    def start_one(text: str, **settings: str) -> Program:
        programs.append(Program(text, **settings))
        return programs[-1]

    yield start_one
    for program in programs:
        with program.process as process:
            process.kill()


def until(found: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.05)


WAITS = "bump(); tell('ready'); sys.stdin.read()"


def test_counts_of_a_living_process_are_seen_and_those_of_a_dead_one_are_not(
    start: Start, directory: Path
) -> None:
    program = start(WAITS)
    assert program.line() == "ready"
    until(lambda: any(role.checks for process in read_run(RUN) for role in process.roles))

    seen = scrape(*read_run(RUN))
    labels = {"rank": "5", "role": "target", "action": "pad", "reason": "padded"}
    assert value(seen, "graphguard_checks_total", **labels) == 1

    program.process.kill()
    program.process.wait()
    assert read_run(RUN) == []
    assert len(list(directory.iterdir())) == 1  # left behind, and removed by the next process


def test_other_runs_are_not_shown(start: Start) -> None:
    assert start(WAITS, GRAPHGUARD_METRICS_RUN="f" * 16).line() == "ready"
    assert read_run(RUN) == []
    assert len(read_run("f" * 16)) == 1


def test_process_that_counts_nothing_has_no_file_and_no_thread(
    start: Start, directory: Path
) -> None:
    program = start(
        """
import threading
assert expose_in_this_process()
tell(threading.active_count(), len(checks(scrape())))
sys.stdin.readline()
bump()
tell(threading.active_count(), len(checks(scrape())))
sys.stdin.read()
"""
    )
    assert program.line() == "1 0"
    assert not directory.exists() or not list(directory.iterdir())
    assert program.process.stdin is not None
    program.process.stdin.write("\n")
    program.process.stdin.flush()
    assert program.line() == "2 1"
    assert len(list(directory.iterdir())) == 1


def test_event_alone_is_published_too(start: Start) -> None:
    program = start("metrics.vote('agreed'); tell('ready'); sys.stdin.read()")
    assert program.line() == "ready"
    until(lambda: any(process.events for process in read_run(RUN)))


def test_process_that_ends_leaves_no_file(start: Start, directory: Path) -> None:
    program = start(WAITS)
    assert program.line() == "ready"
    assert len(list(directory.iterdir())) == 1

    assert program.end() == 0

    assert list(directory.iterdir()) == []


def test_age_of_a_step_grows_while_its_process_is_stopped(start: Start) -> None:
    program = start("metrics.replay_begin('target'); tell('ready'); sys.stdin.read()")
    assert program.line() == "ready"
    until(lambda: any(role.began for process in read_run(RUN) for role in process.roles))
    program.process.send_signal(signal.SIGSTOP)
    labels = {"rank": "5", "role": "target"}

    before = value(scrape(*read_run(RUN)), "graphguard_step_age_seconds", **labels)
    time.sleep(0.3)
    seen = scrape(*read_run(RUN))

    after = value(seen, "graphguard_step_age_seconds", **labels)
    assert before is not None
    assert after is not None
    assert after - before >= 0.3
    assert value(seen, "graphguard_replays_in_flight", **labels) == 1
    age = value(seen, "graphguard_samples_age_seconds", rank="5")
    assert age is not None
    assert age >= 0.3
    program.process.send_signal(signal.SIGCONT)


def test_children_are_shown_where_their_parent_exposes(start: Start) -> None:
    program = start(
        """
assert expose_in_this_process() and expose_in_this_process()
import subprocess
text = '''
import sys
from graphguard.metrics import process_metrics, RoleCounts
from graphguard.metrics.process import publish
from graphguard.verdict import Action, Reason
metrics = process_metrics(); metrics.rank = "child"
metrics.check("drafter", Action.EAGER, Reason.NO_GRAPH); publish()
print("ready", flush=True); sys.stdin.read()
'''
child = subprocess.Popen([sys.executable, "-c", text], stdin=-1, stdout=-1)
assert child.stdout.readline() == b"ready\\n"
bump()
from graphguard.metrics.process import publish
publish()
for line in scrape():
    if line.startswith("graphguard_checks_total"): tell(line)
child.communicate()
tell(len(checks(scrape())))
""",
        GRAPHGUARD_METRICS_RUN="",
    )
    lines = {program.line(), program.line()}
    assert lines == {
        'graphguard_checks_total{action="pad",rank="5",reason="padded",role="target"} 1.0',
        'graphguard_checks_total{action="eager",rank="child",reason="no_graph",role="drafter"} 1.0',
    }
    assert program.line() == "1"
    assert program.end() == 0


def test_forked_child_counts_from_zero_and_leaves_its_parents_counts(start: Start) -> None:
    program = start(
        """
kept = metrics.role("target")
bump()
from graphguard.metrics.process import publish
pid = os.fork()
if pid == 0:
    kept.check(Action.PAD, Reason.PADDED)
    kept.check(Action.PAD, Reason.PADDED)
    assert process_metrics() is metrics
    metrics.rank = "6"
    publish()
    tell("child")
    sys.stdin.read()
    sys.exit(0)
publish()
tell("parent")
os.waitpid(pid, 0)
tell("waited")
time.sleep(60)
"""
    )
    assert {program.line(), program.line()} == {"child", "parent"}
    seen = scrape(*read_run(RUN))
    counted = {"role": "target", "action": "pad", "reason": "padded"}
    assert value(seen, "graphguard_checks_total", rank="5", **counted) == 1
    assert value(seen, "graphguard_checks_total", rank="6", **counted) == 2

    assert program.process.stdin is not None
    program.process.stdin.close()
    assert program.line() == "waited"
    assert [process.rank for process in read_run(RUN)] == ["5"]


def test_child_of_a_process_that_counted_nothing_publishes_what_it_counts(
    start: Start, directory: Path
) -> None:
    program = start(
        """
expose_in_this_process()
if os.fork() == 0:
    bump(); tell("ready"); sys.stdin.read(); sys.exit(0)
time.sleep(60)
"""
    )
    assert program.line() == "ready"
    until(lambda: any(role.checks for process in read_run(RUN) for role in process.roles))
    assert program.process.stdin is not None
    program.process.stdin.close()
    until(lambda: not list(directory.iterdir()))


def test_parent_that_dies_is_not_kept_alive_by_a_forked_child(start: Start) -> None:
    program = start(
        """
bump()
if os.fork() == 0:
    tell(os.getpid()); sys.stdin.read(); os._exit(0)
time.sleep(60)
"""
    )
    assert program.line()
    assert len(read_run(RUN)) == 1
    program.process.kill()
    program.process.wait()
    assert read_run(RUN) == []


def test_multiprocess_collectors_show_the_counts_once(start: Start, tmp_path: Path) -> None:
    (tmp_path / "prometheus").mkdir()
    program = start(
        """
assert expose_in_this_process() and expose_in_this_process()
bump()
from prometheus_client import Counter, CollectorRegistry, generate_latest, multiprocess
Counter("theirs", "Another program's").inc()
registry = CollectorRegistry()
multiprocess.MultiProcessCollector(registry)
lines = generate_latest(registry).decode().splitlines()
tell(len(checks(lines)), "theirs_total 1.0" in lines, len(checks(scrape())))
""",
        PROMETHEUS_MULTIPROC_DIR=str(tmp_path / "prometheus"),
    )
    assert program.line() == "1 True 0"


def test_without_a_place_for_the_file_a_process_still_shows_its_own_counts(
    start: Start, directory: Path
) -> None:
    directory.mkdir(mode=0o777)
    directory.chmod(0o777)
    program = start("bump(); expose_in_this_process(); tell(checks(scrape()))")
    assert program.line() == "['1.0']"
    assert program.end() == 0


@pytest.mark.parametrize(
    ("hides", "setting"), [("", "off"), ("sys.modules['prometheus_client'] = None", "auto")]
)
def test_nothing_is_counted_where_it_is_switched_off_or_cannot_be_shown(
    hides: str, setting: str, directory: Path
) -> None:
    text = (
        f"import sys; {hides}\n"
        "from graphguard.metrics import process_metrics, expose_in_this_process\n"
        "assert process_metrics() is None and not expose_in_this_process()\n"
    )
    settings = {**os.environ, "GRAPHGUARD_METRICS": setting}
    subprocess.run([sys.executable, "-c", text], env=settings, check=True, timeout=30)
    assert not directory.exists()


def test_setting_is_auto_or_off(monkeypatch: pytest.MonkeyPatch) -> None:
    assert environment.metrics_wanted()
    monkeypatch.setenv("GRAPHGUARD_METRICS", "off")
    assert not environment.metrics_wanted()
    monkeypatch.setenv("GRAPHGUARD_METRICS", "yes")
    with pytest.raises(ConfigurationError, match="GRAPHGUARD_METRICS is 'yes'"):
        environment.metrics_wanted()


def test_counting_imports_neither_prometheus_nor_torch() -> None:
    text = (
        "import sys\nfrom graphguard.metrics import process_metrics\nprocess_metrics()\n"
        "assert not {'prometheus_client', 'torch', 'vllm'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", text], check=True, timeout=30)
