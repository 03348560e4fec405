"""The proof on a GPU as stages: ``python -m tests.gpu.suite``, or ``make gpu``.

Each stage is a program in a process group of its own with a time limit. It prints what it measured
and what it saw as lines; the runner collects them, goes on past a stage that fails, and writes one
JSON file and one table. See docs/gpu-results.md. No stage has been run on a GPU yet.
"""
