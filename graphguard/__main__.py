"""``python -m graphguard``."""

from __future__ import annotations

import sys

from graphguard.commands import main

if __name__ == "__main__":
    sys.exit(main())
