"""What every unit test may use."""

import pytest


@pytest.fixture(autouse=True)
def _ranks_are_not_ended(monkeypatch: pytest.MonkeyPatch, _no_settings_from_outside: None) -> None:
    # Ranks are threads of this process here. What is left of a rank that was refused may live on,
    # with its watcher, until garbage is collected, and it must not end the tests.
    monkeypatch.setenv("GRAPHGUARD_WHEN_STUCK", "report")
