"""Whether two files hold the same: pixels bit for bit, then what their headers say."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from mrcz.check.result import Result
from mrcz.container.header.layout import labels_of_others
from mrcz.file.calls import open_reader
from mrcz.file.foreign import ForeignReader
from mrcz.file.original import Counter, Progress, blocks, original_header
from mrcz.file.reader import Reader
from mrcz.formats.metadata import documented

__all__ = ["Comparison", "compare", "compare_readers", "open_either", "same_bits"]


@dataclass(frozen=True)
class Comparison(Result):
    """How two files differ.

    Attributes
    ----------
    differences : tuple of str
        One line each, nothing if there are none.
    n_pixels : int
        Pixels that differ, or -1 where shape or pixel type do already.
    first : tuple of int or None
        (z, y, x) of the first of them.
    """

    differences: tuple[str, ...]
    n_pixels: int = 0
    first: tuple[int, int, int] | None = None
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing differs."""
        return not self.differences


def compare(
    path: str | os.PathLike[str],
    other: str | os.PathLike[str],
    *,
    permissive: bool = False,
    signed_bytes: bool | None = None,
    n_threads: int | None = None,
    progress: Progress | None = None,
    storage_options: dict[str, Any] | None = None,
    dataset: str | None = None,
    fraction: int | None = None,
    upsampling: int = 1,
) -> Comparison:
    """Compare two files, of whatever formats: pixels bit for bit, then what their headers say.

    Parameters
    ----------
    path, other : path or URL
        In any format `mrcz.open` reads, each in its own.
    permissive, signed_bytes, n_threads, storage_options
        As `mrcz.open` takes them, for both.
    dataset, fraction, upsampling
        As `mrcz.open` takes them, for those of the two that are of another format.
    progress : callable, optional
        Called as ``progress(done, total)`` in bytes of pixels.

    Returns
    -------
    Comparison

    Raises
    ------
    FormatError
        One of them is damaged.
    """

    how: dict[str, Any] = {
        "permissive": permissive,
        "signed_bytes": signed_bytes,
        "n_threads": n_threads,
        "storage_options": storage_options,
    }
    foreign = {"dataset": dataset, "fraction": fraction, "upsampling": upsampling}

    with open_either(path, how, foreign) as a, open_either(other, how, foreign) as b:
        return compare_readers(a, b, Counter(progress, a.nbytes))


def open_either(path: str | os.PathLike[str], how: dict[str, Any], foreign: dict[str, Any]) -> Reader:
    """A Reader of one of several files of whatever formats: what is said of `foreign` ones an MRC file is not told."""
    try:
        return open_reader(path, **how, **foreign)
    except ValueError:
        reader = open_reader(path, **how)
        if isinstance(reader, ForeignReader):
            reader.close()
            raise
        return reader


def compare_readers(
    a: Reader, b: Reader, tell: Callable[[int], None] = lambda n: None, *, widened: bool = False
) -> Comparison:
    """`compare` of two that are open; ``tell(n)`` is called as n more bytes of pixels are done.

    With `widened`, bytes in `a` may be 16-bit integers in `b`, as a plain MRC file has those above 127.
    """
    widened = widened and a.dtype == np.uint8 and b.dtype.str[1:] == "u2"
    differences: list[str] = []
    pixels, place = 0, None
    if a.shape != b.shape:
        differences.append(f"shape (nz, ny, nx) is {a.shape} and {b.shape}")
        pixels = -1
    elif a.dtype.newbyteorder("=") != b.dtype.newbyteorder("=") and not widened:
        differences.append(f"pixels are {a.dtype.name} and {b.dtype.name}")
        pixels = -1
    else:
        start = 0
        for left, right in zip(blocks(a), blocks(b), strict=True):
            tell(left.nbytes)
            left = left.astype(right.dtype) if widened else left
            wrong = ~same_bits(left, right)
            count = int(wrong.sum())
            if count and place is None:
                z, y, x = (int(i) for i in np.argwhere(wrong)[0][:3])
                place = (start + z, y, x)
            pixels += count
            start += len(left)
        if pixels:
            differences.append(f"{pixels} of {a.size} pixels differ, first at (z, y, x) = {place}")
    differences.extend(_header_differences(a, b))
    foreign = [reader.format for reader in (a, b) if isinstance(reader, ForeignReader)]
    notes = ("pixel size and documented metadata that both have were compared, besides pixels",) if foreign else ()
    return Comparison(tuple(differences), pixels, place, notes)


def same_bits(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Where two arrays of one dtype, whatever its byte order, have the same bits."""
    same: np.ndarray = _bits(a) == _bits(b)
    return same


def _bits(pixels: np.ndarray) -> np.ndarray:
    """The pixels as native integers of the same bits, so that NaN equals NaN and -0 is not 0."""
    native = np.ascontiguousarray(pixels.astype(pixels.dtype.newbyteorder("="), copy=False))
    if native.dtype.kind == "c":
        return native.view(f"u{native.dtype.itemsize}")
    return native.view(f"u{native.dtype.itemsize}") if native.dtype.kind == "f" else native


def _header_differences(a: Reader, b: Reader) -> Iterator[str]:
    """What the headers say differently about the same pixels.

    How they are stored is no difference, nor are DMIN, DMAX, DMEAN and RMS, which follow from them: many programs leave
    them out or estimate them, and a copy has them right.
    """
    if isinstance(a, ForeignReader) or isinstance(b, ForeignReader):
        yield from _documented_differences(a, b)
        return
    left, right = _meaning(a), _meaning(b)
    for name in left:
        if left[name] != right[name]:
            yield f"{name} is {left[name]} and {right[name]}"
    if a.extended_header.raw != b.extended_header.raw:
        yield f"extended headers differ ({a.header.nsymbt} and {b.header.nsymbt} bytes)"


def _documented_differences(a: Reader, b: Reader) -> Iterator[str]:
    """What files of two formats both say, and say differently: a format has no place for all that another one says."""
    sizes = [tuple(float(np.float32(size)) for size in reader.pixel_size[:2]) for reader in (a, b)]
    # Both are what became of one number: MRC has the length of all pixels as float32, TIFF a quotient of integers.
    if all(any(size) for size in sizes) and not np.allclose(sizes[0], sizes[1], rtol=1e-5, atol=0):
        yield f"pixel size is {sizes[0]} and {sizes[1]}"
    left, right = documented(a.metadata), documented(b.metadata)
    for name in left:
        if name != "pixel_size" and name in right and left[name] != right[name]:
            yield f"{name} is {left[name]} and {right[name]}"


def _meaning(reader: Reader) -> dict[str, Any]:
    header = original_header(reader) or reader.header
    return {
        "kind": reader.kind,
        "pixel size": tuple(float(str(np.float32(size))) for size in header.pixel_size),
        "cell angles": tuple(header["cellb"]),
        "start": tuple(header[name] for name in ("nxstart", "nystart", "nzstart")),
        "axes": header.axes,
        "space group": header["ispg"],
        "origin": header.origin,
        "extended header type": header.exttyp,
        "labels": labels_of_others(header.labels),
    }
