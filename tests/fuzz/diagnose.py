"""An atheris target: no log makes ``graphguard diagnose`` raise.

Run as ``python -m tests.fuzz.diagnose -max_total_time=60 -max_len=20000 NEW tests/data/logs`` where
atheris is installed; what is new goes into the folder NEW. It is no dependency of the tests, which
have hypothesis for the same.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any


def main() -> None:
    """Fuzz until the time that libFuzzer is told is up."""
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["graphguard.audit.logs"]):
        from graphguard.audit.logs import read_bytes
    from graphguard.reporters import diagnosis, diagnosis_json

    def target(content: bytes) -> None:
        found = [read_bytes(content)]
        diagnosis_json.render(found)
        diagnosis.render(found)

    atheris.Setup(sys.argv, target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
