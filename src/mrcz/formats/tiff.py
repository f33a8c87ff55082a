"""TIFF and BigTIFF: movies of SerialEM and RELION, stacks of ImageJ and OME; one page a frame.

**Rows.** A TIFF begins with the top row of an image, an MRC file with the bottom one. RELION (tried with its
`relion_image_handler`), IMOD and MotionCor therefore turn the rows over when they read a TIFF and when they write one.
So does this module: ``mrcz.read("movie.tif")`` is what ``mrcz.read`` gives of the MRC file that they make of it, and
``tifffile.imread("movie.tif")[..., ::-1, :]``. A gain reference of `mrcz.session.references` comes as it is stored
unless ``flip_y`` is asked for, which a movie from TIFF needs.

**Read**: strips and tiles, both byte orders, plain, LZW, deflate, zstd and PackBits, the horizontal and the
floating-point predictor; integers of 8 to 64 bits, floats of 16 to 64, complex floats, packed integers of 1, 2, 4, 6,
10, 12 and 14 bits, and RGB, whose frames are (ny, nx, 3). Bytes of which each holds two 4-bit pixels, as SerialEM packs
frames in super-resolution, are told by their size, as IMOD, RELION and cisTEM do; the first pixel is the low half.
Pages of another size or kind than the others (thumbnails) make series of their own: the first is read, ``dataset="1"``
chooses the next. ImageJ's files above 4 GB, which have one directory and all pixels behind each other, are stacks, too.

**Written**: what RELION reads, and writes itself: one strip a frame, LZW, deflate, zstd or plain, the pixel size as
resolution in pixels per centimetre; BigTIFF where 4 GiB might not be enough.

Layout: TIFF revision 6.0 (Adobe, 1992); its supplement on deflate; zstd is 50000, as of libtiff 4.0.10. The structure
is read here, not by tifffile, so that every count is compared with the file before memory is taken for it, and a strip
that decodes to a byte too many is no frame. imagecodecs decodes; tifffile writes.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any, Protocol

import numpy as np

from mrcz.errors import FormatError, MissingDependencyError
from mrcz.formats._tiff_decoding import prove, read_part
from mrcz.formats._tiff_metadata import describe, planes_in_one_page
from mrcz.formats._tiff_pages import COMPRESSIONS, Key, Page, holds_pairs, key_of, parse_page
from mrcz.formats._tiff_tags import Directory, TiffFile
from mrcz.formats.base import Bytes, FormatOptions, Frames, Window

__all__ = ["COMPRESSED", "TiffFrames", "open_frames", "write_frames"]

#: What `write_frames` takes as compression, and how tifffile calls it.
COMPRESSED = {"lzw": "LZW", "deflate": "ADOBE_DEFLATE", "zstd": "ZSTD", "none": None}

# What RELION reads (tried; 5.0): others are refused by it, so they are not written.
_WRITTEN = {"u1", "i1", "u2", "i2", "f4"}
_PAIRS = np.array([(byte & 15) | (byte >> 4) << 8 for byte in range(256)], "<u2")  # low half first


class TiffFrames(Frames):
    """The pages of one series of a TIFF as frames.

    Parameters
    ----------
    source : Bytes
    options : FormatOptions
    top_down : bool
        Rows in the order of the file, the top one first, and not as of an MRC file.

    Raises
    ------
    FormatError
        The file is damaged, or its pages are none that are read.
    ValueError
        There is no such series.
    """

    concurrent = True

    def __init__(self, source: Bytes, options: FormatOptions, *, top_down: bool = False) -> None:
        self.source, self.top_down = source, top_down
        self._proven: set[int] = set()
        try:
            self._open(options)
        except FormatError as error:
            error.path = error.path or source.name
            raise

    def _open(self, options: FormatOptions) -> None:
        directories, trouble = TiffFile(self.source).directories()
        if trouble is not None and (not options.permissive or not directories):
            raise FormatError(trouble)
        notes = [] if trouble is None else [f"{trouble}; the pages before it are read"]
        series: dict[Key, list[Directory]] = {}
        for directory in directories:
            series.setdefault(key_of(directory), []).append(directory)
        keys = list(series)
        chosen = _choose(keys, options.dataset)
        key = keys[chosen]
        self.pages, more = _parse(series[key], key, options.permissive)
        notes += more
        first = series[key][0]
        count = len(self.pages)
        if len(directories) == 1 and (claimed := planes_in_one_page(first)) > 1:
            count, more = self._behind(claimed, options.permissive)
            notes += more
        self._lay_out(key, count)
        self.metadata, self.pixel_size = describe(first)
        self.oddities = tuple(_oddities(series, chosen, self.pairs, key))
        self.warnings = tuple(notes)

    def _behind(self, claimed: int, permissive: bool) -> tuple[int, list[str]]:
        """How many planes stand behind each other though there is one directory."""
        page = self.pages[0]
        if not page.is_contiguous:
            return 1, []  # a page of a stack, saved with the description of all of it
        nbytes = page.ny * page.row_bytes
        here = (self.source.size - int(page.offsets[0])) // nbytes
        if claimed <= here:
            return claimed, []
        text = f"its description claims {claimed} images behind the one of its directory, there are bytes for {here}"
        if not permissive:
            raise FormatError(text)
        return here, [text]

    def _lay_out(self, key: Key, count: int) -> None:
        page = self.pages[0]
        self.pairs = holds_pairs(key)
        colours = (3,) if page.samples == 3 else ()
        self.shape = (count, page.ny, page.nx * 2 if self.pairs else page.nx, *colours)
        self.dtype = page.dtype
        self.kind = "image" if count == 1 else "stack"
        names = {COMPRESSIONS[each.compression][0] for each in self.pages}
        self.compression = names.pop() if len(names) == 1 else "mixed"

    def _page(self, number: int) -> Page:
        if number < len(self.pages):
            return self.pages[number]
        page = self.pages[0]
        return replace(page, offsets=page.offsets + np.uint64(number * page.ny * page.row_bytes))

    def read_frame(self, number: int, out: np.ndarray) -> None:
        self.read_window(number, (0, self.shape[1], 0, self.shape[2]), out)

    def read_window(self, number: int, window: Window, out: np.ndarray) -> None:
        page = self._page(number)
        y0, y1, x0, x1 = window
        if not self.top_down:
            y0, y1, out = page.ny - y1, page.ny - y0, out[::-1]
        # Columns of the file: of packed pairs, bytes.
        a, b = (x0 // 2, -(-x1 // 2)) if self.pairs else (x0, x1)
        for plane in range(page.planes):
            for down in range(y0 // page.height, -(-y1 // page.height)):
                top = down * page.height
                rows = max(y0, top), min(y1, top + page.height)
                for across in range(a // page.width, -(-b // page.width)):
                    left = across * page.width
                    columns = max(a, left), min(b, left + page.width)
                    part = read_part(self.source, page, (plane, down, across), (rows[0] - top, rows[1] - top), number)[
                        :, columns[0] - left : columns[1] - left
                    ]
                    target = out[rows[0] - y0 : rows[1] - y0]
                    if self.pairs:
                        first, last = max(x0, 2 * columns[0]), min(x1, 2 * columns[1])
                        pixels = _PAIRS[part[..., 0]].view(np.uint8)
                        target[:, first - x0 : last - x0] = pixels[:, first - 2 * columns[0] : last - 2 * columns[0]]
                    elif out.ndim == 2:
                        target[:, columns[0] - x0 : columns[1] - x0] = part[..., 0]
                    elif page.planes == 1:
                        target[:, columns[0] - x0 : columns[1] - x0] = part
                    else:
                        target[:, columns[0] - x0 : columns[1] - x0, plane] = part[..., 0]

    def check_claims(self, numbers: np.ndarray) -> None:
        for number in dict.fromkeys(int(k) for k in numbers):
            page = self._page(number)
            if page.doubtful and number not in self._proven:
                prove(self.source, page, number)
                self._proven.add(number)


def open_frames(source: Bytes, options: FormatOptions) -> TiffFrames:
    """Open a TIFF file; its rows are those of the MRC file that RELION and IMOD make of it."""
    return TiffFrames(source, options)


def _choose(keys: list[Key], dataset: str | None) -> int:
    """Which series is read."""
    if dataset is None:
        # A reduced image or a mask may come first: it is of another one.
        return next((k for k, key in enumerate(keys) if not key[-1]), 0)
    if not dataset.isdecimal() or int(dataset) >= len(keys):
        raise ValueError(f"dataset is {dataset!r}; this TIFF file has series 0 to {len(keys) - 1}")
    return int(dataset)


def _parse(directories: list[Directory], key: Key, permissive: bool) -> tuple[list[Page], list[str]]:
    """The pages of a series; those from the first damaged one on are left out if asked."""
    pages: list[Page] = []
    for number, directory in enumerate(directories):
        try:
            pages.append(parse_page(directory, key))
        except FormatError as error:
            text = f"frame {number}, directory {directory.number} at byte {directory.offset}: {error.message}"
            if not permissive or not pages:
                raise FormatError(text) from error
            return pages, [f"{text}; of {len(directories)} frames the first {number} are read"]
    return pages, []


def _oddities(series: dict[Key, list[Directory]], chosen: int, pairs: bool, key: Key) -> list[str]:
    found = []
    if pairs:
        found.append(f"bytes hold two 4-bit pixels each: told by the size, {key[0]} x {key[1]} as stored")
    if key[6] == 0:
        found.append("small values are bright (WhiteIsZero); they are given as stored")
    if key[6] == 3:
        found.append("pixels are numbers of colours of a palette, and given as such")
    for k, (other, directories) in enumerate(series.items()):
        if k != chosen and k < 20:
            pages = "1 page" if len(directories) == 1 else f"{len(directories)} pages"
            found.append(f"series {k} is left out: {pages} of {other[0]} x {other[1]}, {other[2]} bits")
    if len(series) > 20:
        found.append(f"{len(series)} series in all")
    return found


class _Readable(Protocol):
    """What is written: a Reader, or whatever gives its frames one by one."""

    shape: Any
    dtype: Any
    pixel_size: Any

    def read(self, frames: int) -> np.ndarray: ...


def write_frames(
    path: str | os.PathLike[str],
    frames: _Readable,
    *,
    compression: str = "lzw",
    level: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write frames as a TIFF that RELION, IMOD, SerialEM and MotionCor read alike; the same frames, the same bytes.

    Parameters
    ----------
    path : path-like
        Of the new file: what is there is overwritten. Giving it its name at the end is the caller's.
    frames : Reader, or the like
        ``shape`` (nz, ny, nx) or (nz, ny, nx, 3), ``dtype``, ``pixel_size`` (x, y, z) in Å, 0 for unknown, and
        ``read(k)``, which gives frame k. One frame is held at a time.
    compression : {"lzw", "deflate", "zstd", "none"}
        RELION reads zstd only where its libtiff has been built with it.
    level : int, optional
        Of deflate, 1 to 9 (default 6, as RELION's), or zstd.
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
    try:
        import imagecodecs  # noqa: F401 — tifffile packs with it, and would say so only in the middle
        import tifffile
    except ImportError as error:
        raise MissingDependencyError(
            f"writing TIFF needs the package {error.name}: pip install 'mrcz[tiff]'", path=os.fspath(path)
        ) from error
    dtype = dtype.newbyteorder("<")
    nbytes = int(np.prod(shape[1:], dtype=object)) * dtype.itemsize
    options: dict[str, Any] = {
        "photometric": "rgb" if len(shape) == 4 else "minisblack",
        "compression": COMPRESSED[compression],
        "rowsperstrip": shape[1],
        "software": "mrcz",
        "metadata": None,
        "contiguous": False,
        **_resolution(frames.pixel_size),
    }
    if compression == "deflate":
        options["compressionargs"] = {"level": 6 if level is None else level}
    elif compression == "zstd" and level is not None:
        options["compressionargs"] = {"level": level}
    # LZW of noise grows by half; a page's directory is a few hundred bytes.
    big = shape[0] * (nbytes * 3 // 2 + 1024) > 2**32 - 2**20
    with tifffile.TiffWriter(path, bigtiff=big, byteorder="<") as file:
        for k in range(shape[0]):
            frame = np.asarray(frames.read(k))
            if frame.shape != shape[1:]:
                raise ValueError(f"frame {k} is {frame.shape}, the stack {shape}")
            file.write(np.ascontiguousarray(frame[::-1], dtype), **options)
            if progress is not None:
                progress((k + 1) * nbytes, shape[0] * nbytes)


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
