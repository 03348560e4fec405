"""What is done when a module has been imported."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from graphguard.importing import after_import, forget_all


@pytest.fixture(autouse=True)
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "engine_of_a_test").mkdir()
    (tmp_path / "engine_of_a_test" / "__init__.py").write_text("")
    (tmp_path / "engine_of_a_test" / "runner.py").write_text("READY = True\n")
    (tmp_path / "engine_of_a_test" / "broken.py").write_text("raise RuntimeError('no GPU')\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    forget_all()
    for name in [name for name in sys.modules if name.startswith("engine_of_a_test")]:
        del sys.modules[name]


def test_the_call_comes_when_the_module_is_complete() -> None:
    seen: list[bool] = []
    after_import(
        "engine_of_a_test.runner",
        lambda: seen.append(sys.modules["engine_of_a_test.runner"].READY),
    )
    assert seen == []
    assert "engine_of_a_test" not in sys.modules

    importlib.import_module("engine_of_a_test.runner")
    importlib.import_module("engine_of_a_test.runner")

    assert seen == [True]


def test_a_module_that_is_there_already_is_not_waited_for() -> None:
    importlib.import_module("engine_of_a_test.runner")
    seen: list[str] = []

    after_import("engine_of_a_test.runner", lambda: seen.append("called"))

    assert seen == ["called"]


def test_the_same_call_is_made_once_and_others_in_their_order() -> None:
    seen: list[str] = []

    def first() -> None:
        seen.append("first")

    for call in (first, first, lambda: seen.append("second")):
        after_import("engine_of_a_test.runner", call)
    importlib.import_module("engine_of_a_test.runner")

    assert seen == ["first", "second"]


def test_a_module_that_cannot_be_imported_fails_as_it_would() -> None:
    seen: list[str] = []
    after_import("engine_of_a_test.broken", lambda: seen.append("called"))
    after_import("engine_of_a_test.absent", lambda: seen.append("called"))

    with pytest.raises(RuntimeError, match="no GPU"):
        importlib.import_module("engine_of_a_test.broken")
    with pytest.raises(ModuleNotFoundError, match="absent"):
        importlib.import_module("engine_of_a_test.absent")

    assert seen == []
