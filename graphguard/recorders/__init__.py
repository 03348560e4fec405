"""Recorders: who tells a signature what a capture held."""
