"""Gatan Digital Micrograph DM3 and DM4: stacks and images, frame by frame, and what the tags say about them.

The tree of tags is read by `mrcz.formats._dm_tags`, whose values (`read_images`) are here, too.

A file has several images: a thumbnail, which the group Thumbnails names, and the data. Rows are given from the first
stored on, which is the top one. Where a tag is, is documented by no one but the files: the paths here are those of
real files of GMS 1 to 3, and a value that stands elsewhere is under ``"original"`` all the same, as every tag is, by
its path with colons, as Gatan writes it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from mrcz.errors import ChunkError, FormatError
from mrcz.formats._dm_tags import (
    COMPLEX,
    PACKED_COMPLEX,
    Image,
    StoredArray,
    Tags,
    paired,
    read_images,
    text,
    walk_images,
)
from mrcz.formats.base import Bytes, FormatOptions, Frames, Pieces, Window, whole_frames
from mrcz.formats.metadata import checked

__all__ = ["Image", "StoredArray", "matches", "open_frames", "read_images", "text"]

_TYPES = {1: "i2", 2: "f4", 6: "u1", 7: "i4", 9: "i1", 10: "u2", 11: "u4", 12: "f8"}  # ImageData/DataType
_RGB, _OLD_RGB = 23, 8
_ANGSTROM = {"Å": 1.0, "\u212b": 1.0, "A": 1.0, "pm": 0.01, "nm": 10.0, "µm": 1e4, "\u03bcm": 1e4, "um": 1e4, "mm": 1e7}

_MAX_KEPT = 1 << 16  # tags under "original"
_MAX_LIST = 64  # values of an array among them
_MAX_TEXT = 1 << 15  # characters of one
_MAX_TEXTS = 1 << 22  # and of all


def matches(source: Bytes) -> bool:
    """Whether this is a DM file: version, then byte order after 4 or 8 bytes, and a root of tags that are there."""
    head = source.read(0, 212)
    version = int.from_bytes(head[:4], "big")
    if version not in (3, 4) or head[208:212] == b"MAP ":
        return False
    return head[8:12] in (b"\0\0\0\0", b"\0\0\0\1") if version == 3 else head[12:16] in (b"\0\0\0\0", b"\0\0\0\1")


class DmFrames(Frames):
    """The frames of one image of a file, read by place."""

    concurrent = True

    def __init__(self, source: Bytes, number: str, image: Image, others: Tags) -> None:
        self.source, self.number = source, number
        self.colours = image.data_type == _RGB
        self.data = data = self._stored(image)
        dims = image.dimensions
        self.shape = (math.prod(dims[2:]), dims[1], dims[0])
        self.dtype = data.dtype
        self.kind = "image" if self.shape[0] == 1 else "stack"
        if self.colours:
            self.shape, self.dtype = (*self.shape, 3), np.dtype("u1")
        if len(dims) > 3:
            sizes = " x ".join(map(str, dims[2:]))
            self.oddities += (f"an image of {len(dims)} axes: frames are those of {sizes}, the first quickest",)
        said: dict[tuple[str, ...], Any] = {}
        for where, value in image.tags:
            said.setdefault(where, value)
        size = [_length(said, axis) for axis in range(3)]
        self.pixel_size = (size[0], size[1], size[2] if len(dims) > 2 else 0.0)
        self.metadata = checked(_values(said, self.pixel_size), {"dm": self._words(image.tags, others)})

    def _stored(self, image: Image) -> StoredArray:
        """Where the pixels are, as what they are; what contradicts the type or the dimensions is an error."""
        data, dims, kind, name = image.data, image.dimensions, image.data_type, self.source.name
        which = f"image {self.number}"
        assert data is not None
        if len(dims) < 2:
            raise FormatError(f"{which} is a line of {data.count} values, no image", path=name)
        if kind in (*PACKED_COMPLEX, 28):
            raise FormatError(
                f"{which} is half of a Fourier transform (type {kind}), whose other half is not stored; "
                "mrcz.readDM4 gives the half",
                path=name,
            )
        base = data.dtype["f0"] if data.dtype.names else data.dtype
        if kind in COMPLEX:
            wanted = np.dtype(COMPLEX[kind]).itemsize // 2
            if base.kind != "f" or base.itemsize != wanted or len(data.dtype.names or "ab") != 2:
                raise FormatError(f"{which} is complex (type {kind}) and stored as {data.dtype}", path=name)
            data = paired(data, COMPLEX[kind])
        elif data.dtype.names or kind == _OLD_RGB or (self.colours and (base.kind not in "iu" or base.itemsize != 4)):
            raise FormatError(f"{which}: pixels of type {kind}, stored as {data.dtype}, are not known", path=name)
        elif kind in _TYPES and base.newbyteorder("=") != np.dtype(_TYPES[kind]):
            raise FormatError(f"{which} has pixels of type {kind} ({_TYPES[kind]}) and holds {base}", path=name)
        if min(dims) < 1 or math.prod(dims) != data.count:
            raise FormatError(
                f"{which}: {' x '.join(map(str, dims))} pixels cannot have {data.count} values of {data.dtype}",
                path=name,
            )
        return data

    def _words(self, tags: Tags, others: Tags) -> dict[str, Any]:
        """All tags by their paths, as plain values: those of the image, of the document and of the display."""
        found: dict[str, Any] = {}
        room = _MAX_TEXTS
        within = [(("ImageList", self.number, *where), value) for where, value in tags]
        for count, (where, value) in enumerate([*within, *others]):
            plain = _plain(value)
            if plain is None:
                continue
            room -= len(plain) if isinstance(plain, str) else 0
            if count == _MAX_KEPT or room < 0:
                self.oddities += (f"of {len(within) + len(others)} tags the first {count} are kept",)
                break
            name = ":".join(where)
            if name in found:  # Gatan repeats names; what came before must not be lost
                name = next(f"{name} ({k})" for k in range(2, count + 3) if f"{name} ({k})" not in found)
            found[name] = plain
        return found

    def read_frame(self, number: int, out: np.ndarray) -> None:
        self.read_window(number, (0, self.shape[1], 0, self.shape[2]), out)

    def read_window(self, number: int, window: Window, out: np.ndarray) -> None:
        y0, y1, x0, x1 = window
        dtype = self.data.dtype
        row = self.shape[2] * dtype.itemsize
        offset = self.data.offset + (number * self.shape[1] + y0) * row
        raw = self.source.read(offset, (y1 - y0) * row)
        if len(raw) != (y1 - y0) * row:
            raise ChunkError(f"{(y1 - y0) * row} bytes of pixels, {len(raw)} are there", frame=number, offset=offset)
        found = np.frombuffer(raw, dtype).reshape(y1 - y0, -1)[:, x0:x1]
        if self.colours:  # 0x00RRGGBB
            for k, shift in enumerate((16, 8, 0)):
                out[..., k] = (found >> shift) & 0xFF
        else:
            out[...] = found

    def pieces(self) -> Pieces | str:
        if self.colours:
            return "its colours are stored in words of four bytes"
        nbytes = self.shape[1] * self.shape[2] * self.dtype.itemsize
        return whole_frames(self.data.offset, nbytes, nbytes, self)


def _plain(value: Any) -> Any:
    """What JSON knows; None for what is left out: large arrays, and types that nobody knows."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, list):
        return [part.item() for part in value]
    if isinstance(value, str):
        return value[:_MAX_TEXT]
    if isinstance(value, StoredArray):
        if value.dtype.kind == "u" and value.dtype.itemsize == 2 and value.count <= _MAX_TEXT:
            return text(value)
        if value.count <= _MAX_LIST and not value.dtype.names:
            return value.read().tolist()
    return None


def _length(said: Mapping[tuple[str, ...], Any], axis: int) -> float:
    """Å of a pixel along an axis; 0 where its unit is none of length."""
    where = ("ImageData", "Calibrations", "Dimension", str(axis))
    unit, scale = _text(said, *where, "Units"), _number(said, *where, "Scale")
    return scale * _ANGSTROM[unit] if scale is not None and scale > 0 and unit in _ANGSTROM else 0.0


def _number(said: Mapping[tuple[str, ...], Any], *where: str) -> float | None:
    value = said.get(where)
    found = float(value) if isinstance(value, np.number) else None
    return found if found is not None and math.isfinite(found) else None


def _positive(said: Mapping[tuple[str, ...], Any], *where: str) -> float | None:
    """A number that says nothing where it is 0, as of a microscope that is not connected."""
    found = _number(said, *where)
    return found if found is not None and found > 0 else None


def _text(said: Mapping[tuple[str, ...], Any], *where: str) -> str:
    value = said.get(where)
    if isinstance(value, StoredArray) and value.count > _MAX_TEXT:
        return ""
    return text(value).strip()


def _time(said: Mapping[tuple[str, ...], Any]) -> str | None:
    """Milliseconds since 1970, or the FILETIME of Windows: both UTC. The date in words may be of any country."""
    try:
        begin = _positive(said, "ImageTags", "Acquisition", "Frame", "Sequence", "Acquisition Start Time (epoch)")
        if begin is not None:
            when = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=begin)
        else:
            ticks = _positive(said, "ImageTags", "DataBar", "Acquisition Time (OS)")
            if ticks is None:
                return None
            when = datetime(1601, 1, 1, tzinfo=UTC) + timedelta(microseconds=ticks / 10)
    except OverflowError:
        return None
    return when.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def _values(said: Mapping[tuple[str, ...], Any], size: tuple[float, float, float]) -> dict[str, Any]:
    """Under the names of `mrcz.formats.metadata`."""
    info, camera = ("ImageTags", "Microscope Info"), ("ImageTags", "Acquisition")
    high, bar = (*camera, "Parameters", "High Level"), ("ImageTags", "DataBar")
    brightness = ("ImageData", "Calibrations", "Brightness")
    voltage = _positive(said, *info, "Voltage")
    stage = [_number(said, *info, "Stage Position", f"Stage {axis}") for axis in "XYZ"]
    binning = said.get((*high, "Binning"))
    bins = binning if isinstance(binning, list) else []
    square = len(bins) == 2 and bins[0] == bins[1] and bins[0] > 0
    per_count = _positive(said, *brightness, "Scale")
    exposure = _positive(said, *bar, "Exposure Time (s)")
    names = [("ImageTags", "Session Info", "Microscope"), (*info, "Microscope"), (*info, "Name")]
    return {
        "pixel_size": list(size[:2]) if size[0] and size[1] else None,
        "voltage": None if voltage is None else voltage / 1000,
        "cs": _number(said, *info, "Cs(mm)"),
        "exposure_time": _positive(said, *high, "Exposure (s)") if exposure is None else exposure,
        "frame_time": _positive(said, *high, "Frame Exposure"),
        "tilt": _number(said, *info, "Stage Position", "Stage Alpha"),
        "magnification": _positive(said, *info, "Indicated Magnification"),
        "stage": None if None in stage else stage,
        "timestamp": _time(said),
        "camera": _text(said, *camera, "Device", "Name") or _text(said, *bar, "Device Name"),
        "microscope": next(filter(None, (_text(said, *where) for where in names)), None),
        "binning": bins[0] if square else None,
        "counts_per_electron": 1 / per_count
        if per_count is not None and _text(said, *brightness, "Units") in ("e-", "e⁻")
        else None,
    }


def open_frames(source: Bytes, options: FormatOptions) -> DmFrames:
    """Open a DM3 or DM4 file: the largest image that is no thumbnail, or the one that ``dataset`` numbers.

    Raises
    ------
    FormatError
        It is damaged, or has no such image, or one that is half of a Fourier transform or of colours unknown here.
    """
    images, others = walk_images(source)
    thumbnails = {str(value) for where, value in others if where[:1] == ("Thumbnails",) and where[-1] == "ImageIndex"}
    stored = {number: image for number, image in images.items() if image.data is not None}
    if options.dataset is not None:
        if options.dataset not in stored:
            raise FormatError(
                f"no image {options.dataset!r}; there are {', '.join(stored) or 'none'}", path=source.name
            )
        number = options.dataset
    else:
        wanted = {number: image for number, image in stored.items() if number not in thumbnails} or stored
        if not wanted:
            raise FormatError("no image in it", path=source.name)
        number = max(wanted, key=lambda one: wanted[one].data.nbytes)  # type: ignore[union-attr] # the first of equals
    frames = DmFrames(source, number, stored[number], others)
    more = [one for one in stored if one != number and one not in thumbnails]
    if more:
        frames.oddities += (f"image {number} of several: dataset={more[0]!r} gives another",)
    return frames
