"""Stalls: what a process is doing, the watchdog that looks at it, and the evidence it keeps."""
