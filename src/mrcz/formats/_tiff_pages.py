"""What a directory of a TIFF says of its image, compared with the file: one value a page, before a pixel is decoded."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mrcz.errors import FormatError
from mrcz.formats._tiff_tags import Directory

__all__ = ["COMPRESSIONS", "Key", "Page", "holds_pairs", "key_of", "parse_page"]

# Codes of tags, TIFF 6.0 section 8 and 15.
SUBFILE, WIDTH, LENGTH, BITS, COMPRESSION, PHOTOMETRIC = 254, 256, 257, 258, 259, 262
FILL_ORDER, STRIP_OFFSETS, SAMPLES, ROWS, STRIP_COUNTS, PLANAR = 266, 273, 277, 278, 279, 284
PREDICTOR, TILE_WIDTH, TILE_LENGTH, TILE_OFFSETS, TILE_COUNTS = 317, 322, 323, 324, 325
SAMPLE_FORMAT, DEPTH = 339, 32997

#: What is decoded, and how many bytes one stored byte can become at most. LZW: a code of 12 bits is a text of at most
#: 3840 bytes; deflate: 258 bytes of 2 bits; zstd: a block of 128 KiB of 4 bytes; PackBits: 128 bytes of 2.
COMPRESSIONS = {
    1: ("none", 1), 5: ("lzw", 2560), 8: ("deflate", 1032), 32946: ("deflate", 1032), 50000: ("zstd", 32768),
    34926: ("zstd", 32768), 32773: ("packbits", 64),
}  # fmt: skip

_NAMES = {
    2: "CCITT", 3: "CCITT fax 3", 4: "CCITT fax 4", 6: "old JPEG", 7: "JPEG", 34712: "JPEG 2000", 34887: "LERC",
    34925: "LZMA", 50001: "WebP", 50002: "JPEG XL", 65000: "EER", 65001: "EER", 65002: "EER",
}  # fmt: skip

_SMALL = 1 << 20  # bytes of a strip that nobody need worry about
_RATIO = 1000  # of what a strip claims over what is stored, from which on it is doubted

# Widths and heights of the frames in super-resolution that SerialEM packs, two pixels a byte, K2 and K3; IMOD's
# sizeCanBe4BitK2SuperRes takes them within 2 pixels, either way up, and so do RELION and cisTEM. See holds_pairs.
_PACKED = ((7676, 7420), (7680, 7424), (11520, 8184))

#: Pages with the same key are frames of one series: width, height, bits, sample format, samples, planes, reduced.
Key = tuple[int, int, int, int, int, int, int, int]


@dataclass(slots=True)
class Page:
    """One page: where its strips or tiles are, and how their bytes become pixels.

    Attributes
    ----------
    number : int
        Of its directory.
    nx, ny : int
        Pixels; `nx` as stored, half of the frame's where `pairs`.
    bits, samples : int
        Bits of a sample, samples of a pixel.
    dtype : numpy.dtype
        Of the decoded samples, in the file's byte order.
    planes : int
        1, or as many as samples where each has strips of its own.
    compression, predictor, reverse
        Code of the compression; of the predictor; whether bits of a byte are stored in reversed order.
    height, width : int
        Rows and columns of a strip or tile.
    across, down : int
        Strips or tiles beside and below each other.
    tiled : bool
    offsets, counts : (n,) uint64 arrays
        Where each begins, and its stored bytes, row by row and plane by plane; all within the file.
    doubtful : bool
        A strip claims to become more than a thousand times as large as it is.
    """

    number: int
    nx: int
    ny: int
    bits: int
    samples: int
    dtype: np.dtype
    planes: int
    compression: int
    predictor: int
    reverse: bool
    height: int
    width: int
    across: int
    down: int
    tiled: bool
    offsets: np.ndarray
    counts: np.ndarray
    doubtful: bool

    @property
    def components(self) -> int:
        """Samples that stand beside each other in a strip."""
        return self.samples if self.planes == 1 else 1

    @property
    def row_bytes(self) -> int:
        """Bytes of one decoded row of a strip or tile: a row begins with a new byte."""
        return (self.width * self.components * self.bits + 7) // 8

    def rows(self, down: int) -> int:
        """Rows that are stored in a strip or tile: the last strip ends with the image, a tile never."""
        return self.height if self.tiled else min(self.height, self.ny - down * self.height)

    @property
    def is_contiguous(self) -> bool:
        """Its pixels are plain and in one piece."""
        ends = self.offsets + self.counts
        plain = self.compression == 1 and self.predictor == 1 and not self.tiled and self.planes == 1
        return plain and bool((ends[:-1] == self.offsets[1:]).all())


def key_of(directory: Directory) -> Key:
    """What pages of one series have in common, from the tags alone."""

    def value(code: int, default: int) -> int:
        found = directory.integer(code, default)
        return default if found is None else found

    return (
        value(WIDTH, 0),
        value(LENGTH, 0),
        value(BITS, 1),
        value(SAMPLE_FORMAT, 1),
        value(SAMPLES, 1),
        value(PLANAR, 1),
        value(PHOTOMETRIC, 1),
        value(SUBFILE, 0) & 5,  # reduced in size, or a mask: of another image than that of the frames
    )


def holds_pairs(key: Key) -> bool:
    """Whether the bytes of such pages hold two 4-bit pixels each, as SerialEM packs frames in super-resolution.

    Only the size tells: a half of such a frame, in unsigned bytes, which no camera has by itself.
    """
    nx, ny, bits, kind, samples = key[:5]
    if (bits, kind, samples) != (8, 1, 1):
        return False
    return any(
        (abs(nx - a // 2) <= 2 and abs(ny - b) <= 2) or (abs(nx - b // 2) <= 2 and abs(ny - a) <= 2) for a, b in _PACKED
    )


def parse_page(directory: Directory, key: Key) -> Page:
    """The page that a directory describes.

    Raises
    ------
    FormatError
        It is none that is read here, or its strips are not in the file, or cannot hold what they claim.
    """
    nx, ny, bits, kind, samples, planar, photometric, _ = key
    if nx < 1 or ny < 1:
        raise FormatError(f"an image of {nx} x {ny} pixels")
    if directory.integer(DEPTH, 1) != 1:
        raise FormatError("a page of several sections (ImageDepth) is not read")
    if samples not in (1, 3) or (samples == 3) != (photometric == 2):
        raise FormatError(
            f"{samples} samples a pixel of photometric interpretation {photometric}: grey and RGB are read"
        )
    every = directory.numbers(BITS)
    if every is not None and (every.ndim != 1 or (every != bits).any()):
        raise FormatError(f"samples of different sizes {every.tolist()[:8]}")
    if planar not in (1, 2):
        raise FormatError(f"planar configuration {planar}, expected 1 or 2")
    dtype = _dtype(bits, kind, directory.file.order)
    compression = _value(directory, COMPRESSION, 1)
    if compression not in COMPRESSIONS:
        named = f"{compression} ({_NAMES[compression]})" if compression in _NAMES else str(compression)
        raise FormatError(f"compression {named} is not read")
    predictor = _value(directory, PREDICTOR, 1) if compression not in (1, 32773) else 1
    whole = bits in (8, 16, 32, 64) and dtype.kind != "c"
    if predictor not in (1, 2, 3) or (predictor == 2 and not whole) or (predictor == 3 and dtype.kind != "f"):
        raise FormatError(f"predictor {predictor} of {bits}-bit samples ({dtype}) is not read")
    page = Page(
        directory.number, nx, ny, bits, samples, dtype, samples if planar == 2 else 1, compression, predictor,
        _value(directory, FILL_ORDER, 1) == 2, ny, nx, 1, 1, TILE_WIDTH in directory.tags,
        np.empty(0, np.uint64), np.empty(0, np.uint64), False,
    )  # fmt: skip
    _lay_out(page, directory)
    _compare(page, directory.file.size)
    return page


def _value(directory: Directory, code: int, default: int) -> int:
    found = directory.integer(code, default)
    return default if found is None else found


def _dtype(bits: int, kind: int, order: str) -> np.dtype:
    """Of decoded samples; those of less than 8, or 10 to 14, bits become whole bytes."""
    code = {1: "u", 2: "i", 3: "f", 4: "u", 6: "c"}.get(kind, "")
    if code in ("u", "i") and bits in (8, 16, 32, 64):
        return np.dtype(f"{order}{code}{bits // 8}")
    if (code == "f" and bits in (16, 32, 64)) or (code == "c" and bits in (64, 128)):
        return np.dtype(f"{order}{code}{bits // 8}")
    if code == "u" and bits in (1, 2, 4, 6):
        return np.dtype("u1")
    if code == "u" and bits in (10, 12, 14):
        return np.dtype("=u2")
    raise FormatError(f"{bits}-bit samples of format {kind} are not read")


def _lay_out(page: Page, directory: Directory) -> None:
    """How many strips or tiles there are, and where."""
    if page.tiled:
        page.width, page.height = _value(directory, TILE_WIDTH, 0), _value(directory, TILE_LENGTH, 0)
        if page.width < 1 or page.height < 1:
            raise FormatError(f"tiles of {page.width} x {page.height} pixels")
        what, where, sizes = "tile", TILE_OFFSETS, TILE_COUNTS
    else:
        rows = _value(directory, ROWS, page.ny)
        if rows < 1:
            raise FormatError(f"strips of {rows} rows")
        page.height = min(rows, page.ny)  # 2**32 - 1 is the default: all
        what, where, sizes = "strip", STRIP_OFFSETS, STRIP_COUNTS
    page.across, page.down = -(-page.nx // page.width), -(-page.ny // page.height)
    n = page.across * page.down * page.planes
    lists = []
    for code, name in ((where, "offsets"), (sizes, "byte counts")):
        numbers = directory.numbers(code)
        if numbers is None and code == STRIP_COUNTS and page.compression == 1 and n == page.planes:
            numbers = np.full(n, page.ny * page.row_bytes, np.uint64)  # writers of one strip leave it out
        if numbers is None:
            raise FormatError(f"the {name} of its {what}s are missing")
        if numbers.ndim != 1 or numbers.dtype.kind != "u" or len(numbers) != n:
            raise FormatError(f"{len(numbers)} {name} of {what}s, {n} are needed for {page.nx} x {page.ny} pixels")
        lists.append(numbers.astype(np.uint64))
    page.offsets, page.counts = lists


def _compare(page: Page, size: int) -> None:
    """The strips or tiles with the file, and what they claim to become with what they are."""
    what = "tile" if page.tiled else "strip"
    end = np.uint64(size)
    beyond = (page.offsets > end) | (page.counts > end - np.minimum(page.offsets, end)) | (page.counts == 0)
    if beyond.any():
        k = int(beyond.argmax())
        raise FormatError(
            f"{what} {k} is {int(page.counts[k])} bytes from byte {int(page.offsets[k])} on, the file ends at {size}"
        )
    rows = np.minimum(page.height, page.ny - np.arange(page.down, dtype=object) * page.height)
    least = int(page.height if page.tiled else rows[-1]) * page.row_bytes
    most = page.height * page.row_bytes
    name, ratio = COMPRESSIONS[page.compression]
    # The last strip of each plane may be shorter; of tiles all are alike.
    needed = np.full((page.planes, page.down, page.across), min(most, 2**63), np.uint64)
    needed[:, -1] = min(least, 2**63)
    # Rounded up, so that a strip of one byte more than it needs is not in doubt; divided, so that nothing overflows.
    short = page.counts < needed.ravel() // np.uint64(ratio)
    if ratio > 1:
        short &= needed.ravel() > np.uint64(4096)  # of tiny strips the ratio says nothing
    if short.any():
        k = int(short.argmax())
        raise FormatError(
            f"{what} {k} at byte {int(page.offsets[k])} claims {int(needed.flat[k])} bytes of pixels, the "
            f"{int(page.counts[k])} that are stored ({name}) cannot hold them"
        )
    page.doubtful = most > _SMALL and bool((page.counts < needed.ravel() // np.uint64(_RATIO)).any())
