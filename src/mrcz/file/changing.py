"""A header with some fields changed: values checked by what each field can be, the pixels the same as before.

Pure: `editing` puts the new header where it belongs.
"""

from __future__ import annotations

import difflib
import math
import numbers
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Unpack, cast

import numpy as np

from mrcz.container.header.build import NOT_COMPUTED, exttyp_bytes, set_labels, three_sizes
from mrcz.container.header.header import Header
from mrcz.container.header.layout import FIXED, HEADER_DTYPE, KINDS, LABEL_PATTERN, STAMPS, default_mz, writable
from mrcz.container.header.words import FreeFields, Real, Reals

__all__ = ["MICROSCOPE", "changed_header", "check_names", "plain_value", "shown_value"]

MICROSCOPE = ("voltage", "c3", "gain")
_MEANINGS = ("pixel_size", "origin", "start", "kind", "mz", "statistics", "label", "labels", *MICROSCOPE)
# What another name for one of these is called here; `Header` and mrcfile have some of them.
_OTHER_NAMES = {
    "voxel_size": "pixel_size",
    "apix": "pixel_size",
    "nstart": "start",
    "stats": "statistics",
    "c_s": "c3",
    "cs": "c3",
    "kv": "voltage",
    "add_label": "label",
    "space_group": "ispg",
    "axes": "mapc=, mapr=, maps",
}


class HeaderChanges(FreeFields, total=False):
    """What may be changed, as `mrcz.edit_header` spells it out."""

    pixel_size: float | Sequence[float]
    origin: Reals
    start: Sequence[int]
    kind: str
    mz: int
    statistics: str | Sequence[float]
    voltage: Real
    c3: Real
    gain: Real
    label: str | Iterable[str]
    labels: Iterable[str]


def check_names(given: Mapping[str, Any]) -> None:
    """Refuse what is no field, or one that follows from others.

    Raises
    ------
    TypeError
    """
    stored = HEADER_DTYPE.names or ()
    for name in given:
        if name in FIXED and name not in _MEANINGS:
            raise TypeError(f"{name} is not set by itself: {FIXED[name]}")
        if name not in stored and name not in _MEANINGS:
            near = _OTHER_NAMES.get(name.lower())
            if near is None:
                near = next(iter(difflib.get_close_matches(name, [*_MEANINGS, *stored], 1)), None)
            raise TypeError(f"no header field is called {name!r}" + (f"; did you mean {near}=?" if near else ""))


def changed_header(header: Header, *, path: Any = None, **fields: Unpack[HeaderChanges]) -> Header:
    """Another header with these changes, as `edit_header` takes them, for the same pixels.

    Raises
    ------
    ValueError, TypeError
        As `edit_header`.
    """
    changes = cast(Mapping[str, Any], fields)
    check_names(changes)
    record = writable(header.record.tobytes(), header.byteorder)
    order = sorted(changes, key=lambda name: name != "kind")  # the cell follows from the kind
    for name in order:
        value = changes[name]
        if name == "kind":
            _set_kind(record, header, str(value), changes.get("mz"))
            header = Header.parse(record.tobytes(), path=path)
        elif name == "mz":
            if "kind" not in changes:
                raise ValueError('mz= is the sections of one volume and goes with kind="volume stack"')
        elif name == "pixel_size":
            _set_pixel_size(record, header, value)
        elif name == "start":
            for field, number in zip(("nxstart", "nystart", "nzstart"), _several(value, 3, name), strict=True):
                record[field] = _number(field, HEADER_DTYPE[field], number)
        elif name == "statistics":
            values = NOT_COMPUTED if value == "unknown" else _several(value, 4, name)
            for field, number in zip(("dmin", "dmax", "dmean", "rms"), values, strict=True):
                record[field] = _number(field, HEADER_DTYPE[field], number)
        elif name in MICROSCOPE:
            if not header.is_mrcz:
                raise ValueError(f"a file without an MRCZ label has no place for {name}: the bytes are somebody else's")
            record[name] = _number(name, HEADER_DTYPE[name], value)
        elif name not in ("label", "labels", "nlabl"):
            _set_field(record, name, value, header)
    if not {"label", "labels", "nlabl"}.isdisjoint(changes):
        _set_labels(record, changes.get("labels"), changes.get("label"))
    if "nlabl" in changes and changes["nlabl"] != int(record["nlabl"]):
        raise ValueError(f"nlabl is {changes['nlabl']}, expected {int(record['nlabl'])}, the labels with text")
    new = Header.parse(record.tobytes(), path=path)
    _check_pixels(header, new)
    if "kind" not in changes and new.kind != header.kind:
        raise ValueError(f"ISPG {new['ispg']} makes a {new.kind} of a {header.kind}: say kind={new.kind!r}")
    if not {"mapc", "mapr", "maps"}.isdisjoint(changes):
        axes = [int(record[name]) for name in ("mapc", "mapr", "maps")]
        if sorted(axes) != [1, 2, 3]:
            raise ValueError(f"mapc, mapr, maps would be {axes}, expected 1, 2, 3 in some order")
    return new


# ---- values ----------------------------------------------------------------------------------------------------------


def _several(value: Any, n: int, name: str) -> list[Any]:
    values = np.asarray(value).reshape(-1).tolist() if not isinstance(value, str) else [value]
    if len(values) != n:
        raise ValueError(f"{name} is {value!r}, expected {n} numbers")
    return values


def _number(name: str, dtype: np.dtype, value: Any) -> Any:
    """A value as it is stored in a number field; nothing is rounded or cut on the way but a float to its 24 bits."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (numbers.Real, np.number)):
        raise TypeError(f"{name} is {value!r}, expected a number")
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            stored = np.float32(value)
        if not math.isfinite(stored):
            raise ValueError(f"{name} is {value!r}, expected a finite number of 32 bits")
        return stored
    info = np.iinfo(dtype)
    number = float(value)
    if not number.is_integer() or not info.min <= number <= info.max:
        raise ValueError(f"{name} is {value!r}, expected an integer from {info.min} to {info.max}")
    return int(value)  # type: ignore[arg-type]


def _set_field(record: np.ndarray, name: str, value: Any, header: Header) -> None:
    """One stored field by its name."""
    dtype = HEADER_DTYPE[name]
    if name == "map":
        if (value.encode("latin-1") if isinstance(value, str) else bytes(value)).ljust(4) != b"MAP ":
            raise ValueError(f"map is {value!r}, expected 'MAP '")
        record[name] = b"MAP "
    elif name == "machst":
        stamp = bytes(value)
        if len(stamp) != 4 or STAMPS.get(stamp[:2]) != header.byteorder:
            right = "44 44 00 00" if header.byteorder == "<" else "11 11 00 00"
            raise ValueError(f"machst is {stamp.hex(' ')}, expected {right} for the byte order of this file")
        record[name] = tuple(stamp)
    elif dtype.kind == "S":
        record[name] = exttyp_bytes(value)
    elif dtype.kind == "V" and dtype.subdtype is None:
        raw = bytes(value)
        if len(raw) > dtype.itemsize:
            raise ValueError(f"{name} is {len(raw)} bytes, expected {dtype.itemsize} at most")
        record[name] = np.void(raw.ljust(dtype.itemsize, b"\0"))
    elif dtype.subdtype is not None:
        base, shape = dtype.subdtype
        record[name] = [_number(name, base, number) for number in _several(value, shape[0], name)]
    else:
        record[name] = _number(name, dtype, value)
    if name == "cellb" and not all(0 < angle < 180 for angle in record[name].tolist()):
        raise ValueError(f"cellb is {value!r}, expected angles between 0 and 180 degrees")
    if name == "ispg" and not (0 <= int(record[name]) <= 230 or 401 <= int(record[name]) <= 630):
        raise ValueError(f"ispg is {value!r}, expected 0 to 230, or 401 to 630 for a stack of volumes")
    if name == "nversion" and int(record[name]) not in (20140, 20141):
        raise ValueError(f"nversion is {value!r}, expected 20140 or 20141")


def _set_pixel_size(record: np.ndarray, header: Header, pixel_size: Any) -> None:
    sizes = three_sizes(pixel_size)
    divisors = header.spacing[1]
    defaults = (int(record["nx"]), int(record["ny"]), default_mz(header.kind, header.nz))
    for i, (size, n) in enumerate(zip(sizes, divisors, strict=True)):
        field = "mx my mz".split()[i]
        if record[field] < 1 and not (field == "mz" and header.mz_is_slices):  # a sampling that is none
            n = record[field] = n if n > 0 else defaults[i]
        record["cella"][i] = _number("pixel_size", HEADER_DTYPE["dmin"], size * n)


def _set_kind(record: np.ndarray, header: Header, kind: str, mz: Any) -> None:
    """ISPG and MZ; CELLA z follows, so that the pixel size stays."""
    nz = header.nz
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}, expected one of {', '.join(KINDS)}")
    if kind == "image" and nz != 1:
        raise ValueError(f"a file of {nz} sections is no image")
    if kind == "stack" and nz == 1:
        kind = "image"  # of one
    if mz is not None:
        mz = _number("mz", HEADER_DTYPE["mz"], mz)
    if kind == "volume stack":
        if mz is None and header.kind == kind:
            mz = header.mz
        if mz is None or mz < 1 or nz % mz:
            raise ValueError(f"a volume stack of {nz} sections needs mz=, the sections of one volume; got {mz}")
    elif mz not in (None, default_mz(kind, nz)):
        raise ValueError(f"mz is {mz}, expected {default_mz(kind, nz)} for a {kind} of {nz} sections")
    mz = default_mz(kind, nz) if mz is None else mz
    ispg = int(record["ispg"])
    if kind == "volume":
        record["ispg"] = ispg if 1 <= ispg <= 230 else 1
    elif kind == "volume stack":
        record["ispg"] = ispg if 401 <= ispg <= 630 else 401
    else:
        record["ispg"] = 0
    if header.mz_is_slices:  # MZ has another meaning there, and CELLA z spans all sections
        if header.mrcz_release >= (1,):
            record["mrcz_mz"] = mz
        elif mz != default_mz(kind, nz):
            raise ValueError("a file of mrcz before 1.0 has no place for the sections of a volume; compress it anew")
        return
    spacing, divisors = header.spacing
    if divisors[2] != mz:
        record["cella"][2] = spacing[2] * mz
    record["mz"] = mz
    if header.cell_sections:
        record["mrcz_mz"] = 0


def _set_labels(record: np.ndarray, instead: Any, more: Any) -> None:
    """Labels, those with text first, and their number."""
    there = [bytes(label) for label in record["label"] if label.strip(b"\0 \t\r\n")]
    if instead is not None:
        ours = [label for label in there if LABEL_PATTERN.match(label)]
        there = ours + [_label(text) for text in _texts(instead)]
    added = [_label(text) for text in _texts(() if more is None else more)]
    if len(there) + len(added) > 10:
        raise ValueError(
            f"a header holds ten labels, there would be {len(there) + len(added)}; labels=[...] replaces those there"
        )
    set_labels(record, there + added)


def _texts(given: Any) -> list[Any]:
    return [given] if isinstance(given, (str, bytes)) else list(given)


def _label(text: Any) -> bytes:
    if not isinstance(text, str):
        raise TypeError(f"a label is text, not {type(text).__name__}")
    if not (text.isascii() and text.isprintable()) or len(text) > 80 or not text.strip():
        raise ValueError(f"label {text!r}: expected 1 to 80 printable ASCII characters")
    if LABEL_PATTERN.match(text.encode()):
        raise ValueError(f"label {text!r}: a label that begins so says that mrcz wrote the file")
    return text.encode("ascii")


def _check_pixels(old: Header, new: Header) -> None:
    """Whatever was changed, the same bytes must be the same pixels, at the same place."""
    facts: tuple[tuple[str, Any, Any], ...] = (
        ("shape", old.shape, new.shape),
        ("MODE", old["mode"], new["mode"]),
        ("NSYMBT", old.nsymbt, new.nsymbt),
        ("byte order", old.byteorder, new.byteorder),
        ("pixel type", old.pixel_format, new.pixel_format),
        ("MRCZ label", old.mrcz_version, new.mrcz_version),
    )
    for what, before, after in facts:
        if before != after:
            if what == "pixel type":
                before, after = old.pixel_format.dtype, new.pixel_format.dtype
            raise ValueError(f"this would change the {what} from {before} to {after}: other pixels of the same bytes")


# ---- showing ---------------------------------------------------------------------------------------------------------


def plain_value(value: Any) -> Any:
    """A field's value as JSON can hold it: text for text, hexadecimal for other bytes, nothing for NaN."""
    if isinstance(value, bytes):
        text = value.rstrip(b"\0 ").decode("latin-1")
        return text if text.isascii() and text.isprintable() else value.hex(" ")
    if isinstance(value, (tuple, list)):
        return [plain_value(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def shown_value(value: Any) -> str:
    if isinstance(value, tuple) and value and isinstance(value[0], bytes):
        return "; ".join(str(plain_value(label)) for label in value if label.strip(b"\0 \t\r\n")) or "none"
    if isinstance(value, tuple):
        return ", ".join(shown_value(item) for item in value)
    if isinstance(value, float):
        return f"{float(str(np.float32(value))):.7g}"
    return str(plain_value(value))
