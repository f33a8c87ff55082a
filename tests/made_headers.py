"""Headers made and edited, and every real file that the inventory of the collection describes."""

import bz2
import gzip
import re
from pathlib import Path

import numpy as np

from mrcz.container.header.header import HEADER_DTYPE, HEADER_NBYTES, Header
from mrcz.container.modes import format_of_mode


def field_offset(name: str) -> int:
    return (HEADER_DTYPE.fields or {})[name][1]


def edited(header: Header | bytes, **values: object) -> bytes:
    """The bytes of a header with some fields changed, whatever they then say."""
    raw = header if isinstance(header, bytes) else header.tobytes()
    order = "<" if isinstance(header, bytes) else header.byteorder
    record = np.frombuffer(bytearray(raw[:HEADER_NBYTES]), HEADER_DTYPE.newbyteorder(order))
    for name, value in values.items():
        record[name] = value
    return record.tobytes()


def plain(mode: int = 2, shape=(4, 6, 8), **kwargs) -> Header:
    return Header.build(shape, format_of_mode(mode, byteorder=kwargs.get("byteorder", "<")), **kwargs)


_ENTRY = re.compile(
    r"^- \*\*(?P<name>.+?)\*\* \(.*?MRC mode (?P<mode>-?\d+), (?P<nx>\d+)x(?P<ny>\d+)x(?P<nz>\d+)"
    r".*?stamp (?P<stamp>\w+), MAP=(?P<map>\w+)"
    r", nsymbt (?P<nsymbt>\d+) (?:no exttyp|exttyp (?P<exttyp>.{1,4})), ispg (?P<ispg>-?\d+)"
    r", nversion (?P<nversion>-?\d+), axes \[(?P<axes>[^]]*)\]\. mrcfile: (?P<verdict>.*)$"
)


def inventory(data_dir: Path) -> list[tuple[Path, dict[str, str]]]:
    """Every file that the inventory describes as MRC, with what it says."""
    files = []
    folder = data_dir
    for line in (data_dir / "INVENTORY.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            folder = data_dir / line[3:].split("  ")[0].strip()
        elif found := _ENTRY.match(line):
            files.append((folder / found["name"], found.groupdict()))
    return files


def contents(path: Path) -> bytes:
    raw = path.read_bytes()
    return {".gz": gzip.decompress, ".bz2": bz2.decompress}.get(path.suffix, bytes)(raw)
