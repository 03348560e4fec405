"""The stub of the native module says what the module has."""

import ast
from pathlib import Path

import pytest

import graphguard
from graphguard import _core

STUB = Path(graphguard.__file__).with_name("_core.pyi")


def names(body: list[ast.stmt]) -> set[str]:
    found: set[str] = set()
    for statement in body:
        if isinstance(statement, ast.FunctionDef | ast.ClassDef):
            found.add(statement.name)
        elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            found.add(statement.target.id)
    return found


def public(thing: object) -> set[str]:
    return {name for name in vars(thing) if not name.startswith("_")}


def test_the_stub_names_what_the_module_has() -> None:
    module = ast.parse(STUB.read_text())

    assert names(module.body) == public(_core)
    for node in module.body:
        if isinstance(node, ast.ClassDef):
            members = {name for name in names(node.body) if not name.startswith("_")}
            assert members == public(getattr(_core, node.name)), node.name


@pytest.mark.parametrize(
    ("owner", "called"),
    [
        ("SignatureTable", ("check", "check_graph", "check_inputs", "insert")),
        ("BlackBox", ("check", "mark", "record")),
    ],
)
def test_arguments_of_the_replay_path_are_positional_as_the_stub_says(
    owner: str, called: tuple[str, ...]
) -> None:
    module = ast.parse(STUB.read_text())
    (stub,) = (n for n in module.body if isinstance(n, ast.ClassDef) and n.name == owner)
    methods = {node.name: node.args for node in stub.body if isinstance(node, ast.FunctionDef)}

    for name in called:
        assert methods[name].args == []
        assert f"{name}(self, " in str(getattr(getattr(_core, owner), name).__doc__)
