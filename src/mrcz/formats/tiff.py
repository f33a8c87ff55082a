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

from dataclasses import replace

import numpy as np

from mrcz.errors import FormatError
from mrcz.formats._tiff_decoding import prove, read_part
from mrcz.formats._tiff_metadata import describe, planes_in_one_page, planes_of_ome
from mrcz.formats._tiff_pages import COMPRESSIONS, Key, Page, holds_pairs, key_of, parse_page
from mrcz.formats._tiff_tags import Directory, TiffFile
from mrcz.formats._tiff_writing import write_frames
from mrcz.formats.base import Bytes, FormatOptions, Frames, Pieces, Window

__all__ = ["TiffFrames", "open_frames", "write_frames"]

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
        series: dict[Key, list[Directory]] = {}
        for directory in directories:
            try:
                series.setdefault(key_of(directory), []).append(directory)
            except FormatError as error:
                trouble = f"directory {directory.number} at byte {directory.offset}: {error.message}"
                break
        if trouble is not None and (not options.permissive or not series):
            raise FormatError(trouble)
        notes = [] if trouble is None else [f"{trouble}; the pages before it are read"]
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
        if (turned := first.integer(274, 1)) != 1:
            self.oddities += (f"its rows are said to lie otherwise (orientation {turned}): not turned, as in RELION",)
        if (planes := planes_of_ome(first.text(270) or "")) is not None and planes != count:
            self.oddities += (f"its OME-XML speaks of {planes} planes: {count} are in this file",)
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

    def pieces(self) -> Pieces | str:
        first = self.pages[0]
        how = (first.height, first.width, first.tiled, first.compression, first.predictor)
        for page in self.pages:
            if (page.height, page.width, page.tiled, page.compression, page.predictor) != how:
                return f"page {page.number} is packed or cut into strips otherwise than the first"
        if first.compression not in (1, 5):
            return f"{COMPRESSIONS[first.compression][0]} gives other bytes with each version of its library"
        if first.predictor == 3 or first.reverse or first.planes != 1 or first.bits not in (8, 16, 32, 64):
            return "its predictor, or how its bits and colours lie, is not among those that are made again"
        pages = [self._page(number) for number in range(self.shape[0])]
        return Pieces(
            np.stack([page.offsets for page in pages]),
            np.stack([page.counts for page in pages]),
            self.dtype,
            first.height,
            first.width * 2 if self.pairs else first.width,
            tiled=first.tiled,
            turned=not self.top_down,
            packing="4 bits" if self.pairs else "",
            differences=first.predictor == 2,
            lzw=first.compression == 5,
        )

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
