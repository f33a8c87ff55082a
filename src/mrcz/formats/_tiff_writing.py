"""Frames into a TIFF as RELION writes and reads it: packed on threads, one strip a frame, the same bytes every time."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from fractions import Fraction
from typing import Any, Protocol

import numpy as np

from mrcz.errors import MissingDependencyError
from mrcz.formats._tiff_pages import holds_pairs
from mrcz.threads import count_threads

__all__ = ["COMPRESSED", "write_frames"]

#: What `write_frames` takes as compression, and how tifffile calls it.
COMPRESSED = {"lzw": "LZW", "deflate": "ADOBE_DEFLATE", "zstd": "ZSTD", "none": None}

# What RELION reads (tried; 5.0): others are refused by it, so they are not written.
_WRITTEN = {"u1", "i1", "u2", "i2", "f4"}


class _Readable(Protocol):
    """What is written: a Reader, or whatever gives its frames one by one."""

    shape: Any
    dtype: Any
    pixel_size: Any

    def read(self, frames: int) -> np.ndarray: ...


# Long by its explanation.
def write_frames(
    path: str | os.PathLike[str],
    frames: _Readable,
    *,
    compression: str = "lzw",
    level: int | None = None,
    n_threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write frames as a TIFF that RELION, IMOD, SerialEM and MotionCor read alike; the same frames, the same bytes.

    Parameters
    ----------
    path : path-like
        Of the new file: what is there is overwritten. Giving it its name at the end is the caller's.
    frames : Reader, or the like
        ``shape`` (nz, ny, nx) or (nz, ny, nx, 3), ``dtype``, ``pixel_size`` (x, y, z) in Å, 0 for unknown, and
        ``read(k)``, which gives frame k: each once, in order. One a thread is held at a time.
    compression : {"lzw", "deflate", "zstd", "none"}
        RELION reads zstd only where its libtiff has been built with it.
    level : int, optional
        Of deflate, 1 to 9 (default 6, as RELION's), or zstd, 1 to 22 (default 3).
    n_threads : int, optional
        Most threads that pack frames; default the processors this process may use.
    progress : callable, optional
        Called as ``progress(done, total)`` with bytes of pixels.

    Raises
    ------
    ValueError
        The pixels are none that those programs take: they read 8 and 16-bit integers and float32, and 8-bit RGB. Or a
        frame has the size at which they take a byte for two pixels.
    MissingDependencyError
        tifffile or imagecodecs is not installed.
    """
    shape, dtype = tuple(int(n) for n in frames.shape), np.dtype(frames.dtype)
    _refuse(shape, dtype, compression)
    threads = count_threads(n_threads)
    dtype = dtype.newbyteorder("<")
    pack = _packer(compression, level, os.fspath(path))
    import tifffile

    nbytes = int(np.prod(shape[1:], dtype=object)) * dtype.itemsize
    options: dict[str, Any] = {
        "shape": shape[1:],
        "dtype": dtype,
        "photometric": "rgb" if len(shape) == 4 else "minisblack",
        "compression": COMPRESSED[compression],
        "rowsperstrip": shape[1],
        "software": "mrcz",
        "metadata": None,
        "contiguous": False,
        **_resolution(frames.pixel_size),
    }
    # LZW of noise grows by half; a page's directory is a few hundred bytes.
    big = shape[0] * (nbytes * 3 // 2 + 1024) > 2**32 - 2**20
    with tifffile.TiffWriter(path, bigtiff=big, byteorder="<") as file:
        for k, strip in enumerate(_strips(frames, shape, dtype, pack, threads)):
            file.write(iter([strip]), **options)
            if progress is not None:
                progress((k + 1) * nbytes, shape[0] * nbytes)


def _packer(compression: str, level: int | None, path: str) -> Callable[[np.ndarray], bytes]:
    """What makes a strip of a frame; tried once, so that what is missing is told before there is a file."""
    try:
        import imagecodecs
        import tifffile  # noqa: F401

        codecs: Any = imagecodecs
        makers: dict[str, Callable[[np.ndarray], bytes]] = {
            "none": lambda frame: frame.tobytes(),
            "lzw": codecs.lzw_encode,
            "deflate": lambda frame: codecs.deflate_encode(frame, 6 if level is None else level),
            "zstd": lambda frame: codecs.zstd_encode(frame, 3 if level is None else level),
        }
        makers[compression](np.zeros((2, 2), np.uint8))
    except ImportError as error:
        named = error.name or str(error)
        raise MissingDependencyError(
            f"writing TIFF needs the package {named}: pip install 'mrcz[tiff]'", path=path
        ) from error
    return makers[compression]


def _strips(
    frames: _Readable, shape: tuple[int, ...], dtype: np.dtype, pack: Callable[[np.ndarray], bytes], threads: int
) -> Iterator[bytes]:
    """The frames, packed, in order; at most as many at a time as there are threads."""

    def turned(k: int) -> np.ndarray:
        frame = np.asarray(frames.read(k))
        if frame.shape != shape[1:]:
            raise ValueError(f"frame {k} is {frame.shape}, the stack {shape}")
        return np.ascontiguousarray(frame[::-1], dtype)  # the top row comes first in a TIFF

    if threads == 1 or shape[0] == 1:
        for k in range(shape[0]):
            yield pack(turned(k))
        return
    waiting: deque[Future[bytes]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for k in range(shape[0]):
            waiting.append(pool.submit(pack, turned(k)))
            if len(waiting) == threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _refuse(shape: tuple[int, ...], dtype: np.dtype, compression: str) -> None:
    """ValueError for what cannot be written."""
    if compression not in COMPRESSED:
        raise ValueError(f"compression is {compression!r}, expected {', '.join(map(repr, COMPRESSED))}")
    if len(shape) not in (3, 4) or 0 in shape or (len(shape) == 4 and shape[3] != 3):
        raise ValueError(f"an array of {shape} is no stack of frames for a TIFF")
    code = dtype.str[1:]
    if code not in _WRITTEN or (len(shape) == 4 and code != "u1"):
        colour = " of colours" if len(shape) == 4 else ""
        raise ValueError(
            f"frames of {dtype.newbyteorder('=')}{colour} are not written as TIFF: RELION and IMOD would not read "
            "them. Convert them to uint8, int8, uint16, int16 or float32 (RGB: uint8)"
        )
    if code == "u1" and len(shape) == 3 and holds_pairs((shape[2], shape[1], 8, 1, 1, 1, 1, 0)):
        raise ValueError(
            f"uint8 frames of {shape[2]} x {shape[1]} would be read as two 4-bit pixels a byte, by RELION and "
            "IMOD, too: convert them to uint16"
        )


def _resolution(pixel_size: Any) -> dict[str, Any]:
    """Pixels per centimetre as the best rationals there are, so that the size comes back; nothing where it is 0."""
    sizes = [float(size) for size in pixel_size][:2]
    if len(sizes) < 2 or not all(0.03 <= size <= 1e8 for size in sizes):
        return {}
    ratios = []
    for size in sizes:
        exact = Fraction(10**8) / Fraction(repr(size))
        best = exact.limit_denominator(max(1, int((2**32 - 1) / exact)))
        ratios.append((best.numerator, best.denominator))
    return {"resolution": tuple(ratios), "resolutionunit": "CENTIMETER"}
