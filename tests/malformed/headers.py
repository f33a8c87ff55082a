"""One damaged file for each way a header can be wrong: (name, bytes, field at fault)."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np

from mrcz.container.header.header import HEADER_DTYPE, Header
from mrcz.container.modes import format_for

SHAPE = (3, 5, 7)
EXTENDED = 160

# What a flipped bit, a wrong byte order or another program leaves behind.
INTEGERS = (0, -1, 2**31 - 1, -(2**31), 0x01000000, 100_000)
FLOATS = (0.0, -1.0, float("nan"), float("inf"), -float("inf"), 3.4e38)

# Fields that say where the pixels are and how they are stored: a wrong value there is an error naming the field.
# All the others are read around.
DECISIVE = ("nx", "ny", "nz", "mode", "nsymbt")


def sound(byteorder: str = "<", dtype: str = "int16", codec: str | None = None) -> bytes:
    """A small file that is right in every field (the chunks of a compressed one are zeros)."""
    pixels = format_for(dtype, byteorder=byteorder, max_value=10)
    header = Header.build(
        SHAPE,
        pixels,
        pixel_size=1.5,
        kind="stack",
        exttyp="CCP4",
        nsymbt=EXTENDED,
        byteorder=byteorder,
        codec=codec,
        packed_bytes=300,
    )
    body = 300 if codec else SHAPE[0] * header.frame_nbytes
    return header.tobytes() + b"X,Y,Z".ljust(EXTENDED) + bytes(body)


def corrupt_fields(byteorder: str = "<") -> Iterator[tuple[str, bytes, str]]:
    """Each field in turn, with each value that it should not have."""
    good = sound(byteorder)
    dtype = HEADER_DTYPE.newbyteorder(byteorder)
    for name in HEADER_DTYPE.names or ():
        field = HEADER_DTYPE[name]
        values = FLOATS if field.base.kind == "f" else INTEGERS
        for value in values:
            raw = np.frombuffer(bytearray(good[:1024]), dtype)
            if field.base.kind in "SVu":
                raw[name] = np.frombuffer(bytes([value & 255]) * field.itemsize, field)[0]
            elif field.base.itemsize == 2:
                raw[name] = max(-(2**15), min(2**15 - 1, value))
            else:
                raw[name] = value
            if raw.tobytes() != good[:1024]:
                yield f"{name}={value}", raw.tobytes() + good[1024:], name


def truncations(codec: str | None = None) -> Iterator[tuple[str, bytes, str]]:
    """The file cut at the start of every field and at every boundary after the header; it is never whole."""
    good = sound(codec=codec)
    fields = HEADER_DTYPE.fields or {}
    cuts = {0: "header", 1: "header", 1023: "header"} | {offset: "header" for _, offset, *_ in fields.values()}
    cuts |= {1024: "nsymbt", 1024 + EXTENDED - 1: "nsymbt", 1024 + EXTENDED: "nz", len(good) - 1: "nz"}
    for cut, field in cuts.items():
        if codec and cut == len(good) - 1:
            field = "packed_bytes"
        yield f"cut at {cut}", good[:cut], field


def contradictions() -> Iterator[tuple[str, bytes, str]]:
    """Fields that each look right and cannot all be."""
    good = sound()

    def with_fields(**values: int) -> bytes:
        raw = bytearray(good)
        for name, value in values.items():
            struct.pack_into("<i", raw, (HEADER_DTYPE.fields or {})[name][1], value)
        return bytes(raw)

    yield "more frames than bytes", with_fields(nz=32766), "nz"
    yield "sizes that overflow 64 bits", with_fields(nx=2**31 - 1, ny=2**31 - 1, nz=60000), "nx"
    yield "a stack that overflows 64 bits", with_fields(nx=65535, ny=2**31 - 1, nz=2**31 - 1), "ny"
    yield "no such mode", with_fields(mode=5), "mode"
    yield "no such codec", with_fields(mode=16001), "mode"
    yield "a mode with the codec of another program", with_fields(mode=-1000), "mode"
    yield "extended header past the end", with_fields(nsymbt=10_000_000), "nsymbt"
    yield "more chunks than bytes", with_fields(mode=6001, nz=32766), "nz"
    yield "a frame too large for a chunk", with_fields(mode=6002, nx=65535, ny=65535), "nx"
    yield "rows too long for a chunk", with_fields(mode=6002, nx=7, ny=2**31 - 1), "ny"
