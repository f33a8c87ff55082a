"""Names of files: which are MRC, what a compressed one is called, and what it was called before.

The rule is one of the name alone, so that it can be known without opening a file, and no two names with a suffix give
the same: `.mrc` becomes `.mrcz`, any other suffix stays in front of it.
"""

from __future__ import annotations

import os
import re

__all__ = [
    "MRC_SUFFIXES",
    "check_new_name",
    "compressed_name",
    "old_compressed_name",
    "original_name",
    "restored_name",
    "unfinished_name",
]

#: Suffixes of plain MRC files. From a directory these are taken; a file named itself may be called anything.
MRC_SUFFIXES = (".mrc", ".mrcs", ".map", ".ccp4", ".st", ".rec", ".ali", ".preali", ".msk")

_WRAPPERS = (".gz", ".bz2", ".xz", ".zst")

# What every other program would take the file for, by its suffix.
_FOREIGN = {
    **dict.fromkeys((".tif", ".tiff", ".gain"), "TIFF"),
    **dict.fromkeys((".h5", ".hdf5", ".hdf", ".nxs", ".emd", ".hspy"), "HDF5"),
    **dict.fromkeys((".npy", ".npz"), "NumPy"),
    **dict.fromkeys((".png", ".jpg", ".jpeg"), "picture"),
    **dict.fromkeys((".dm3", ".dm4"), "DigitalMicrograph"),
    **dict.fromkeys((".zip", ".tar", ".tgz", ".7z"), "archive"),
    ".eer": "EER",
    ".zarr": "Zarr",
}


def check_new_name(path: str | os.PathLike) -> None:
    """Refuse a name for a new MRC or MRCZ file that says that it is something else.

    Raises
    ------
    ValueError
        ``a.mrc.gz`` and the like, and suffixes of other formats: ``.tif``, ``.h5``, ``.npy``, …
    """
    name = os.fspath(path)
    stem, suffix = os.path.splitext(name)
    if suffix.lower() in _WRAPPERS:
        plain = os.path.basename(stem)
        raise ValueError(
            f"{name}: {suffix} is read, not written; write {compressed_name(plain)}, which is compressed and opens "
            f"anywhere in it, or {plain}"
        )
    kind = _FOREIGN.get(suffix.lower())
    if kind is not None:
        raise ValueError(f"{name}: its suffix says {kind}, and this would be an MRC file; name it .mrc or .mrcz")


def compressed_name(name: str) -> str:
    """Name of the compressed form: ``movie.mrc`` → ``movie.mrcz``, ``TS_01.st`` → ``TS_01.st.mrcz``.

    ``old.mrcz`` keeps its name; what has no suffix gets one.
    """
    stem, suffix = os.path.splitext(name)
    if suffix == ".mrc":
        return stem + ".mrcz"
    return name if suffix == ".mrcz" else name + ".mrcz"


def old_compressed_name(name: str) -> str:
    """What versions before the rule above called it: ``TS_01.st`` and ``TS_01.rec`` both became ``TS_01.mrcz``."""
    plain = _unwrapped(name)
    stem, suffix = os.path.splitext(plain)
    return (stem if suffix.lower() in (*MRC_SUFFIXES, ".mrcz") else plain) + ".mrcz"


def restored_name(name: str, source_name: str | None) -> str:
    """Name of the plain file: what it was compressed from, as its own name or `source_name` in its footer tell.

    ``TS_01.st.mrcz`` → ``TS_01.st``, ``movie.mrcz`` → ``movie.mrc``; ``TS_01.mrcz`` that was made from ``TS_01.st``
    → ``TS_01.st``, and so under any new name: ``copy.mrcz`` → ``copy.st``.
    """
    plain = _unwrapped(name)
    stem, suffix = os.path.splitext(plain)
    if suffix.lower() in MRC_SUFFIXES:
        return plain  # plain already: movie.mrc.gz → movie.mrc
    if suffix.lower() != ".mrcz":
        stem = plain
    inner = _unwrapped(stem)
    if os.path.splitext(inner)[1].lower() in MRC_SUFFIXES:
        return inner
    known = os.path.splitext(_unwrapped(source_name or ""))[1]
    if not known[1:].isalnum() or known.lower() == ".mrcz":
        known = ".mrc"
    return inner if inner.endswith(known) else inner + known


def original_name(name: str) -> str | None:
    """What an original was called that was set aside to be removed: ``.movie.mrc.1f2e3d4c.orig`` → ``movie.mrc``."""
    found = re.fullmatch(r"\.(.+)\.[0-9a-f]{8}\.orig", name, re.DOTALL)
    return None if found is None else found[1]


def unfinished_name(name: str) -> str | None:
    """What a temporary file of ours will be called: ``.movie.mrcz.1f2e3d4c.part`` → ``movie.mrcz``; None for others."""
    found = re.fullmatch(r"\.(.+)\.[0-9a-f]{8}\.(?:part|tmp)", name, re.DOTALL)
    return None if found is None else found[1]


def _unwrapped(name: str) -> str:
    """The name without ``.gz`` and the like."""
    stem, suffix = os.path.splitext(name)
    return stem if suffix.lower() in _WRAPPERS else name
