"""A file of another format as MRC or MRCZ: its pixels through a Writer, and what it says of itself beside them.

Nothing here is taken on trust: the new file is read back, and pixels, metadata and the metadata of the frames are
compared with what the source gives when it is read once more.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from mrcz.check.compare import same_bits
from mrcz.check.origin import file_name, opened
from mrcz.container.metadata import json_part, pack
from mrcz.container.modes import format_for
from mrcz.container.pieces import COLUMN, ENTRY, PiecesRecord
from mrcz.convert.integers import Counting
from mrcz.convert.result import DifferentCopyError
from mrcz.errors import FormatError, FormatWarning, MrczError
from mrcz.file.codec import Codec
from mrcz.file.foreign import ForeignReader
from mrcz.file.original import blocks
from mrcz.file.reader import Reader
from mrcz.file.writer import Writer
from mrcz.formats.registry import by_name
from mrcz.storage.whole import Judge, NewFile

__all__ = ["SOURCE_FORMAT", "cast", "check_foreign", "pixels_for", "refuse_removal", "write_foreign"]

#: Entry of the footer of a file that was made from one of another format: the name of that.
SOURCE_FORMAT = "source_format"


def pixels_for(reader: Reader, dtype: Any) -> np.dtype:
    """The dtype that is written, in native byte order: what was asked for, else that of the file.

    Raises
    ------
    TypeError
        MRC has no mode for it, or complex numbers were to become real ones.
    """
    found = reader.dtype.newbyteorder("=")
    wanted = found if dtype is None else np.dtype(dtype).newbyteorder("=")
    if wanted.kind == "b":
        wanted = np.dtype(np.uint8)
    if len(reader.shape) == 4:
        if wanted != np.uint8:
            raise TypeError(f"{reader.path}: colours of {wanted} are not stored in MRC, those of uint8 are")
        return wanted
    try:
        format_for(wanted)
    except TypeError as error:
        raise TypeError(f"{reader.path}: {error}") from None
    if found.kind == "c" and wanted.kind != "c":
        raise TypeError(f"{reader.path}: complex pixels do not become {wanted}")
    return wanted


def cast(frames: np.ndarray, dtype: np.dtype, first: int = 0) -> np.ndarray:
    """Frames as another dtype: integers exactly, or not at all; reals rounded, but not to infinity.

    Raises
    ------
    ValueError
        A pixel does not fit; frames are counted from `first` on.
    """
    if frames.dtype == dtype:
        return frames
    with np.errstate(all="ignore"):
        made = frames.astype(dtype)
        wrong = made != frames if dtype.kind in "iu" else np.isinf(made) & np.isfinite(frames)
    if wrong.any():
        z, *place = (int(i) for i in np.argwhere(wrong)[0])
        value = frames[(z, *place)]
        raise ValueError(f"frame {first + z} holds {value} at (y, x) = {tuple(place[:2])}, which is no {dtype}")
    return made


def refuse_removal(reader: ForeignReader, task: Any) -> None:
    """Refuse to remove a source of which something may be left behind. `task` has the options it is read by.

    Raises
    ------
    MrczError
    """
    options, title = task.reading, by_name(reader.format).title
    why = None
    if not reader.original.complete:
        why = f"a {title} file may hold more than its pixels and the metadata that are kept"
    elif reader.oddities:
        why = reader.oddities[0]
    elif (
        options.dataset is not None or options.fraction is not None or options.upsampling != 1 or task.dtype is not None
    ):
        why = "its pixels are not all kept as they are"
    if why is not None:
        raise MrczError(
            f"{why}, and mrcz decompress gives no {title} file back: it is not removed (--remove), and nothing "
            "was written",
            path=reader.path,
        )


def write_foreign(
    reader: ForeignReader,
    destination: str | os.PathLike[str],
    codec: Codec,
    dtype: np.dtype,
    *,
    overwrite: bool | Judge,
    tell: Callable[[int], None],
    more: Callable[[], tuple[PiecesRecord, dict[str, Any]] | str] | None = None,
    counting: Counting | None = None,
) -> NewFile:
    """The frames through a Writer, or their counts, without their name yet; `more` is asked at the end how the very
    file comes back."""
    metadata, said = reader.metadata, reader.frame_metadata
    extra: dict[str, Any] = {}
    if codec.is_compressed:
        # The footer has all of it; once more as JSON it would be a copy of what may be large.
        extra["extended_header"] = ("", b"")
        extra["source_name"] = file_name(reader.path)
    else:
        metadata = json_part(metadata)
    if len(reader.shape) == 4:
        extra["mrc_mode"] = 16
    elif dtype == np.uint8 and codec.is_compressed and not codec.pack and counting is None:
        extra["mrc_mode"] = 0  # bytes stay bytes: a plain file would have them as 16-bit integers, for other programs
    for keyword, name in (("voltage", "voltage"), ("c3", "cs"), ("counts_per_electron", "counts_per_electron")):
        if isinstance(metadata.get(name), float):
            extra[keyword] = metadata[name]
    if counting is not None:
        metadata, extra["labels"] = counting.added_to(metadata), counting.labels(reader.header)
    with Writer(
        destination,
        codec=codec,
        header=reader.header,
        metadata=metadata or None,
        n_threads=reader.n_threads,
        overwrite=overwrite,
        **extra,
    ) as writer:
        for first, floats in _blocks(reader, dtype):
            frames = floats if counting is None else counting.count(floats, first)
            if codec.is_compressed and any(said[first : first + len(frames)]):
                for k, frame in enumerate(frames, first):
                    writer.append(frame, metadata=said[k] or None)
            else:
                writer.extend(frames)
            tell(floats.nbytes)
        entries = {SOURCE_FORMAT: reader.format} | ({} if counting is None else counting.footer())
        if more is not None and not isinstance(found := more(), str):
            record, skeleton = found
            entries[ENTRY] = record.entry()
            writer.metadata[COLUMN] = skeleton
        return writer.finish(entries if codec.is_compressed else None)


def _blocks(reader: Reader, dtype: np.dtype) -> Iterator[tuple[int, np.ndarray]]:
    first = 0
    for frames in blocks(reader):
        try:
            yield first, cast(frames, dtype, first)
        except ValueError as error:
            raise ValueError(f"{reader.path}: {error}") from None
        first += len(frames)


def check_foreign(
    reader: ForeignReader, new: NewFile, dtype: np.dtype, *, keeps_all: bool, tell: Callable[[int], None] | None
) -> tuple[str, ...]:
    """Read the new file back and compare it; the names of metadata that found no place in it. Without `tell` its pixels
    are proven already.

    Raises
    ------
    MrczError
        It differs. With `keeps_all` a lost name is a difference, too.
    """
    new.disk.fsync(new.fd)
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(new.fd, 0, 0, os.POSIX_FADV_DONTNEED)
    lost: tuple[str, ...] = ()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FormatWarning)
            copy = opened(new.fd, new.path, n_threads=reader.n_threads)
        with copy:
            difference = None if tell is None else _pixels_differ(reader, copy, dtype, tell)
            if difference is None:
                lost = _lost(reader, copy)
                if lost and keeps_all:
                    difference = f"the metadata {', '.join(lost)} are not the same"
    except FormatError as error:
        difference = str(error)
    if difference is not None:
        raise DifferentCopyError(f"the copy is not the same ({difference}), and nothing was written", path=reader.path)
    return lost


def _pixels_differ(reader: Reader, copy: Reader, dtype: np.dtype, tell: Callable[[int], None]) -> str | None:
    if copy.shape != reader.shape:
        return f"its shape is {copy.shape}"
    for (first, mine), theirs in zip(_blocks(reader, dtype), blocks(copy), strict=True):
        if theirs.dtype.newbyteorder("=") != dtype:
            theirs = theirs.astype(dtype)  # plain MRC: bytes above 127 are 16-bit integers
        same = same_bits(mine, theirs)
        if not same.all():
            z, y, x = (int(i) for i in np.argwhere(~same)[0][:3])
            return f"frame {first + z} differs at (y, x) = ({y}, {x})"
        tell(mine.nbytes)
    return None


def _lost(reader: ForeignReader, copy: Reader) -> tuple[str, ...]:
    """Names of what the source says and the copy does not."""
    mine, theirs = reader.metadata, copy.metadata
    lost = [str(name) for name, value in mine.items() if name not in theirs or not _equal(theirs[name], value)]
    said, kept = reader.frame_metadata, copy.frame_metadata
    if any(said) and not (len(said) == len(kept) and all(map(_equal, said, kept))):
        lost.append("frame_metadata")
    return tuple(lost)


def _equal(a: Any, b: Any) -> bool:
    return bool(pack({"value": a}) == pack({"value": b}))
