"""The examples and the README's code run, and show what they say they show."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*command: str, folder: Path) -> str:
    result = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=180,
        env={**os.environ, "GLOO_SOCKET_IFNAME": "lo", "TMPDIR": str(folder)},
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


def test_the_decorator_example_shows_a_verdict_for_each_step(tmp_path: Path) -> None:
    lines = run("examples/decorator.py", folder=tmp_path).splitlines()

    assert [line.rsplit(" ", 4)[0].split(maxsplit=1)[1].strip() for line in lines] == [
        "replay (exact)",
        "pad (padded)",
        "eager (query_length)",
        "eager (wrong_phase)",
        "eager (not_uniform)",
    ]
    assert all(line.endswith("equal to eager: True") for line in lines)


def test_the_torch_distributed_example_replays_and_audits(tmp_path: Path) -> None:
    output = run(
        *("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
        "examples/torch_distributed.py",
        folder=tmp_path,
    )

    # Ranks hold 1 and 2, doubled and summed.
    assert "16x2: replay (exact), the sum over ranks is 6" in output
    assert "7x2: pad (padded), the sum over ranks is 6" in output
    assert "7x1: eager (query_length), the sum over ranks is 6" in output
    assert "0 findings on 2 ranks" in output


def test_the_agreeing_ranks_example_votes_and_refuses(tmp_path: Path) -> None:
    output = run(
        *("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
        "examples/agreeing_ranks.py",
        folder=tmp_path,
    )

    for rank in (0, 1):
        assert f"rank {rank}: 15x2 is pad (padded)" in output
    assert "rank 0: 8x2 is eager (input_address)" in output
    assert "rank 1: 8x2 is eager (adopted)" in output
    # One of them may learn of the refusal from the other. Two processes write to one pipe: their
    # lines may run into each other.
    assert output.count("step 3 of 0[0-1]") == 2
    assert output.count("rank 0: eager run of target/full 16x2") == 2
    assert output.count("rank 1: replay of target/full 4x2") == 2


def readme_code() -> list[str]:
    blocks = (ROOT / "README.md").read_text().split("```python\n")[1:]
    return [block.partition("```")[0] for block in blocks]


@pytest.mark.parametrize("number", range(len(readme_code())))
def test_the_code_of_the_readme_runs(number: int, tmp_path: Path) -> None:
    script = tmp_path / "readme.py"
    script.write_text(readme_code()[number])

    assert run(str(script), folder=tmp_path) is not None


def test_the_readme_has_code() -> None:
    assert readme_code()
