"""Layouts of C structures, from the debug information (DWARF) of a library or program."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from elftools.elf.elffile import ELFFile

_TRANSPARENT = {"DW_TAG_typedef", "DW_TAG_const_type", "DW_TAG_volatile_type"}
_AGGREGATES = {"DW_TAG_structure_type", "DW_TAG_union_type"}
_POINTER_BYTES = 8


class Place(NamedTuple):
    """Where a field lies in its structure, in bytes."""

    offset: int
    size: int


class Layout(NamedTuple):
    """The size of a structure, and its fields; those of unnamed members under their own names."""

    size: int
    fields: dict[str, Place]


class DebugInformation:
    """The types of one unit of compilation: the first whose source file's name ends with ``unit``.

    Args:
        path: The library or program.
        unit: How the source file's name ends.

    Raises:
        LookupError: If there is no debug information of such a file.
    """

    def __init__(self, path: Path, unit: str) -> None:
        with path.open("rb") as file:
            elf = ELFFile(file)
            constants = elf.get_section_by_name(".rodata")
            if constants is None or not elf.has_dwarf_info():
                raise LookupError(f"{path} has no debug information")
            self.constants = constants.data()
            self._types = dict(_types(elf.get_dwarf_info(), unit))
        if not self._types:
            raise LookupError(f"{path} has no debug information of a file {unit}")

    def layout(self, name: str) -> Layout | None:
        """Return the layout of a structure, or None if there is none of that name."""
        found = self._types.get(name)
        return found if isinstance(found, Layout) else None

    def enumerators(self, name: str) -> dict[str, int] | None:
        """Return the names and values of an enumeration, or None if there is none."""
        found = self._types.get(name)
        return found if isinstance(found, dict) else None

    def has_text(self, text: str) -> bool:
        """Return whether the text is among the constants."""
        return f"\0{text}\0".encode() in self.constants


def _types(dwarf: Any, unit: str) -> Iterator[tuple[str, Layout | dict[str, int]]]:
    for compiled in dwarf.iter_CUs():
        top = compiled.get_top_DIE()
        if not _name(top).endswith(unit):
            continue
        for entry in _entries(top):
            resolved = _resolve(entry)
            if not _name(entry) or "DW_AT_byte_size" not in resolved.attributes:
                continue
            if resolved.tag in _AGGREGATES:
                yield _name(entry), Layout(_size(resolved), dict(_fields(resolved)))
            elif resolved.tag == "DW_TAG_enumeration_type":
                values = {
                    _name(one): one.attributes["DW_AT_const_value"].value
                    for one in resolved.iter_children()
                }
                yield _name(entry), values
        return


def _entries(top: Any) -> Iterator[Any]:
    for entry in top.iter_children():
        if entry.tag == "DW_TAG_namespace":
            yield from _entries(entry)
        elif entry.tag in _AGGREGATES or (
            entry.tag in _TRANSPARENT and _name(entry).startswith("nccl")
        ):
            yield entry


def _fields(structure: Any, base: int = 0, prefix: str = "") -> Iterator[tuple[str, Place]]:
    for member in structure.iter_children():
        if member.tag != "DW_TAG_member" or "DW_AT_external" in member.attributes:
            continue
        place = member.attributes.get("DW_AT_data_member_location")
        offset = base + (place.value if place is not None else 0)
        resolved = _resolve(member.get_DIE_from_attribute("DW_AT_type"))
        name = prefix + _name(member)
        if resolved.tag in _AGGREGATES:
            yield from _fields(resolved, offset, f"{name}." if _name(member) else prefix)
        elif resolved.tag != "DW_TAG_array_type":
            yield name, Place(offset, _size(resolved))


def _resolve(entry: Any) -> Any:
    while entry.tag in _TRANSPARENT and "DW_AT_type" in entry.attributes:
        entry = entry.get_DIE_from_attribute("DW_AT_type")
    return entry


def _size(entry: Any) -> int:
    size = entry.attributes.get("DW_AT_byte_size")
    return _POINTER_BYTES if size is None else int(size.value)


def _name(entry: Any) -> str:
    name = entry.attributes.get("DW_AT_name")
    return "" if name is None else name.value.decode()
