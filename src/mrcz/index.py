"""Where each frame of a compressed file lies: the frame index, the footer that stores it, and read plans.

Pure functions on bytes and arrays: nothing here opens a file. What has to look at one takes a callable
``read(offset, n) -> bytes`` that may return fewer than *n* bytes only at the end of the file. The bytes are
specified in ``docs/container.md``.
"""

from __future__ import annotations

import struct
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from mrcz.errors import ChunkError, FormatError, FormatWarning

__all__ = [
    "CHUNK_HEADER_SIZE",
    "FOOTER_MARK",
    "FOOTER_VERSION",
    "TAIL_SIZE",
    "TRAILER_MAGIC",
    "TRAILER_SIZE",
    "ChunkHeader",
    "Footer",
    "FrameIndex",
    "ReadRange",
    "Trailer",
    "Walk",
    "decode_footer",
    "encode_footer",
    "find_footer",
    "load_footer",
    "move_footer",
    "parse_chunk_header",
    "parse_trailer",
    "plan_reads",
    "walk_chunks",
    "xxh64",
]

Read = Callable[[int, int], bytes]

CHUNK_HEADER_SIZE = 16
"""Bytes of a Blosc chunk header that say how long the chunk is."""

FOOTER_MARK = b"\x89MRCZ\r\n\x1a"
"""First eight bytes of a footer. 0x89 is no Blosc version, so no walk mistakes it for a chunk; CR LF and ^Z show a
transfer in text mode."""

TRAILER_MAGIC = b"MRCZ_END"
"""Last eight bytes of a footer, and of the file."""

TRAILER_SIZE = 64
FOOTER_VERSION = 1
TAIL_SIZE = 1 << 16
"""Bytes read from the end of a file to find its footer: holds the index of about 2000 frames with its checksums."""

_TRAILER = struct.Struct("<QQQQQHHI")  # start, stored, raw, body hash, frames, version, flags, trailer size
_COMPRESSION = {None: 0, "zstd": 1, "lz4": 2}
_CHUNK = struct.Struct("<BBBBIII")
_MAX_CHUNK = 2**31 - 1

# A stored section may claim to unpack to this many bytes at most. Writers store what would exceed it uncompressed, so
# no honest file is refused and a hostile one of a few bytes cannot ask for gigabytes.
_UNPACK_BASE, _UNPACK_RATIO = 1 << 20, 100


def xxh64(buffer: Any) -> int:
    """XXH64, seed 0, of a contiguous buffer: the checksum used throughout the container."""
    from _cmrcz.chunk import xxh64 as core

    return core(buffer)


# --- the index ---------------------------------------------------------------------------------------------------


def _frozen(values: Any, dtype: str) -> np.ndarray:
    array = np.array(values, dtype=dtype)
    array.flags.writeable = False
    return array


@dataclass(frozen=True, eq=False)
class FrameIndex:
    """Place, size, checksum and statistics of the stored bytes of each frame.

    Parameters
    ----------
    offsets : array_like of int64, shape (nz,)
        Absolute file offset, in bytes, of each chunk.
    sizes : array_like of int64, shape (nz,)
        Stored bytes of each chunk.
    hashes : array_like of uint64, shape (nz,), optional
        XXH64 (seed 0) of the stored bytes of each chunk.
    stats : array_like of float64, shape (nz, 4), optional
        Minimum, maximum, mean and standard deviation of the pixels of each frame, in the units of the pixels.

    Raises
    ------
    ValueError
        If the lengths disagree.

    Notes
    -----
    The arrays are copied and read-only. ``index[3]`` and ``index[a:b:c]`` and ``index[[1, 5]]`` give a FrameIndex of
    those frames; ``len(index)`` is nz.
    """

    offsets: np.ndarray
    sizes: np.ndarray
    hashes: np.ndarray | None = None
    stats: np.ndarray | None = None

    def __post_init__(self) -> None:
        put = object.__setattr__  # frozen for everybody else
        put(self, "offsets", _frozen(self.offsets, "i8"))
        put(self, "sizes", _frozen(self.sizes, "i8"))
        n = self.offsets.size
        if self.offsets.shape != (n,) or self.sizes.shape != (n,):
            raise ValueError(f"offsets {self.offsets.shape} and sizes {self.sizes.shape} are not two equal lists")
        if self.hashes is not None:
            put(self, "hashes", _frozen(self.hashes, "u8"))
            if self.hashes.shape != (n,):
                raise ValueError(f"{self.hashes.size} checksums for {n} frames")
        if self.stats is not None:
            put(self, "stats", _frozen(self.stats, "f8").reshape(-1, 4))
            if self.stats.shape != (n, 4):
                raise ValueError(f"{len(self.stats)} rows of statistics for {n} frames")

    @classmethod
    def from_sizes(cls, sizes: Any, first: int, hashes: Any = None, stats: Any = None) -> FrameIndex:
        """Index of chunks that lie back to back from byte *first* on."""
        sizes = np.asarray(sizes, dtype="i8").reshape(-1)
        offsets = np.full(sizes.size, first, dtype="i8")
        np.cumsum(sizes[:-1], out=offsets[1:])
        offsets[1:] += first
        return cls(offsets, sizes, hashes, stats)

    @classmethod
    def concatenate(cls, parts: Sequence[FrameIndex]) -> FrameIndex:
        """The frames of all *parts* in order; checksums and statistics are kept where every part has them."""
        if not parts:
            return cls.from_sizes([], 0)
        full = [part for part in parts if len(part)] or parts[:1]
        hashes = [part.hashes for part in full if part.hashes is not None]
        stats = [part.stats for part in full if part.stats is not None]
        return cls(
            np.concatenate([part.offsets for part in full]),
            np.concatenate([part.sizes for part in full]),
            np.concatenate(hashes) if len(hashes) == len(full) else None,
            np.concatenate(stats) if len(stats) == len(full) else None,
        )

    def __len__(self) -> int:
        return self.offsets.size

    def __getitem__(self, key: int | slice | Sequence[int] | np.ndarray) -> FrameIndex:
        if isinstance(key, (int, np.integer)):
            if not -len(self) <= key < len(self):
                raise IndexError(f"frame {key} of {len(self)}")
            key = [int(key) % len(self)]
        return FrameIndex(
            self.offsets[key],
            self.sizes[key],
            None if self.hashes is None else self.hashes[key],
            None if self.stats is None else self.stats[key],
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, FrameIndex):
            return NotImplemented
        return all(
            a is b or (a is not None and b is not None and np.array_equal(a, b, equal_nan=a.dtype.kind == "f"))
            for a, b in (
                (self.offsets, other.offsets),
                (self.sizes, other.sizes),
                (self.hashes, other.hashes),
                (self.stats, other.stats),
            )
        )

    __hash__ = None  # type: ignore[assignment]

    @property
    def nbytes(self) -> int:
        """Stored bytes of all chunks."""
        return int(self.sizes.sum())

    @property
    def end(self) -> int:
        """Byte after the last chunk of the file (0 for an empty index)."""
        return int((self.offsets + self.sizes).max()) if len(self) else 0

    @property
    def is_contiguous(self) -> bool:
        """Whether the chunks lie back to back in frame order, as readers that walk them need."""
        return bool(np.array_equal(self.offsets[1:], (self.offsets + self.sizes)[:-1]))

    def check(self, data_offset: int, limit: int) -> None:
        """Compare with the file: chunks in frame order, none overlapping, all between *data_offset* and *limit*.

        Raises
        ------
        FormatError
            ChunkError naming the first frame that does not fit.
        """
        # Sizes and offsets are bounded before they are added, so that hostile numbers cannot wrap around.
        wrong = (self.sizes < CHUNK_HEADER_SIZE) | (self.sizes > _MAX_CHUNK)
        wrong |= (self.offsets < data_offset) | (self.offsets > limit)
        if wrong.any():
            frame = int(np.argmax(wrong))
            raise ChunkError(
                f"index claims {self.sizes[frame]} bytes at {self.offsets[frame]}, data lie in {data_offset}..{limit}",
                frame=frame,
                offset=int(self.offsets[frame]),
            )
        stops = self.offsets + self.sizes
        bounds = np.append(self.offsets[1:], limit)
        late = stops > bounds if len(self) else np.zeros(0, bool)
        if late.any():
            frame = int(np.argmax(late))
            raise ChunkError(
                f"index claims {self.sizes[frame]} bytes, {bounds[frame] - self.offsets[frame]} remain before "
                + ("the next frame" if frame + 1 < len(self) else "the end of the data"),
                frame=frame,
                offset=int(self.offsets[frame]),
            )


class ReadRange(NamedTuple):
    """One read of ``stop - start`` bytes at ``start`` that brings in the chunks of ``frames`` (in file order)."""

    start: int
    stop: int
    frames: tuple[int, ...]

    @property
    def size(self) -> int:
        return self.stop - self.start


def plan_reads(
    index: FrameIndex, frames: Iterable[int] | None = None, max_gap: int = 0, max_size: int = 64 << 20
) -> list[ReadRange]:
    """Merge the chunks of *frames* into few reads.

    Parameters
    ----------
    index : FrameIndex
    frames : iterable of int, optional
        Frame numbers, 0-based, in any order; repeated ones are read once. All frames if not given.
    max_gap : int
        Bytes nobody asked for that a read may include to save another one.
    max_size : int
        Bytes a merged read may have. A single chunk that is larger is a read of its own.

    Returns
    -------
    list of ReadRange
        In file order; every wanted frame in exactly one.

    Raises
    ------
    IndexError
        If a frame is outside the index.
    """
    wanted = np.unique(np.arange(len(index)) if frames is None else np.fromiter(frames, "i8"))
    if wanted.size and (wanted[0] < 0 or wanted[-1] >= len(index)):
        raise IndexError(f"frames {wanted[0]}..{wanted[-1]} of {len(index)}")
    wanted = wanted[np.argsort(index.offsets[wanted], kind="stable")]
    starts = index.offsets[wanted].tolist()
    sizes = index.sizes[wanted].tolist()
    plan: list[ReadRange] = []
    group: list[int] = []
    start = stop = 0
    for frame, offset, size in zip(wanted.tolist(), starts, sizes, strict=True):
        if group and (offset - stop > max_gap or offset + size - start > max_size):
            plan.append(ReadRange(start, stop, tuple(group)))
            group = []
        if not group:
            start = stop = offset
        group.append(frame)
        stop = max(stop, offset + size)
    if group:
        plan.append(ReadRange(start, stop, tuple(group)))
    return plan


# --- chunks ------------------------------------------------------------------------------------------------------


class ChunkHeader(NamedTuple):
    """The 16 bytes at the head of a Blosc chunk (c-blosc ``README_CHUNK_FORMAT``)."""

    version: int
    versionlz: int
    flags: int
    typesize: int
    nbytes: int
    """Bytes of the decoded frame."""
    blocksize: int
    cbytes: int
    """Stored bytes of the chunk, this header included."""


def parse_chunk_header(head: bytes, *, nbytes: int | None = None, remaining: int | None = None) -> ChunkHeader:
    """Parse and check the header of a chunk.

    Parameters
    ----------
    head : bytes
        At least its first 16 bytes.
    nbytes : int, optional
        Decoded bytes of a frame; another number in the chunk is an error.
    remaining : int, optional
        Bytes of the file from the chunk's first one on; a chunk that claims more is an error.

    Raises
    ------
    FormatError
        Saying what was found and what was expected.
    """
    if len(head) < CHUNK_HEADER_SIZE:
        raise FormatError(f"a chunk header has {CHUNK_HEADER_SIZE} bytes, {len(head)} remain")
    chunk = ChunkHeader(*_CHUNK.unpack_from(head))
    if chunk.version not in (2, 5):
        raise FormatError(f"no chunk here: version byte is {chunk.version}, expected 2 (Blosc 1) or 5 (Blosc 2)")
    least = 16 if chunk.version == 2 else 32
    if not least <= chunk.cbytes <= _MAX_CHUNK:
        raise FormatError(f"chunk claims {chunk.cbytes} stored bytes, expected {least} to {_MAX_CHUNK}")
    if chunk.nbytes > _MAX_CHUNK or (nbytes is not None and chunk.nbytes != nbytes):
        raise FormatError(f"chunk claims {chunk.nbytes} decoded bytes, expected {nbytes or f'at most {_MAX_CHUNK}'}")
    if remaining is not None and chunk.cbytes > remaining:
        raise FormatError(f"chunk claims {chunk.cbytes} bytes, {remaining} remain")
    return chunk


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


# --- the footer --------------------------------------------------------------------------------------------------


class Trailer(NamedTuple):
    """The fixed 64 bytes that end a footer.

    ``position`` (of the trailer itself) and ``start`` (of the footer) are absolute file offsets.
    """

    position: int
    start: int
    stored: int
    """Stored bytes of the body, which lies right before the trailer."""
    raw: int
    """Bytes of the body once unpacked."""
    body_hash: int
    n_frames: int
    version: int
    flags: int

    @property
    def body_start(self) -> int:
        return self.position - self.stored

    @property
    def end(self) -> int:
        return self.position + TRAILER_SIZE


@dataclass(frozen=True)
class Footer:
    """What the footer of a file holds.

    Attributes
    ----------
    index : FrameIndex
    header_hash, extended_header_hash : int or None
        XXH64 of the file's 1024 header bytes and of its NSYMBT extended header bytes when it was closed or flushed.
    header_copy : bytes or None
        Those 1024 header bytes: what `mrcz recover` puts back where they are damaged.
    source_header : bytes or None
        The 1024 header bytes of the file this one was converted from.
    writer : str
        Program and version that wrote it.
    extra : dict
        Entries of the body this version does not know, kept when the footer is written again.
    metadata_span : (int, int) or None
        Absolute offset and stored size of the metadata section; None if there is none.
    trailer : Trailer
    """

    index: FrameIndex
    header_hash: int | None
    extended_header_hash: int | None
    header_copy: bytes | None
    source_header: bytes | None
    writer: str
    extra: dict
    trailer: Trailer
    metadata_span: tuple[int, int] | None = None
    _metadata: Mapping[str, Any] = field(default_factory=dict, repr=False)
    _metadata_stored: bytes | None = field(default=None, repr=False)

    def metadata_bytes(self, read: Read | None = None) -> bytes | None:
        """The metadata as MessagePack, fetched with *read* if they did not come with the tail; None if there are none.

        Raises
        ------
        FormatError
            If they are damaged or cut short.
        """
        if self.metadata_span is None:
            return None
        offset, size = self.metadata_span
        stored = self._metadata_stored
        if stored is None:
            if read is None:
                raise ValueError("the metadata section was not read with the footer: pass read=")
            stored = read(offset, size)
        if len(stored) != size or xxh64(stored) != self._metadata.get("xxh64"):
            raise FormatError(f"metadata at byte {offset} are damaged: {size} bytes do not match their checksum")
        return _unpack_section(stored, self._metadata.get("raw"), self._metadata.get("codec"), "metadata")

    def metadata(self, read: Read | None = None) -> dict | None:
        """The metadata as a dict; see `metadata_bytes`."""
        packed = self.metadata_bytes(read)
        if packed is None:
            return None
        from mrcz.metadata import unpack

        return unpack(packed)


def _pack_section(raw: bytes, compress: str | None) -> tuple[bytes, str | None]:
    """Compress *raw* if that makes it smaller and readers would accept the ratio."""
    if compress is None:
        return raw, None
    if compress == "zstd":
        import zstandard

        stored = zstandard.ZstdCompressor(level=3, write_checksum=False, write_content_size=True).compress(raw)
    else:
        import lz4.block

        stored = lz4.block.compress(raw, store_size=False)
    if len(stored) >= len(raw) or len(raw) > _UNPACK_BASE + _UNPACK_RATIO * len(stored):
        return raw, None
    return stored, compress


def _unpack_section(stored: bytes, raw: Any, codec: Any, what: str) -> bytes:
    if not isinstance(raw, int) or raw < 0:
        raise FormatError(f"{what}: length {raw!r} is no length")
    if codec is None:
        if raw != len(stored):
            raise FormatError(f"{what}: {raw} bytes claimed, {len(stored)} stored")
        return bytes(stored)
    if raw > _UNPACK_BASE + _UNPACK_RATIO * len(stored):
        raise FormatError(f"{what}: {len(stored)} stored bytes claim to unpack to {raw}")
    # The stored bytes match their checksum here; what follows can fail only if the writer was wrong or hostile.
    if codec == "zstd":
        import zstandard

        try:
            claimed = zstandard.frame_content_size(stored)
            if claimed != raw:
                raise FormatError(f"{what}: zstd frame of {claimed} bytes, expected {raw}")
            out = zstandard.ZstdDecompressor().decompress(stored, max_output_size=max(raw, 1))
        except zstandard.ZstdError as error:
            raise FormatError(f"{what}: {error}") from error
    elif codec == "lz4":
        import lz4.block

        try:
            out = lz4.block.decompress(stored, uncompressed_size=raw)
        except lz4.block.LZ4BlockError as error:
            raise FormatError(f"{what}: {error}") from error
    else:
        raise FormatError(f"{what}: compression {codec!r} is unknown")
    if len(out) != raw:
        raise FormatError(f"{what}: unpacks to {len(out)} bytes, expected {raw}")
    return out


def encode_footer(
    index: FrameIndex,
    *,
    header_bytes: bytes | None = None,
    extended_header_bytes: bytes | None = None,
    metadata: dict | bytes | None = None,
    source_header: bytes | None = None,
    writer: str = "mrcz",
    extra: Mapping[str, Any] | None = None,
    compress: str | None = "zstd",
    start: int | None = None,
) -> bytes:
    """The footer of a file, ready to be written at byte *start*.

    Parameters
    ----------
    index : FrameIndex
    header_bytes, extended_header_bytes : bytes, optional
        As they stand in the file (1024 and NSYMBT bytes): their checksums are stored, and a copy of the former.
    metadata : dict or bytes, optional
        A dict, packed with `mrcz.metadata.pack`, or such packed bytes as they are.
    source_header : bytes, optional
        The 1024 header bytes of the file this one was made from.
    writer : str
        Name and version of the writing program.
    extra : mapping, optional
        Further entries of the body: names to what MessagePack takes.
    compress : {"zstd", "lz4", None}
        How body and metadata are stored; what would not shrink is stored as it is.
    start : int, optional
        Where the footer will be written: right after the last chunk if not given.

    Returns
    -------
    bytes

    Raises
    ------
    ValueError
        If *compress* is unknown or *extra* uses a name of the format.
    """
    if compress not in _COMPRESSION:
        raise ValueError(f"compress={compress!r}: expected 'zstd', 'lz4' or None")
    import msgpack

    n = len(index)
    first = int(index.offsets[0]) if n else 1024 + len(extended_header_bytes or b"")
    if start is None:
        start = index.end if n else first
    body: dict[str, Any] = {"writer": writer, "frames": n, "first": first, "sizes": index.sizes.astype("<u4").tobytes()}
    if not index.is_contiguous:
        body["offsets"] = index.offsets.astype("<u8").tobytes()
    if index.hashes is not None:
        body["xxh64"] = index.hashes.astype("<u8").tobytes()
    if index.stats is not None and not (n and np.isnan(index.stats).all()):
        # Planar, so that equal exponents lie side by side for the compressor.
        body["stats"] = np.ascontiguousarray(index.stats.T, dtype="<f8").tobytes()
    if header_bytes is not None:
        body["header"] = xxh64(header_bytes)
        body["header_copy"] = bytes(header_bytes)
    if extended_header_bytes is not None:
        body["extended"] = xxh64(extended_header_bytes)
    if source_header is not None:
        body["source_header"] = bytes(source_header)
    section = b""
    if metadata is not None:
        if isinstance(metadata, (bytes, bytearray, memoryview)):
            packed = bytes(metadata)
        else:
            from mrcz.metadata import pack

            packed = pack(metadata)
        section, codec = _pack_section(packed, compress)
        body["metadata"] = {"size": len(section), "raw": len(packed), "xxh64": xxh64(section), "codec": codec}
    for name, value in (extra or {}).items():
        if name in _KNOWN:
            raise ValueError(f"{name!r} is a name of the footer format, not for extra=")
        body[name] = value
    raw = msgpack.packb(body, use_bin_type=True)
    stored, codec = _pack_section(raw, compress)
    trailer = _TRAILER.pack(
        start, len(stored), len(raw), xxh64(stored), n, FOOTER_VERSION, _COMPRESSION[codec], TRAILER_SIZE
    )
    return b"".join((FOOTER_MARK, section, stored, trailer, xxh64(trailer).to_bytes(8, "little"), TRAILER_MAGIC))


def move_footer(footer: bytes, start: int) -> bytes:
    """The same footer, to be written at byte *start*; the frames it speaks of stay where they are."""
    values = _TRAILER.unpack(footer[-TRAILER_SIZE:-16])
    if values[0] == start:
        return footer
    trailer = _TRAILER.pack(start, *values[1:])
    return footer[:-TRAILER_SIZE] + trailer + xxh64(trailer).to_bytes(8, "little") + TRAILER_MAGIC


_KNOWN = frozenset(
    "writer frames first sizes offsets xxh64 stats header header_copy extended source_header metadata".split()
)


def parse_trailer(tail: bytes, end: int) -> Trailer | None:
    """The trailer at the end of *tail*.

    Parameters
    ----------
    tail : bytes
        The last bytes of the file (or of the part of it that ends with a footer); at least 64 are needed.
    end : int
        File offset of the byte after *tail*: the size of the file.

    Returns
    -------
    Trailer or None
        None if there is no footer, or one of an unknown version (with a FormatWarning).

    Raises
    ------
    FormatError
        If the magic is there and the rest is damaged or contradicts the size of the file.
    """
    if len(tail) < TRAILER_SIZE or tail[-8:] != TRAILER_MAGIC:
        return None
    raw = bytes(tail[-TRAILER_SIZE:])
    if xxh64(raw[:48]) != int.from_bytes(raw[48:56], "little"):
        raise FormatError("footer: the trailer does not match its checksum")
    start, stored, raw_size, body_hash, n_frames, version, flags, size = _TRAILER.unpack(raw[:48])
    if version != FOOTER_VERSION or size != TRAILER_SIZE or flags not in _COMPRESSION.values():
        warnings.warn(f"footer version {version} (flags {flags}) is not known here and ignored", FormatWarning, 2)
        return None
    position = end - TRAILER_SIZE
    if stored > position or start > position - stored - len(FOOTER_MARK):
        raise FormatError(f"footer: body of {stored} bytes and start {start} do not fit before byte {position}")
    return Trailer(position, start, stored, raw_size, body_hash, n_frames, version, flags)


def decode_footer(tail: bytes, end: int, *, data_offset: int = 0) -> Footer | None:
    """Decode the footer at the end of *tail*.

    Parameters
    ----------
    tail : bytes
        The last bytes of the file, at least from the body of the footer on (`Trailer.body_start`); if they reach back
        to the start of the footer, the metadata need no further read.
    end : int
        File offset of the byte after *tail*: the size of the file.
    data_offset : int
        Where chunks may begin: 1024 + NSYMBT.

    Returns
    -------
    Footer or None
        None if there is no footer, or one of an unknown version.

    Raises
    ------
    FormatError
        If it is damaged, or its index does not fit the file.
    ValueError
        If *tail* is too short to hold the body.
    """
    import msgpack

    trailer = parse_trailer(tail, end)
    if trailer is None:
        return None
    base = end - len(tail)
    if trailer.body_start < base:
        raise ValueError(f"the footer's body starts at byte {trailer.body_start}, the tail at {base}")
    stored = tail[trailer.body_start - base : trailer.position - base]
    if xxh64(stored) != trailer.body_hash:
        raise FormatError("footer: the body does not match its checksum")
    codec = next(name for name, number in _COMPRESSION.items() if number == trailer.flags)
    raw = _unpack_section(stored, trailer.raw, codec, "footer")
    try:
        body = msgpack.unpackb(raw, max_array_len=1 << 12, max_map_len=1 << 12)
    except (ValueError, TypeError, msgpack.exceptions.UnpackException) as error:
        raise FormatError(f"footer: body is not MessagePack: {error}") from error
    if not isinstance(body, dict):
        raise FormatError(f"footer: body is a {type(body).__name__}, expected a map")

    index = _decode_index(body, trailer.n_frames)
    index.check(data_offset, trailer.start)
    if trailer.start < data_offset:
        raise FormatError(f"footer: starts at byte {trailer.start}, within the header of {data_offset} bytes")

    span, about, section = None, body.get("metadata"), b""
    if about is not None:
        if not isinstance(about, dict) or not isinstance(about.get("size"), int):
            raise FormatError("footer: metadata entry is not a map with a size")
        span = (trailer.start + len(FOOTER_MARK), about["size"])
    opening = trailer.body_start - (span[1] if span else 0) - len(FOOTER_MARK)
    if opening != trailer.start:
        raise FormatError(f"footer: its parts begin at byte {opening}, the trailer says {trailer.start}")
    if opening >= base:
        if tail[opening - base : opening - base + len(FOOTER_MARK)] != FOOTER_MARK:
            raise FormatError(f"footer: no mark at its start, byte {opening}")
        section = tail[opening - base + len(FOOTER_MARK) : trailer.body_start - base]
    return Footer(
        index=index,
        header_hash=_integer(body, "header"),
        extended_header_hash=_integer(body, "extended"),
        header_copy=_binary(body, "header_copy"),
        source_header=_binary(body, "source_header"),
        writer=str(body.get("writer", "")),
        extra={name: value for name, value in body.items() if name not in _KNOWN},
        trailer=trailer,
        metadata_span=span,
        _metadata=about or {},
        _metadata_stored=bytes(section) if span and opening >= base else None,
    )


def _integer(body: dict, name: str) -> int | None:
    value = body.get(name)
    if value is not None and not isinstance(value, int):
        raise FormatError(f"footer: {name} is a {type(value).__name__}, expected an integer")
    return value


def _binary(body: dict, name: str) -> bytes | None:
    value = body.get(name)
    if value is not None and not isinstance(value, bytes):
        raise FormatError(f"footer: {name} is a {type(value).__name__}, expected bytes")
    return value


def _decode_index(body: dict, n: int) -> FrameIndex:
    def column(name: str, dtype: str, width: int) -> np.ndarray | None:
        data = _binary(body, name)
        if data is None:
            return None
        if len(data) != n * width:
            raise FormatError(f"footer: {name} has {len(data)} bytes, expected {n * width} for {n} frames")
        return np.frombuffer(data, dtype)

    if _integer(body, "frames") != n:
        raise FormatError(f"footer: {body.get('frames')} frames in the body, {n} in the trailer")
    sizes, offsets = column("sizes", "<u4", 4), column("offsets", "<u8", 8)
    if sizes is None:
        raise FormatError("footer: no sizes of chunks")
    hashes, stats = column("xxh64", "<u8", 8), column("stats", "<f8", 32)
    if stats is not None:
        stats = stats.reshape(4, n).T
    if offsets is not None:
        if n and offsets.max() >= 1 << 62:
            raise FormatError(f"footer: chunk at byte {offsets.max()}")
        return FrameIndex(offsets, sizes, hashes, stats)
    first = _integer(body, "first")
    if first is None or not 0 <= first < 1 << 62:
        raise FormatError(f"footer: first chunk at {first!r}")
    return FrameIndex.from_sizes(sizes, first, hashes, stats)


def load_footer(read: Read, end: int, *, data_offset: int = 0, tail: bytes | None = None) -> Footer | None:
    """Find and decode the footer of a file of *end* bytes with one read, or two if its index is long.

    Parameters
    ----------
    read : callable
        ``read(offset, n) -> bytes``.
    end : int
        Size of the file in bytes.
    data_offset : int
        Where chunks may begin: 1024 + NSYMBT.
    tail : bytes, optional
        The last bytes of the file, if they are there already.

    Returns
    -------
    Footer or None
        As `decode_footer`.

    Raises
    ------
    FormatError
        As `decode_footer`.
    """
    if tail is None:
        size = min(TAIL_SIZE, max(end - data_offset, 0))
        tail = read(end - size, size)
        if len(tail) != size:
            raise FormatError(f"the last {size} bytes of {end} were asked for, {len(tail)} came")
    trailer = parse_trailer(tail, end)
    if trailer is None:
        return None
    if trailer.body_start < end - len(tail):
        # Both lengths were compared with the file's size. The metadata are left where they are until asked for.
        tail = read(trailer.body_start, end - trailer.body_start)
        if len(tail) != end - trailer.body_start:
            raise FormatError(f"footer: {end - trailer.body_start} bytes expected, {len(tail)} came")
    return decode_footer(tail, end, data_offset=data_offset)


def find_footer(read: Read, start: int, end: int, *, data_offset: int = 0, block: int = 1 << 20) -> Footer | None:
    """The last undamaged footer anywhere in bytes *start* to *end*, for files cut short while they were appended to.

    Searches backwards for the magic; what matches by chance or is damaged is passed over. None if there is none.
    """
    overlap = len(TRAILER_MAGIC) - 1
    high = end
    while high > start:
        low = max(start, high - block)
        data = read(low, min(high + overlap, end) - low)
        at = data.rfind(TRAILER_MAGIC)
        while at >= 0:
            try:
                footer = load_footer(read, low + at + len(TRAILER_MAGIC), data_offset=data_offset)
            except FormatError:
                footer = None
            if footer is not None:
                return footer
            at = data.rfind(TRAILER_MAGIC, 0, at + overlap)
        high = low
    return None
