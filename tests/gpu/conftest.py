"""The GPU suite: one call, `make gpu`. Without a CUDA device every test says why it is skipped."""

from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    no_cuda = pytest.mark.skip(reason="no CUDA device: run `make gpu` on a machine with one")
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.gpu)
            # CUDA libraries warn about much that is not ours to mend.
            item.add_marker(pytest.mark.filterwarnings("default"))
            if not torch.cuda.is_available():
                item.add_marker(no_cuda)
