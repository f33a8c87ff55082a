"""Which foreign formats there are, and which of them a file is. Nothing is imported for it but names and bytes."""

from __future__ import annotations

import functools
import importlib
import os
from typing import Any

from mrcz.errors import FormatError, MissingDependencyError
from mrcz.formats.base import Bytes, Format, FormatOptions, Frames

__all__ = [
    "BUILT_IN",
    "by_name",
    "by_suffix",
    "candidates",
    "find_format",
    "formats",
    "is_installed",
    "open_frames",
    "write_frames",
]

_HEAD = 64  # bytes of a file that tell its format
# At the begin, or after a user block of 512 bytes, 1024, 2048 and so on: the next power of two until it is found.
_HDF5 = tuple((at, b"\x89HDF\r\n\x1a\n") for at in (0, *(1 << k for k in range(9, 27))))
_TIFF = tuple((0, magic) for magic in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"))

#: Ours, in the order in which they are tried.
BUILT_IN: tuple[Format, ...] = (
    Format(
        "dm",
        "DigitalMicrograph (DM3, DM4)",
        (".dm3", ".dm4"),
        "mrcz.formats.dm",
        ((0, b"\0\0\0\3"), (0, b"\0\0\0\4")),
        decides=True,
    ),
    # A BigTIFF, or a TIFF, whose frames are compressed in a way that only EER has: before TIFF, which would take it.
    Format("eer", "EER (electron events)", (".eer",), "mrcz.formats.eer", _TIFF, decides=True),
    Format(
        "hdf5",
        "HDF5",
        (".h5", ".hdf5", ".hdf", ".emd", ".nxs", ".hspy"),
        "mrcz.formats.hdf5",
        _HDF5,
        writes=True,
        extra="hdf5",
        needs=("h5py", "hdf5plugin"),
        licence="BSD-3-Clause, MIT",
    ),
    Format("mib", "Merlin mib", (".mib",), "mrcz.formats.mib", ((0, b"MQ1,"),)),
    Format("npy", "NumPy", (".npy",), "mrcz.formats.npy", ((0, b"\x93NUMPY"),), writes=True),
    Format(
        "seq", "Norpix seq", (".seq",), "mrcz.formats.seq", ((0, b"\xed\xfe\0\0" + "Norpix seq".encode("utf-16-le")),)
    ),
    Format("ser", "TIA ser", (".ser", ".emi"), "mrcz.formats.ser", ((0, b"II\x97\1"), (0, b"JK\0\2"))),
    Format(
        "tiff",
        "TIFF",
        (".tif", ".tiff"),
        "mrcz.formats.tiff",
        _TIFF,
        writes=True,
        extra="tiff",
        needs=("tifffile", "imagecodecs"),
        licence="BSD-3-Clause",
    ),
    Format(
        "zarr",
        "Zarr",
        (".zarr", ".zarr.zip"),
        "mrcz.formats.zarr",
        ((0, b"PK\x03\x04"),),
        writes=True,
        decides=True,
        directory=("zarr.json", ".zarray", ".zgroup"),
        extra="zarr",
        needs=("zarr",),
        licence="MIT",
    ),
)


@functools.cache
def formats() -> tuple[Format, ...]:
    """All formats: ours, and those that other packages add through the entry point group ``mrcz.formats``.

    An entry point is a `Format`, or a function that returns one. One with the name of ours takes its place.
    """
    from importlib.metadata import entry_points

    found = {known.name: known for known in BUILT_IN}
    for entry in entry_points(group="mrcz.formats"):
        value = entry.load()
        made = value if isinstance(value, Format) else value()
        if not isinstance(made, Format):
            raise TypeError(f"the entry point {entry.name} of mrcz.formats is {type(made).__name__}, expected a Format")
        found[made.name] = made
    return tuple(found.values())


def by_name(name: str) -> Format:
    """The format called so.

    Raises
    ------
    ValueError
        There is none.
    """
    for known in formats():
        if known.name == name:
            return known
    raise ValueError(f"there is no format {name!r}; there are {', '.join(known.name for known in formats())}")


def by_suffix(path: str | os.PathLike[str]) -> Format | None:
    """The format that a new file of this name would have, by its suffix; None if no format that is written has it."""
    suffix = os.path.splitext(os.fspath(path))[1].lower()
    return next((known for known in formats() if known.writes and suffix in known.suffixes), None)


def is_installed(known: Format) -> bool:
    """Whether the packages that a format needs are there; nothing is imported for it."""
    from importlib.util import find_spec

    return all(find_spec(name) is not None for name in known.needs)


def find_format(source: Bytes) -> Format | None:
    """Which format the first bytes of a file say that it is, or the names within a folder; None for any other."""
    if os.path.isdir(source.name):
        inside = set(os.listdir(source.name))
        return next((known for known in formats() if inside & set(known.directory)), None)
    for known in candidates(source.read(0, _HEAD)):
        if not known.decides or _module(known).matches(source):
            return known
    for known in formats():  # what stands further behind is looked at only where nothing else is known
        for at, magic in known.magic:
            if at + len(magic) > _HEAD and at + len(magic) <= source.size and source.read(at, len(magic)) == magic:
                if not known.decides or _module(known).matches(source):
                    return known
    return None


def candidates(head: bytes) -> list[Format]:
    """The formats whose magic bytes a file begins with; of one that `decides` its module has the last word."""
    return [k for k in formats() if any(head[at : at + len(magic)] == magic for at, magic in k.magic)]


def open_frames(known: Format, source: Bytes, options: FormatOptions) -> Frames:
    """Open a file of a format.

    Raises
    ------
    FormatError
        It is damaged, or holds no frames.
    MissingDependencyError
        What reads it is not installed.
    """
    if not known.reads:
        raise FormatError(f"{known.title} files are written, not read", path=source.name)
    try:
        frames: Frames = _module(known).open_frames(source, options)
    except MissingDependencyError as error:
        error.path = source.name
        raise
    return frames


def write_frames(known: Format, path: str | os.PathLike[str], frames: Any, **options: Any) -> None:
    """Write frames as a file of a format, or a folder where its files are folders, in place and under this very name:
    to make it whole or absent is the caller's.

    Parameters
    ----------
    known : Format
    path : path
    frames : Reader or the like
        Has shape (nz, ny, nx), dtype, pixel_size in Å, metadata, and ``read(k)``.
    **options
        ``compression``, ``n_threads`` and ``progress``, as the format's module takes them.

    Raises
    ------
    ValueError
        The format is not written, holds no such frames, or has no such compression.
    MissingDependencyError
        What writes it is not installed.
    """
    if not known.writes:
        written = ", ".join(each.name for each in formats() if each.writes)
        raise ValueError(f"{known.title} files are read, not written; written are {written}")
    _module(known).write_frames(path, frames, **options)


def _module(known: Format) -> Any:
    try:
        return importlib.import_module(known.module)
    except ModuleNotFoundError as error:
        if known.extra is None or (error.name or "").startswith("mrcz"):
            raise
        raise MissingDependencyError(
            f"{known.title} files need the package {error.name}: pip install 'mrcz[{known.extra}]'"
        ) from error
