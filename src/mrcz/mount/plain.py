"""A compressed file as the plain one it stands for: any of its bytes, decoded when they are read."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import numpy as np

from mrcz.errors import FormatError
from mrcz.file.original import plain_head, plain_header, plain_pixels, source_name
from mrcz.file.reader import Reader
from mrcz.mount.cache import FrameCache
from mrcz.threads import default_threads

__all__ = ["PlainFile"]

_BATCH = 1 << 20  # bytes decoded together at least
_AHEAD = 64 << 20  # bytes decoded ahead at most, but always one batch
_numbers = itertools.count()


class PlainFile:
    """The bytes of the plain MRC file a compressed one stands for.

    Parameters
    ----------
    path : path
    cache : FrameCache

    Attributes
    ----------
    size : int
        Bytes of the plain file.
    source : str
        Name of the file it was compressed from; where it does not say, some name with the right suffix.
    """

    def __init__(self, path: str | os.PathLike[str], cache: FrameCache) -> None:
        self.reader: Reader = Reader(path)
        self.cache = cache
        try:
            self._read_header()
        except BaseException:
            self.reader.close()
            raise

    def _read_header(self) -> None:
        reader = self.reader
        if reader.integers is not None and not reader.gives_floats_of_counts:
            raise FormatError(reader.notes[-1], path=reader.path)  # counts are not the file they stand for
        original = plain_header(reader)
        stack = reader.kind == "stack" and len(reader) > 1
        foreign = reader.footer is not None and "source_format" in reader.footer.extra
        # What is shown is MRC, whatever it was made from: movie.tif.mrcz is seen as movie.tif.mrcs.
        self.source: str = (None if foreign else source_name(reader)) or ("x.mrcs" if stack else "x.mrc")
        self._header, self._pixels = original, original.pixel_format
        self._head = np.frombuffer(plain_head(reader, original), np.uint8)
        self._frame = original.frame_nbytes
        self.size: int = len(self._head) + self._frame * len(reader)
        # Its own in the cache: frames of another file, though it be under the same name, are never taken for its.
        self.key: int = next(_numbers)
        # Small batches: a frame at random costs little more than that frame, and several are decoded at a time ahead of
        # a sequential read, one a thread.
        self._batch = max(1, _BATCH // max(1, self._frame))
        self._threads = default_threads()
        # One more than threads: whoever waits for a batch decodes another.
        self._ahead = max(1, min(self._threads + 1, _AHEAD // max(1, self._batch * self._frame)))
        self._last = -1

    def read(self, offset: int, n: int) -> bytes:
        """*n* bytes from *offset* on; fewer only at the end."""
        with self.parts(offset, n) as parts:
            return b"".join(part.tobytes() for part in parts)

    @contextmanager
    def parts(self, offset: int, n: int) -> Iterator[list[np.ndarray]]:
        """The same bytes where they are in memory: uint8 arrays, valid inside the ``with`` block only."""
        n = max(0, min(n, self.size - offset))
        parts = [self._head[offset : offset + n]]
        n -= len(parts[0])
        offset += len(parts[0])
        with ExitStack() as held:
            while n:
                number, start = divmod(offset - len(self._head), self._frame * self._batch)
                part = min(n, self._nbytes(number) - start)
                self._look_ahead(number, start)
                batch = held.enter_context(
                    self.cache.hold((self.key, number), self._nbytes(number), partial(self._decode, number), part)
                )
                parts.append(batch[start : start + part])
                n -= part
                offset += part
            yield parts

    def _look_ahead(self, number: int, start: int) -> None:
        """Have the next batches decoded while this one is fetched, if this is a read from front to back."""
        if number == 0 and start == 0:
            return  # so begins the read of a header too, which programs and the kernel round up
        if number == self._last + 1:
            batches = -(-len(self.reader) // self._batch)
            for k in range(number + 1, min(number + 1 + self._ahead, batches)):
                decode = partial(self._decode, k, threads=max(1, self._threads // self._ahead))
                self.cache.prepare((self.key, k), self._nbytes(k), decode)
        self._last = number

    def _nbytes(self, number: int) -> int:
        return self._frame * min(self._batch, len(self.reader) - number * self._batch)

    def _decode(self, number: int, out: np.ndarray, threads: int | None = None) -> None:
        which = slice(number * self._batch, (number + 1) * self._batch)
        if not self._pixels.packed and self._pixels.stored == self.reader.dtype:
            pixels = out.view(self.reader.dtype).reshape(-1, *self.reader.shape[1:])
            self.reader.read(which, out=pixels, n_threads=threads)
            return
        frames = self.reader.read(which, n_threads=threads)
        out[:] = plain_pixels(self._header, frames)

    def close(self) -> None:
        """Close the compressed file."""
        self.reader.close()
