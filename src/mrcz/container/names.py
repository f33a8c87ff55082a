"""Names of files: which are MRC, what a compressed one is called, and what it was called before.

The rule is one of the name alone, so that it can be known without opening a file, and no two names with a suffix give
the same: `.mrc` becomes `.mrcz`, any other suffix stays in front of it.
"""

from __future__ import annotations

import os
import re

from mrcz.filetypes import FOREIGN_SUFFIXES, MRC_SUFFIXES, MRCZ_SUFFIX, WRAPPER_SUFFIXES, plain_name

__all__ = [
    "check_new_name",
    "compressed_name",
    "old_compressed_name",
    "original_name",
    "restored_name",
    "unfinished_name",
]


def check_new_name(path: str | os.PathLike[str]) -> None:
    """Refuse a name for a new MRC or MRCZ file that says that it is something else.

    Raises
    ------
    ValueError
        ``a.mrc.gz`` and the like, and suffixes of other formats: ``.tif``, ``.h5``, ``.npy``, …
    """
    name = os.fspath(path)
    stem, suffix = os.path.splitext(name)
    if suffix.lower() in WRAPPER_SUFFIXES:
        plain = os.path.basename(stem)
        raise ValueError(
            f"{name}: {suffix} is read, not written; write {compressed_name(plain)}, which is compressed and opens "
            f"anywhere in it, or {plain}"
        )
    kind = FOREIGN_SUFFIXES.get(suffix.lower())
    if kind is not None:
        raise ValueError(f"{name}: its suffix says {kind}, and this would be an MRC file; name it .mrc or .mrcz")


def compressed_name(name: str) -> str:
    """Name of the compressed form: ``movie.mrc`` → ``movie.mrcz``, ``TS_01.st`` → ``TS_01.st.mrcz``.

    ``old.mrcz`` keeps its name; what has no suffix gets one.
    """
    stem, suffix = os.path.splitext(name)
    if suffix == ".mrc":
        return stem + MRCZ_SUFFIX
    return name if suffix == MRCZ_SUFFIX else name + MRCZ_SUFFIX


def old_compressed_name(name: str) -> str:
    """What versions before the rule above called it: ``TS_01.st`` and ``TS_01.rec`` both became ``TS_01.mrcz``."""
    plain = plain_name(name)
    stem, suffix = os.path.splitext(plain)
    return (stem if suffix.lower() in (*MRC_SUFFIXES, MRCZ_SUFFIX) else plain) + MRCZ_SUFFIX


def restored_name(name: str, source_name: str | None) -> str:
    """Name of the plain file: what it was compressed from, as its own name or `source_name` in its footer tell.

    ``TS_01.st.mrcz`` → ``TS_01.st``, ``movie.mrcz`` → ``movie.mrc``; ``TS_01.mrcz`` that was made from ``TS_01.st``
    → ``TS_01.st``, and so under any new name: ``copy.mrcz`` → ``copy.st``.
    """
    plain = plain_name(name)
    stem, suffix = os.path.splitext(plain)
    if suffix.lower() in MRC_SUFFIXES:
        return plain  # plain already: movie.mrc.gz → movie.mrc
    if suffix.lower() != MRCZ_SUFFIX:
        stem = plain
    inner = plain_name(stem)
    if os.path.splitext(inner)[1].lower() in MRC_SUFFIXES:
        return inner
    known = os.path.splitext(plain_name(source_name or ""))[1]
    if not known[1:].isalnum() or known.lower() == MRCZ_SUFFIX:
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
