"""The stub of the native module says what the module has."""

import ast
from pathlib import Path

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
    (table,) = (node for node in module.body if isinstance(node, ast.ClassDef))

    assert names(module.body) == public(_core)
    assert {name for name in names(table.body) if not name.startswith("_")} == public(
        _core.SignatureTable
    )


def test_arguments_of_the_replay_path_are_positional_as_the_stub_says() -> None:
    module = ast.parse(STUB.read_text())
    (table,) = (node for node in module.body if isinstance(node, ast.ClassDef))
    methods = {node.name: node.args for node in table.body if isinstance(node, ast.FunctionDef)}

    for name in ("check", "check_graph", "check_inputs", "insert"):
        assert methods[name].args == []
        assert f"{name}(self, " in str(getattr(_core.SignatureTable, name).__doc__)
