"""That a copy holds what its source does: read back, and compared bit for bit."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import numpy as np

from mrcz.check.compare import compare_readers
from mrcz.check.origin import opened
from mrcz.convert.result import DifferentCopyError
from mrcz.errors import FormatError
from mrcz.file.original import original_header, restored
from mrcz.file.reader import Reader
from mrcz.storage.remote import is_url
from mrcz.storage.whole import NewFile
from mrcz.storage.wrapped import open_plain

__all__ = ["check_copy"]


def check_copy(reader: Reader, source: str | os.PathLike[str], new: NewFile, tell: Callable[[int], None]) -> None:
    """Read the new file back, by the descriptor that will get the name; DifferentCopyError unless it holds what
    `reader` does, bit for bit."""
    new.disk.fsync(new.fd)  # what the disk has is compared, not what memory still holds of it
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(new.fd, 0, 0, os.POSIX_FADV_DONTNEED)
    try:
        with opened(new.fd, new.path, n_threads=reader.n_threads) as copy:
            # Where one of them can become the other byte for byte, the bytes themselves are compared with the file.
            if not reader.is_compressed and (original := original_header(copy)) is not None:
                with _plain_bytes(reader, source) as plain:
                    difference = _same_bytes(plain, restored(copy, original, tell))
            elif not copy.is_compressed and (original := original_header(reader)) is not None:
                with os.fdopen(os.dup(new.fd), "rb") as plain:
                    plain.seek(0)
                    difference = _same_bytes(plain, restored(reader, original, tell))
            else:
                found = compare_readers(reader, copy, tell, widened=not copy.is_compressed)
                difference = None if found.ok else found.differences[0]
                if reader.is_compressed and copy.is_compressed and original_header(reader) != original_header(copy):
                    difference = "the header of the original file differs"
    except FormatError as error:
        difference = str(error)
    if difference is not None:
        raise DifferentCopyError(f"the copy is not the same ({difference}), and nothing was written", path=source)


def _plain_bytes(reader: Reader, source: str | os.PathLike[str]) -> BinaryIO:
    """The plain file itself, as it lies on the disk by now, or comes from its server."""
    if not is_url(source):
        return open_plain(source)
    return io.BufferedReader(_Remote(reader), buffer_size=4 << 20)


class _Remote(io.RawIOBase):
    """A file at a URL, from front to back."""

    def __init__(self, reader: Reader) -> None:
        self._reader, self._position = reader, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self._reader.file_nbytes - self._position
        data = self._reader.source.read(self._position, min(len(buffer), left)) if left > 0 else b""
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


def _same_bytes(plain: BinaryIO, pieces: Iterator[Any]) -> str | None:
    """Compare a file with the bytes it should have; what differs, or None."""
    position = 0
    buffer = np.empty(1 << 20, np.uint8)
    for piece in pieces:
        wanted = np.frombuffer(piece, np.uint8)
        for start in range(0, wanted.size, buffer.size):
            part = wanted[start : start + buffer.size]
            found = buffer[: plain.readinto(buffer[: part.size])]  # type: ignore[attr-defined]
            different = found != part[: found.size]
            if different.any():
                return f"byte {position + int(np.argmax(different))} differs"
            if found.size < part.size:
                return f"it ends at byte {position + found.size}"
            position += part.size
    if plain.read(1):
        return f"bytes follow after byte {position}"
    return None
