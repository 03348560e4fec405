"""The load of the reports that graphguard began with: sglang's own client against ``vllm serve``.

Of sglang's wheel only the file of the client is used. It imports nothing else of sglang.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

from tests.vllm.wheels import UNPACKED

VERSION = "0.5.3"
"""The last releases have spread the client over many files that need all of sglang."""

_MEMBER = "sglang/bench_serving.py"
_NO_EMPTY_ANSWERS = (
    "import numpy, runpy, sys\n"
    # With a range ratio of 0.0 this version asks for answers of no token, which vLLM refuses.
    "draw = numpy.random.randint\n"
    "numpy.random.randint = lambda low, *rest, **named: draw(max(low, 1), *rest, **named)\n"
    "runpy.run_path(sys.argv.pop(1), run_name='__main__')\n"
)


def client() -> Path:
    """Return the client's file, taken out of sglang's wheel.

    Raises:
        subprocess.CalledProcessError: If the package index does not give the wheel.
    """
    folder = UNPACKED / f"sglang-{VERSION}"
    if not (folder / _MEMBER).is_file():
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        subprocess.run([*command, f"--dest={folder}", f"sglang=={VERSION}"], check=True)
        wheel = next(folder.glob("sglang-*.whl"))
        with zipfile.ZipFile(wheel) as files:
            files.extract(_MEMBER, folder)
    return folder / _MEMBER


def bench(
    address: str,
    model: str,
    tokenizer: Path,
    *,
    num_prompts: int,
    range_ratio: float,
    results: Path,
    seconds: float,
) -> dict[str, Any]:
    """Send requests of random tokens and return what the client says of them.

    Args:
        address: Of the server.
        model: Its name there.
        tokenizer: The folder of the model, with its tokenizer.
        num_prompts: How many requests, all at once.
        range_ratio: 1.0 for prompts and answers of one length, 0.0 for any up to it.
        results: Where the client writes.
        seconds: How long it may take.

    Raises:
        subprocess.CalledProcessError: If the client fails.
        subprocess.TimeoutExpired: If it takes longer.
    """
    subprocess.run(
        [
            *(sys.executable, "-c", _NO_EMPTY_ANSWERS, str(client())),
            *("--backend", "vllm", "--base-url", address, "--model", model),
            *("--tokenizer", str(tokenizer), "--dataset-name", "random-ids"),
            *("--random-input-len", "24", "--random-output-len", "12"),
            *("--random-range-ratio", str(range_ratio), "--num-prompts", str(num_prompts)),
            *("--output-file", str(results), "--disable-tqdm", "--warmup-requests", "1"),
        ],
        check=True,
        timeout=seconds,
        stdout=subprocess.DEVNULL,
        # It would look for the model's name on a hub.
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    # The client writes an infinite rate as Infinity, which is no JSON to others than Python.
    told: dict[str, Any] = json.loads(results.read_text().splitlines()[-1])
    return told
