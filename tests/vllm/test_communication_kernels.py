"""The table of communication kernels against the kernels in vLLM's own wheel for CUDA."""

from __future__ import annotations

import re
import zipfile

from graphguard.communication import families
from tests.vllm import wheels

VERSION = "0.33.0"
LIBRARY = "vllm/_C_stable_libtorch.abi3.so"


def mangled(name: str) -> bytes:
    """Return a pattern of how a name of the table begins when it is mangled."""
    parts = (
        r"\d+" + part.replace("*", r"\w*") if "*" in part else f"{len(part)}{part}"
        for part in name.split("::")
    )
    return "".join(parts).encode()


def test_every_kernel_of_vllm_in_the_table_is_in_its_wheel() -> None:
    with zipfile.ZipFile(wheels.wheel(VERSION)) as archive:
        library = archive.read(LIBRARY)
    names = [
        name
        for family in families()
        if family.family.startswith("vLLM")
        for kernels in family.kernels
        for name in kernels.names
    ]
    assert len(names) > 10
    assert [name for name in names if re.search(mangled(name), library) is None] == []
