"""Merlin's .mib: frames of Medipix3 detectors, each behind a header of text.

A header is a line of values between commas, zeros up to the length that it states itself (384 bytes for one chip, more
for several): ``MQ1``, number, length, chips, columns, rows, type of the pixels, layout of the chips, which of them are
in use, time, exposure in seconds, counter, colour mode, gain mode, eight thresholds in keV, the settings of each chip;
then, of newer software, ``MQ1A``, the time with its zone, the exposure in nanoseconds, the depth of the counters.
After the Merlin manual of Quantum Detectors, as LiberTEM's documentation of the format and its issue 1135 have it.

Pixels are big-endian integers (``U08``, ``U16``, ``U32``), or the words as they leave the chips (``R64``): 64 bits, in
which the first pixel is the least significant: 1 bit a pixel, 8 for counters of 6 bits, 16 for 12; of 24 bits there are
two such frames of 12, the upper bits first. A raw row of a 2 × 2 detector has a row of each of its chips side by side:
lower right, lower left, upper right, upper left, the lower two turned by 180°.

The .hdr beside, if there is one, tells more of the acquisition and is kept as it is.
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from typing import Any

import numpy as np

from mrcz.errors import ChunkError, FormatError
from mrcz.formats._beside import text_beside
from mrcz.formats.base import Bytes, FormatOptions, Frames, Pieces, Window, whole_frames
from mrcz.formats.metadata import checked

__all__ = ["open_frames"]

_MOST = 1 << 16  # bytes of a header
_PIXELS = {"U08": "u1", "U8": "u1", "U16": ">u2", "U32": ">u4", "U64": ">u8"}
_RAW = {1: "u1", 6: "u1", 12: ">u2", 24: "u4"}  # what the pixels of raw words become, by the depth of the counters
_IN_WORD = {1: 64, 6: 8, 12: 4, 24: 4}  # pixels
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,12})?Z?")
_DEPTHS = frozenset({b"1", b"6", b"12", b"24"})


class _Head:
    """What the header of one frame says: `layout` must be the same of all of them, the rest need not."""

    def __init__(self, raw: bytes) -> None:
        if raw[:4] != b"MQ1,":
            raise FormatError(f"a frame begins with {raw[:4]!r}, expected b'MQ1,'")
        line = raw.partition(b"\0")[0]
        self.parts = parts = line.split(b",")
        try:
            if len(parts) < 11:
                raise ValueError("it has fewer than 11 values")
            self.length, self.chips, self.columns, self.rows = (int(part) for part in parts[2:6])
            self.kind, self.arrangement = (part.strip().decode("ascii") for part in parts[6:8])
        except (ValueError, UnicodeDecodeError) as error:
            raise FormatError(f"the header of a frame is damaged: {error}") from None
        if not 64 <= self.length <= _MOST:
            raise FormatError(f"a header of {self.length} bytes, expected 64 to {_MOST}")
        if min(self.chips, self.columns, self.rows) < 1:
            raise FormatError(f"a frame of {self.columns} x {self.rows} pixels of {self.chips} chips")
        self.layout = (self.length, self.chips, self.columns, self.rows, self.kind, self.arrangement)
        self.text = line.decode("latin-1")

    @property
    def newer(self) -> list[bytes]:
        """Time with zone, exposure, depth; empty of older software."""
        return self.parts[self.parts.index(b"MQ1A") + 1 :] if b"MQ1A" in self.parts else []

    @property
    def depth(self) -> int | None:
        newer = self.newer
        return int(newer[2]) if len(newer) > 2 and newer[2] in _DEPTHS else None

    def values(self) -> dict[str, Any]:
        """Under the names of `mrcz.formats.metadata`."""
        newer = self.newer
        time = (newer[0] if newer else self.parts[9]).decode("latin-1").strip().replace(" ", "T")
        if not _TIME.fullmatch(time):
            time = ""
        seconds = None
        if len(newer) > 1 and newer[1].endswith(b"ns"):
            seconds = _number(newer[1][:-2])
            seconds = None if seconds is None else seconds / 1e9
        if seconds is None:
            seconds = _number(self.parts[10])
        thresholds = [_number(part) for part in self.parts[14:22]]
        whole = len(thresholds) == 8 and None not in thresholds
        return {
            "timestamp": time,
            "frame_time": seconds,
            "threshold": thresholds if whole else None,
            "counter_depth": self.depth,
        }


def _number(text: bytes) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


class MibFrames(Frames):
    """The frames of a .mib file, read by place. The header of each is compared with the first's when it is read."""

    concurrent = True

    def __init__(self, source: Bytes, options: FormatOptions) -> None:
        self.source = source
        first = self._head(0)
        hdr = text_beside(source, _hdr_names(source.name))
        told = _hdr_values(hdr)
        self.first, self.depth = first, first.depth
        if self.depth is None and told.get("Counter Depth (number)", "").encode() in _DEPTHS:
            self.depth = int(told["Counter Depth (number)"])
        self.raw = first.kind == "R64"
        height, width, self.dtype, pixel_bytes = self._layout(first)
        self.start = first.length
        self.step = first.length + pixel_bytes
        count = self._count(options.permissive)
        self.shape = (count, height, width)
        self.kind = "image" if count == 1 else "stack"
        self.compression = "none" if not self.raw else "raw"
        self._same(count - 1)  # where a frame of another shape stands between, the last is not where it should be
        planned = told.get("Frames in Acquisition (Number)", "")
        if planned.isdecimal() and int(planned) != count:
            self.oddities += (f"the .hdr tells of {int(planned)} frames, there are {count}",)
        values = first.values() | {"counter_depth": self.depth, "camera": told.get("Readout System")}
        if count == 1:
            values["exposure_time"] = values["frame_time"]
        if planned.isdecimal() and int(planned) != count:
            values["frames"] = int(planned)
        self.metadata = checked(values, {"mib": first.text} | ({} if hdr is None else {"hdr": hdr.rstrip()}))

    def _head(self, number: int) -> _Head:
        # The first header says how long all are; it is short, so what is read for it is too.
        offset = 0 if number == 0 else number * self.step
        try:
            head = _Head(self.source.read(offset, _MOST if number == 0 else self.start))
        except FormatError as error:
            raise ChunkError(error.message, frame=number, offset=offset, path=self.source.name) from None
        if number == 0 and head.length > self.source.size:
            raise ChunkError(
                f"a header of {head.length} bytes, {self.source.size} are there",
                frame=0,
                offset=0,
                path=self.source.name,
            )
        return head

    def _layout(self, head: _Head) -> tuple[int, int, np.dtype, int]:
        """Rows, columns and type of the frames, and the bytes of one in the file."""
        name = self.source.name
        if not self.raw:
            if head.kind not in _PIXELS:
                raise FormatError(f"pixels of type {head.kind!r} are not known", path=name)
            dtype = np.dtype(_PIXELS[head.kind])
            return head.rows, head.columns, dtype, head.rows * head.columns * dtype.itemsize
        depth = self.depth
        if depth is None:
            raise FormatError("raw words, and neither the header nor a .hdr says the depth of the counters", path=name)
        columns = head.columns // 2 if depth == 24 else head.columns
        quad = head.chips == 4 and head.arrangement.rstrip("G") == "2x2"
        if head.chips > 1 and (not quad or depth == 24):
            raise FormatError(
                f"raw words of {head.chips} chips in {head.arrangement}, {depth} bits: their order is not published",
                path=name,
            )
        parts = 4 if quad else 1
        if columns % (parts * _IN_WORD[depth]) or (depth == 24 and head.columns % 2):
            raise FormatError(f"rows of {head.columns} raw pixels of {depth} bits are no whole words", path=name)
        size = head.rows * columns // _IN_WORD[depth] * 8 * (2 if depth == 24 else 1)
        if quad:
            return head.rows * 2, columns // 2, np.dtype(_RAW[depth]), size
        return head.rows, columns, np.dtype(_RAW[depth]), size

    def _count(self, permissive: bool) -> int:
        count, rest = divmod(self.source.size, self.step)
        if count == 0 or (rest and not permissive):
            offset = count * self.step
            raise ChunkError(
                f"a frame of {self.step} bytes with its header, {rest} are there"
                + ("; permissive=True leaves it out" if count else ""),
                frame=count,
                offset=offset,
                path=self.source.name,
            )
        if rest:
            self.warnings += (f"frame {count} is cut short: {rest} of {self.step} bytes; it is left out",)
        return count

    def _same(self, number: int) -> _Head:
        """The header of a frame, which must be laid out as the first."""
        head = self._head(number)
        self._compare(head, number)
        return head

    def _compare(self, head: _Head, number: int) -> None:
        depth = head.depth if head.depth is not None or self.first.depth is not None else self.depth
        if head.layout != self.first.layout or (self.raw and depth != self.depth):
            raise ChunkError(
                f"a frame of {_told(head, depth)}, the first has {_told(self.first, self.depth)}",
                frame=number,
                offset=number * self.step,
                path=self.source.name,
            )

    def read_frame(self, number: int, out: np.ndarray) -> None:
        self.read_window(number, (0, self.shape[1], 0, self.shape[2]), out)

    def read_window(self, number: int, window: Window, out: np.ndarray) -> None:
        y0, y1, x0, x1 = window
        offset = number * self.step
        if self.raw or (y0, y1) == (0, self.shape[1]):
            raw = self.source.read(offset, self.step)
            self._compare(self._parsed(raw, number), number)
            if len(raw) != self.step:
                raise ChunkError(f"a frame of {self.step} bytes, {len(raw)} are there", frame=number, offset=offset)
            if self.raw:
                out[...] = self._unpack(raw[self.start :], number)[y0:y1, x0:x1]
                return
            whole = np.frombuffer(raw, self.dtype, offset=self.start).reshape(self.shape[1:])
            out[...] = whole[:, x0:x1]
            return
        self._same(number)
        row = self.shape[2] * self.dtype.itemsize
        raw = self.source.read(offset + self.start + y0 * row, (y1 - y0) * row)
        if len(raw) != (y1 - y0) * row:
            raise ChunkError(f"rows of {(y1 - y0) * row} bytes, {len(raw)} are there", frame=number, offset=offset)
        out[...] = np.frombuffer(raw, self.dtype).reshape(y1 - y0, -1)[:, x0:x1]

    def pieces(self) -> Pieces | str:
        if self.raw and self.depth == 24:
            return "raw words of 24 bits are in two places each"
        plain = whole_frames(self.start, self.step, self.step - self.start, self)
        if not self.raw:
            return plain
        words = f"words {self.depth}" + (" quad" if self.first.chips == 4 else "")
        return replace(plain, packing=words)

    def _parsed(self, raw: bytes, number: int) -> _Head:
        try:
            return _Head(raw[: self.start])
        except FormatError as error:
            raise ChunkError(error.message, frame=number, offset=number * self.step) from None

    def _unpack(self, raw: bytes, number: int) -> np.ndarray:
        """Raw words to pixels, (ny, nx)."""
        depth = self.depth
        found: np.ndarray
        if depth == 1:
            swapped = np.ascontiguousarray(np.frombuffer(raw, "u1").reshape(-1, 8)[:, ::-1])
            found = np.unpackbits(swapped, bitorder="little")
        elif depth == 6:
            found = np.frombuffer(raw, "u1").reshape(-1, 8)[:, ::-1]
        else:
            found = np.frombuffer(raw, ">u2").reshape(-1, 4)[:, ::-1]
        if found.max() >> min(depth or 0, 12):
            raise ChunkError(
                f"a count of {found.max()} in counters of {depth} bits", frame=number, offset=number * self.step
            )
        if depth == 24:
            upper, lower = found.reshape(2, -1).astype("u4")
            found = upper << 12 | lower
        found = found.reshape(self.first.rows, -1)
        if self.first.chips == 1:
            return found
        lower_right, lower_left, upper_right, upper_left = np.hsplit(found, 4)
        top = np.hstack([upper_left, upper_right])
        return np.vstack([top, np.hstack([lower_left[::-1, ::-1], lower_right[::-1, ::-1]])])

    @property
    def frame_metadata(self) -> list[dict[str, Any]]:
        return [checked(self._same(number).values()) for number in range(self.shape[0])]


def _told(head: _Head, depth: int | None) -> str:
    bits = "" if depth is None else f", {depth} bits"
    return (
        f"{head.columns} x {head.rows} {head.kind} behind {head.length} bytes, "
        f"{head.chips} chips in {head.arrangement}{bits}"
    )


def _hdr_names(path: str) -> list[str]:
    stem = os.path.splitext(os.path.basename(path))[0]
    return [stem + ".hdr", stem + ".HDR"]


def _hdr_values(text: str | None) -> dict[str, str]:
    """Its lines: a name and a colon, a tab, a value."""
    found = {}
    for line in (text or "").splitlines():
        name, tab, value = line.partition("\t")
        if tab and name.endswith(":"):
            found[name[:-1]] = value.strip()
    return found


def open_frames(source: Bytes, options: FormatOptions) -> MibFrames:
    """Open a .mib file.

    Raises
    ------
    FormatError
        It is damaged, its last frame is cut short (without ``permissive``), or its raw words are of chips in an
        arrangement that is not published.
    """
    return MibFrames(source, options)
