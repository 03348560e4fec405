from __future__ import annotations

import os
from pathlib import Path

import pytest

from graphguard.environment import Mode
from graphguard.errors import CommandError, ConfigurationError
from graphguard.recorders import nccl_interposer
from graphguard.running.variables import HOOK, variables


def given(inherited: dict[str, str], mode: Mode | None = None, **more: bool) -> dict[str, str]:
    return variables(
        inherited, output=Path("/run"), processes=Path("/run/processes"), mode=mode, **more
    )


def test_nothing_set_is_observed_and_everything_else_is_inherited() -> None:
    assert given({"HOME": "/home"}) == {
        "HOME": "/home",
        "GRAPHGUARD_DIR": "/run",
        "GRAPHGUARD_RUN": "/run/processes",
        "GRAPHGUARD_MODE": "observe",
        "GRAPHGUARD_INSTALL": "1",
        "GRAPHGUARD_NCCL_PLUGIN": "1",
        "PYTHONPATH": str(HOOK),
    }


def test_settings_of_the_user_stay_but_for_the_place() -> None:
    told = {
        "GRAPHGUARD_MODE": "enforce",
        "GRAPHGUARD_INSTALL": "0",
        "GRAPHGUARD_NCCL_PLUGIN": "0",
        "GRAPHGUARD_RING_ENTRIES": "64",
    }
    assert told.items() <= given({**told, "GRAPHGUARD_DIR": "/elsewhere"}).items()
    assert given({"GRAPHGUARD_DIR": "/elsewhere"})["GRAPHGUARD_DIR"] == "/run"


def test_a_mode_that_is_named_wins() -> None:
    assert given({"GRAPHGUARD_MODE": "enforce"}, Mode.OFF)["GRAPHGUARD_MODE"] == "off"


def test_the_hook_is_the_first_on_the_path_and_alone_in_its_directory() -> None:
    path = given({"PYTHONPATH": "/a:/b"})["PYTHONPATH"]
    assert path == os.pathsep.join([str(HOOK), "/a", "/b"])
    assert {entry.name for entry in HOOK.iterdir()} - {"__pycache__"} == {"sitecustomize.py"}


@pytest.mark.parametrize(
    ("names", "expected"),
    [("a,b", "a,b,graphguard"), ("graphguard", "graphguard"), ("a, graphguard", "a, graphguard")],
)
def test_vllm_loads_the_plugin_where_it_is_told_which_to_load(names: str, expected: str) -> None:
    assert given({"VLLM_PLUGINS": names})["VLLM_PLUGINS"] == expected


def test_vllm_loads_all_plugins_where_it_is_not_told() -> None:
    assert "VLLM_PLUGINS" not in given({})


def test_the_interposer_is_preloaded_before_what_is_preloaded_already(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = tmp_path / "libnccl.so.2"
    monkeypatch.setattr(nccl_interposer, "library", lambda: library)

    told = given({"LD_PRELOAD": "/lib/a.so"}, interpose=True)

    assert told["LD_PRELOAD"] == f"{library}:/lib/a.so"
    assert told["GRAPHGUARD_MODE"] == "observe"
    assert "LD_PRELOAD" not in given({})


def test_an_interposer_that_is_not_installed_is_refused_before_anything_is_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def absent() -> Path:
        raise ConfigurationError("it is not installed", hint="leave it out")

    monkeypatch.setattr(nccl_interposer, "library", absent)
    with pytest.raises(CommandError, match="it is not installed") as caught:
        given({}, interpose=True)
    assert caught.value.hint == "leave it out"
