"""A file of another format as its pixels and all its other bytes: what is found out of it, and the file made again.

A format tells where the bytes of its frames lie and how they are made of pixels (`mrcz.formats.base.Pieces`); what is
between them is the skeleton. LZW is made again by an encoder that knows what the writers of such files do where TIFF
leaves it open: libtiff of today, as SerialEM, IMOD and RELION use it, of before version 4.0.10, and imagecodecs.
Nothing is trusted: the whole file is made again from the new one, and compared with the source byte by byte.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mrcz.check.origin import opened
from mrcz.container.header.layout import labels_of_others
from mrcz.container.metadata import pack
from mrcz.container.modes import format_for
from mrcz.container.names import check_new_name
from mrcz.container.pieces import (
    COLUMN,
    DTYPES,
    ENTRY,
    MOST_SKELETON,
    PACKINGS,
    LzwWay,
    PiecesRecord,
    Skeleton,
    encode_skeleton,
)
from mrcz.convert.parts import parts_of
from mrcz.convert.result import DifferentCopyError
from mrcz.errors import FormatError, MrczError
from mrcz.file.foreign import ForeignReader
from mrcz.file.metadata import FRAMES
from mrcz.file.original import Seen, blocks, pieces_of, skeleton_of, source_name
from mrcz.file.reader import Reader
from mrcz.filetypes import FOREIGN_SUFFIXES, MRC_SUFFIXES, WRAPPER_SUFFIXES
from mrcz.formats.base import Pieces
from mrcz.storage.source import FileSource
from mrcz.storage.whole import Judge, NewFile
from mrcz.threads import default_threads

__all__ = [
    "Whole",
    "added_since",
    "can_be_pieces",
    "check_given_back",
    "give_back",
    "is_given_back",
    "kept_pieces",
    "look",
    "made_again",
    "prove_again",
    "prove_source",
    "survey",
    "very_file",
]

#: What encoders do: libtiff, since 2018 and before, and imagecodecs, from which tifffile has it, before and since 2026.
WAYS = (
    LzwWay(),
    LzwWay(late=0),
    LzwWay(full=4096, gap=0, late=1, pad=True),
    LzwWay(full=4096, late=1, pad=True, afresh=True),
)

_BLOCK = 4 << 20
_TRIED = 4 << 20  # bytes of pixels, at most, on which ways of LZW are told apart


@dataclass(frozen=True, eq=False)
class Whole:
    """How a file can be given back; `pieces` say where its frames lie, and the record still lacks the checksum.
    `others` are ways of LZW that did as well in the frames that were looked at."""

    pieces: Pieces
    record: PiecesRecord
    others: tuple[LzwWay, ...] = ()

    @property
    def next(self) -> Whole | None:
        """The next of the other ways."""
        if not self.others:
            return None
        return Whole(self.pieces, replace(self.record, lzw=self.others[0]), self.others[1:])


# ---- what a file is made of -----------------------------------------------------------------------------------------


def can_be_pieces(path: str | os.PathLike[str]) -> str | None:
    """Whether the very file may come back from a compressed one: None, or why not.

    Judged from the header and the first frame, which is made again; the proof comes with `mrcz.convert.copy.compress`.

    Parameters
    ----------
    path : path or URL
        Of a format that `mrcz.formats` lists.

    Raises
    ------
    FormatError
        The file is damaged, or of no format that is known.
    """
    reader = ForeignReader(path)
    with reader:
        found = look(reader)
        return found if isinstance(found, str) else None


def look(reader: ForeignReader, dtype: np.dtype | None = None) -> Whole | str:
    """How a file can be given back, tried on its first frame; or why not.

    Parameters
    ----------
    dtype : dtype, optional
        What its pixels become in the new file; default its own.
    """
    options = reader.options
    if (options.dataset, options.fraction, options.upsampling) != (None, None, 1) or reader.damage:
        return "it is not read as a whole"
    if not hasattr(reader.source, "read") or os.path.isdir(reader.path):
        return "it is no single file"
    found = reader.original.pieces()
    if isinstance(found, str):
        return found
    own = reader.dtype.newbyteorder("=")
    try:
        fits = own in (dtype, None) or dtype is None
        fits = fits and (len(reader.shape) == 4 or format_for(own).dtype.newbyteorder("=") == own or own == np.uint8)
    except TypeError:
        fits = False
    if not fits or found.dtype.newbyteorder("=") != own:
        return f"its pixels, {own}, are not stored as they are"
    if found.dtype.str not in DTYPES:
        return f"pixels of {found.dtype} are not made again"
    if found.packing not in PACKINGS:
        return f"how its pixels are packed ({found.packing}) is not known here"
    starts, sizes = found.offsets.reshape(-1), found.nbytes.reshape(-1)
    ends = starts + sizes
    if len(starts) == 0 or int(ends[-1]) > reader.source.size or (starts[1:] < ends[:-1]).any():
        return "its frames do not follow one another in the file"
    size = int(reader.source.size)
    left = size - int(sizes.sum())
    if left > MOST_SKELETON:
        return f"{left} bytes of it are none of its frames, at most {MOST_SKELETON} are kept"
    record = PiecesRecord(
        len(reader), size, "", found.dtype, found.height, found.width, found.tiled, found.turned, found.packing,
        found.differences,
    )  # fmt: skip
    if record.parts(reader.shape[1:3]) != found.offsets.shape[1]:
        return "its frames are in more or fewer parts than their size says"
    ways: tuple[LzwWay | None, ...] = WAYS if found.lzw else (None,)
    tried = number = 0
    # Most often the first frame tells the ways apart; of small strips it may take many.
    for number in range(len(reader)):
        ways = tuple(way for way in ways if _is_made(reader, found, replace(record, lzw=way), number))
        tried += reader.nbytes // len(reader)
        if len(ways) < 2 or tried > _TRIED:
            break
    if ways:
        return Whole(found, replace(record, lzw=ways[0]), tuple(way for way in ways[1:] if way is not None))
    what = "its LZW is of an encoder that is not known" if found.lzw else "its bytes are not those of its pixels alone"
    return f"{what}: frame {number} is not made again"


def _is_made(reader: ForeignReader, found: Pieces, record: PiecesRecord, number: int) -> bool:
    try:
        made = parts_of(reader.read(number), record)
    except FormatError:
        return False
    for part, start, size in zip(made, found.offsets[number].tolist(), found.nbytes[number].tolist(), strict=True):
        if len(part) != size or reader.source.read(start, size) != bytes(part):
            return False
    return True


def survey(reader: ForeignReader, whole: Whole) -> tuple[PiecesRecord, dict[str, Any]] | str:
    """Read a file from front to back: its record, and the entry of the metadata with its skeleton; or why not.

    Raises
    ------
    MrczError
        It changed.
    """
    pieces, digest = whole.pieces, hashlib.sha256()
    starts, sizes = pieces.offsets.reshape(-1).astype(np.int64), pieces.nbytes.reshape(-1).astype(np.int64)
    ends = starts + sizes
    gaps = np.empty(len(starts), np.int64)
    gaps[0], gaps[1:] = starts[0], starts[1:] - ends[:-1]
    bounds = np.stack([np.concatenate([[0], ends]), np.concatenate([starts, [whole.record.size]])], axis=1)
    bounds = bounds[bounds[:, 1] > bounds[:, 0]]  # begin and end of what lies between frames
    kept: list[bytes] = []
    at = next_ = 0
    while at < whole.record.size:
        data = reader.source.read(at, min(_BLOCK, whole.record.size - at))
        if not data:
            raise MrczError("it changed while it was read, and nothing was written", path=reader.path)
        digest.update(data)
        stop = at + len(data)
        while next_ < len(bounds) and bounds[next_, 0] < stop:
            begin, end = int(bounds[next_, 0]), int(bounds[next_, 1])
            kept.append(data[max(begin - at, 0) : min(end, stop) - at])
            if end > stop:
                break
            next_ += 1
        at = stop
    entry = encode_skeleton(Skeleton(gaps.astype(np.uint64), b"".join(kept)))
    if entry is None:
        return "what it holds besides its frames is too large to be kept"
    return replace(whole.record, sha256=digest.hexdigest()), entry


# ---- the file, made again -------------------------------------------------------------------------------------------


def made_again(
    reader: Reader, record: PiecesRecord, skeleton: Skeleton, tell: Callable[[int], None], seen: Seen | None = None
) -> Iterator[bytes | memoryview]:
    """The bytes of the file, from front to back; frames on all threads, a block of them in memory.

    Raises
    ------
    FormatError
        The record does not fit the pixels.
    """
    n, at, k = record.parts(reader.shape[1:3]), 0, 0
    data, gaps = memoryview(skeleton.data), skeleton.gaps
    with ThreadPoolExecutor(reader.n_threads or default_threads()) as pool:
        for frames in blocks(reader, seen):
            for parts in pool.map(lambda frame: parts_of(frame, record), frames):
                if len(parts) != n:
                    raise FormatError(f"pieces: a frame in {len(parts)} parts, expected {n}")
                for part in parts:
                    gap = int(gaps[k])
                    if gap:
                        yield data[at : at + gap]
                    yield part
                    at, k = at + gap, k + 1
            tell(frames.nbytes)
    yield data[at:]


def is_given_back(reader: ForeignReader, new: NewFile, tell: Callable[[int], None]) -> str | None:
    """Make the file again from the new one, as the disk has it, and compare it with the source byte by byte: what
    differs, or None."""
    _from_disk(new)
    try:
        with opened(new.fd, new.path, n_threads=reader.n_threads) as copy:
            record = pieces_of(copy)
            if record is None or copy.shape != reader.shape:
                return f"its shape is {copy.shape}"
            return _differs(copy, record, reader.source, tell)
    except FormatError as error:
        return error.message


def _differs(reader: Reader, record: PiecesRecord, source: Any, tell: Callable[[int], None]) -> str | None:
    """Compare what a compressed file gives back with its checksum, and with the source where that is there."""
    digest, at = hashlib.sha256(), 0
    for part in made_again(reader, record, skeleton_of(reader, record), tell):
        view = memoryview(part).cast("B")
        for start in range(0, len(view), _BLOCK):
            mine = view[start : start + _BLOCK]
            if at + len(mine) > record.size or (source is not None and source.read(at, len(mine)) != mine):
                return f"made again, it differs within {len(mine)} bytes from byte {at} on"
            digest.update(mine)
            at += len(mine)
    if at != record.size or (source is not None and at != source.size) or digest.hexdigest() != record.sha256:
        return f"made again, it is {at} bytes of another checksum"
    return None


def check_given_back(new: NewFile, reader: Reader) -> None:
    """MrczError unless a new file, as the disk has it, gives back the file that the one it was made from does."""
    _from_disk(new)
    with opened(new.fd, new.path, n_threads=reader.n_threads) as copy:
        record = pieces_of(copy)
        if record is None or record != pieces_of(reader):
            raise MrczError("the copy does not say how the original file is given back", path=reader.path)
        if (what := _differs(copy, record, None, lambda n: None)) is not None:
            raise DifferentCopyError(f"the copy does not give back the original file: {what}", path=reader.path)


def prove_source(path: str | os.PathLike[str], new: NewFile, reader: ForeignReader) -> None:
    """MrczError unless a new file gives back this one."""
    with opened(new.fd, new.path, n_threads=reader.n_threads) as copy, open(path, "rb") as file:
        record = pieces_of(copy)
        # One that lies in a wrapper was unpacked by the reader.
        if reader.wrapper is None and record is not None:
            found = hashlib.file_digest(file, "sha256").hexdigest()
            if found != record.sha256:
                raise MrczError("it has other content than was read", path=path)


def prove_again(path: str | os.PathLike[str], record: PiecesRecord) -> None:
    """MrczError unless this compressed file gives back that file."""
    with Reader(path) as reader:
        if pieces_of(reader) != record or _differs(reader, record, None, lambda n: None) is not None:
            raise MrczError("it has other content than was read", path=path)


def _from_disk(new: NewFile) -> None:
    """What the disk has is read next, not what memory still holds of it."""
    new.disk.fsync(new.fd)
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(new.fd, 0, 0, os.POSIX_FADV_DONTNEED)


def very_file(reader: Reader, destination: str | os.PathLike[str]) -> PiecesRecord | None:
    """How the file of another format comes back that this one was made from; None where an MRC file is to be made, as
    a name that ends in .mrc asks for.

    Raises
    ------
    ValueError
        The name says something else.
    """
    suffix = os.path.splitext(os.fspath(destination))[1].lower()
    own = os.path.splitext(source_name(reader) or "")[1].lower()
    record = None if suffix in MRC_SUFFIXES and suffix != own else pieces_of(reader)
    kind = FOREIGN_SUFFIXES.get(suffix)
    if record is None or suffix in WRAPPER_SUFFIXES or (kind is not None and kind != FOREIGN_SUFFIXES.get(own)):
        check_new_name(destination)
    return record


def give_back(
    reader: Reader,
    record: PiecesRecord,
    destination: str | os.PathLike[str],
    *,
    overwrite: bool | Judge,
    check: bool,
    tell: Callable[[int], None],
) -> NewFile:
    """Write the very file, without its name yet, its checksum compared; with `check` read back from the disk, too.

    Raises
    ------
    FormatError
        What comes out is not that file.
    """
    skeleton, digest, size = skeleton_of(reader, record), hashlib.sha256(), 0
    new = NewFile(destination, overwrite=overwrite)
    try:
        with os.fdopen(os.dup(new.fd), "wb") as file:
            for part in made_again(reader, record, skeleton, tell):
                view = memoryview(part).cast("B")
                size += len(view)
                if size > record.size:
                    break
                digest.update(view)
                file.write(view)
        if size != record.size or digest.hexdigest() != record.sha256:
            raise FormatError(
                "it does not give back the file it was made from: size or checksum differ, and nothing was written",
                path=reader.path,
            )
        if check:
            _compare(new, record)
    except BaseException:
        new.abort()
        raise
    return new


def _compare(new: NewFile, record: PiecesRecord) -> None:
    """Read a file back, and compare its checksum."""
    _from_disk(new)
    with os.fdopen(os.dup(new.fd), "rb") as file:
        file.seek(0)
        if hashlib.file_digest(file, "sha256").hexdigest() != record.sha256:
            raise DifferentCopyError(
                "the copy is not the same (its checksum differs), and nothing was written", path=new.path
            )


def kept_pieces(reader: Reader) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """What another compressed file of the same frames needs to give back the same file: entries of its footer and of
    its metadata; None where there are none."""
    record = pieces_of(reader)
    if record is None or reader.footer is None:
        return None
    skeleton_of(reader, record)
    values = reader.footer.metadata(reader.source.read) or {}
    names = (ENTRY, "source_name", "source_format")
    entries = {name: reader.footer.extra[name] for name in names if name in reader.footer.extra}
    return entries, {COLUMN: values[COLUMN]}


def added_since(reader: Reader, made: NewFile) -> tuple[str, ...]:
    """What a compressed file says that the file it gives back does not: it was added or changed since."""
    source = FileSource(os.fdopen(os.dup(made.fd), "rb"), reader.path)  # under its old name, for what lies beside it
    with ForeignReader(source) as given:
        theirs, sizes = given.metadata, (given.header.pixel_size, reader.header.pixel_size)
        said = given.frame_metadata
    found = [
        str(name)
        for name, value in reader.metadata.items()
        if name != FRAMES and not (name in theirs and _same(value, theirs[name]))
    ]
    if not _same(reader.frame_metadata, said):
        found.append(FRAMES)
    if sizes[0] != sizes[1]:
        found.append("pixel size")
    if labels_of_others(reader.header.labels):
        found.append("labels")
    return tuple(found)


def _same(a: Any, b: Any) -> bool:
    return bool(pack({"": a}) == pack({"": b}))
