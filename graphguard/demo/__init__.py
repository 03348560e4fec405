"""The demo: a hang that really happens, the same steps guarded, an audit, and two runs that end.

``telling`` starts the ranks, ``worker`` is one of them, ``story`` is what was seen.
"""
