"""The black box: a memory-mapped ring of what a process did, readable after it is gone.

``writer`` opens the ring of this process; ``reading``, ``choosing``, ``merge`` and ``following``
read those of a job. The format is ``csrc/core/ring.h``.
"""
