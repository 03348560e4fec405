"""The command ``graphguard diagnose``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from graphguard.audit.logs.bundle import read_bundle
from graphguard.audit.logs.reading import read_log
from graphguard.errors import CommandError
from graphguard.reporters import diagnosis as text
from graphguard.reporters import diagnosis_json as json
from graphguard.reporters import stall_bundle as stall_text


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
            nargs="*",
            type=Path,
            metavar="LOG",
            help="a log of any size; /dev/stdin for what is piped in. With the evidence of a stall "
            "there need be none",
        )
        parser.add_argument(
            "--bundle",
            type=Path,
            metavar="DIR",
            help="a directory with manifests and black boxes of the same run, which tell what each "
            "rank captured and launched, or the evidence that graphguard collected of a stall",
        )
        parser.add_argument("--json", action="store_true", help="print JSON, with all evidence")

    def run(self, args: argparse.Namespace) -> int:
        """Print what the logs say; 1 if there is trouble in any of them."""
        bundle = read_bundle(args.bundle) if args.bundle else None
        stall = bundle.stall if bundle is not None else None
        logs = args.logs or ([stall.log] if stall is not None and stall.log is not None else [])
        if not logs and stall is None:
            raise CommandError(
                "no log was named", hint="name a log, or the evidence of a stall with --bundle"
            )
        diagnoses = [read_log(path, bundle) for path in logs]
        if args.json:
            sys.stdout.write(json.render(diagnoses, stall))
        else:
            if stall is not None:
                sys.stdout.write(stall_text.render(stall) + ("\n" if diagnoses else ""))
            sys.stdout.write(text.render(diagnoses))
        found = stall is not None or any(diagnosis.trouble for diagnosis in diagnoses)
        return 1 if found else 0
