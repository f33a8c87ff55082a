"""TIA's .ser, series of images of FEI microscopes, and the .emi that tells about them.

Layout: FEI's "TIA Series Data (ESD) file format" and C. Boothroyd, "TIA (Emispec) file format". All little-endian:
0x4949, 0x0197, version, kind of the elements, kind of their tags, how many elements are planned and how many are there,
where their offsets are, the dimensions of the series. Offsets have 4 bytes in version 0x0210, 8 in 0x0220; those of the
tags follow those of the elements. An element is a calibration of each axis (offset, step, at which pixel), the type of
its pixels, its columns and rows, and the pixels, of which the lowest row comes first: frames are given the right way
up, the first row the top one, as ncempy and RosettaSciIO do. A tag tells the time, in seconds since 1970.

Steps are metres, or 1/m in diffraction patterns, and which of these only the .emi tells, by its mode; where there is
none, a step of a millimetre or more is none on a specimen.

The .emi has no published layout. It begins with "JK", and an XML element ObjectInfo of each of its series stands in it.
Opened itself it gives the first series, ``name_1.ser``; ``dataset="2"`` the second.
"""

from __future__ import annotations

import contextlib
import os
import re
import struct
from datetime import UTC, datetime
from typing import Any
from xml.etree import ElementTree

import numpy as np

from mrcz.errors import ChunkError, FormatError
from mrcz.formats._beside import find_beside
from mrcz.formats._xml import parse_xml
from mrcz.formats.base import Bytes, FormatOptions, Frames, Pieces, Window, plain_frames
from mrcz.formats.metadata import checked
from mrcz.storage.source import FileSource
from mrcz.storage.wrapped import open_regular

__all__ = ["open_frames"]

_SPECTRA, _IMAGES = 0x4120, 0x4122
_TIMES = (0x4152, 0x4142)  # a time; a time and a position
_ELEMENT = struct.Struct("<ddiddihii")
_PIXELS = {1: "u1", 2: "<u2", 3: "<u4", 4: "i1", 5: "<i2", 6: "<i4", 7: "<f4", 8: "<f8", 9: "<c8", 10: "<c16"}
_MAX_DIMENSIONS = 16
_MAX_TEXT = 1 << 12
_MAX_EMI = 64 << 20  # bytes that are searched
_MAX_INFO = 1 << 20  # bytes of one ObjectInfo
_MICRONS = {"um": 1.0, "µm": 1.0, "nm": 1e-3, "mm": 1e3}
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class SerFrames(Frames):
    """The images of a .ser file, read by place; each one's header is compared with the first's when it is read."""

    concurrent = True

    def __init__(self, source: Bytes, options: FormatOptions, info: str | None) -> None:
        self.source = source
        self.head = head = _parse(source)
        self.words = _Words(info)
        self.width = 4 if head["version"] < 0x220 else 8
        self.first = self._element(0, self._offset(0))
        nx, ny, self.dtype, self.steps = self.first
        self.nbytes = nx * ny * self.dtype.itemsize
        self.offsets = self._offsets(options.permissive)
        self.shape = (len(self.offsets), ny, nx)
        self.kind = "image" if self.shape[0] == 1 else "stack"
        self._same(self.shape[0] - 1)
        if head["valid"] < head["total"]:
            self.oddities += (f"{head['total']} images were planned, {head['valid']} are there",)
        if len(head["dimensions"]) > 1:
            sizes = " x ".join(str(one["size"]) for one in head["dimensions"])
            self.oddities += (f"a series of {sizes}: frames are in their order, the first quickest",)
        size = self.words.pixel_size(self.steps)
        self.pixel_size = (*size, 0.0) if size else (0.0, 0.0, 0.0)
        original: dict[str, Any] = {"ser": head}
        if info is not None:
            original["emi"] = info
        values = self.words.values(self.shape[0]) | {"pixel_size": list(size)}
        stamp = self._time(0)
        if stamp is not None:  # it has a time zone, AcquireDate has none
            values["timestamp"] = stamp
        self.metadata = checked(values, original)

    # ---- where frames are --------------------------------------------------------------------------------------------

    def _offset(self, number: int, *, tags: bool = False) -> int | None:
        """Where the offset array, or that of the tags, says that an element is; None where it ends before."""
        at = self.head["offset_array"] + (number + (self.head["total"] if tags else 0)) * self.width
        raw = self.source.read(at, self.width) if at >= 0 else b""
        return int.from_bytes(raw, "little") if len(raw) == self.width else None

    def _offsets(self, permissive: bool) -> np.ndarray:
        """Of all images that are there, (nz,) int64, each with its pixels inside of the file."""
        size, need, name = self.source.size, _ELEMENT.size + self.nbytes, self.source.name
        count, room = self.head["valid"], size // need
        raw = self.source.read(self.head["offset_array"], min(count, room) * self.width)
        found = np.frombuffer(raw[: len(raw) // self.width * self.width], f"<u{self.width}")
        outside = np.flatnonzero((found == 0) | (found > size - need))
        good = int(outside[0]) if len(outside) else len(found)
        if good < count:
            where = int(found[good]) if good < len(found) else None
            if where is not None:
                wrong = f"an image of {need} bytes with its header, {max(0, size - where)} are there"
            elif good == room:
                wrong = f"{count} images of {need} bytes with their headers, the file has {size}"
            else:
                wrong = f"the array of offsets ends after {good} of {count}"
            if good == 0 or not permissive:
                raise ChunkError(wrong, frame=good, offset=where, path=name)
            self.warnings += (f"of {count} images {good} are whole; the others are left out",)
        return found[:good].astype(np.int64)

    def _element(self, number: int, offset: int | None) -> tuple[int, int, np.dtype, tuple[float, float]]:
        """Columns, rows, type and steps of an image, whose header must be there."""
        name = self.source.name
        raw = b"" if offset is None else self.source.read(offset, _ELEMENT.size)
        if len(raw) < _ELEMENT.size:
            raise ChunkError(
                f"the header of an image has {_ELEMENT.size} bytes, {len(raw)} are there",
                frame=number,
                offset=offset,
                path=name,
            )
        _, x_step, _, _, y_step, _, kind, nx, ny = _ELEMENT.unpack(raw)
        if kind not in _PIXELS or nx < 1 or ny < 1:
            raise ChunkError(
                f"an image of {nx} x {ny} pixels of type {kind}, expected 1 to 10",
                frame=number,
                offset=offset,
                path=name,
            )
        return nx, ny, np.dtype(_PIXELS[kind]), (x_step, y_step)

    def _same(self, number: int) -> tuple[float, float]:
        """The steps of an image, which must be as large as the first and of its type."""
        offset = int(self.offsets[number])
        nx, ny, dtype, steps = self._element(number, offset)
        if (nx, ny, dtype) != self.first[:3]:
            raise ChunkError(
                f"an image of {nx} x {ny} {dtype}, the first has {self.first[0]} x {self.first[1]} {self.first[2]}",
                frame=number,
                offset=offset,
                path=self.source.name,
            )
        return steps

    # ---- what is in them ---------------------------------------------------------------------------------------------

    def read_frame(self, number: int, out: np.ndarray) -> None:
        self.read_window(number, (0, self.shape[1], 0, self.shape[2]), out)

    def read_window(self, number: int, window: Window, out: np.ndarray) -> None:
        y0, y1, x0, x1 = window
        self._same(number)
        row = self.shape[2] * self.dtype.itemsize
        offset = int(self.offsets[number]) + _ELEMENT.size + (self.shape[1] - y1) * row
        raw = self.source.read(offset, (y1 - y0) * row)
        if len(raw) != (y1 - y0) * row:
            raise ChunkError(f"{(y1 - y0) * row} bytes of pixels, {len(raw)} are there", frame=number, offset=offset)
        out[...] = np.frombuffer(raw, self.dtype).reshape(y1 - y0, -1)[::-1, x0:x1]

    def pieces(self) -> Pieces | str:
        return plain_frames(self.offsets + _ELEMENT.size, self.nbytes, self, turned=True)

    def _time(self, number: int) -> str | None:
        offset = self._offset(number, tags=True)
        raw = b"" if not offset else self.source.read(offset, 8)
        if len(raw) < 8 or int.from_bytes(raw[:2], "little") not in _TIMES:
            return None
        seconds = int.from_bytes(raw[4:], "little")
        when = datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None)
        return when.isoformat() + "Z" if seconds else None

    @property
    def frame_metadata(self) -> list[dict[str, Any]]:
        found = []
        for number in range(self.shape[0]):
            size = self.words.pixel_size(self._same(number))
            found.append(checked({"timestamp": self._time(number), "pixel_size": list(size)}))
        return found


class _EmiFrames(SerFrames):
    """The same, of a .ser that was opened here and is to be closed here."""

    def pieces(self) -> Pieces | str:
        return "its frames are in another file, the .ser"

    def close(self) -> None:
        assert isinstance(self.source, FileSource)
        self.source.close()


def _parse(source: Bytes) -> dict[str, Any]:
    """The header and the dimensions of the series."""
    name = source.name
    raw = source.read(0, 34)
    if len(raw) < 34 or raw[:4] != b"II\x97\x01":
        raise FormatError("this is no .ser file, or one cut short in its header", path=name)
    version, kind, tags, total, valid = struct.unpack_from("<HIIii", raw, 4)
    if version not in (0x210, 0x220):
        raise FormatError(f"version 0x{version:04x} of a .ser file is not known, expected 0x0210 or 0x0220", path=name)
    offset_array, count = struct.unpack_from("<ii" if version == 0x210 else "<qi", raw, 22)
    if kind == _SPECTRA:
        raise FormatError("this is a series of spectra, not of images", path=name)
    if kind != _IMAGES:
        raise FormatError(f"elements of kind 0x{kind:04x}, expected 0x4122, images", path=name)
    if not 1 <= valid <= total:
        raise FormatError(f"{valid} images are said to be there of {total} planned", path=name)
    if offset_array < 0 or not 0 <= count <= _MAX_DIMENSIONS:
        raise FormatError(f"offsets at {offset_array}, a series of {count} dimensions", path=name)
    dimensions, at = [], 30 if version == 0x210 else 34
    for k in range(count):
        size, start, step, element, length = _unpacked(source, "<iddii", at)
        text, at = _text(source, at + 28, length)
        (length,) = _unpacked(source, "<i", at)
        unit, at = _text(source, at + 4, length)
        if size < 0:
            raise FormatError(f"dimension {k} of the series has {size} elements", path=name)
        words = {"size": size, "offset": start, "delta": step, "element": element, "description": text, "units": unit}
        dimensions.append(words)
    return {
        "version": version,
        "tag_type": tags,
        "total": total,
        "valid": valid,
        "offset_array": offset_array,
        "dimensions": dimensions,
    }


def _unpacked(source: Bytes, form: str, at: int) -> tuple[Any, ...]:
    raw = source.read(at, struct.calcsize(form))
    if len(raw) < struct.calcsize(form):
        raise FormatError(f"the header ends at byte {source.size}, more is expected at {at}", path=source.name)
    return struct.unpack(form, raw)


def _text(source: Bytes, at: int, length: int) -> tuple[str, int]:
    """A text, and where it ends."""
    if not 0 <= length <= _MAX_TEXT:
        raise FormatError(f"byte {at}: a text of {length} bytes", path=source.name)
    (raw,) = _unpacked(source, f"{length}s", at)
    return raw.decode("latin-1"), at + length


class _Words:
    """What an ObjectInfo of the .emi says: labelled values with their units, and plain elements."""

    def __init__(self, text: str | None) -> None:
        root = parse_xml(text)
        self.root = ElementTree.Element("ObjectInfo") if root is None else root
        self.labelled: dict[str, tuple[str, str]] = {}
        for data in self.root.iterfind("ExperimentalDescription/Root/Data"):
            label, value, unit = (data.findtext(name, "").strip() for name in ("Label", "Value", "Unit"))
            self.labelled.setdefault(label, (value, unit))

    def text(self, path: str) -> str:
        return (self.root.findtext(path) or "").strip()

    def number(self, path: str) -> float | None:
        return _number(self.text(path).partition(" ")[0])

    def value(self, label: str, units: dict[str, float]) -> float | None:
        """A labelled value in the unit whose factor is 1; None where its unit is none of these."""
        value, unit = self.labelled.get(label, ("", ""))
        found = _number(value)
        return found * units[unit] if found is not None and unit in units else None

    def pixel_size(self, steps: tuple[float, float]) -> tuple[float, float] | tuple[()]:
        """Å of a pixel along x and y, from steps in metres; nothing of a diffraction pattern."""
        mode = self.labelled.get("Mode", ("", ""))[0]
        # A scan is made with the projector in diffraction, and is an image unless a camera took it.
        if "Diffraction" in mode and ("STEM" not in mode or self.text("AcquireInfo/CameraNamePath")):
            return ()
        return (steps[0] * 1e10, steps[1] * 1e10) if all(0 < step < 1e-3 for step in steps) else ()

    def values(self, count: int) -> dict[str, Any]:
        """Under the names of `mrcz.formats.metadata`, of a series of so many images."""
        volts = self.number("ExperimentalConditions/MicroscopeConditions/AcceleratingVoltage")
        kilovolts = self.value("High tension", {"kV": 1.0}) if volts is None else volts / 1000
        exposure = self.number("AcquireInfo/IntegrationTime")
        if exposure is None:
            exposure = self.number("AcquireInfo/FrameTime")  # of a scan
        stage = [self.value(f"Stage {axis}", _MICRONS) for axis in "XYZ"]
        spot, binning = _number(self.labelled.get("Spot size", ("", ""))[0]), self.number("AcquireInfo/Binning")
        return {
            "voltage": kilovolts,
            "magnification": self.value("Magnification", {"x": 1.0, "X": 1.0}),
            "defocus": self.value("Defocus", _MICRONS),
            "stage": None if None in stage else stage,
            "tilt": self.value("Stage A", {"deg": 1.0}),
            "spot_size": spot if spot is not None and spot == int(spot) else None,
            "frame_time": exposure,
            "exposure_time": exposure if count == 1 else None,
            "binning": binning if binning is not None and binning == int(binning) else None,
            "camera": self.text("AcquireInfo/CameraNamePath"),
            "microscope": self.labelled.get("Microscope", ("", ""))[0],
            "timestamp": _date(self.text("AcquireDate")),
        }


def _number(text: str) -> float | None:
    try:
        found = float(text)
    except ValueError:
        return None
    return found if abs(found) < 1e300 else None  # no infinity, no NaN


def _date(text: str) -> str | None:
    """``Tue Oct 18 18:18:46 2011`` in ISO 8601, of the microscope's time zone; whatever the language here."""
    parts = text.split()
    if len(parts) != 5 or parts[1] not in _MONTHS or not (parts[2].isdecimal() and parts[4].isdecimal()):
        return None
    try:
        when = datetime.fromisoformat(
            f"{int(parts[4]):04d}-{_MONTHS.index(parts[1]) + 1:02d}-{int(parts[2]):02d}T{parts[3]}"
        )
    except ValueError:
        return None
    return when.isoformat() if when.tzinfo is None else None


def _infos(source: Bytes) -> list[str]:
    """The ObjectInfo elements of an .emi, in the order of its series."""
    raw = source.read(0, _MAX_EMI)
    found, at = [], 0
    while (begin := raw.find(b"<ObjectInfo>", at)) >= 0:
        end = raw.find(b"</ObjectInfo>", begin, begin + _MAX_INFO)
        if end < 0:
            break
        at = end + len(b"</ObjectInfo>")
        part = raw[begin:at]
        try:
            found.append(part.decode())
        except UnicodeDecodeError:
            found.append(part.decode("latin-1"))
    return found


def _info_beside(source: Bytes) -> str | None:
    """What the .emi beside a .ser says about it."""
    match = re.fullmatch(r"(.+)_(\d{1,6})\.ser", os.path.basename(source.name), re.IGNORECASE)
    path = match and find_beside(source, [match[1] + ".emi", match[1] + ".EMI"])
    if not match or not path:
        return None
    try:
        with contextlib.closing(FileSource(open_regular(path), path)) as emi:
            found = _infos(emi)
    except OSError:
        return None
    number = int(match[2])
    return found[number - 1] if 1 <= number <= len(found) else None


def _of_emi(source: Bytes, options: FormatOptions) -> SerFrames:
    """A series of an .emi: the .ser beside it."""
    name = source.name
    if not isinstance(source, FileSource):
        raise FormatError("an .emi is read with the .ser files beside it, as a local file", path=name)
    number = "1" if options.dataset is None else options.dataset
    if not re.fullmatch(r"\d{1,6}", number):
        raise FormatError(f"no series {number!r} of an .emi, expected a number from 1 on", path=name)
    stem = os.path.splitext(os.path.basename(name))[0]
    wanted = f"{stem}_{int(number)}.ser"
    path = find_beside(source, [wanted, f"{stem}_{int(number)}.SER"])
    if path is None:
        others = sorted(
            one
            for one in os.listdir(os.path.dirname(os.path.abspath(name)))
            if re.fullmatch(re.escape(stem) + r"_\d+\.ser", one, re.IGNORECASE)
        )
        more = f"; there are {', '.join(others)}" if others else ""
        raise FormatError(f"its series {wanted} is not beside it{more}", path=name)
    infos = _infos(source)
    try:
        inner = FileSource(open_regular(path), path)
    except OSError as error:
        raise FormatError(f"its series {wanted} cannot be read: {error.strerror}", path=name) from error
    try:
        return _EmiFrames(inner, options, infos[int(number) - 1] if 1 <= int(number) <= len(infos) else None)
    except BaseException:
        inner.close()
        raise


def open_frames(source: Bytes, options: FormatOptions) -> SerFrames:
    """Open a .ser file, or the one that an .emi tells about.

    Raises
    ------
    FormatError
        It is damaged, holds spectra, or an image is cut short (without ``permissive``); the .ser of an .emi is missing.
    """
    if source.read(0, 2) == b"JK":
        return _of_emi(source, options)
    if options.dataset is not None:
        raise FormatError(f"a .ser is one series, there is no {options.dataset!r} in it", path=source.name)
    return SerFrames(source, options, _info_beside(source))
