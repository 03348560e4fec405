"""What each file of an evidence bundle is, and the README that says so."""

from __future__ import annotations

import re

FORMAT = 1
INDEX = "index.json"
VERDICT = "verdict.json"
STATES = "states.json"
README = "README.txt"
AFTERWARDS = "afterwards.jsonl"
LOG_TAIL = "log-tail.txt"
LEDGERS = "ledger.json"
STACKS = "stacks"

_BUNDLE = re.compile(r"stall-\d{8}T\d{6}Z-[A-Za-z0-9._-]+", re.ASCII)

_README = """\
Evidence of a stall, collected by graphguard {version} on {host} at {made}.

Read it with
    graphguard diagnose --bundle {path}
    graphguard diagnose LOG --bundle {path}     with the log of the engine
    graphguard blackbox {path}/rings            what each rank did last, step by step
    graphguard audit {path}/manifests           what each rank captured

index.json        every file, what could not be collected and why, and how long each part took
verdict.json      what graphguard says of the stall, with its evidence, and what is not known
states.json       each rank as it was looked at: its process, what is in flight, its last steps
rings/            copies of the black boxes of these ranks
ledger.json       how far each rank of a group came, and its last launches
ledgers/          copies of the ledgers, which ledger.json is read from
manifests/        what each rank captured
breadcrumbs/      how far the replays in flight got, where GRAPHGUARD_BREADCRUMBS is on
stacks/           of each process: PID.txt to read, PID.json the same, PID.native.txt with C frames
processes.json    what ps would say, what each thread waits in, the call into the kernel
gpus.json         NVML: utilisation, memory, clocks, errors, the processes on each GPU
nccl-ras.json     what NCCL's RAS says of its communicators. Captured collectives are not in it
environment.json  versions, variables that matter, limits, kernel, shared memory
log-tail.txt      the last lines of the log
afterwards.jsonl  what became of it, one line for each thing

Not every file is there: index.json says which are not, and why.
Values of variables that may be secret, texts and token ids are left out. Names of graphs and
notes that the program gave itself stand in the rings as they are. Look before you publish it.
"""


def is_bundle_name(name: str) -> bool:
    """Return whether a directory of this name is an evidence bundle."""
    return _BUNDLE.fullmatch(name) is not None


def readme(version: str, host: str, made: str, path: str) -> str:
    """Return the text of the README of a bundle."""
    return _README.format(version=version, host=host, made=made, path=path)
