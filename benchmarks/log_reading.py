"""How fast ``graphguard diagnose`` reads a large log, beside ``grep -c`` of one pattern.

Run as ``python -m benchmarks.log_reading [--megabytes 1024] [--repeats 3]``. The log is written to
a temporary folder and removed: mostly access lines and throughput of a server, one refused request
with its traceback in about 4 MB, and at the end a hang with a dump. ``--errors`` writes the worst
case instead, a log in which every line is of an error.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
HUNG = REPOSITORY / "tests/data/logs/vllm-padded-decode.log"
PATTERN = "EngineCore encountered a fatal error"
_PART_BYTES = 4 << 20

_MEASURE = """
import json, resource, sys, time
from pathlib import Path
from graphguard.audit.logs import read_log
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
started = time.process_time(), time.perf_counter()
found = read_log(Path(sys.argv[1]))
took = time.process_time() - started[0], time.perf_counter() - started[1]
print(json.dumps({
    "cpu": took[0], "wall": took[1], "lines": found.lines,
    "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, "before": before,
    "classes": [reading.cause.value for reading in found.supported],
}))
"""


def part(generator: random.Random, *, errors: bool) -> bytes:
    """Return a few megabytes of a log."""
    lines: list[str] = []
    size = 0
    while size < _PART_BYTES:
        new = list(_traceback(generator) if errors else _served(generator))
        lines += new
        size += sum(len(line) + 1 for line in new)
    if not errors:
        lines += _traceback(generator)
    return ("\n".join(lines) + "\n").encode()


def _served(generator: random.Random) -> Iterator[str]:
    second = (
        f"{generator.randrange(24):02}:{generator.randrange(60):02}:{generator.randrange(60):02}"
    )
    for _ in range(generator.randrange(4, 40)):
        port = generator.randrange(1024, 65536)
        yield (
            f"(APIServer pid=1) INFO:     10.0.{port % 250}.7:{port} - "
            '"POST /v1/chat/completions HTTP/1.1" 200 OK'
        )
    rate, running = generator.random() * 4000 + 1, generator.randrange(1, 128)
    yield (
        f"(APIServer pid=1) INFO 11-20 {second} [loggers.py:259] Engine 000: Avg prompt "
        f"throughput: {rate * 3:.1f} tokens/s, Avg generation throughput: {rate:.1f} tokens/s, "
        f"Running: {running} "
        "reqs, Waiting: 0 reqs, GPU KV cache usage: 41.3%, Prefix cache hit rate: 12.0%"
    )


def _traceback(generator: random.Random) -> Iterator[str]:
    start = (
        f"(APIServer pid=1) ERROR 11-20 10:{generator.randrange(60):02}:00 [serving_chat.py:244]"
    )
    yield f"{start} Error in preprocessing prompt inputs"
    yield f"{start} Traceback (most recent call last):"
    for line in range(6):
        yield f'{start}   File "/opt/venv/vllm/entrypoints/serving.py", line {line}, in preprocess'
    yield f"{start} ValueError: This model's maximum context length is {generator.randrange(9999)}"


def write_log(path: Path, megabytes: int, *, errors: bool) -> int:
    """Write a log of about so many megabytes that ends in a hang, and return its size."""
    generator = random.Random(11)  # noqa: S311
    content = part(generator, errors=errors)
    hung = HUNG.read_bytes().splitlines(keepends=True)
    with path.open("wb") as file:
        file.writelines(hung[:8])
        for _ in range(max(megabytes * 1_000_000 // len(content), 1)):
            file.write(content)
        file.writelines(hung[8:])
        return file.tell()


def measure(path: Path) -> dict[str, float]:
    """Read a log in a process of its own, and return what it took."""
    command = [sys.executable, "-c", _MEASURE, str(path)]
    output = subprocess.run(command, capture_output=True, check=True, cwd=REPOSITORY).stdout
    took: dict[str, float] = json.loads(output)
    return took


def grep(path: Path) -> tuple[float, float]:
    """Return the CPU and wall seconds of ``grep -c``."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    subprocess.run(["grep", "-c", PATTERN, str(path)], capture_output=True, check=True)
    wall = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return spent, wall


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--megabytes", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--errors", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="graphguard-log-") as folder:
        path = Path(folder) / "engine.log"
        size = write_log(path, args.megabytes, errors=args.errors) / 1e6
        print(f"{size:.0f} MB; MB/s of CPU time, MB/s of wall time, peak memory")
        for _ in range(args.repeats):
            took, (cpu, wall) = measure(path), grep(path)
            print(
                f"diagnose {size / took['cpu']:6.0f} {size / took['wall']:6.0f} "
                f"{took['peak'] / 1024:5.0f} MiB ({took['before'] / 1024:.0f} before) "
                f"{took['lines']:,} lines, {took['classes']}"
            )
            print(f"grep -c  {size / cpu:6.0f} {size / wall:6.0f}")


if __name__ == "__main__":
    main()
