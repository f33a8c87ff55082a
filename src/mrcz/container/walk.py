"""The walk over the chunks of a file without a footer: each says where the next one begins."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mrcz.container.chunks import CHUNK_HEADER_SIZE, FOOTER_MARK, Read, parse_chunk_header
from mrcz.container.index import FrameIndex
from mrcz.errors import ChunkError, FormatError

__all__ = ["Walk", "walk_chunks"]


@dataclass(frozen=True)
class Walk:
    """What a walk over the chunks found.

    Attributes
    ----------
    index : FrameIndex
        The whole chunks, without checksums and statistics.
    end : int
        Byte after the last whole chunk.
    defect : ChunkError or None
        What stopped the walk before the wanted number of frames.
    """

    index: FrameIndex
    end: int
    defect: ChunkError | None = None


def walk_chunks(
    read: Read,
    start: int,
    limit: int,
    n_frames: int | None = None,
    *,
    nbytes: int | None = None,
    first_frame: int = 0,
    read_ahead: int = CHUNK_HEADER_SIZE,
) -> Walk:
    """Find the chunks by their own headers, each of which says where the next one begins.

    Parameters
    ----------
    read : callable
        ``read(offset, n) -> bytes``.
    start, limit : int
        The first chunk's offset, and the byte where chunks end at the latest.
    n_frames : int, optional
        Stop after this many; fewer are a defect. If not given, walk until *limit* or until something that is no chunk:
        a footer is then a proper end, everything else a defect.
    nbytes : int, optional
        Decoded bytes every frame must have.
    first_frame : int
        Number of the first chunk, for messages.
    read_ahead : int
        Bytes fetched at a time: 16 for a local file; more spares requests where chunks are small and requests dear.
    """
    offsets: list[int] = []
    sizes: list[int] = []
    defect = None
    offset, base, block = start, start, b""
    while n_frames is None or len(offsets) < n_frames:
        if n_frames is None and offset >= limit:
            break
        relative = offset - base
        if relative + CHUNK_HEADER_SIZE > len(block):
            want = min(max(read_ahead, CHUNK_HEADER_SIZE), max(limit - offset, 0))
            base, relative = offset, 0
            block = read(offset, want) if want else b""
        head = block[relative : relative + CHUNK_HEADER_SIZE]
        if n_frames is None and head[:8] == FOOTER_MARK:
            break
        try:
            chunk = parse_chunk_header(head, nbytes=nbytes, remaining=limit - offset)
        except FormatError as error:
            message = error.message
            if head[:8] == FOOTER_MARK:
                message = f"the footer begins here, {n_frames} frames were expected"
            defect = ChunkError(message, frame=first_frame + len(offsets), offset=offset)
            break
        offsets.append(offset)
        sizes.append(chunk.cbytes)
        offset += chunk.cbytes
    return Walk(FrameIndex(np.array(offsets, "i8"), np.array(sizes, "i8")), offset, defect)
