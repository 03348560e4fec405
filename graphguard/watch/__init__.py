"""Watching a job: what its processes do now, stalls, and the evidence of a stall."""
