"""The entry point in processes that have no vLLM: light, quiet, and loud about a wrong setting."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points

import pytest

from graphguard.vllm.options import OnMismatch, Padded, read_options

REGISTER = "from graphguard.vllm.plugin import register; register(); register()"


def in_a_process(
    code: str, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={"PATH": "/usr/bin", "PYTHONPATH": ":".join(sys.path), **(environment or {})},
    )


def test_vllm_finds_the_plugin() -> None:
    (found,) = [
        entry for entry in entry_points(group="vllm.general_plugins") if entry.name == "graphguard"
    ]

    assert found.value == "graphguard.vllm.plugin:register"
    assert callable(found.load())


def test_registering_imports_neither_torch_nor_vllm() -> None:
    ended = in_a_process(
        f"{REGISTER}; import sys; print([m for m in ('torch', 'vllm') if m in sys.modules])"
    )

    assert ended.stdout.strip() == "[]", ended.stderr


def test_mode_off_waits_for_nothing() -> None:
    ended = in_a_process(
        f"{REGISTER}; from graphguard import importing; print(importing._finder.calls)",
        {"GRAPHGUARD_MODE": "off"},
    )

    assert ended.stdout.strip() == "{}", ended.stderr


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GRAPHGUARD_MODE", "on"),
        ("GRAPHGUARD_ON_MISMATCH", "ignore"),
        ("GRAPHGUARD_PADDED", "never"),
        ("GRAPHGUARD_STALL_SECONDS", "soon"),
        ("GRAPHGUARD_ON_STALL", "panic"),
    ],
)
def test_a_setting_that_does_not_exist_is_an_error(name: str, value: str) -> None:
    ended = in_a_process(REGISTER, {name: value})

    assert ended.returncode != 0
    assert f"{value!r}" in ended.stderr
    assert name in ended.stderr


def test_the_settings_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_options().on_mismatch is OnMismatch.DEGRADE
    assert not read_options().avoids_padding

    monkeypatch.setenv("GRAPHGUARD_ON_MISMATCH", "eager")
    monkeypatch.setenv("GRAPHGUARD_PADDED", "avoid")

    assert read_options().on_mismatch is OnMismatch.EAGER
    assert read_options().padded is Padded.AVOID
