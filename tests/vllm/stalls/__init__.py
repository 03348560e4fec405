"""Stalls of a real engine on the CPU: what graphguard says of them, and when, beside vLLM alone."""
