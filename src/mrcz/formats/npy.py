"""NumPy's .npy: an array of two or three axes, frame by frame.

Layout: numpy.lib.format, versions 1.0 to 3.0. The header is read by NumPy's own parser, which evaluates literals only
and is given no more than 64 KiB; arrays of Python objects are refused, as they would be unpickled.
"""

from __future__ import annotations

import io
import os
import tokenize
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from mrcz.errors import FormatError
from mrcz.formats.base import Bytes, FormatOptions, Frames, Pieces, Window, whole_frames

__all__ = ["open_frames", "write_frames"]

_MOST = 1 << 16  # bytes of header
# What NumPy's parser raises of a header that is none: of Python 2's it looks at each word.
_DAMAGE = (ValueError, EOFError, SyntaxError, TypeError, tokenize.TokenError, RecursionError, MemoryError)


class NpyFrames(Frames):
    """The frames of an array in C order, read by place; of an array in Fortran order, gathered from a map of it."""

    concurrent = True
    complete = True

    def __init__(self, source: Bytes) -> None:
        self.source = source
        head = io.BytesIO(source.read(0, _MOST))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that Python 2 wrote it, or that Python would frown at its text
                shape, fortran, dtype = _parsed(head)
        except _DAMAGE as error:
            raise FormatError(f"the header of this .npy file is damaged: {error}", path=source.name) from None
        if dtype.kind not in "buifc":
            raise FormatError(f"an array of {dtype} holds no pixels", path=source.name)
        if not 2 <= len(shape) <= 3:
            raise FormatError(f"an array of {len(shape)} axes {shape} is no stack of frames", path=source.name)
        if any(type(n) is not int or n < 1 for n in shape):
            raise FormatError(f"an array of shape {shape} has no pixels", path=source.name)
        self.start = head.tell()
        count = 1
        for n in shape:
            count *= n
        here = source.size - self.start
        if count * dtype.itemsize > here:
            raise FormatError(
                f"the header claims {count * dtype.itemsize} bytes of pixels for {shape} {dtype}, {here} are there "
                f"after byte {self.start}",
                path=source.name,
            )
        if count * dtype.itemsize < here:
            self.oddities = (f"{here - count * dtype.itemsize} bytes after the last frame",)
        self.kind = "image" if len(shape) == 2 else "stack"
        self.shape = shape if len(shape) == 3 else (1, *shape)
        self.dtype = dtype
        self.fortran = bool(fortran) and count > 1
        self.metadata = {
            "original": {"npy": {"shape": list(shape), "fortran_order": bool(fortran), "descr": dtype.str}}
        }

    def read_frame(self, number: int, out: np.ndarray) -> None:
        self.read_window(number, (0, self.shape[1], 0, self.shape[2]), out)

    def read_window(self, number: int, window: Window, out: np.ndarray) -> None:
        nz, ny, nx = self.shape
        y0, y1, x0, x1 = window
        size = self.dtype.itemsize
        if not self.fortran:
            row = nx * size
            raw = self._bytes((number * ny + y0) * row, (y1 - y0) * row)
            out[...] = np.frombuffer(raw, self.dtype).reshape(y1 - y0, nx)[:, x0:x1]
            return
        # z runs fastest: a column of the frame is a piece of the file, of which every nz-th element is ours.
        for x in range(x0, x1):
            raw = self._bytes((x * ny + y0) * nz * size, (y1 - y0) * nz * size)
            out[:, x - x0] = np.frombuffer(raw, self.dtype)[number::nz]

    def pieces(self) -> Pieces | str:
        if self.fortran:
            return "in Fortran order a frame is in no one place"
        nbytes = self.shape[1] * self.shape[2] * self.dtype.itemsize
        return whole_frames(self.start, nbytes, nbytes, self)

    def _bytes(self, offset: int, n: int) -> bytes:
        raw = self.source.read(self.start + offset, n)
        if len(raw) != n:
            raise FormatError(f"{n} bytes from byte {self.start + offset} on, {len(raw)} are there")
        return raw


def _parsed(head: io.BytesIO) -> tuple[tuple[int, ...], bool, np.dtype]:
    """The header, by NumPy's parser: shape, order of the axes, dtype."""
    version = np.lib.format.read_magic(head)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(head, max_header_size=_MOST)
    if version in ((2, 0), (3, 0)):
        return np.lib.format.read_array_header_2_0(head, max_header_size=_MOST)
    raise ValueError(f"version {version} is unknown")


def open_frames(source: Bytes, options: FormatOptions) -> NpyFrames:
    """Open a .npy file."""
    return NpyFrames(source)


def write_frames(
    path: str | os.PathLike[str],
    frames: Any,
    *,
    compression: str = "none",
    progress: Callable[[int, int], None] | None = None,
    n_threads: int | None = None,
) -> None:
    """Write frames as a .npy file that `numpy.load` reads and maps; one frame is held at a time.

    Parameters
    ----------
    path : path
        Overwritten as it is; to give it its name when it is whole is the caller's.
    frames : Reader or the like
        Has shape (nz, ny, nx) or (nz, ny, nx, 3), dtype, and ``read(k)``. The array has the same shape and dtype.
    compression : {"none"}
    progress : callable, optional
        Called as ``progress(done, total)`` with bytes of pixels.
    n_threads : int, optional
        Not used.

    Raises
    ------
    ValueError
        There is no such compression.
    """
    if compression != "none":
        raise ValueError(f"compression is {compression!r}; a .npy file has none")
    shape, dtype = tuple(int(n) for n in frames.shape), np.dtype(frames.dtype)
    if len(shape) != 3:
        raise ValueError(f"an array of {shape} would not be read back as frames; .npy files of ours have three axes")
    with open(path, "wb") as file:
        words = {"shape": shape, "fortran_order": False, "descr": np.lib.format.dtype_to_descr(dtype)}
        np.lib.format.write_array_header_1_0(file, words)
        for k in range(shape[0]):
            frame = np.ascontiguousarray(frames.read(k), dtype)
            file.write(frame.data)
            if progress is not None:
                progress((k + 1) * frame.nbytes, shape[0] * frame.nbytes)
