"""Ranks agree: on what they captured, over the store of their group."""
