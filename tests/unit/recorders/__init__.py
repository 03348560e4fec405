import pytest

# They hold tests that other modules import and run.
for _name in ("spine_behaviour", "spine_launches", "spine_fixtures"):
    pytest.register_assert_rewrite(f"tests.unit.recorders.{_name}")
