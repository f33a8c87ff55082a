"""Change the header of a file in place, without touching its pixels: `edit_header`.

In a compressed file the header stands in four places: at its beginning, as a checksum and a copy in the footer, and as
the header of the file it was made from, which decompressing gives back. All follow, in an order of writes that leaves
the old header or the new one at every instant (docs/container.md §6); a file of any size takes the same few writes.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from mrcz.container.chunks import FOOTER_MARK
from mrcz.container.header.header import Header
from mrcz.container.header.layout import HEADER_DTYPE, PLACES
from mrcz.container.header.words import FreeFields
from mrcz.errors import FormatError, MrczError
from mrcz.file.changing import MICROSCOPE, changed_header, check_names, plain_value, shown_value
from mrcz.file.growing import GrowingFile
from mrcz.storage.disk import Disk, check_regular, lock

if TYPE_CHECKING:
    from mrcz.container.footer import Footer
    from mrcz.file.reader import Reader

__all__ = ["Change", "HeaderEdit", "edit_header"]


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


# Long because every keyword is spelt out and explained.
def edit_header(
    path: str | os.PathLike[str],
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
    **fields: Unpack[FreeFields],
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
        "pixel_size": pixel_size,
        "origin": origin,
        "start": start,
        "kind": kind,
        "mz": mz,
        "statistics": statistics,
        "voltage": voltage,
        "c3": c3,
        "gain": gain,
        "label": label,
        "labels": labels,
    }
    given = {**{name: value for name, value in given.items() if value is not None}, **fields}
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


def _statistics(reader: Reader, how: str) -> Any:
    """DMIN, DMAX, DMEAN and RMS of all pixels."""
    from mrcz.container.statistics import frame_moments, moments_of, total_stats

    if how == "unknown":
        return how
    if how != "compute":
        raise ValueError(f"statistics is {how!r}, expected four numbers, 'compute' or 'unknown'")
    if reader.pixel_format.dtype.kind == "c" or reader.pixel_format.components != 1:
        return "unknown"  # their order is nobody's
    if reader.integers is not None and not reader.gives_floats_of_counts:
        raise FormatError(reader.notes[-1], path=reader.path)
    known = reader.frame_stats
    if known is not None and len(known) == len(reader):
        moments = moments_of(known, reader.shape[1] * reader.shape[2])
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
        for name in MICROSCOPE:
            if given.pop(name, None) is not None:
                notes.append(f"{name} has no place in the plain file that decompressing gives: it has no MRCZ label")
    return changed_header(header, path=reader.path, **given).tobytes()


def _changes(old: Header, new: Header) -> tuple[Change, ...]:
    return tuple(
        Change(name, PLACES[name], old[name], new[name])
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
        "metadata": footer.metadata_bytes(read),
        "source_header": source,
        "writer": footer.writer,
        "extra": extra,
        "compress": about or {1: "zstd", 2: "lz4"}.get(trailer.flags),
    }
    _drop_torn_footer(name, reader, footer)
    file = GrowingFile.reopen(
        name,
        reader.header.tobytes(),
        reader.extended_bytes,
        reader.index,
        end=trailer.start,
        footer=read(trailer.start, trailer.end - trailer.start),
        fields=fields,
    )
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
