"""A reader of MRC and MRCZ files, written from docs/header.md, docs/modes.md and docs/container.md alone.

It shares no line with the package: what it finds and the package does not, or the other way round, is a fault in one of
them or in these pages. Plain and slow; damaged files are of no interest here. Numbers in brackets are the sections of
container.md.
"""

from __future__ import annotations

import datetime
import math
import re
import struct
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from reference.xxh64_plain import xxh64

# ---- header.md ---------------------------------------------------------------------------------------------------


@dataclass
class Header:
    order: str
    nx: int
    ny: int
    nz: int
    mode: int
    codec: int
    nsymbt: int
    pixel_size: tuple[float, float, float]
    dtype: str
    half_width: bool = False
    raw: bytes = b""


def number(raw: bytes, at: int, order: str, kind: str = "i") -> Any:
    return struct.unpack_from(order + kind, raw, at)[0]


def split_mode(word: int) -> tuple[int, int] | None:
    codec, mode = divmod(word, 1000)
    return (mode, codec) if mode in (0, 1, 2, 3, 4, 6, 7, 8, 12, 16, 101) and 0 <= codec <= 15 else None


def makes_sense(raw: bytes, order: str) -> bool:
    sizes = [number(raw, at, order) for at in (0, 4, 8)]
    axes = [number(raw, at, order) for at in (64, 68, 72)]
    return min(sizes) > 0 and min(sizes) <= 65535 and all(0 <= axis <= 4 or axis == -2 for axis in axes)


def points(raw: bytes, order: str) -> int:
    sizes = sum(1 <= number(raw, at, order) <= 65535 for at in (0, 4, 8))
    axes = sum(1 <= number(raw, at, order) <= 3 for at in (64, 68, 72))
    return sizes + axes + 3 * (split_mode(number(raw, 12, order)) is not None)


def byte_order(raw: bytes) -> str:
    right = [order for order in "<>" if makes_sense(raw, order)]
    if len(right) == 1:
        return right[0]
    little, big = points(raw, "<"), points(raw, ">")
    if little != big:
        return "<" if little > big else ">"
    return ">" if raw[212:214] == b"\x11\x11" else "<"


def label_version(raw: bytes) -> tuple[int, ...] | None:
    for k in range(10):
        found = re.match(rb"MRCZ\s*v?(\d+(?:\.\d+)*)", raw[224 + 80 * k : 304 + 80 * k])
        if found:
            return tuple(map(int, found[1].split(b".")))
    return None


def mended(raw: bytes) -> bytes:
    """A big-endian header of mrcz before 0.6, whose single numbers are little-endian, as it should have been."""
    version = label_version(raw)
    known = split_mode(number(raw, 12, "<")) is not None and split_mode(number(raw, 12, ">")) is None
    if version is None or version >= (0, 6) or not known:
        return raw
    new = bytearray(raw)
    for at, n in ((12, 4), (36, 4), (76, 4), (80, 4), (84, 4), (220, 4), (132, 4), (136, 4), (140, 4), (144, 8)):
        new[at : at + n] = raw[at : at + n][::-1]
    return bytes(new)


def pixel_size(raw: bytes, order: str, compressed: bool) -> tuple[float, float, float]:
    n = [number(raw, at, order) for at in (0, 4, 8)]
    m = [number(raw, at, order) for at in (28, 32, 36)]
    version = label_version(raw)
    if compressed or version is not None:
        m = [a if a >= 1 else b for a, b in zip(m, n, strict=True)]
        if version is not None and (compressed or version < (1,)):
            m[2] = n[2]
        elif not compressed and number(raw, 112, order) > 0:
            m[2] = number(raw, 112, order)
    cell = [number(raw, at, order, "f") for at in (40, 44, 48)]
    return tuple(c / k if k >= 1 and math.isfinite(c) and c > 0 else 0.0 for c, k in zip(cell, m, strict=True))


K2_K3 = [(3838, 7420), (3710, 7676), (3840, 7424), (3712, 7680), (11520, 4092), (5760, 8184)]


def is_half_width(raw: bytes, order: str) -> bool:
    if number(raw, 152, order) == 1146047817 and number(raw, 156, order) & 16:
        return True
    labels = [label for k in range(10) if (label := raw[224 + 80 * k : 304 + 80 * k]).strip(b"\0 ")]
    nx, ny = number(raw, 0, order), number(raw, 4, order)
    near = any(abs(nx - a) <= 2 and abs(ny - b) <= 2 for one in K2_K3 for a, b in (one, one[::-1]))
    return len(labels) == 1 and b"4 bits packed" in labels[0] and near


def is_unsigned(raw: bytes, order: str) -> bool:
    if number(raw, 152, order) == 1146047817:
        return not number(raw, 156, order) & 1
    low, high = number(raw, 76, order, "f"), number(raw, 80, order, "f")
    return 0 <= low <= high <= 255 and high > 127


def header(raw: bytes) -> Header:
    order = byte_order(raw)
    fields = mended(raw) if order == ">" else raw
    mode, codec = split_mode(number(fields, 12, order)) or (-1, 0)
    nx, ny, nz = (number(fields, at, order) for at in (0, 4, 8))
    half = mode == 0 and is_half_width(fields, order)
    if half:
        mode, nx = 101, 2 * nx
    names = {1: "i2", 2: "f4", 3: "i2", 4: "c8", 6: "u2", 7: "i4", 8: "u4", 12: "f2", 16: "u1", 101: "u1"}
    name = names.get(mode) or ("u1" if is_unsigned(fields, order) else "i1")
    sizes = pixel_size(fields, order, codec > 0)
    nsymbt = number(fields, 92, order)
    return Header(order, nx, ny, nz, mode, codec, nsymbt, sizes, order + name, half, fields)


# ---- modes.md ----------------------------------------------------------------------------------------------------


def frame_bytes(head: Header) -> int:
    if head.mode == 101:
        return head.ny * ((head.nx + 1) // 2)
    return head.ny * head.nx * np.dtype(head.dtype).itemsize * {3: 2, 16: 3}.get(head.mode, 1)


def pixels(head: Header, stored: bytes) -> np.ndarray:
    if head.mode == 101:
        pairs = np.frombuffer(stored, "u1").reshape(head.ny, -1)
        return np.stack([pairs & 15, pairs >> 4], axis=-1).reshape(head.ny, -1)[:, : head.nx]
    values = np.frombuffer(stored, head.dtype)
    if head.mode == 3:
        return (values[0::2] + 1j * values[1::2]).astype("c8").reshape(head.ny, head.nx)
    return values.reshape((head.ny, head.nx, 3) if head.mode == 16 else (head.ny, head.nx))


# ---- container.md ------------------------------------------------------------------------------------------------

MARK, MAGIC = bytes.fromhex("894d52435a0d0a1a"), b"MRCZ_END"


def unpacked(stored: bytes, size: int, codec: Any) -> bytes:
    if codec == "zstd":
        import zstandard

        return zstandard.ZstdDecompressor().decompress(stored, max_output_size=size)
    if codec == "lz4":
        import lz4.block

        return lz4.block.decompress(stored, uncompressed_size=size)
    return stored


@dataclass
class Footer:
    """(2)"""

    body: dict[str, Any]
    offsets: list[int]
    sizes: list[int]
    start: int
    metadata: Any = None
    hashes: list[int] | None = None
    stats: np.ndarray | None = None


def footer(data: bytes) -> Footer | None:
    """The one at the end of the file, checked (3); None if there is none, or one of another version."""
    import msgpack

    if len(data) < 64 or data[-8:] != MAGIC:
        return None
    trailer = data[-64:]
    start, stored, raw, body_hash, frames, version, flags, size = struct.unpack("<5QHHI", trailer[:48])
    assert number(trailer, 48, "<", "Q") == xxh64(trailer[:48])
    if version != 1 or size != 64 or flags not in (0, 1, 2):
        return None
    at = len(data) - 64 - stored
    assert data[start : start + 8] == MARK and xxh64(data[at:-64]) == body_hash
    body = msgpack.unpackb(unpacked(data[at:-64], raw, (None, "zstd", "lz4")[flags]))
    assert body["frames"] == frames
    sizes = np.frombuffer(body["sizes"], "<u4").tolist()
    if "offsets" in body:
        offsets = np.frombuffer(body["offsets"], "<u8").tolist()
    else:
        offsets = (body["first"] + np.cumsum([0, *sizes], dtype="i8")[:-1]).tolist()
    found = Footer(body, offsets, sizes, start)
    if "xxh64" in body:
        found.hashes = np.frombuffer(body["xxh64"], "<u8").tolist()
    if "stats" in body:
        found.stats = np.frombuffer(body["stats"], "<f8").reshape(4, frames).T
    if "metadata" in body:
        about = body["metadata"]
        section = data[start + 8 : start + 8 + about["size"]]
        assert start + 8 + about["size"] == at and xxh64(section) == about["xxh64"]
        found.metadata = values(unpacked(section, about["raw"], about["codec"]))
    return found


# ---- header.md, extension types ------------------------------------------------------------------------------------


def dtype_of(said: Any) -> np.dtype:
    if isinstance(said, str):
        return np.dtype(said)
    names, formats, titles, offsets, at = [], [], [], [], 0
    for name, code, *shape in said:
        title, name = name if isinstance(name, list) else (None, name)
        one = np.dtype((dtype_of(code), tuple(shape[0]))) if shape else dtype_of(code)
        if name:
            names.append(name)
            formats.append(one)
            titles.append(title)
            offsets.append(at)
        at += one.itemsize
    fields = {"names": names, "formats": formats, "offsets": offsets, "itemsize": at}
    return np.dtype(fields | ({"titles": titles} if any(titles) else {}))


def extension(code: int, payload: bytes) -> Any:
    if code == 1:
        said, shape, raw = values(payload)
        return np.frombuffer(raw, dtype_of(said)).reshape(shape) if raw else np.zeros(shape, dtype_of(said))
    if code == 2:
        text, _, raw = payload.partition(b"\0")
        dtype = np.dtype(text.decode("ascii"))
        return np.frombuffer(raw, dtype)[0] if dtype.itemsize else dtype.type()
    if code == 3:
        return tuple(values(payload))
    if code == 4:
        kind, _, text = payload.decode("ascii").partition(" ")
        if kind == "timedelta":
            days, seconds, microseconds = map(int, text.split())
            return datetime.timedelta(days, seconds, microseconds)
        return getattr(datetime, kind).fromisoformat(text)
    if code == 5:
        return ("enum member", *values(payload))
    if code == 6:
        return complex(*struct.unpack("<dd", payload))
    if code == 7:
        return int(payload.decode("ascii"), 16)
    kind, *items = values(payload)
    assert code == 8 and kind in ("set", "frozenset")
    return (set if kind == "set" else frozenset)(items)


def values(packed: bytes) -> Any:
    import msgpack

    return msgpack.unpackb(packed, ext_hook=extension, strict_map_key=False, unicode_errors="surrogatepass")


# ---- a file ------------------------------------------------------------------------------------------------------


@dataclass
class File:
    header: Header
    extended: bytes
    frames: list[np.ndarray]
    footer: Footer | None = None
    sizes: list[int] = field(default_factory=list)
    """Stored bytes of each chunk."""


def decompress(chunk: bytes) -> bytes:
    if chunk[0] == 5:
        import blosc2

        return blosc2.decompress(chunk)
    import blosc

    return blosc.decompress(chunk)


def read(path: Any) -> File:
    """A whole file that is sound."""
    with open(path, "rb") as file:
        data = file.read()
    head = header(data[:1024])
    start = 1024 + head.nsymbt
    extended, size = data[1024:start], frame_bytes(head)
    if not head.codec:
        parts = [data[start + k * size : start + (k + 1) * size] for k in range(head.nz)]
        return File(head, extended, [pixels(head, part) for part in parts])
    found = footer(data)
    offsets, sizes = ([], []) if found is None else (list(found.offsets), list(found.sizes))
    at = offsets[-1] + sizes[-1] if offsets else start
    while len(offsets) < head.nz:  # (3) walk
        offsets.append(at)
        sizes.append(number(data, at + 12, "<"))
        at += sizes[-1]
    chunks = [data[a : a + n] for a, n in zip(offsets[: head.nz], sizes[: head.nz], strict=True)]
    if found is not None and found.hashes is not None and sum(sizes) < 1 << 20:
        assert [xxh64(chunk) for chunk in chunks[: len(found.hashes)]] == found.hashes[: head.nz]
    return File(head, extended, [pixels(head, decompress(chunk)) for chunk in chunks], found, sizes[: head.nz])
