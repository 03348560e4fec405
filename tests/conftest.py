"""What every test may use."""

import signal
from collections.abc import Iterator

import pytest

from graphguard.session import Session


def pytest_configure() -> None:
    # Under nohup, or in the background of a script, these are ignored, and so they would be by
    # every program that a test starts and then interrupts.
    for number, usual in (
        (signal.SIGHUP, signal.SIG_DFL),
        (signal.SIGINT, signal.default_int_handler),
    ):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, usual)


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "GRAPHGUARD_MODE",
        "GRAPHGUARD_DIR",
        "GRAPHGUARD_INSTALL",
        "GRAPHGUARD_AGREE_SECONDS",
        "GRAPHGUARD_WHEN_STUCK",
        "GRAPHGUARD_METRICS",
        "GRAPHGUARD_METRICS_RUN",
        "GRAPHGUARD_DECISIONS",
        "GRAPHGUARD_RUN",
        "GRAPHGUARD_ON_MISMATCH",
        "GRAPHGUARD_PADDED",
        "GRAPHGUARD_UNIFORM_GRAPHS",
        "GRAPHGUARD_CUDA_DRIVER",
        "GRAPHGUARD_INTERPOSE",
        "GRAPHGUARD_NCCL_SO",
        "GRAPHGUARD_NCCL_PLUGIN",
        "GRAPHGUARD_NEXT_PROFILER_PLUGIN",
        "GRAPHGUARD_STALL_SECONDS",
        "GRAPHGUARD_STALL_STARTUP_SECONDS",
        "GRAPHGUARD_SLOW_SECONDS",
        "GRAPHGUARD_ON_STALL",
        "GRAPHGUARD_STALL_LOG",
        "GRAPHGUARD_BREADCRUMBS",
        "RANK",
        "WORLD_SIZE",
        "NO_COLOR",
    ):
        monkeypatch.delenv(name, raising=False)
    # Tests of the black box ask for one. Others must not write rings into the user's directory.
    monkeypatch.setenv("GRAPHGUARD_RING_ENTRIES", "0")


@pytest.fixture
def session() -> Session:
    return Session()


@pytest.fixture(scope="module")
def one_rank(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A process group of this process alone, for what is the same on any number of ranks."""
    import torch.distributed as dist

    rendezvous = tmp_path_factory.mktemp("rendezvous") / "file"
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()
