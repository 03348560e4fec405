"""Build graphguard: setuptools for the Python half, CMake for the native half.

Everything that can be said in ``pyproject.toml`` is said there. What is left is the wheel's tag:
nanobind builds against CPython's stable ABI from 3.12 on, so one wheel serves 3.12 and newer.
"""

import sys

from setuptools import setup

STABLE_ABI_SINCE = (3, 12)

options = {}
if sys.version_info >= STABLE_ABI_SINCE:
    options["bdist_wheel"] = {"py_limited_api": "cp312"}

setup(cmake_source_dir=".", options=options)
