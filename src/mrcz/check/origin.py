"""What an archive was made from, and whether it holds a given file: what decides if it may be replaced, or need not be
made.

One rule for whatever makes a file from a file: ``overwrite=True`` replaces what stands there, but no archive of another
source; ``overwrite="any"`` replaces that, too.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import warnings
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

import numpy as np

from mrcz.check.compare import compare_readers
from mrcz.container.header.header import Header
from mrcz.errors import FormatError, FormatWarning, OtherSourceError
from mrcz.file.calls import open_reader
from mrcz.file.foreign import ForeignReader
from mrcz.file.original import blocks, original_header, pieces_of, readable, source_name
from mrcz.file.reader import Reader
from mrcz.filetypes import plain_name
from mrcz.storage.remote import is_url
from mrcz.storage.source import FileSource
from mrcz.storage.whole import Judge, NewFile

__all__ = [
    "Origin",
    "OtherSourceError",
    "Overwrite",
    "Summing",
    "check_replaceable",
    "file_name",
    "is_archive_of",
    "opened",
    "origin",
    "other_source",
    "replacing",
    "was_compressed",
]

_BLOCK = 4 << 20

Overwrite = bool | Literal["any"]


class Origin(NamedTuple):
    """What a compressed file was made from, as its footer tells.

    ``name`` without folders; ``size`` and ``xxh64`` of the plain file, which is what decompressing it gives, or
    ``size`` and ``sha256`` of the file of another format that it gives; None where the footer does not say, as in files
    of other programs and of versions before this one.
    """

    name: str | None
    size: int | None = None
    xxh64: int | None = None
    sha256: str | None = None

    @property
    def is_known(self) -> bool:
        """Whether it says what was in that file."""
        return self.xxh64 is not None or self.sha256 is not None


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
    with contextlib.suppress(FormatError):  # whoever asks for that file is told
        if (record := pieces_of(reader)) is not None:
            return Origin(name, record.size, None, record.sha256)
    size, digest = (reader.footer.extra.get(key) for key in ("source_size", "source_xxh64"))
    known = isinstance(size, int) and isinstance(digest, int) and original_header(reader) is not None
    return Origin(name, size, digest) if known else Origin(name)


# Longer than 60 lines: half of it are its words.
def is_archive_of(
    archive: str | os.PathLike[str],
    source: str | os.PathLike[str],
    *,
    check: bool = False,
    permissive: bool = False,
    signed_bytes: bool | None = None,
    n_threads: int | None = None,
    dataset: str | None = None,
    fraction: int | None = None,
    upsampling: int = 1,
) -> str | None:
    """Whether a compressed file holds `source`: None if it does, else why not.

    Name, size and checksum in its footer are compared with the source, which is read for that, and the frames of the
    archive with their own checksums; where the footer has none, pixels and headers are compared.

    Parameters
    ----------
    archive, source : path
    check : bool
        Compare pixels and headers in any case.
    permissive, signed_bytes, n_threads, dataset, fraction, upsampling
        How the source, of whatever format, is read, as `mrcz.open` takes them.

    Raises
    ------
    FormatError
        One of them is damaged.
    """
    with (
        Reader(archive, n_threads=n_threads) as old,
        open_reader(
            source,
            permissive=permissive,
            signed_bytes=signed_bytes,
            n_threads=n_threads,
            dataset=dataset,
            fraction=fraction,
            upsampling=upsampling,
        ) as mine,
    ):
        if not old.is_compressed:
            return "is no compressed file"
        known = origin(old)
        if known is None or not known.is_known or check:
            differs = other_source(old, None, mine)
            if differs is not None or known is None or known.sha256 is None or not _is_whole(mine):
                return differs
        if old.index.hashes is not None:
            damaged = np.flatnonzero(old.hash_frames() != old.index.hashes)
            if damaged.size:
                return f"is damaged: frame {damaged[0]} does not match its checksum"
        if mine.is_compressed:
            return other_source(old, origin(mine), mine)
        name = file_name(source)
        if known.sha256 is not None:
            if not _is_whole(mine):
                return other_source(old, None, mine)
            return other_source(old, Origin(name, mine.source.size, None, _sha256(mine.source)), mine)
        if known.name != name or known.size != mine.header.data_offset + mine.header.frame_nbytes * len(mine):
            return other_source(old, Origin(name, -1, 0), mine)  # no need to read it
        summing = Summing(mine, mine.header)
        for frames in blocks(mine):
            summing.add(frames)
        entries = summing.entries()
        return other_source(old, Origin(name, entries["source_size"], entries["source_xxh64"]), mine)


def _is_whole(reader: Reader) -> bool:
    """Whether a file of another format is read as such archives hold it."""
    options = reader.options
    usual = (options.dataset, options.fraction, options.upsampling) == (None, None, 1)
    return isinstance(reader, ForeignReader) and usual and not os.path.isdir(reader.path)


def _sha256(source: Any) -> str:
    digest = hashlib.sha256()
    for start in range(0, source.size, _BLOCK):
        digest.update(source.read(start, _BLOCK))
    return digest.hexdigest()


def file_name(source: str | os.PathLike[str]) -> str:
    """What a file is called, without folders, server and wrapper: ``https://host/a/movie.mrc?token=1`` →
    ``movie.mrc``."""
    name = os.fspath(source)
    if is_url(source) and "://" in name:
        name = urlsplit(name[name.rindex("://") - 1 :]).path or name
    return readable(os.path.basename(plain_name(name)))


def other_source(old: Reader, mine: Origin | None, reader: Reader) -> str | None:
    """Why the archive `old` is not of the source of `reader`, whose origin is `mine`; None if it is."""
    theirs = origin(old)
    if theirs is not None and theirs.is_known and mine is not None and mine.is_known:
        if theirs == mine:
            return None
        if theirs.name != mine.name:
            return f"is an archive of {theirs.name}, not of {mine.name}"
        return f"is an archive of another {theirs.name}, of other content"
    # Made by another program, or before footers said it: what is in it decides.
    found = compare_readers(old, reader)
    if found.ok and (theirs is None or mine is None or theirs.name == mine.name):
        return None
    what = "" if theirs is None else f" (an archive of {theirs.name})"
    return f"holds something else{what}: {found.differences[0] if found.differences else 'its name differs'}"


def opened(fd: int, name: str | os.PathLike[str], *, n_threads: int | None = None) -> Reader:
    """A Reader of an open file, whatever name it has by now."""
    return Reader(FileSource(os.fdopen(os.dup(fd), "rb"), os.fspath(name)), n_threads=n_threads)


def replacing(overwrite: Overwrite) -> bool | Judge:
    """What `NewFile` is told for a file that is made from another one, but is no archive of it: a corrected stack, a
    sum, a gain, what `mrcz.check.recover` saves."""
    if overwrite == "any":
        return True
    return _archives_stay if overwrite else False


def check_replaceable(path: str | os.PathLike[str], overwrite: Overwrite) -> None:
    """Refuse before any work what `replacing` would refuse after it.

    Raises
    ------
    FileExistsError, OtherSourceError, OSError
    """
    if not os.path.lexists(path) or overwrite == "any":
        return
    if not overwrite:
        raise FileExistsError(f"{os.fspath(path)} exists; pass overwrite=True to replace it")
    if os.path.isfile(path):  # what it is else, NewFile says
        with open(path, "rb") as file:
            _refuse_archive(file.fileno(), None, path)


def _archives_stay(there: int, new: NewFile) -> None:
    _refuse_archive(there, new.fd, new.path)


def _refuse_archive(there: int, made: int | None, path: str | os.PathLike[str]) -> None:
    """OtherSourceError if the open file `there` was compressed from another one, unless `made` holds the same, and as
    many frames at least: recovered once more."""
    if os.fstat(there).st_size == 0:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FormatWarning)
        try:
            with opened(there, path) as old:
                theirs, n = _record(old), len(old)
        except FormatError as error:
            if was_compressed(there):
                what = f"is a damaged archive, so that nobody knows what it was made from ({error.message})"
                raise OtherSourceError(what, path=path) from None
            return
        if theirs is None:
            return
        if made is not None:
            try:
                with opened(made, path) as mine:
                    if _record(mine) == theirs and len(mine) >= n:
                        return
            except FormatError:
                pass  # a picture, an array
    raise OtherSourceError(f"is an archive of {theirs[0]}, and may be the only copy of it", path=path)


def _record(reader: Reader) -> tuple[Any, ...] | None:
    """What a footer says of the file that this one was made from, also where frames of it are missing now."""
    if origin(reader) is None or reader.footer is None:
        return None
    return tuple(reader.footer.extra.get(key) for key in ("source_name", "source_size", "source_xxh64"))


def was_compressed(fd: int) -> bool:
    """Whether a file that cannot be read has the beginning or the end of a compressed one."""
    from mrcz.container.footer import TRAILER_MAGIC

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
