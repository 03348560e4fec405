"""What the ranks of the demo serve, part by part. Known to the ranks and to whoever starts them."""

from __future__ import annotations

from graphguard.batch import BatchDescriptor

PARTS = ("unguarded", "guarded", "diverging", "killed")

ROLES = ("target", "drafter")
"""Every step is one launch of each, in this order."""

ODD_RANK = 1
"""The rank that does something else than the others, or is killed."""

CAPTURED = tuple(BatchDescriptor.of(num_reqs, 2) for num_reqs in (1, 2, 4, 8, 16))

STEPS = tuple(map(BatchDescriptor.parse, ("16x2", "16x2", "15x2", "15x1")))
"""The steps that hang without a guard."""

MOVED = BatchDescriptor.parse("16x2")
"""Served after them with a guard, when a static tensor of one rank has moved."""

DECODES = tuple(map(BatchDescriptor.parse, ("16x2", "16x2", "15x2", "15x2")))
"""The steps in which a rank diverges, or is killed, in the last but one."""
