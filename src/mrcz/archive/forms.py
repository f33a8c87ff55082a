"""In which form a file is stored: judged by its first bytes, its header and its size, before any pixel is read."""

from __future__ import annotations

import contextlib
import os
import warnings
from dataclasses import dataclass, field
from typing import Any

from mrcz.archive.jobs import error_text
from mrcz.archive.task import Options
from mrcz.convert.pieces import can_be_pieces
from mrcz.errors import FormatError, FormatWarning, MrczError
from mrcz.file.calls import open as open_any
from mrcz.file.foreign import ForeignReader
from mrcz.file.reader import Reader

__all__ = ["Choice", "choose", "kind_of"]

#: Formats that hold their pixels smaller than frames of them would be: they are copied, and never rendered.
EVENTS = ("eer",)


@dataclass(frozen=True)
class Choice:
    """What a file is, and whether it is compressed.

    Attributes
    ----------
    format : str
        ``"mrc"``, ``"mrcz"``, a name of `mrcz.formats`, or ``""``.
    packs : bool
        Compressing it is worth trying.
    floats : bool
        Its pixels are floats, which may be counts.
    pixels : (int, int) or None
        Where in the file its pixels stand as `mrcz.read` gives them, little-endian.
    camera : str
    described : mapping
        Fields of the record of a file that is copied.
    notes : tuple of str
    """

    format: str = ""
    packs: bool = False
    floats: bool = False
    pixels: tuple[int, int] | None = None
    camera: str = ""
    described: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def choose(path: str, options: Options, named: bool = True) -> Choice:
    """What a file is and how it is stored; what cannot be read is copied, never refused.

    Parameters
    ----------
    path : str
    options : Options
    named : bool
        There is room for the name of a compressed file.

    Raises
    ------
    OSError
        It cannot be opened at all.
    """
    if os.path.getsize(path) == 0:
        return Choice()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FormatWarning)
            with open_any(path, n_threads=options.n_threads) as reader:
                return _of(path, reader, options, named)
    except (MrczError, ValueError, TypeError, OverflowError, ImportError, MemoryError) as error:
        return Choice(notes=_told(path, error))


def _of(path: str, reader: Reader, options: Options, named: bool) -> Choice:
    kind = kind_of(reader)
    camera = _camera(reader)
    described = {
        "frames": len(reader),
        "shape": tuple(int(n) for n in reader.shape),
        "dtype": reader.dtype.name,
        "camera": camera,
    }
    packs = named and options.to != "copy"
    if isinstance(reader, ForeignReader):
        if options.to != "mrcz":  # the very file has to come back
            packs = packs and kind not in EVENTS and can_be_pieces(path) is None
        return Choice(kind, packs, False, None, camera, described)
    if reader.is_compressed or reader.wrapper is not None:
        return Choice(kind, False, False, None, camera, described)
    floats = reader.dtype.kind == "f" and reader.dtype.itemsize == 4 and len(reader.shape) == 3
    return Choice(kind, packs, floats, _where(reader), camera, described)


def kind_of(reader: Reader) -> str:
    """What a file is, as `Record.format` has it."""
    if isinstance(reader, ForeignReader):
        return reader.format
    return "mrcz" if reader.is_compressed else "mrc"


def _where(reader: Reader) -> tuple[int, int] | None:
    """Where the pixels of a plain file stand, if they are what `mrcz.read` gives, little-endian."""
    kept = reader.pixel_format
    if kept.packed or kept.stored != reader.dtype or kept.byteorder == ">":
        return None
    start = reader.header.data_offset
    return start, start + reader.nbytes


def _camera(reader: Reader) -> str:
    with contextlib.suppress(Exception):  # what lies beside a file is not worth more than the file
        found = reader.acquisition.values.get("camera")
        return "" if found is None else str(found)
    return ""


def _told(path: str, error: Exception) -> tuple[str, ...]:
    """A note for what looks like a movie and does not open; other files are nobody's business."""
    if isinstance(error, FormatError) and path.lower().endswith((".mrc", ".mrcs", ".mrcz", ".st", ".rec", ".map")):
        return (f"kept as it is: {error_text(error, path)}",)
    return ()
