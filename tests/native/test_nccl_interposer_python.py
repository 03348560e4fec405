"""The interposer as graphguard's Python loads and reads it, in front of a stub of NCCL."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from graphguard.errors import ConfigurationError
from graphguard.recorders import nccl_interposer
from tests.native.cmake_target import REPOSITORY, NativeBuildError, build
from tests.native.nccl_stubs import Stubs, build_stubs


@pytest.fixture(scope="module")
def stubs() -> Stubs:
    try:
        return build_stubs()
    except NativeBuildError as error:
        pytest.fail(f"the interposer cannot be built: {error}", pytrace=False)


def run(stubs: Stubs, program: str, *arguments: str, **settings: object) -> Any:
    library = str(stubs.interposer)
    return stubs.run(program, library, *arguments, module="interposed_python", **settings)


def test_enabled_before_nccl_is_loaded_it_records_what_is_linked_with_nccl(stubs: Stubs) -> None:
    seen = run(stubs, "enabled", f"consumer={stubs.consumer}")
    assert seen == {"real": str(stubs.nccl), "calls": [["all_reduce", 8, "interposer"]]}


def test_enabled_too_late_it_says_so_and_loads_nothing(stubs: Stubs) -> None:
    seen = run(stubs, "enabled", f"consumer={stubs.consumer}", f"first={stubs.consumer}")
    assert "comes too late" in seen["error"]
    assert "LD_PRELOAD" in seen["hint"]


def test_enabled_without_an_nccl_to_call_it_says_where_to_name_one(stubs: Stubs) -> None:
    settings = {"GRAPHGUARD_NCCL_SO": "/nowhere/libnccl.so.2", "LD_LIBRARY_PATH": None}
    seen = run(stubs, "enabled", f"consumer={stubs.consumer}", **settings)
    assert "no NCCL to call" in seen["error"]
    assert "GRAPHGUARD_NCCL_SO" in seen["hint"]


def test_what_is_not_captured_is_not_in_the_signature(stubs: Stubs) -> None:
    settings = {"LD_PRELOAD": stubs.interposer, "GRAPHGUARD_CUDA_DRIVER": stubs.driver}
    (call,) = run(stubs, "recorded", **settings)
    assert call.startswith("all_reduce(4 float32, sum) on nccl:")
    assert call.endswith("[0]")


def test_beside_the_plugin_each_keeps_a_log_of_its_own(stubs: Stubs) -> None:
    plugin = build("graphguard_nccl", "GRAPHGUARD_NCCL_STUBS", "nccl-stubs")
    file = plugin.with_name("libgraphguard_nccl.so")
    # The stub tells no plugin of anything; its log must not be the interposer's.
    seen = run(stubs, "beside_the_plugin", f"plugin={file}", LD_PRELOAD=stubs.interposer)
    assert seen == {"plugin": 0, "interposer": 1}


def output_of(program: str, **settings: object) -> str:
    """Return what a program of Python prints, its log included."""
    logged = "import logging; logging.basicConfig(level='INFO'); " + program
    done = subprocess.run(
        [sys.executable, "-c", logged],
        env={"PYTHONPATH": str(REPOSITORY), **{n: str(v) for n, v in settings.items()}},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("1", "NCCL is interposed: "),
        ("0", "not loaded"),
        ("yes", "GRAPHGUARD_INTERPOSE is 'yes'"),
    ],
)
def test_it_is_enabled_where_the_environment_says_so(stubs: Stubs, text: str, told: str) -> None:
    program = (
        "from pathlib import Path; from graphguard.recorders import nccl_interposer as i; "
        f"i.LIBRARY = Path({str(stubs.interposer)!r}); "
        "i.enable_from_environment(); print('loaded' if i.loaded() else 'not loaded')"
    )
    output = output_of(program, GRAPHGUARD_INTERPOSE=text, GRAPHGUARD_NCCL_SO=stubs.nccl)
    assert told in output
    assert ("not loaded" in output) == (text != "1")


def test_importing_graphguard_enables_it_or_says_why_not() -> None:
    # It may be installed here or not, and there may be an NCCL or not.
    output = output_of("import graphguard", GRAPHGUARD_INTERPOSE="1")
    assert ("NCCL is interposed: " in output) != ("NCCL is not interposed: " in output)
    assert output_of("import graphguard") == ""


def test_what_is_preloaded_already_stays_behind_it(
    stubs: Stubs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nccl_interposer, "LIBRARY", stubs.interposer)
    settings = nccl_interposer.preloading(
        {"LD_PRELOAD": f"/lib/other.so {stubs.interposer}", "GRAPHGUARD_NCCL_SO": "/x", "HOME": "/"}
    )
    assert settings == {
        "LD_PRELOAD": f"{stubs.interposer}:/lib/other.so",
        "GRAPHGUARD_NCCL_SO": "/x",
        "HOME": "/",
    }


def test_the_wheel_beside_pythons_packages_is_named_to_children(
    stubs: Stubs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    wheel = tmp_path / "nvidia" / "nccl" / "lib" / "libnccl.so.2"
    wheel.parent.mkdir(parents=True)
    wheel.touch()
    monkeypatch.setattr(nccl_interposer, "LIBRARY", stubs.interposer)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert nccl_interposer.preloading({})["GRAPHGUARD_NCCL_SO"] == str(wheel)


def test_a_path_that_the_loader_would_split_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    library = tmp_path / "a folder" / "libnccl.so.2"
    library.parent.mkdir()
    library.touch()
    monkeypatch.setattr(nccl_interposer, "LIBRARY", library)
    with pytest.raises(ConfigurationError, match="LD_PRELOAD"):
        nccl_interposer.preloading({})


def test_where_it_is_not_installed_it_says_for_what_it_is_built(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(nccl_interposer, "LIBRARY", tmp_path / "libnccl.so.2")
    with pytest.raises(ConfigurationError) as caught:
        nccl_interposer.library()
    assert "aarch64" in caught.value.hint
