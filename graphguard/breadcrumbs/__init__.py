"""Breadcrumbs: marks inside captured graphs that say how far a replay has got.

They are asked for with ``GRAPHGUARD_BREADCRUMBS=1``. Nothing here fails a capture or a launch: what
cannot be marked is said once, and goes on without.
"""
