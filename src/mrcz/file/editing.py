"""Change the header of a file in place, without touching its pixels: `edit_header`.

In a compressed file the header stands in four places: at its beginning, as a checksum and a copy in the footer, and as
the header of the file it was made from, which decompressing gives back. All follow, in an order of writes that leaves
the old header or the new one at every instant (docs/container.md §6); a file of any size takes the same few writes.
"""

from __future__ import annotations

import contextlib
import difflib
import math
import numbers
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mrcz.container.chunks import FOOTER_MARK
from mrcz.container.header.build import NOT_COMPUTED, exttyp_bytes, set_labels, three_sizes
from mrcz.container.header.header import Header
from mrcz.container.header.layout import FIXED, HEADER_DTYPE, KINDS, LABEL_PATTERN, STAMPS, default_mz, writable
from mrcz.errors import FormatError, MrczError
from mrcz.file.growing import GrowingFile
from mrcz.storage.disk import Disk, check_regular, lock

if TYPE_CHECKING:
    from mrcz.container.footer import Footer
    from mrcz.file.reader import Reader

__all__ = ["Change", "HeaderEdit", "changed_header", "check_names", "edit_header", "plain_value", "shown_value"]

_MICROSCOPE = ("voltage", "c3", "gain")
_MEANINGS = ("pixel_size", "origin", "start", "kind", "mz", "statistics", "label", "labels", *_MICROSCOPE)
# What another name for one of these is called here; `Header` and mrcfile have some of them.
_OTHER_NAMES = {
    "voxel_size": "pixel_size", "apix": "pixel_size", "nstart": "start", "stats": "statistics", "c_s": "c3", "cs": "c3",
    "kv": "voltage", "add_label": "label", "space_group": "ispg", "axes": "mapc=, mapr=, maps",
}  # fmt: skip


@dataclass(frozen=True)
class Change:
    """One field of a header before and after; ``byte`` is where it stands in the file."""

    field: str
    byte: int
    before: Any
    after: Any

    def __str__(self) -> str:
        return f"{self.field} (byte {self.byte}): {shown_value(self.before)} -> {shown_value(self.after)}"


@dataclass(frozen=True)
class HeaderEdit:
    """What `edit_header` did.

    Attributes
    ----------
    path : str
    changes : tuple of Change
        Fields of the file's header that are new; empty where all were as asked for.
    written : bool
        False for a dry run, and where nothing was to be changed.
    notes : tuple of str
        What somebody who decompresses the file should know.
    """

    path: str
    changes: tuple[Change, ...]
    written: bool
    notes: tuple[str, ...] = ()

    def asdict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        changes = [
            {"field": c.field, "byte": c.byte, "before": plain_value(c.before), "after": plain_value(c.after)}
            for c in self.changes
        ]
        return {**asdict(self), "changes": changes}


def edit_header(
    path: str | os.PathLike,
    *,
    pixel_size: float | Sequence[float] | None = None,
    origin: Sequence[float] | None = None,
    start: Sequence[int] | None = None,
    kind: str | None = None,
    mz: int | None = None,
    statistics: str | Sequence[float] | None = None,
    voltage: float | None = None,
    c3: float | None = None,
    gain: float | None = None,
    label: str | Iterable[str] | None = None,
    labels: Iterable[str] | None = None,
    dry_run: bool = False,
    **fields: Any,
) -> HeaderEdit:
    """Change the header of an MRC or MRCZ file in place; the pixels are not touched, and hardly read.

    Parameters
    ----------
    path : path
        A local file, plain or compressed; not one inside gzip and the like.
    pixel_size : float or (x, y, z), optional
        Å: CELLA follows, from MX, MY, MZ.
    origin : (x, y, z), optional
        Å.
    start : (x, y, z), optional
        First column, row and section in the unit cell: NXSTART, NYSTART, NZSTART.
    kind : {"image", "stack", "volume", "volume stack"}, optional
        ISPG and MZ; the pixel size stays.
    mz : int, optional
        Sections of one volume, with ``kind="volume stack"``.
    statistics : (min, max, mean, rms), "compute" or "unknown", optional
        DMIN, DMAX, DMEAN, RMS. "compute" takes them from the footer, or reads the pixels of a file that has none;
        "unknown" marks them as not computed.
    voltage, c3, gain : float, optional
        kV, mm, counts per electron; for files with an MRCZ label, in others these bytes are somebody else's.
    label : str or list of str, optional
        Added behind the labels there.
    labels : list of str, optional
        In place of the labels there, except MRCZ's own.
    dry_run : bool
        Say what would change, and change nothing.
    **fields
        Others by their names in `mrcz.container.header.layout.HEADER_DTYPE`: ispg, exttyp, mapc, cellb, nversion,
        tiltangles, …

    Returns
    -------
    HeaderEdit

    Raises
    ------
    ValueError
        A value that the field cannot have, or a change that would make other pixels of the same bytes.
    TypeError
        No such field, or one that follows from others.
    FormatError
        The file is damaged (``mrcz recover``).
    MrczError
        Another process writes the file, or has changed it at this instant.
    OSError
        The file cannot be written. It has the old header, or the new one where the disk failed after that was safe.

    Examples
    --------
    >>> mrcz.edit_header("movie.mrcz", pixel_size=0.83, label="pixel size calibrated")    # doctest: +SKIP
    """
    from mrcz.file.reader import Reader

    given: dict[str, Any] = {
        "pixel_size": pixel_size, "origin": origin, "start": start, "kind": kind, "mz": mz, "statistics": statistics,
        "voltage": voltage, "c3": c3, "gain": gain, "label": label, "labels": labels,
    }  # fmt: skip
    given = {name: value for name, value in given.items() if value is not None} | fields
    check_names(given)
    if not given:
        raise ValueError("nothing to change: pixel_size=, label=, origin=, … or a field by its name")
    name = _local(path)
    with Reader(name) as reader:
        check_regular(name)
        if isinstance(given.get("statistics"), str):
            given["statistics"] = _statistics(reader, given["statistics"])
        old, footer = reader.header, reader.footer
        new = changed_header(old, path=name, **given)
        notes: list[str] = []
        source = None if footer is None else footer.source_header
        if source is not None:
            source = _source_edited(source, given, notes, reader)
        if reader.has_unknown_footer:
            notes.append("its footer, of a later version of mrcz, keeps the header as it was; decompressing gives that")
        changes = _changes(old, new)
        differs = old.tobytes() != new.tobytes() or (footer is not None and source != footer.source_header)
        if dry_run or not differs:
            return HeaderEdit(name, changes, False, tuple(notes))
        if footer is None:
            if not reader.has_unknown_footer:
                _refuse_strange_footer(reader)
            _write_header(name, old.tobytes(), new.tobytes())
        else:
            _write_with_footer(name, reader, footer, new.tobytes(), source)
    return HeaderEdit(name, changes, True, tuple(notes))


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


def changed_header(header: Header, *, path: Any = None, **changes: Any) -> Header:
    """Another header with these changes, as `edit_header` takes them, for the same pixels.

    Raises
    ------
    ValueError, TypeError
        As `edit_header`.
    """
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
        elif name in _MICROSCOPE:
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
        ("shape", old.shape, new.shape), ("MODE", old["mode"], new["mode"]), ("NSYMBT", old.nsymbt, new.nsymbt),
        ("byte order", old.byteorder, new.byteorder), ("pixel type", old.pixel_format, new.pixel_format),
        ("MRCZ label", old.mrcz_version, new.mrcz_version),
    )  # fmt: skip
    for what, before, after in facts:
        if before != after:
            if what == "pixel type":
                before, after = before.dtype, after.dtype
            raise ValueError(f"this would change the {what} from {before} to {after}: other pixels of the same bytes")


def _statistics(reader: Reader, how: str) -> Any:
    """DMIN, DMAX, DMEAN and RMS of all pixels."""
    from mrcz.container.statistics import frame_moments, moments_of, total_stats

    if how == "unknown":
        return how
    if how != "compute":
        raise ValueError(f"statistics is {how!r}, expected four numbers, 'compute' or 'unknown'")
    if reader.pixel_format.dtype.kind == "c" or reader.pixel_format.components != 1:
        return "unknown"  # their order is nobody's
    if reader.index.stats is not None and len(reader.index.stats) == len(reader):
        moments = moments_of(reader.index.stats, reader.shape[1] * reader.shape[2])
        if np.isfinite(moments).all():
            return total_stats(moments) or "unknown"
    from mrcz.file.original import blocks

    rows = [frame_moments(frame) for frames in blocks(reader) for frame in frames]
    return total_stats(np.array(rows)) or "unknown"


# ---- the file --------------------------------------------------------------------------------------------------------


def _local(path: Any) -> str:
    from mrcz.storage.remote import is_url
    from mrcz.storage.wrapped import is_wrapped

    if hasattr(path, "read"):
        raise TypeError("a header is edited in a file, by its path; what is given is a file object")
    if is_url(path):
        raise ValueError(f"{path}: headers of local files can be edited, not those of URLs")
    name = os.fsdecode(os.fspath(path))
    check_regular(name)
    if is_wrapped(name):
        raise ValueError(f"{name}: the header of a file inside gzip and the like cannot be edited; unpack it first")
    return name


def _source_edited(source: bytes, given: dict[str, Any], notes: list[str], reader: Reader) -> bytes:
    """The header that decompressing gives back, changed likewise."""
    header = Header.parse(source, path=reader.path)
    if header.shape[1:] != reader.header.shape[1:]:
        return source  # it belongs to nothing any more
    given = dict(given)
    if not header.is_mrcz:
        for name in _MICROSCOPE:
            if given.pop(name, None) is not None:
                notes.append(f"{name} has no place in the plain file that decompressing gives: it has no MRCZ label")
    return changed_header(header, path=reader.path, **given).tobytes()


def _changes(old: Header, new: Header) -> tuple[Change, ...]:
    fields: Mapping[str, Any] = HEADER_DTYPE.fields or {}
    return tuple(
        Change(name, fields[name][1], old[name], new[name])
        for name in HEADER_DTYPE.names or ()
        if old.record[name].tobytes() != new.record[name].tobytes()  # not by value: NaN is no change
    )


def _refuse_strange_footer(reader: Reader) -> None:
    """A footer that cannot be read cannot follow."""
    if not reader.is_compressed:
        return
    end = reader.index.end if len(reader.index) else reader.header.data_offset
    if reader.source.read(end, len(FOOTER_MARK)) == FOOTER_MARK:
        raise MrczError("its footer cannot be read, and so not follow the header: see `mrcz recover`", path=reader.path)


def _write_header(name: str, old: bytes, new: bytes) -> None:
    """The header of a file that says nothing about it anywhere else: one write."""
    disk, path = GrowingFile.disk, Path(os.path.realpath(name))
    fd = disk.open_existing(path)
    try:
        lock(fd, name)
        with os.fdopen(os.dup(fd), "rb") as file:
            same = file.read(len(old)) == old and os.path.samestat(os.fstat(fd), os.stat(path))
        if not same:  # what is changed here was read before the file was locked
            raise MrczError("another process has just changed this file; try again", path=name)
        try:
            _put(disk, fd, new)
            disk.fsync(fd)
        except BaseException:
            with contextlib.suppress(OSError):
                _put(disk, fd, old)
            raise
    except OSError as error:
        error.filename = error.filename or name
        raise
    finally:
        os.close(fd)


def _put(disk: Disk, fd: int, data: bytes) -> None:
    view, at = memoryview(data), 0
    while view:
        done = disk.pwrite(fd, view, at)
        view, at = view[done:], at + done


def _write_with_footer(name: str, reader: Reader, footer: Footer, new: bytes, source: bytes | None) -> None:
    """Header and footer, by the steps of a file that grows by no frame."""
    _refuse_damage(reader, footer)
    read = reader.source.read
    trailer = footer.trailer
    about = footer._metadata.get("codec") if footer.metadata_span is not None else None
    # What decompressing gives back is another file now.
    extra = {key: value for key, value in footer.extra.items() if key not in ("source_size", "source_xxh64")}
    if source is None or source == footer.source_header:
        extra = footer.extra
    fields: dict[str, Any] = {
        "metadata": footer.metadata_bytes(read), "source_header": source, "writer": footer.writer, "extra": extra,
        "compress": about or {1: "zstd", 2: "lz4"}.get(trailer.flags),
    }  # fmt: skip
    _drop_torn_footer(name, reader, footer)
    file = GrowingFile.reopen(
        name, reader.header.tobytes(), reader.extended_bytes, reader.index, end=trailer.start,
        footer=read(trailer.start, trailer.end - trailer.start), fields=fields,
    )  # fmt: skip
    end = reader.index.end if len(reader.index) else reader.header.data_offset
    small = trailer.start - end <= 2 * (trailer.end - trailer.start) + 1024
    if small and read(end, 1) in (b"\0", FOOTER_MARK[:1]):
        # An edit that was killed moved a footer away from there. The gap of somebody who appended is larger; it may
        # hold frames that `mrcz recover` can save, and stays.
        file.end = end
    try:
        try:
            file.flush(new)
        except BaseException:
            file.fields |= {"source_header": footer.source_header, "extra": footer.extra}
            raise
        file.close(new)
    except BaseException as error:
        file.abort()
        if isinstance(error, OSError):
            error.filename = error.filename or name
        raise


def _drop_torn_footer(name: str, reader: Reader, footer: Footer) -> None:
    """What a killed edit has begun to write behind the footer that holds; nothing of worth is in it."""
    end, size = footer.trailer.end, reader.source.size
    begun = reader.source.read(end, len(FOOTER_MARK))
    if end == size or not FOOTER_MARK.startswith(begun):
        return
    disk, path = GrowingFile.disk, Path(os.path.realpath(name))
    fd = disk.open_existing(path)
    try:
        lock(fd, name)
        if os.fstat(fd).st_size == size and os.path.samestat(os.fstat(fd), os.stat(path)):
            disk.truncate(fd, end)
    finally:
        os.close(fd)


def _refuse_damage(reader: Reader, footer: Footer) -> None:
    """A new checksum would make a damaged header look sound."""
    if len(footer.index) != len(reader.index):
        raise FormatError(
            f"the footer knows {len(footer.index)} frames, the header {len(reader.index)}: see `mrcz recover`",
            path=reader.path,
        )
    copy = footer.header_copy
    if copy is None or copy == reader.header.tobytes():
        return
    other = Header.parse(copy, path=reader.path)
    for name in ("nx", "ny", "nz", "mode", "nsymbt", "packed_bytes"):
        if other[name] != reader.header[name]:
            raise FormatError(
                f"the header is damaged: {name} is {shown_value(reader.header[name])}, the footer's copy has "
                f"{shown_value(other[name])}; `mrcz recover` puts the copy back",
                path=reader.path,
            )


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
