"""The command ``graphguard diagnose``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from graphguard.audit.logs.bundle import read_bundle
from graphguard.audit.logs.reading import read_log
from graphguard.reporters import diagnosis as text
from graphguard.reporters import diagnosis_json as json


class DiagnoseCommand:
    """Read the logs of engines that hung or died, whether graphguard was installed or not.

    Logs of vLLM, SGLang, TensorRT-LLM and PyTorch's NCCL watchdog, as they are or as docker,
    Kubernetes, Ray or a JSON formatter wrapped them. It says what the lines support and what they
    exclude, and names the lines; what no line says it does not say.
    """

    def prepare_parser(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments of the command."""
        parser.add_argument(
            "logs",
            nargs="+",
            type=Path,
            metavar="LOG",
            help="a log of any size; /dev/stdin for what is piped in",
        )
        parser.add_argument(
            "--bundle",
            type=Path,
            metavar="DIR",
            help="a directory with manifests and black boxes of the same run: they tell what each "
            "rank captured and launched",
        )
        parser.add_argument("--json", action="store_true", help="print JSON, with all evidence")

    def run(self, args: argparse.Namespace) -> int:
        """Print what the logs say; 1 if there is trouble in any of them."""
        bundle = read_bundle(args.bundle) if args.bundle else None
        diagnoses = [read_log(path, bundle) for path in args.logs]
        render = json.render if args.json else text.render
        sys.stdout.write(render(diagnoses))
        return 1 if any(diagnosis.trouble for diagnosis in diagnoses) else 0
