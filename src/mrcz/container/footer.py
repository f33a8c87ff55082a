"""The footer of a compressed file, which stores the frame index and the metadata: encode, find, decode.

Pure functions on bytes, like :mod:`mrcz.container.index`; the bytes are specified in ``docs/container.md``.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypedDict, cast

import numpy as np

from mrcz.container.chunks import FOOTER_MARK, Read, xxh64
from mrcz.container.index import FrameIndex
from mrcz.errors import FormatError

__all__ = [
    "FOOTER_VERSION",
    "TAIL_SIZE",
    "TRAILER_MAGIC",
    "TRAILER_SIZE",
    "Footer",
    "Trailer",
    "UnknownFooter",
    "decode_footer",
    "encode_footer",
    "find_footer",
    "load_footer",
    "move_footer",
    "parse_trailer",
]

TRAILER_MAGIC = b"MRCZ_END"
"""Last eight bytes of a footer, and of the file."""

TRAILER_SIZE = 64
FOOTER_VERSION = 1
TAIL_SIZE = 1 << 16
"""Bytes read from the end of a file to find its footer: holds the index of about 2000 frames with its checksums."""

_TRAILER = struct.Struct("<QQQQQHHI")  # start, stored, raw, body hash, frames, version, flags, trailer size
_COMPRESSION = {None: 0, "zstd": 1, "lz4": 2}

# A stored section may claim to unpack to this many bytes at most. Writers store what would exceed it uncompressed, so
# no honest file is refused and a hostile one of a few bytes cannot ask for gigabytes.
_UNPACK_BASE, _UNPACK_RATIO = 1 << 20, 100


class UnknownFooter(FormatError):
    """A sound trailer of a version, size or flags that are not known here: the footer of a program to come.

    It counts as no footer (docs/container.md §3); whoever meets it says so, and calls nothing damaged.
    """


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
    extra: dict[str, Any]
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

    def metadata(self, read: Read | None = None) -> dict[str, Any] | None:
        """The metadata as a dict; see `metadata_bytes`.

        Raises
        ------
        FormatError
            Also if they are something else than a map.
        """
        packed = self.metadata_bytes(read)
        if packed is None:
            return None
        from mrcz.container.metadata import unpack

        found = unpack(packed)
        if not isinstance(found, dict):
            raise FormatError(f"the metadata are a {type(found).__name__}, expected a map")
        return found


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
    if type(raw) is not int or raw < 0:
        raise FormatError(f"{what}: length {raw!r:.40} is no length")
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
            out: bytes = zstandard.ZstdDecompressor().decompress(stored, max_output_size=max(raw, 1))
        except zstandard.ZstdError as error:
            raise FormatError(f"{what}: {error}") from error
    elif codec == "lz4":
        import lz4.block

        try:
            out = lz4.block.decompress(stored, uncompressed_size=raw)
        except lz4.block.LZ4BlockError as error:
            raise FormatError(f"{what}: {error}") from error
    else:
        raise FormatError(f"{what}: compression {codec!r:.40} is unknown")
    if len(out) != raw:
        raise FormatError(f"{what}: unpacks to {len(out)} bytes, expected {raw}")
    return out


def _encode_index(index: FrameIndex, first: int) -> dict[str, Any]:
    """The entries of the body that say where the frames lie."""
    n = len(index)
    body: dict[str, Any] = {"frames": n, "first": first, "sizes": index.sizes.astype("<u4").tobytes()}
    if not index.is_contiguous:
        body["offsets"] = index.offsets.astype("<u8").tobytes()
    if index.hashes is not None:
        body["xxh64"] = index.hashes.astype("<u8").tobytes()
    if index.stats is not None and not (n and np.isnan(index.stats).all()):
        # Planar, so that equal exponents lie side by side for the compressor.
        body["stats"] = np.ascontiguousarray(index.stats.T, dtype="<f8").tobytes()
    return body


class FooterFields(TypedDict, total=False):
    """What a footer says besides the frames and the headers: keywords of `encode_footer`."""

    metadata: Mapping[str, Any] | bytes | None
    source_header: bytes | None
    writer: str
    extra: Mapping[str, Any] | None
    compress: str | None


# Over 60 lines for what it takes and says of it; what it does is below that.
def encode_footer(
    index: FrameIndex,
    *,
    header_bytes: bytes | None = None,
    extended_header_bytes: bytes | None = None,
    metadata: Mapping[str, Any] | bytes | None = None,
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
        A dict, packed with `mrcz.container.metadata.pack`, or such packed bytes as they are.
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
    body: dict[str, Any] = {"writer": writer, **_encode_index(index, first)}
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
            from mrcz.container.metadata import pack

            packed = pack(metadata)
        section, codec = _pack_section(packed, compress)
        body["metadata"] = {"size": len(section), "raw": len(packed), "xxh64": xxh64(section), "codec": codec}
    for name, value in (extra or {}).items():
        if name in _KNOWN:
            raise ValueError(f"{name!r} is a name of the footer format, not for extra=")
        body[name] = value
    raw = cast(bytes, msgpack.packb(body, use_bin_type=True))
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
        None if there is no footer.

    Raises
    ------
    UnknownFooter
        If the footer is of another version, and sound as far as can be told.
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
        what = f"version {version}" + (f" with flags {flags:#06x}" if version == FOOTER_VERSION else "")
        what += f" and a trailer of {size} bytes" if size != TRAILER_SIZE else ""
        raise UnknownFooter(
            f"its footer, of {what}, is not known to this version of mrcz and was not read: its checksums, statistics "
            "and metadata are not seen"
        )
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
        None if there is no footer.

    Raises
    ------
    UnknownFooter
        As `parse_trailer`.
    FormatError
        If it is damaged, or its index does not fit the file.
    ValueError
        If *tail* is too short to hold the body.
    """
    if (trailer := parse_trailer(tail, end)) is None:
        return None
    base = end - len(tail)
    if trailer.body_start < base:
        raise ValueError(f"the footer's body starts at byte {trailer.body_start}, the tail at {base}")
    body = _unpack_body(tail[trailer.body_start - base : trailer.position - base], trailer)
    index = _decode_index(body, trailer.n_frames)
    index.check(data_offset, trailer.start)
    if trailer.start < data_offset:
        raise FormatError(f"footer: starts at byte {trailer.start}, within the header of {data_offset} bytes")
    span = _metadata_span(body, trailer)
    section = None
    if trailer.start >= base:
        begin = trailer.start - base + len(FOOTER_MARK)
        if tail[trailer.start - base : begin] != FOOTER_MARK:
            raise FormatError(f"footer: no mark at its start, byte {trailer.start}")
        section = bytes(tail[begin : trailer.body_start - base])
    copy, expected = _binary(body, "header_copy"), _integer(body, "header")
    if copy is not None and (len(copy) != 1024 or (expected is not None and xxh64(copy) != expected)):
        raise FormatError(f"footer: the copy of the header, {len(copy)} bytes, does not match its checksum")
    return Footer(
        index=index,
        header_hash=_integer(body, "header"),
        extended_header_hash=_integer(body, "extended"),
        header_copy=copy,
        source_header=_binary(body, "source_header"),
        writer=writer if isinstance(writer := body.get("writer"), str) else "",
        extra={name: value for name, value in body.items() if name not in _KNOWN},
        trailer=trailer,
        metadata_span=span,
        _metadata=body.get("metadata") or {},
        _metadata_stored=section if span else None,
    )


def _unpack_body(stored: bytes, trailer: Trailer) -> dict[str, Any]:
    """The body as a map, believed no further than its checksum and that it is one."""
    import msgpack

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
    return body


def _metadata_span(body: dict[str, Any], trailer: Trailer) -> tuple[int, int] | None:
    """Where the metadata section lies: offset and stored bytes, which with the mark and the body fill the footer."""
    span, about = None, body.get("metadata")
    if about is not None:
        if not isinstance(about, dict) or type(about.get("size")) is not int or about["size"] < 0:
            raise FormatError("footer: metadata entry is not a map with a size")
        span = (trailer.start + len(FOOTER_MARK), about["size"])
    opening = trailer.body_start - (span[1] if span else 0) - len(FOOTER_MARK)
    if opening != trailer.start:
        raise FormatError(f"footer: its parts begin at byte {opening}, the trailer says {trailer.start}")
    return span


def _integer(body: dict[str, Any], name: str) -> int | None:
    value = body.get(name)
    if value is not None and type(value) is not int:
        raise FormatError(f"footer: {name} is a {type(value).__name__}, expected an integer")
    return value


def _binary(body: dict[str, Any], name: str) -> bytes | None:
    value = body.get(name)
    if value is not None and not isinstance(value, bytes):
        raise FormatError(f"footer: {name} is a {type(value).__name__}, expected bytes")
    return value


def _decode_index(body: dict[str, Any], n: int) -> FrameIndex:
    def column(name: str, dtype: str, width: int) -> np.ndarray | None:
        data = _binary(body, name)
        if data is None:
            return None
        if len(data) != n * width:
            raise FormatError(f"footer: {name} has {len(data)} bytes, expected {n * width} for {n} frames")
        return np.frombuffer(data, dtype)

    if _integer(body, "frames") != n:
        raise FormatError(f"footer: {body.get('frames')!r:.40} frames in the body, {n} in the trailer")
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

    Raises
    ------
    UnknownFooter
        The last one is of another version: those before it are older, and say what was so once.
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
            except UnknownFooter:
                raise
            except FormatError:
                footer = None
            if footer is not None:
                return footer
            at = data.rfind(TRAILER_MAGIC, 0, at + overlap)
        high = low
    return None
