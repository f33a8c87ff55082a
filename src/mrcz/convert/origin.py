"""What an archive was made from, and whether it holds a given file: what decides if it may be replaced, or need not be
made."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mrcz.convert.compare import compare_readers
from mrcz.convert.original import blocks, original_header, readable, source_name
from mrcz.convert.streams import plain_name
from mrcz.errors import FormatError, MrczError
from mrcz.header import Header

if TYPE_CHECKING:
    from mrcz.reader import Reader

__all__ = ["Origin", "OtherSourceError", "Summing", "is_archive_of", "origin", "other_source", "was_compressed"]


class OtherSourceError(MrczError):
    """What would be replaced was made from something else, and may be the only copy of it."""


class Origin(NamedTuple):
    """What a compressed file was made from, as its footer tells.

    ``name`` without folders; ``size`` and ``xxh64`` of the plain file, which is what decompressing it gives; None where
    the footer does not say, as in files of other programs and of versions before this one.
    """

    name: str | None
    size: int | None = None
    xxh64: int | None = None


class Summing:
    """Size and checksum of the plain file, added up from its frames while they are compressed."""

    def __init__(self, reader: Reader, plain: Header | None) -> None:
        from _cmrcz.chunk import XXH64

        self._plain, self._hash, self._size = plain, XXH64(), 0
        if plain is not None:
            self._update(plain.tobytes())
            self._update(reader.extended_header.raw)

    def _update(self, data: Any) -> None:
        view = memoryview(data).cast("B")
        self._hash.update(view)
        self._size += view.nbytes

    def add(self, frames: np.ndarray) -> None:
        if self._plain is not None:
            self._update(np.ascontiguousarray(self._plain.pixel_format.to_stored(frames)).reshape(-1).view(np.uint8))

    def entries(self) -> dict[str, Any]:
        """Entries of a footer."""
        return {} if self._plain is None else {"source_size": self._size, "source_xxh64": self._hash.intdigest()}


def origin(reader: Reader) -> Origin | None:
    """What a compressed file was made from; None where it was made from no plain file, or does not say."""
    name = source_name(reader)
    if not reader.is_compressed or reader.footer is None or name is None:
        return None
    size, digest = (reader.footer.extra.get(key) for key in ("source_size", "source_xxh64"))
    known = isinstance(size, int) and isinstance(digest, int) and original_header(reader) is not None
    return Origin(name, size, digest) if known else Origin(name)


def is_archive_of(
    archive: str | os.PathLike, source: str | os.PathLike, *, check: bool = False, **reading: Any
) -> str | None:
    """Whether a compressed file holds `source`: None if it does, else why not.

    Name, size and checksum in its footer are compared with the source, which is read for that, and the frames of the
    archive with their own checksums; where the footer has none, pixels and headers are compared.

    Parameters
    ----------
    archive, source : path
    check : bool
        Compare pixels and headers in any case.
    **reading
        permissive, signed_bytes, n_threads: how the source is read, as `mrcz.open` takes them.

    Raises
    ------
    FormatError
        One of them is damaged.
    """
    import mrcz

    with mrcz.open(archive, n_threads=reading.get("n_threads")) as old, mrcz.open(source, **reading) as mine:
        if not old.is_compressed:
            return "is no compressed file"
        known = origin(old)
        if known is None or known.xxh64 is None or check:
            return other_source(old, None, mine)
        if old.index.hashes is not None:
            damaged = np.flatnonzero(old.hash_frames() != old.index.hashes)
            if damaged.size:
                return f"is damaged: frame {damaged[0]} does not match its checksum"
        if mine.is_compressed:
            return other_source(old, origin(mine), mine)
        name = readable(os.path.basename(plain_name(source)))
        if known.name != name or known.size != mine.header.data_offset + mine.header.frame_nbytes * len(mine):
            return other_source(old, Origin(name, -1, 0), mine)  # no need to read it
        summing = Summing(mine, mine.header)
        for frames in blocks(mine):
            summing.add(frames)
        entries = summing.entries()
        return other_source(old, Origin(name, entries["source_size"], entries["source_xxh64"]), mine)


def other_source(old: Reader, mine: Origin | None, reader: Reader) -> str | None:
    """Why the archive `old` is not of the source of `reader`, whose origin is `mine`; None if it is."""
    theirs = origin(old)
    if theirs is not None and theirs.xxh64 is not None and mine is not None and mine.xxh64 is not None:
        if theirs == mine:
            return None
        if theirs.name != mine.name:
            return f"is an archive of {theirs.name}, not of {mine.name}"
        return f"is an archive of another {theirs.name}, of other content"
    # Made by another program, or before footers said it: what is in it decides.
    found = compare_readers(old, reader)
    if found.same and (theirs is None or mine is None or theirs.name == mine.name):
        return None
    what = "" if theirs is None else f" (an archive of {theirs.name})"
    return f"holds something else{what}: {found.differences[0] if found.differences else 'its name differs'}"


def was_compressed(fd: int) -> bool:
    """Whether a file that cannot be read has the beginning or the end of a compressed one."""
    from mrcz.footer import TRAILER_MAGIC

    size = os.fstat(fd).st_size
    with os.fdopen(os.dup(fd), "rb") as file:
        file.seek(0)
        head = file.read(1024)
        file.seek(max(0, size - len(TRAILER_MAGIC)))
        if file.read() == TRAILER_MAGIC:
            return True
    try:
        return Header.parse(head, permissive=True).compressed
    except FormatError:
        return False
