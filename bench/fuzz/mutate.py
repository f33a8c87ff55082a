"""Changes to a file that know where its fields are; where asked, the checksums are made anew, so that what lies behind
them is reached."""

from __future__ import annotations

import struct
from collections.abc import Callable

import msgpack
import numpy as np
import zstandard
from corpus import WRAPPERS, Seed

from mrcz.container.chunks import FOOTER_MARK, xxh64

TRAILER = struct.Struct("<QQQQQHHI")  # docs/container.md
NUMBERS = (
    0,
    1,
    2,
    3,
    7,
    15,
    16,
    31,
    32,
    63,
    127,
    128,
    255,
    256,
    1023,
    1024,
    4096,
    65535,
    1 << 16,
    1 << 20,
    1 << 24,
    (1 << 31) - 1,
    1 << 31,
    (1 << 32) - 1,
)
HEADER_FIELDS = (
    0,
    4,
    8,
    12,
    16,
    20,
    24,
    28,
    32,
    36,
    40,
    64,
    68,
    72,
    76,
    80,
    84,
    88,
    92,
    96,
    104,
    108,
    132,
    144,
    152,
    208,
    212,
    220,
    224,
)
MODES = (0, 1, 2, 3, 4, 5, 6, 7, 12, 101, 1000, 1002, 2006, 4006, 5101, 6000, 6012, 7006, 15006, 16384)
EXTTYP = (b"CCP4", b"MRCO", b"SERI", b"AGAR", b"FEI1", b"FEI2", b"HDF5", b"MSGP", b"MRCZ", b"json", b"\xff\xfe\x80\x00")


def u4(value: int) -> bytes:
    return (value & 0xFFFFFFFF).to_bytes(4, "little")


def number(rng: np.random.Generator, near: int) -> int:
    """A value that breaks things, or one beside what was there."""
    return NUMBERS[rng.integers(len(NUMBERS))] if rng.random() < 0.6 else max(0, near + int(rng.integers(-4, 5)))


def put(data: bytearray, at: int, value: bytes) -> None:
    data[at : at + len(value)] = value[: max(0, len(data) - at)]


def header_field(rng: np.random.Generator, seed: Seed, data: bytearray) -> None:
    at = int(rng.choice(HEADER_FIELDS))
    near = int.from_bytes(data[at : at + 4], "little")
    put(data, at, u4(number(rng, near)))
    kind = rng.random()
    if kind < 0.25:
        put(data, 12, u4(int(rng.choice(MODES))))
    elif kind < 0.4:
        put(data, 104, EXTTYP[rng.integers(len(EXTTYP))])
        put(data, 92, u4(number(rng, near)))


def chunk_field(rng: np.random.Generator, seed: Seed, data: bytearray) -> None:
    start, _ = seed.chunks[rng.integers(len(seed.chunks))]
    if rng.random() < 0.5:
        at = int(rng.choice((4, 8, 12, 16, 20, 24, 32, 36, 40)))
        put(data, start + at, u4(number(rng, int.from_bytes(data[start + at : start + at + 4], "little"))))
    else:
        at = int(rng.choice((0, 1, 2, 3, *range(16, 36))))
        put(data, start + at, bytes([int(rng.integers(256))]))
    if rng.random() < 0.1:  # a plug-in's codec
        put(data, start + 2, bytes([sum(data[start + 2 : start + 3]) & 31 | 6 << 5]))


def payload(rng: np.random.Generator, seed: Seed, data: bytearray) -> None:
    """Bytes inside a chunk's blocks: the codecs' own headers, trees and streams."""
    start, size = seed.chunks[rng.integers(len(seed.chunks))]
    for _ in range(int(rng.integers(1, 4))):
        at = start + 16 + int(rng.integers(max(1, min(size - 16, 40 if rng.random() < 0.6 else size))))
        put(data, at, bytes([int(rng.integers(256))]))


def flip(rng: np.random.Generator, seed: Seed, data: bytearray) -> None:
    for _ in range(int(rng.integers(1, 5))):
        at = int(rng.integers(len(data)))
        data[at] ^= 1 << int(rng.integers(8))


def truncate(rng: np.random.Generator, seed: Seed, data: bytearray) -> None:
    del data[int(rng.integers(len(data))) :]


def splice(rng: np.random.Generator, seed: Seed, data: bytearray) -> None:
    a, b = sorted(int(v) for v in rng.integers(0, len(data) + 1, 2))
    piece = bytes(data[a : min(b, a + 300)])
    at = int(rng.integers(len(data) + 1))
    if rng.random() < 0.3:
        del data[a : min(b, a + 300)]
    elif rng.random() < 0.5:
        data[at:at] = piece
    else:
        put(data, at, piece)


def junk(rng: np.random.Generator, seed: Seed, data: bytearray) -> None:
    data += rng.integers(0, 256, int(rng.integers(1, 200)), np.uint8).tobytes()


def nothing(rng: np.random.Generator, seed: Seed, data: bytearray) -> None:
    """What is whole must be read, or nothing would be shown by errors."""


def twist(rng: np.random.Generator, value: object) -> object:
    """Another value of the same, or of another, kind."""
    if rng.random() < 0.1:
        return (None, -1, 1 << 63, 2.5, "\x1b[2J", b"", [], {}, True)[rng.integers(9)]
    if isinstance(value, int):
        return max(-(1 << 63), min((1 << 64) - 1, number(rng, value)))
    if isinstance(value, bytes) and value:
        changed = bytearray(value)
        if rng.random() < 0.3:
            del changed[int(rng.integers(len(changed))) :]
        else:
            at = int(rng.integers(len(changed)))
            word = rng.random() < 0.5
            put(
                changed, at // 8 * 8 if word else at, number(rng, changed[at]).to_bytes(8, "little")[: 8 if word else 1]
            )
        return bytes(changed)
    if isinstance(value, str):
        return value + "\x1b]0;x\x07"
    if isinstance(value, dict) and value:
        key = list(value)[rng.integers(len(value))]
        return {**value, key: twist(rng, value[key])}
    if isinstance(value, (list, tuple)) and value:
        at = int(rng.integers(len(value)))
        return [*value[:at], twist(rng, value[at]), *value[at + 1 :]]
    return None


def remade(rng: np.random.Generator, seed: Seed, data: bytearray, twisted: bool) -> bytes | None:
    """The footer of `data`, whose frames and header were changed in place, with all checksums; twisted: changed too."""
    footer = seed.footer
    start, stored, _, _, frames, version, flags, size = TRAILER.unpack(footer[-64:-16])
    if stored > len(footer) - 64:
        return None
    body = footer[-64 - stored : -64]
    section = footer[len(FOOTER_MARK) : -64 - stored]
    fields = _unpack(body, flags)
    if fields is None:
        return None
    if "xxh64" in fields:
        fields["xxh64"] = b"".join(xxh64(bytes(data[o : o + s])).to_bytes(8, "little") for o, s in seed.chunks)
    if "header" in fields:
        fields["header"] = xxh64(bytes(data[:1024]))
        if "header_copy" in fields:
            fields["header_copy"] = bytes(data[:1024])
    if "extended" in fields and seed.chunks:
        fields["extended"] = xxh64(bytes(data[1024 : seed.chunks[0][0]]))
    if twisted:
        kind = rng.random()
        if kind < 0.35 and section and isinstance(fields.get("metadata"), dict):
            codec = fields["metadata"].get("codec")
            raw = zstandard.ZstdDecompressor().decompress(section) if codec == "zstd" else section
            changed = bytearray(raw)
            for _ in range(int(rng.integers(1, 4))):
                at = int(rng.integers(len(changed)))
                put(changed, at, rng.integers(0, 256, int(rng.integers(1, 5)), np.uint8).tobytes())
            section = bytes(changed)
            fields["metadata"] = {"size": len(section), "raw": len(section), "xxh64": xxh64(section), "codec": None}
        else:
            key = list(fields)[rng.integers(len(fields))]
            fields[key] = twist(rng, fields[key])
            if rng.random() < 0.1:
                del fields[key]
    body = raw = msgpack.packb(fields, use_bin_type=True)
    claimed = len(raw) if rng.random() < 0.95 else number(rng, len(raw))
    if twisted and rng.random() < 0.2:
        frames = number(rng, frames)
    if twisted and rng.random() < 0.1:
        start = number(rng, start)
    trailer = TRAILER.pack(start, len(body), claimed, xxh64(body), frames, version, 0, size)
    return FOOTER_MARK + section + body + trailer + xxh64(trailer).to_bytes(8, "little") + footer[-8:]


def _unpack(body: bytes, flags: int) -> dict | None:
    try:
        if flags == 1:
            body = zstandard.ZstdDecompressor().decompress(body)
        elif flags:
            return None
        return msgpack.unpackb(body)
    except (zstandard.ZstdError, ValueError):
        return None


IN_PLACE: tuple[Callable, ...] = (header_field, chunk_field, payload, nothing)
ANYWHERE: tuple[Callable, ...] = (header_field, chunk_field, payload, flip, truncate, splice, junk, nothing)


def mutate(rng: np.random.Generator, seed: Seed, inner: dict[str, Seed]) -> tuple[bytes, bool]:
    """A changed file; and whether what its checksums protect must still be what it was."""
    if seed.wrapper and rng.random() < 0.6:  # change what is inside, then wrap it again
        data, honest = mutate(rng, inner[seed.name.split(" in ")[0]], inner)
        return WRAPPERS[seed.wrapper](data), honest
    data = bytearray(seed.data)
    if seed.wrapper:
        (flip, truncate, splice, junk)[rng.integers(4)](rng, seed, data)
        return bytes(data), False
    new_sums = bool(seed.footer) and rng.random() < 0.5
    choices = IN_PLACE if new_sums else ANYWHERE
    for _ in range(int(rng.choice((1, 1, 1, 2, 3)))):
        change = choices[rng.integers(len(choices))]
        if data and (seed.chunks or change not in (chunk_field, payload)):
            change(rng, seed, data)
    if new_sums:
        footer = remade(rng, seed, data, bool(rng.random() < 0.7))
        if footer is not None:
            data = data[: len(seed.data) - len(seed.footer)] + footer
        return bytes(data), False
    return bytes(data), bool(seed.footer) and bytes(data).endswith(seed.footer)
