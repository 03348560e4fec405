"""The evidence of a stall: what is kept of it, and what must not be."""
