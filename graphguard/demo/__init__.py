"""The demo: a hang that really happens, the same steps guarded, and an audit."""
