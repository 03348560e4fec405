"""A stall as several nodes see it."""
