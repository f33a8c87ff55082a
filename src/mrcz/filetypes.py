"""What kind of file: by the suffix of its name, and by its first bytes. The only tables of either."""

from __future__ import annotations

import os
from typing import NamedTuple

__all__ = [
    "FOREIGN_SUFFIXES",
    "MRCZ_SUFFIX",
    "MRC_SUFFIXES",
    "WRAPPERS",
    "WRAPPER_SUFFIXES",
    "Wrapper",
    "identify",
    "plain_name",
    "wrapper_of",
]

#: Suffixes of plain MRC files. From a directory these are taken; a file named itself may be called anything.
MRC_SUFFIXES = (".mrc", ".mrcs", ".map", ".ccp4", ".st", ".rec", ".ali", ".preali", ".msk")

#: The suffix of a compressed one.
MRCZ_SUFFIX = ".mrcz"


class Wrapper(NamedTuple):
    """A format that a whole file is packed in."""

    name: str
    suffix: str
    magic: bytes


#: RFC 1952 §2.3.1 (with the only method there is), bzip2, the xz file format §2.1.1, RFC 8878 §3.1.1.
WRAPPERS = (
    Wrapper("gzip", ".gz", b"\x1f\x8b\x08"),
    Wrapper("bzip2", ".bz2", b"BZh"),
    Wrapper("xz", ".xz", b"\xfd7zXZ\x00"),
    Wrapper("zstd", ".zst", b"\x28\xb5\x2f\xfd"),
)

_WRAPPER_MAGIC = tuple(wrapper.magic for wrapper in WRAPPERS)

#: Their suffixes: a name decides nothing, the first bytes of the file do (`wrapper_of`).
WRAPPER_SUFFIXES = tuple(wrapper.suffix for wrapper in WRAPPERS)

#: What every other program would take a file for, by its suffix.
FOREIGN_SUFFIXES = {
    **dict.fromkeys((".tif", ".tiff", ".gain"), "TIFF"),
    **dict.fromkeys((".h5", ".hdf5", ".hdf", ".nxs", ".emd", ".hspy"), "HDF5"),
    **dict.fromkeys((".npy", ".npz"), "NumPy"),
    **dict.fromkeys((".png", ".jpg", ".jpeg"), "picture"),
    **dict.fromkeys((".dm3", ".dm4"), "DigitalMicrograph"),
    **dict.fromkeys((".zip", ".tar", ".tgz", ".7z"), "archive"),
    ".eer": "EER",
    ".mib": "Merlin mib",
    ".seq": "Norpix seq",
    **dict.fromkeys((".ser", ".emi"), "TIA ser"),
    ".zarr": "Zarr",
}

_FOREIGN_MAGIC = {
    b"II*\x00": "a TIFF file",
    b"MM\x00*": "a TIFF file",
    b"II+\x00": "a TIFF file",
    b"\x89HDF\r\n": "an HDF5 file",
    b"\x00\x00\x00\x03\x00": "a DigitalMicrograph (DM3) file",
    b"\x00\x00\x00\x04\x00": "a DigitalMicrograph (DM4) file",
    b"PK\x03\x04": "a zip archive",
    b"version https://git-lfs": "a Git LFS pointer, not the file itself",
}


def wrapper_of(head: bytes) -> str | None:
    """Name the wrapper a file is in.

    Parameters
    ----------
    head : bytes
        The first bytes of the file; six are enough.

    Returns
    -------
    str or None
        ``"gzip"``, ``"bzip2"``, ``"xz"``, ``"zstd"``, or None for anything else.
    """
    if not head.startswith(_WRAPPER_MAGIC):
        return None
    return next(wrapper.name for wrapper in WRAPPERS if head.startswith(wrapper.magic))


def identify(head: bytes) -> str | None:
    """What a file is that is not MRC, in words, by its first bytes (1024 if there are so many); None if not known."""
    if (wrapper := wrapper_of(head)) is not None:
        return f"{'an' if wrapper == 'xz' else 'a'} {wrapper} file"
    for magic, name in _FOREIGN_MAGIC.items():
        if head.startswith(magic):
            return name
    text = bytes(range(32, 127)) + b"\t\n\r\f\x1b"
    if head and len(head.translate(None, text)) <= len(head) // 50:
        first = head.decode("latin-1").strip().splitlines()
        return f"a text file, which begins {first[0][:40]!r}" if first else "a text file"
    return None


def plain_name(path: str | os.PathLike[str]) -> str:
    """`path` without its ``.gz``, ``.bz2``, ``.xz`` or ``.zst``: ``movie.mrc.gz`` -> ``movie.mrc``."""
    name = os.fspath(path)
    stem, suffix = os.path.splitext(name)
    return stem if suffix.lower() in WRAPPER_SUFFIXES else name
