"""What a killed writer left behind the frames it had promised: whole chunks, told from those it had only begun.

A chunk's header is written after the rest of it, so one that is there and decodes is a frame that was written. Frames
that a `flush` promised are not judged here: where one of them is damaged, that is damage.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mrcz.container.chunks import CHUNK_HEADER_SIZE, FOOTER_MARK, parse_chunk_header, xxh64
from mrcz.container.index import FrameIndex
from mrcz.errors import FormatError
from mrcz.file.claims import doubtful, prove

if TYPE_CHECKING:
    from mrcz.container.header.header import Header
    from mrcz.file.reader import Reader

__all__ = ["Left", "decoded", "left_by_a_kill", "measured"]

_SCAN = 4 << 20  # bytes looked through at a time for what is not zero


@dataclass(frozen=True)
class Left:
    """What an append finds in a file whose last writer was killed.

    Attributes
    ----------
    index : FrameIndex
        Every whole frame: those promised, then those behind them.
    moments : ndarray of float64, shape (n, 5)
        Of the n frames that the footer does not know, as `mrcz.container.statistics.frame_moments` has them.
    footer : bytes or None
        The last valid footer as it stands in the file, from byte `footer_start` on.
    size : int
        Bytes of the file.
    text : str
        What was found, and what is given up, in words; empty where that is nothing.
    """

    index: FrameIndex
    moments: np.ndarray
    footer: bytes | None
    footer_start: int
    size: int
    text: str


def decoded(data: bytes, nbytes: int) -> np.ndarray:
    """The *nbytes* bytes that a chunk holds.

    Raises
    ------
    FormatError, CoreError
        It holds something else.
    """
    from _cmrcz.chunk import decode

    if doubtful(np.array([len(data)]), nbytes)[0]:
        prove(data, nbytes)
    out = np.empty(nbytes, np.uint8)
    decode(np.frombuffer(data, np.uint8), out)
    return out


def measured(header: Header, stored: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Statistics, (4,), and moments, (5,), of a frame's pixels as a reader gives them, from its decoded bytes."""
    from mrcz.container.statistics import frame_moments, frame_stats

    pixels = header.pixel_format
    frame = pixels.from_stored(stored.view(pixels.stored).reshape(pixels.stored_shape(header.ny, header.nx)), header.nx)
    moments = np.zeros((1, 5))
    if frame.dtype.kind != "c":
        moments[0] = frame_moments(frame)
    stats = frame_stats(moments)
    return (np.full(4, np.nan) if stats is None else stats[0]), moments[0]


def left_by_a_kill(reader: Reader) -> Left | None:
    """What stands behind the frames of a compressed file, if a writer of ours was killed there.

    Returns
    -------
    Left or None
        None where the file was closed, and where something else follows its frames: that is for `mrcz recover`.

    Raises
    ------
    FormatError
        A frame that was promised is damaged.
    """
    footer, source, size = reader.footer, reader.source, reader.file_nbytes
    promised = reader.index
    known = 0 if footer is None else len(footer.index)
    stop = size if footer is None else footer.trailer.start
    at = promised.end if len(promised) else reader.header.data_offset
    if not reader.is_compressed or reader.has_unknown_footer or known > len(promised) or at > stop:
        return None
    if footer is None:
        # No append of ours writes a frame before there is a footer, only that footer, behind a gap of zeros.
        if at == size or reader.damage or not _is_begun_footer(source, at, size):
            return None
        text = f"its writer was killed before it had added a frame; {size - at} bytes of a footer it had begun are "
        text += "given up"
        return Left(promised, np.zeros((0, 5)), None, at, size, text)
    end = footer.trailer.end
    if at == stop and end == size and known == len(promised):
        return None
    if not _is_begun_footer(source, end, size):
        return None
    nbytes = reader.header.frame_nbytes
    sizes, hashes, stats, moments = [], [], [], []

    def take(data: bytes) -> None:
        row, of_frame = measured(reader.header, decoded(data, nbytes))
        sizes.append(len(data))
        hashes.append(xxh64(data))
        stats.append(row)
        moments.append(of_frame)

    for k in range(known, len(promised)):  # the header was written, and its footer not any more
        data = source.read(int(promised.offsets[k]), int(promised.sizes[k]))
        try:
            take(data)
        except Exception as error:
            raise FormatError(f"frame {k} is damaged ({error}): see `mrcz recover`", path=reader.path) from None
    while (chunk := _whole_chunk(source, at, stop, nbytes)) is not None:
        take(chunk)
        at += len(chunk)
    start = footer.index.end if known else reader.header.data_offset
    before = footer.index
    if before.hashes is None and known:  # all frames have a checksum, or none
        before = FrameIndex(before.offsets, before.sizes, reader.hash_frames()[:known], before.stats)
    index = FrameIndex.concatenate([before, FrameIndex.from_sizes(sizes, start, hashes, np.reshape(stats, (-1, 4)))])
    more = len(index) - len(promised)
    told = []
    if more:
        told.append(f"{more} whole frame{'s' * (more > 1)} behind the {len(promised)} that its header counts are there")
    if given_up := _until_last_byte(source, at, stop):
        told.append(f"{given_up} bytes of what was begun behind its {len(index)} frames are given up")
    text = f"its writer was killed: {'; '.join(told)}" if told else ""
    tail = source.read(footer.trailer.start, end - footer.trailer.start)
    return Left(index, np.reshape(moments, (-1, 5)), tail, footer.trailer.start, size, text)


def _whole_chunk(source: Any, at: int, stop: int, nbytes: int) -> bytes | None:
    """The chunk of a frame of *nbytes* bytes that begins at a place, if it is whole."""
    from _cmrcz.status import CoreError

    try:
        first = source.read(at, min(CHUNK_HEADER_SIZE, stop - at))
        head = parse_chunk_header(first, nbytes=nbytes, remaining=stop - at)
        data: bytes = source.read(at, head.cbytes)
        decoded(data, nbytes)
    except (CoreError, FormatError):
        return None
    return data


def _is_begun_footer(source: Any, at: int, size: int) -> bool:
    """Whether what stands from a place to the end of the file is nothing, or a footer that was only begun: behind
    zeros, the gap in front of it."""
    while at < size:
        block = source.read(at, _SCAN)
        rest = block.lstrip(b"\0")
        if rest:
            begun = source.read(at + len(block) - len(rest), len(FOOTER_MARK))
            return FOOTER_MARK.startswith(begun)
        at += len(block)
    return True


def _until_last_byte(source: Any, at: int, stop: int) -> int:
    """Bytes from a place to the last one before *stop* that is not zero; none where an older footer is all there is."""
    last = at
    if source.read(at, len(FOOTER_MARK)) == FOOTER_MARK:
        return 0
    for start in range(at, stop, _SCAN):
        used = source.read(start, min(_SCAN, stop - start)).rstrip(b"\0")
        last = start + len(used) if used else last
    return last - at
