"""The plain file that a compressed one was made from: its header, its name, its bytes; and frames a few at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from mrcz.container.header.header import Header
from mrcz.errors import FormatError
from mrcz.threads import default_threads

if TYPE_CHECKING:
    from mrcz.container.pieces import PiecesRecord, Skeleton
    from mrcz.file.reader import Reader

__all__ = [
    "Counter",
    "Progress",
    "Seen",
    "blocks",
    "original_header",
    "pieces_of",
    "plain_header",
    "readable",
    "restored",
    "skeleton_of",
    "source_name",
]

_BLOCK = 64 << 20  # bytes of frames held at a time, or more where every thread would not get a frame of its own
_LARGE_BLOCK = 512 << 20

Progress = Callable[[int, int], None]

#: Is shown frames, (n, ny, nx), while they are on their way to somebody else.
Seen = Callable[[np.ndarray], None]


class Counter:
    """Adds up bytes and passes the sum on."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0

    def __call__(self, n_bytes: int) -> None:
        self._done += n_bytes
        if self._progress is not None:
            self._progress(self._done, self._total)


def blocks(reader: Reader, seen: Seen | None = None) -> Iterator[np.ndarray]:
    """Frames in order, (n, ny, nx), a few at a time, each shown to `seen` first; each block is overwritten by the
    next."""
    nz = len(reader)
    if not nz:
        return
    frame = max(1, reader.nbytes // nz)
    threads = min(reader.n_threads or default_threads(), _LARGE_BLOCK // frame)
    count = min(nz, max(1, _BLOCK // frame, threads))
    buffer = np.empty((count, *reader.shape[1:]), reader.dtype)
    for start in range(0, nz, count):
        stop = min(nz, start + count)
        frames = reader.read(slice(start, stop), out=buffer[: stop - start])
        if seen is not None:
            seen(frames)
        yield frames


def original_header(reader: Reader) -> Header | None:
    """Header of the plain file that a compressed one was made from; None where it was made from none.

    Also None where frames were added since, so that the header no longer fits.
    """
    if not reader.is_compressed or reader.footer is None or reader.footer.source_header is None:
        return None
    original = Header.parse(reader.footer.source_header, path=reader.path)
    nz, ny, nx = reader.header.shape
    # nz may be larger than what is there: then the plain file promised more frames than it held.
    fits = (original.ny, original.nx) == (ny, nx) and original.nz >= nz and not original.compressed
    return original if fits else None


def pieces_of(reader: Reader) -> PiecesRecord | None:
    """How a file of another format is made of a compressed one again, byte for byte; None where it is not: of a file
    that was made from none, or to which frames were added since.

    Raises
    ------
    FormatError
        What says so is damaged, or of a later version.
    """
    if not reader.is_compressed or reader.footer is None or "pieces" not in reader.footer.extra:
        return None
    from mrcz.container.pieces import ENTRY, decode_pieces

    try:
        record = decode_pieces(reader.footer.extra[ENTRY])
    except FormatError as error:
        raise FormatError(error.message, path=reader.path) from None
    return record if record.frames == len(reader) else None


def skeleton_of(reader: Reader, record: PiecesRecord) -> Skeleton:
    """The bytes around the frames of the file that comes back by `pieces_of`.

    Raises
    ------
    FormatError
        They are missing, damaged, or of other frames.
    """
    from mrcz.container.pieces import COLUMN, decode_skeleton

    assert reader.footer is not None
    try:
        if len(reader.shape) == 4 and record.packing:
            raise FormatError("pieces: colours are not packed")
        values = reader.footer.metadata(reader.source.read) or {}
        return decode_skeleton(values.get(COLUMN), len(reader) * record.parts(reader.shape[1:3]))
    except FormatError as error:
        raise FormatError(error.message, path=reader.path) from None


def plain_header(reader: Reader, *, nz: int | None = None, original: bool = True) -> Header:
    """Header of the plain file that decompressing gives: of the one it was made from, or else built from its own.

    Parameters
    ----------
    nz : int, optional
        Frames of a header that is built; default those that are there.
    original : bool
        False leaves `original_header` out.
    """
    if original and (found := original_header(reader)) is not None:
        return found
    header = reader.header
    nz = len(reader) if nz is None else nz
    # Volumes of which one is incomplete stay what they are: their MZ is copied, and not asked for.
    volumes = header.kind == "volume stack" and nz % header.mz == 0
    return Header.build(
        (nz, header.ny, header.nx),
        reader.pixel_format,
        like=header,
        kind=header.kind,
        stats=header.stats,
        exttyp=header.exttyp,
        nsymbt=len(reader.extended_bytes),
        mz=header.mz if volumes else None,
    )


def source_name(reader: Reader) -> str | None:
    """Name of the file a compressed one was made from; None where it does not say."""
    name = reader.footer.extra.get("source_name") if reader.footer is not None else None
    return name if isinstance(name, str) else None


def readable(name: str) -> str:
    """A file name as UTF-8 text; bytes that are none (names from older systems) are replaced."""
    return os.fsencode(name).decode("utf-8", "replace")


def plain_head(reader: Reader, header: Header) -> bytes:
    """What stands before the pixels of a plain file of this header."""
    return header.tobytes() + reader.extended_bytes


def plain_pixels(header: Header, frames: np.ndarray) -> np.ndarray:
    """The bytes of frames as a plain file of this header has them, flat uint8; no copy where they are the same."""
    # astype (inside to_stored) keeps the bits: bytes read as unsigned become signed ones again, uint16 that stand for
    # bytes become bytes.
    return np.ascontiguousarray(header.pixel_format.to_stored(frames)).reshape(-1).view(np.uint8)


def restored(
    reader: Reader, original: Header, tell: Callable[[int], None], seen: Seen | None = None
) -> Iterator[bytes | memoryview]:
    """The bytes of the plain file that `reader` was compressed from, in pieces."""
    yield plain_head(reader, original)
    for frames in blocks(reader, seen):
        yield plain_pixels(original, frames).data
        tell(original.frame_nbytes * len(frames))
