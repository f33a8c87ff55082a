"""Norpix StreamPix's .seq, and what cameras of Direct Electron write with it: frames of one size, a time after each.

Layout: "Norpix Sequence File Format", as pims (BSD-3) and LiberTEM (MIT) have it. A header of 1024 bytes,
little-endian: 0xFEED, "Norpix seq" in UTF-16, version, a description of 512 bytes, and at 548 width, height, bits, bits
that count, bytes of an image, kind of image, images allocated, origin, bytes from an image to the next; at 584 the
frame rate that was suggested (not the one that was reached), at 620 the compression. Images begin at byte 8192, before
version 5 at 1024. Each is followed by its time: seconds since 1970 (time_t), milliseconds, and from version 5 on
microseconds.

Beside a file of a Direct Electron camera there may be ``.dark.mrc``, ``.gain.mrc``, ``.Config.Metadata.xml`` and
``.metadata``, named after it; they are named in the metadata and never applied unasked. Of the XML the element FileInfo
is read, and 0 in it is taken for "not known"; what is in the last of them differs too much from file to file. A
Celeritas camera writes the upper and the lower half of its frames into two files, many halves stacked in an image: they
are given as they are stored. In the files that are known the upper half is upside down: ``vstack([top[::-1], bottom])``
lies as the dark reference does. What its software merges into one file lies as that does, too.
"""

from __future__ import annotations

import os
import struct
from datetime import UTC, datetime
from typing import Any

import numpy as np

from mrcz.errors import ChunkError, FormatError
from mrcz.formats._beside import find_beside, text_beside
from mrcz.formats._xml import parse_xml
from mrcz.formats.base import Bytes, FormatOptions, Frames, Pieces, Window, whole_frames
from mrcz.formats.metadata import checked

__all__ = ["open_frames"]

_HEADER = 1024
_FIELDS = {  # name: form and place
    "version": ("<i", 28),
    "width": ("<I", 548),
    "height": ("<I", 552),
    "bit_depth": ("<I", 556),
    "bit_depth_real": ("<I", 560),
    "image_size_bytes": ("<I", 564),
    "image_format": ("<I", 568),
    "allocated_frames": ("<I", 572),
    "origin": ("<I", 576),
    "true_image_size": ("<I", 580),
    "suggested_frame_rate": ("<d", 584),
    "reference_frame": ("<I", 596),
    "flags": ("<I", 604),
    "compression_format": ("<I", 620),
    "reference_time_s": ("<I", 624),
}
_COMPRESSIONS = ("none", "JPEG", "RLE", "Huffman", "LZ", "fast RLE", "fast Huffman", "fast LZ", "H.264", "wavelet")
_COLOURS = {101: "Bayer", 102: "JPEG", 200: "BGR", 300: "planar colour", 400: "RGB", 500: "BGRx", 600: "YUV"}
_BESIDE = {"dark": ".dark.mrc", "gain": ".gain.mrc", "config": ".Config.Metadata.xml", "metadata": ".metadata"}
_PIXELS = {8: "u1", 16: "<u2", 32: "<u4"}


class SeqFrames(Frames):
    """The frames of a .seq file, read by place."""

    concurrent = True

    def __init__(self, source: Bytes, options: FormatOptions) -> None:
        self.source = source
        self.head = head = _parse(source)
        self.dtype = np.dtype(_PIXELS[head["bit_depth"]])
        self.start = 8192 if head["version"] >= 5 else 1024
        self.step: int = head["true_image_size"]
        self.pixels: int = head["image_size_bytes"]
        self.stamp = 8 if head["version"] >= 5 else 6
        count = self._count(options.permissive)
        self.shape = (count, head["height"], head["width"])
        self.kind = "image" if count == 1 else "stack"
        if head["origin"]:
            self.oddities += (f"recorded in a ring, whose first frame is {head['origin']}; they come as stored",)
        self._halves()
        self.metadata = self._metadata()

    def _count(self, permissive: bool) -> int:
        here, told = max(self.source.size - self.start, 0), self.head["allocated_frames"]
        count, rest = divmod(here, self.step)
        # What fills an image up to the next place may be missing after the last.
        if rest >= self.pixels:
            count, rest = count + 1, 0
        if 0 < told <= count:
            if told < count:  # files grow by more than they need
                self.oddities += (f"room for {count - told} images after the last",)
            return int(told)
        if count == 0 or (rest and not permissive):
            raise ChunkError(
                f"an image of {self.pixels} bytes, {rest} are there"
                + ("; permissive=True leaves it out" * bool(count)),
                frame=count,
                offset=self.start + count * self.step,
                path=self.source.name,
            )
        if rest:
            self.warnings += (f"frame {count} is cut short: {rest} of {self.pixels} bytes; it is left out",)
        elif told:
            self.warnings += (f"the header tells of {told} frames, {count} are there",)
        return count

    def _halves(self) -> None:
        name = os.path.basename(self.source.name)
        for part, other in (("_Top_", "lower"), ("_Bottom_", "upper")):
            if part in name:
                self.oddities += (
                    f"a half of a Celeritas camera's frames, as stored: the {other} half is in another file",
                )

    def _metadata(self) -> dict[str, Any]:
        beside = {}
        for kind, suffix in _BESIDE.items():
            path = find_beside(self.source, [name + suffix for name in _names(self.source.name)])
            if path is not None:
                beside[kind] = os.path.basename(path)
        text = text_beside(self.source, [beside["config"]]) if "config" in beside else None
        told = _config(text)
        binning = told.get("ImageBinning", "")
        original: dict[str, Any] = {"seq": self.head}
        if beside:
            original["files"] = beside
        if text is not None:
            original["xml"] = text
        thousands = _positive(told, "Mag")
        rate = _positive(told, "FrameRate")
        return checked(
            {
                "timestamp": self._time(0),
                "frame_time": None if rate is None else 1 / rate,
                "binning": binning if binning.isdecimal() and int(binning) > 0 else None,
                "camera": told.get("CameraType"),
                "voltage": _positive(told, "HT"),
                "magnification": None if thousands is None else thousands * 1000,
                "counts_per_electron": _positive(told, "ADUPerElectron"),
                "dark_file": beside.get("dark"),
                "gain_file": beside.get("gain"),
                "defect_file": beside["config"] if "<BadPixelMap" in (text or "") else None,
            },
            original,
        )

    def _time(self, number: int) -> str | None:
        """When a frame was taken, ISO 8601; None where no time follows it."""
        raw = self.source.read(self.start + number * self.step + self.pixels, self.stamp)
        if self.step - self.pixels < self.stamp or len(raw) < self.stamp:
            return None
        seconds, thousandths, millionths = struct.unpack("<IHH", raw.ljust(8, b"\0"))
        if seconds == 0 or thousandths > 999 or millionths > 999:
            return None
        micro = thousandths * 1000 + millionths
        when = datetime.fromtimestamp(seconds, UTC).replace(microsecond=micro, tzinfo=None)
        return when.isoformat(timespec="microseconds" if self.stamp == 8 else "milliseconds") + "Z"

    def read_frame(self, number: int, out: np.ndarray) -> None:
        self.read_window(number, (0, self.shape[1], 0, self.shape[2]), out)

    def read_window(self, number: int, window: Window, out: np.ndarray) -> None:
        y0, y1, x0, x1 = window
        row = self.shape[2] * self.dtype.itemsize
        offset = self.start + number * self.step + y0 * row
        raw = self.source.read(offset, (y1 - y0) * row)
        if len(raw) != (y1 - y0) * row:
            raise ChunkError(f"{(y1 - y0) * row} bytes of pixels, {len(raw)} are there", frame=number, offset=offset)
        out[...] = np.frombuffer(raw, self.dtype).reshape(y1 - y0, -1)[:, x0:x1]

    def pieces(self) -> Pieces | str:
        return whole_frames(self.start, self.step, self.shape[1] * self.shape[2] * self.dtype.itemsize, self)

    @property
    def frame_metadata(self) -> list[dict[str, Any]]:
        return [checked({"timestamp": self._time(number)}) for number in range(self.shape[0])]


def _parse(source: Bytes) -> dict[str, Any]:
    """The header, by the names of `_FIELDS` and its description; what contradicts itself is an error."""
    raw, name = source.read(0, _HEADER), source.name
    if len(raw) < _HEADER:
        raise FormatError(f"a header of {_HEADER} bytes, {len(raw)} are there", path=name)
    head = {key: struct.unpack_from(form, raw, at)[0] for key, (form, at) in _FIELDS.items()}
    head["description"] = raw[36:548].decode("utf-16-le", "replace").partition("\0")[0]
    if not 1 <= head["version"] <= 6:
        raise FormatError(f"version {head['version']} of a .seq file is not known, expected 1 to 6", path=name)
    packed = head["compression_format"]
    if packed:
        how = _COMPRESSIONS[packed] if packed < len(_COMPRESSIONS) else "an unknown compression"
        raise FormatError(f"the images are compressed ({how}, {packed}); only plain ones can be read", path=name)
    if head["image_format"] != 100:
        kind = _COLOURS.get(head["image_format"], "unknown")
        raise FormatError(f"images of kind {head['image_format']} ({kind}), expected 100, monochrome", path=name)
    if head["bit_depth"] not in _PIXELS:
        raise FormatError(f"pixels of {head['bit_depth']} bits, expected 8, 16 or 32", path=name)
    if not head["width"] or not head["height"]:
        raise FormatError(f"images of {head['width']} x {head['height']} pixels", path=name)
    size = head["width"] * head["height"] * head["bit_depth"] // 8
    if head["image_size_bytes"] != size:
        raise FormatError(
            f"an image of {head['width']} x {head['height']} pixels of {head['bit_depth']} bits has {size} bytes, "
            f"the header says {head['image_size_bytes']}",
            path=name,
        )
    if head["true_image_size"] < size:
        raise FormatError(f"images {head['true_image_size']} bytes apart, each of {size} bytes", path=name)
    return head


def _names(path: str) -> list[str]:
    """What files beside are named after: ``a.seq``, ``a`` of ``a.seq``; of a Celeritas half what precedes it."""
    name = os.path.basename(path)
    found = [name, os.path.splitext(name)[0]]
    for part in ("_Top_", "_Bottom_"):
        before, there, _ = name.partition(part)
        if there:
            found += [before + ".seq", before]
    return found


def _config(text: str | None) -> dict[str, str]:
    """Configuration/FileInfo of Direct Electron's XML: the value of each of its elements."""
    root = parse_xml(text)
    info = None if root is None else root.find("FileInfo")
    return {} if info is None else {child.tag: child.attrib["Value"] for child in info if "Value" in child.attrib}


def _positive(told: dict[str, str], name: str) -> float | None:
    """A number; None where it is 0, which says that it was not known."""
    try:
        found = float(told.get(name, ""))
    except ValueError:
        return None
    return found if 1e-300 < found < 1e300 else None


def open_frames(source: Bytes, options: FormatOptions) -> SeqFrames:
    """Open a .seq file.

    Raises
    ------
    FormatError
        It is damaged, compressed, coloured, or its last frame is cut short (without ``permissive``).
    """
    return SeqFrames(source, options)
