"""The programs of the stages where there is no device, and no torch either."""

from __future__ import annotations

import importlib.util
import json
import os
import pkgutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.gpu.suite import hanging, lines, stages
from tests.gpu.suite.catalogue import STAGES
from tests.gpu.suite.pytest_lines import figures_of
from tests.gpu.suite.settings import Settings
from tests.native.cmake_target import REPOSITORY

MODULES = sorted(module.name for module in pkgutil.iter_modules(stages.__path__))

WITHOUT_TORCH = """
import importlib, sys
sys.modules["torch"] = None
from tests.gpu.suite import needs, settings
given = settings.Settings("/nowhere")
for name in sys.argv[1:]:
    module = importlib.import_module(f"tests.gpu.suite.stages.{name}")
    print(name, needs.unmet(given, module.NEEDS) or "would run")
"""


def test_every_stage_imports_without_torch_and_says_why_it_cannot_run() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *MODULES],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert sorted(said) == MODULES
    for name, why in said.items():
        expected = (
            "no vLLM" if name in ("vllm", "vllm_ranks", "topk") else "torch cannot be imported"
        )
        if name == "nccl_threads":
            expected = "torch cannot be imported"
        assert why.startswith(expected), (name, why)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a device")
def test_a_stage_without_a_device_tells_why_and_is_no_failure(tmp_path: Path) -> None:
    settings = tmp_path / "settings.json"
    Settings(str(tmp_path)).write(settings)
    done = subprocess.run(
        [sys.executable, "-m", "tests.gpu.suite.stages.cost", str(settings)],
        cwd=REPOSITORY,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (line,) = lines.read(done.stdout).not_run
    assert "without CUDA" in line.why or "no CUDA device" in line.why


def test_every_stage_of_the_catalogue_names_something_that_is_there() -> None:
    titles = [stage.title for stage in STAGES]
    assert len(set(titles)) == len(titles)
    assert {stage.number for stage in STAGES} == set(range(1, 8))
    for stage in STAGES:
        module, last = stage.command[1], stage.command[-1]
        if module == "pytest":
            assert (REPOSITORY / last).is_file(), stage.title
        else:
            assert importlib.util.find_spec(module) is not None, stage.title
        # A command on the machine has ten minutes.
        assert stage.least <= stage.seconds <= 300


def test_a_file_of_tests_tells_what_became_of_each(tmp_path: Path) -> None:
    (tmp_path / "test_three.py").write_text(
        "import pytest\n"
        "def test_good(): pass\n"
        "def test_bad(): assert 1 == 2\n"
        "def test_left_out(): pytest.skip('no device | here')\n"
        "@pytest.fixture\n"
        "def broken(): raise ValueError('cannot be made')\n"
        "def test_without_fixture(broken): pass\n"
    )
    figure = {"figures": {"bare": {"median": 2.5, "p99": 3.0}, "nested": {"a": {"median": 1}}}}
    (tmp_path / "replay.json").write_text(json.dumps(figure))
    (tmp_path / "garbage.json").write_bytes(b"\xff")
    (stage, *_) = (s for s in STAGES if s.command[1] == "pytest")
    command = [part for part in stage.full_command("") if part not in ("-m gpu",)]
    command[-3:] = ["-c", os.devnull, "--rootdir", str(tmp_path), str(tmp_path / "test_three.py")]
    done = subprocess.run(
        command,
        cwd=REPOSITORY,
        env={**os.environ, "GRAPHGUARD_RESULTS": str(tmp_path)},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1, done.stdout
    told = lines.read(done.stdout)
    held = {claim.what.partition("::")[2]: claim.held for claim in told.claims}
    assert held == {"test_good": True, "test_bad": False, "test_without_fixture (setup)": False}
    assert [line.why for line in told.not_run] == ["no device | here"]
    assert {(f.what, f.spread.median) for f in told.figures} == {
        ("bare, replay", 2.5),
        ("a, nested, replay", 1.0),
    }


def test_figures_that_are_none_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for content in ("[]", '{"figures": 3}', '{"figures": {"a": {"median": "x"}}}', "{", '"'):
        path.write_text(content)
        assert figures_of(path) == []
    assert figures_of(tmp_path / "none.json") == []


HANGS = """
import json, os, sys, time
cases = json.load(open(sys.argv[1]))
out = os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND)
say = lambda **what: os.write(out, json.dumps(what).encode() + b"\\n")
say(ready=True)
for case in cases:
    if case["does"] == "hang": time.sleep(600)
    if case["does"] == "die": os._exit(9)
    if case["does"] == "raise": say(error="no kernel")
    else: say(value=case["number"])
"""


def test_cases_that_hang_or_die_do_not_keep_the_others_from_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hangs_now.py").write_text(HANGS)
    does = ("answer", "hang", "answer", "die", "raise", "hang", "answer")
    found = list(
        hanging.outcomes(
            "hangs_now",
            [],
            [{"does": what, "number": number} for number, what in enumerate(does)],
            tmp_path,
            case_seconds=0.7,
            start_seconds=20.0,
            environment={**os.environ, "PYTHONPATH": str(tmp_path)},
            deadline=time.monotonic() + 60,
        )
    )
    assert [(one.case["number"], one.hung, one.value) for one in found] == [
        (0, False, 0),
        (1, True, None),
        (2, False, 2),
        (3, False, None),
        (4, False, None),
        (5, True, None),
        (6, False, 6),
    ]
    assert found[3].error.startswith("ended with 9")
    assert found[4].error == "no kernel"


def test_cases_for_which_no_time_is_left_are_not_begun(tmp_path: Path) -> None:
    found = hanging.outcomes(
        "hangs_now",
        [],
        [{"does": "answer"}],
        tmp_path,
        case_seconds=1.0,
        start_seconds=1.0,
        environment={},
        deadline=time.monotonic() - 1,
    )
    assert list(found) == []


def test_padded_requests_give_rows_of_length_minus_one_unless_clamped() -> None:
    from tests.gpu.suite.programs.topk_cases import lengths_of
    from tests.gpu.suite.stages.topk import cases

    case = {"reqs": 15, "padded": 16, "rows_each": 2, "max_seq_len": 4096, "clamped": False}
    lengths = lengths_of(case)
    assert lengths[-2:] == [-1, 0]
    assert (len(lengths), max(lengths), min(lengths[:-2])) == (32, 4096, 2999)
    assert lengths_of({**case, "clamped": True})[-2:] == [0, 0]
    assert lengths_of({**case, "reqs": 18, "padded": 20})[-4:] == [-1, 0, -1, 0]
    # Each case with such rows has a control beside it.
    made = cases()
    unclamped = [c for c in made if not c["clamped"]]
    assert all({**c, "clamped": True} in made for c in unclamped)
    assert {c["top_k"] for c in unclamped} == {512, 1024, 2048}


def test_the_rows_that_such_cases_have_are_what_the_padding_check_refuses() -> None:
    import numpy as np

    from graphguard.vllm.padding import Invariant, MetadataView, Tail, violations

    derived = Tail("decode.seq_lens", np.array([-1, 0], dtype=np.int32), 30)
    view = MetadataView(15, 16, 30, 32, 2, derived=(derived,))
    (finding,) = violations(view)
    assert (finding.invariant, finding.slot, finding.value) == (Invariant.DERIVED_LENGTH, 30, -1)
