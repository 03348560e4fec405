"""The figures of a benchmark run, and a line of the table that they go to."""

from __future__ import annotations

from typing import Any, NamedTuple


class Row(NamedTuple):
    """One line of the table; ``met`` is None where there is no target."""

    what: str
    figure: str
    baseline: str
    ratio: str
    target: str
    met: bool | None

    def markdown(self) -> str:
        """Return the row as Markdown."""
        met = {True: "yes", False: "**no**", None: ""}[self.met]
        cells = (self.what, self.figure, self.baseline, self.ratio, self.target, met)
        return "| " + " | ".join(cells) + " |"


class Run:
    """A run of the benchmarks, as pytest-benchmark writes it."""

    def __init__(self, content: dict[str, Any]) -> None:
        self._content = content
        self._by_name = {entry["name"]: entry for entry in content["benchmarks"]}

    def median(self, name: str) -> float:
        """Return the median of a benchmark in seconds."""
        return float(self._by_name[name]["stats"]["median"])

    def details(self, name: str) -> dict[str, Any]:
        """Return what a benchmark measured itself."""
        details: dict[str, Any] = self._by_name[name]["extra_info"]
        return details

    def machine(self) -> str:
        """Name the machine and the versions."""
        info = self._content["machine_info"]
        cpu = info["cpu"]
        return (
            f"{cpu.get('brand_raw', 'unknown processor')}, {cpu.get('count', '?')} cores, "
            f"{info['system']} {info['release']}, {info['python_implementation']} "
            f"{info['python_version']}, no GPU; {self._content['datetime'][:10]}"
        )
