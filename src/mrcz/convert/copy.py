"""MRC to MRCZ and back, file by file and a few frames at a time.

`compress` and `decompress` are one copy with different writers. A compressed file keeps the 1024 header bytes of the
file it was made from, and its extended header, so `decompress` writes back the very same file, odd fields included.

The order in which a copy happens is what keeps everything safe: the new file is written under a temporary name,
flushed, read back and compared through its own descriptor, given its name, and only then, and while it still has that
name, may the original go.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mrcz.check.compare import Comparison, compare
from mrcz.check.origin import (
    Origin,
    OtherSourceError,
    Overwrite,
    Summing,
    file_name,
    is_archive_of,
    opened,
    origin,
)
from mrcz.container.header.header import Header
from mrcz.container.names import check_new_name
from mrcz.container.pieces import PiecesRecord
from mrcz.convert.foreign import check_foreign, pixels_for, refuse_removal, write_foreign
from mrcz.convert.foreign_integers import find_foreign_counts
from mrcz.convert.integers import Counting, Wish, find_counts, kept_counts, notes_of
from mrcz.convert.judging import judge
from mrcz.convert.pieces import (
    Whole,
    added_since,
    check_given_back,
    give_back,
    is_given_back,
    kept_pieces,
    look,
    prove_again,
    prove_source,
    survey,
    very_file,
)
from mrcz.convert.proof import check_copy
from mrcz.convert.result import Copy
from mrcz.convert.source import (
    Before,
    DamagedSourceError,
    TrailingBytesError,
    look_before,
    refuse_half_bytes,
    refuse_trailing,
    remove_source,
    stays_whole,
)
from mrcz.errors import FormatError, MrczError
from mrcz.file.calls import open_reader
from mrcz.file.codec import Codec
from mrcz.file.foreign import ForeignReader
from mrcz.file.options import ReadOptions
from mrcz.file.original import Counter, Progress, blocks, original_header, pieces_of, restored, source_name
from mrcz.file.reader import Reader
from mrcz.file.writer import Writer
from mrcz.formats.registry import by_name
from mrcz.storage.remote import is_url
from mrcz.storage.whole import Judge, NewFile

__all__ = [
    "Comparison",
    "Copy",
    "DamagedSourceError",
    "Origin",
    "OtherSourceError",
    "TrailingBytesError",
    "as_plain",
    "compare",
    "compress",
    "decompress",
    "is_archive_of",
    "original_header",
    "source_name",
]


# Longer than 60 lines: its words are most of it.
def compress(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    *,
    overwrite: Overwrite = False,
    codec: str | Codec = "zstd",
    level: int | None = None,
    profile: str = "balanced",
    filter: str = "auto",
    blocksize: int | None = None,
    pack: bool | str = False,
    check: bool = False,
    remove: bool = False,
    permissive: bool = False,
    signed_bytes: bool | None = None,
    n_threads: int | None = None,
    recover_integers: bool = False,
    gain: Any = None,
    gain_store: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
    storage_options: dict[str, Any] | None = None,
    dataset: str | None = None,
    fraction: int | None = None,
    upsampling: int = 1,
    dtype: Any = None,
) -> Copy:
    """Write `source` as a compressed MRCZ file.

    Parameters
    ----------
    source : path or URL
        MRC or MRCZ; a local one also inside gzip, bzip2, xz or zstd. Or of another format that `mrcz.open` reads: what
        it says of itself comes along, and it is always compared. `Copy.restores` says whether `decompress` gives back
        the very file, or an MRC file of it.
    destination : path
        Appears once the new file is complete, and proven where that was asked for.
    overwrite : bool or "any"
        False, the default, replaces nothing. True replaces what stands at `destination`, but no archive that was made
        from another file than `source` (by the name, size and checksum in its footer; where it has none, by its pixels
        and header), nor one to which metadata were added since; "any" replaces these too.
    codec : str or Codec
        A `Codec` says all of the next five.
    level, profile, filter, blocksize, pack
        As `mrcz.write` takes them.
    check : bool
        Read the new file back and compare it with `source`, bit for bit, before it gets its name.
    remove : bool
        Remove `source` after that check, unless it has changed since it was read, or is a symbolic link. One of another
        format only where it comes back byte for byte, or pixels and metadata are all that it knows (``.npy``).
    permissive : bool
        Take a file whose header and size disagree, keeping the whole frames that are there.
    signed_bytes, n_threads, storage_options, dataset, fraction, upsampling
        As `mrcz.open` takes them.
    recover_integers : bool
        Store a float movie that is counts × gain as these counts, several times smaller; `mrcz.read` and `decompress`
        give back every bit, which is always checked. What is no such movie is stored as it is;
        `Copy.integers_reason` says why.
    gain : path or (ny, nx) array, optional
        The gain reference the movie was multiplied or divided by; without it, or where it does not fit, it is found
        from the movie.
    gain_store : path, optional
        Folder in which the gain references of a session lie, each once, named by checksum; what lies there is tried
        before a gain is found. Default: the gain lies in the new file.
    progress : callable, optional
        Called as ``progress(done, total)`` with bytes of pixels.
    dtype : dtype, optional
        Of a source of another format: what its pixels become, where MRC has no mode for them. Integers exactly or not
        at all; reals are rounded.

    Returns
    -------
    Copy

    Raises
    ------
    FormatError
        `source` is damaged, is of no format that is known, or holds bytes after its last frame that would be lost.
    FileExistsError
        `destination` exists.
    OtherSourceError
        `destination` was made from another file.
    MrczError
        The file was read back and differs, or `source` changed while it was read: nothing is written, and what stood
        at `destination` stays. Or the copy is there, and the original could not be removed.
    ValueError
        `source` and `destination` are the same file; a URL is to be removed; or a `Codec` is given and what it says.
    """
    if isinstance(codec, Codec):
        if (level, profile, filter, blocksize, pack) != (None, "balanced", "auto", None, False):
            raise ValueError("a Codec says level, profile, filter, blocksize and pack itself: give them to it")
    else:
        codec = Codec(codec, level=level, profile=profile, filter=filter, blocksize=blocksize, pack=pack)
    if not recover_integers and (gain is not None or gain_store is not None):
        raise ValueError("gain and gain_store are for recover_integers=True")
    reading = ReadOptions(permissive, signed_bytes, n_threads, True, storage_options, dataset, fraction, upsampling)
    wish = Wish(gain, gain_store) if recover_integers else None
    return _copy(_Task(source, destination, overwrite, codec, reading, check, remove, wish, dtype), progress)


def decompress(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    *,
    overwrite: Overwrite = False,
    check: bool = False,
    remove: bool = False,
    permissive: bool = False,
    signed_bytes: bool | None = None,
    n_threads: int | None = None,
    progress: Progress | None = None,
    storage_options: dict[str, Any] | None = None,
) -> Copy:
    """Write `source` as a plain MRC file: the same bytes as before `compress`, for a file made by it. A file of another
    format comes back, too, where that is proven to be possible, and under a name that does not end in ``.mrc``.

    Parameters and errors are those of `compress`; ``overwrite=True`` replaces a plain file, whatever is in it, and no
    compressed one. Of one of another program the fields are carried over, put right where MRC2014 asks for it. With
    `remove`, a source with metadata that a plain file has no place for stays.
    """
    reading = ReadOptions(permissive, signed_bytes, n_threads, storage_options=storage_options)
    return _copy(_Task(source, destination, overwrite, Codec("none"), reading, check, remove), progress)


def as_plain(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    *,
    overwrite: Overwrite = False,
    reading: ReadOptions | None = None,
    dtype: Any = None,
    progress: Progress | None = None,
) -> Copy:
    """Write `source`, of any format, as a plain MRC file, which is always compared: `mrcz.convert.export` calls it."""
    task = _Task(
        source, destination, overwrite, Codec("none"), reading or ReadOptions(), check=True, remove=False, dtype=dtype
    )
    return _copy(replace(task, any_format=True), progress)


@dataclass(frozen=True)
class _Task:
    """One copy as it was asked for."""

    source: str | os.PathLike[str]
    destination: str | os.PathLike[str]
    overwrite: Overwrite
    codec: Codec
    reading: ReadOptions
    check: bool
    remove: bool
    integers: Wish | None = None
    dtype: Any = None
    any_format: bool = False

    @property
    def permissive(self) -> bool:
        return self.reading.permissive

    @property
    def replacing(self) -> bool | Judge:
        """What `NewFile` is told of a file that stands there."""
        if self.overwrite and self.overwrite != "any":
            return partial(judge, compressing=self.codec.is_compressed)
        return bool(self.overwrite)


def _copy(task: _Task, progress: Progress | None) -> Copy:
    started = time.perf_counter()
    if task.codec.is_compressed or task.any_format:
        check_new_name(task.destination)
    before = look_before(task.source, task.destination, remove=task.remove, permissive=task.permissive)
    check = task.check or task.remove or before.recent
    with open_reader(task.source, options=task.reading) as reader:
        if is_url(task.source):
            task = replace(task, source=reader.path)  # which says no password
        if isinstance(reader, ForeignReader):
            return _copy_foreign(reader, task, before, started, progress)
        record = None if task.codec.is_compressed or task.any_format else very_file(reader, task.destination)
        if record is not None:
            return _copy_very_file(reader, record, task, before, started, progress)
        if task.dtype is not None:
            raise ValueError(f"{reader.path}: dtype is for files of other formats; this is an MRC file")
        header = reader.header
        pixel_bytes = header.frame_nbytes * header.nz
        original = _sound(reader, task)
        tell = Counter(progress, pixel_bytes * (2 if check else 1))
        counting, reason = _counting(reader, task, tell)
        if counting is not None and not check:  # "done" is said only of what was read back
            check, tell = True, Counter(progress, pixel_bytes * 2)
        if not task.codec.is_compressed and original is not None:
            new = _restore(reader, original, task, tell)
        else:
            new = _write(reader, original, task, tell, counting)
        try:
            if check:
                check_copy(reader, task.source, new, tell)
                if task.codec.is_compressed and pieces_of(reader) is not None:
                    check_given_back(new, reader)
            lost = () if task.codec.is_compressed else _lost(reader, new)
            size, removed = _give_name(reader, task, before, new, lost)
        finally:
            new.abort()
        source_bytes = reader.file_nbytes if before.status is None else before.status.st_size
    return Copy(
        os.fspath(task.source),
        os.fspath(task.destination),
        n_frames=header.nz,
        plain_bytes=header.data_offset + pixel_bytes,
        stored_bytes=size if task.codec.is_compressed else source_bytes,
        source_bytes=source_bytes,
        destination_bytes=size,
        seconds=time.perf_counter() - started,
        checked=check,
        removed=removed,
        lost=lost,
        notes=(
            *((f"a plain file has no place for the metadata {', '.join(lost)}",) if lost else ()),
            *notes_of(counting, reason),
        ),
        integers=None if counting is None else counting.told(),
        integers_reason=reason,
        restores="file"
        if original is not None or (task.codec.is_compressed and stays_whole(reader, permissive=task.permissive))
        else "pixels",
    )


def _give_name(
    reader: Reader,
    task: _Task,
    before: Before,
    new: NewFile,
    lost: tuple[str, ...],
    prove: Callable[[Path], None] | None = None,
) -> tuple[int, bool]:
    """Give a proven file its name if the source is still what was read; then the source may go, proven by `prove` as
    `remove_source` takes it. Bytes of the new file; whether the source went."""
    if before.changed(reader):
        raise MrczError("it changed while it was read, and nothing was written", path=task.source)
    before.pass_on(new)
    new.publish()
    size = os.fstat(new.fd).st_size
    # Until whoever called ends `new` it is locked: nobody replaces it while the original goes.
    return size, task.remove and remove_source(
        reader, task.source, before, new, lost, permissive=task.permissive, prove=prove
    )


def _copy_very_file(
    reader: Reader, record: PiecesRecord, task: _Task, before: Before, started: float, progress: Progress | None
) -> Copy:
    """The file of another format that was compressed, byte for byte."""
    if reader.damage and not task.permissive:
        raise DamagedSourceError(reader.damage[0], path=task.source)
    check = task.check or task.remove or before.recent
    tell = Counter(progress, reader.nbytes)
    new = give_back(reader, record, task.destination, overwrite=task.replacing, check=check, tell=tell)
    try:
        lost = added_since(reader, new) if task.remove else ()
        size, removed = _give_name(reader, task, before, new, lost, lambda path: prove_again(path, record))
    finally:
        new.abort()
    return Copy(
        os.fspath(task.source),
        os.fspath(task.destination),
        n_frames=len(reader),
        plain_bytes=reader.header.data_offset + reader.nbytes,
        stored_bytes=before.size(reader),
        source_bytes=before.size(reader),
        destination_bytes=size,
        seconds=time.perf_counter() - started,
        checked=check,
        removed=removed,
        restores="file",
    )


def _counting(reader: Reader, task: _Task, tell: Callable[[int], None]) -> tuple[Counting | None, str | None]:
    """How the floats of a source become counts, and why they do not where that was asked for."""
    if not task.codec.is_compressed:
        return None, None
    if (kept := kept_counts(reader, task.destination)) is not None:
        if task.integers is None or (task.integers.gain is None and task.integers.store is None):
            return kept, None
    if task.integers is None:
        return None, None
    found = find_counts(reader, task.integers, task.destination, tell)
    return (None, found) if isinstance(found, str) else (found, None)


def _copy_foreign(
    reader: ForeignReader, task: _Task, before: Before, started: float, progress: Progress | None
) -> Copy:
    """The copy of a file of another format, which is always compared."""
    packed = task.codec.is_compressed
    if not packed and not task.any_format:
        raise FormatError(
            f"is a {reader.format} file, no compressed MRC: mrcz convert makes an MRC file of it", path=task.source
        )
    if reader.damage and not task.permissive:
        raise DamagedSourceError(reader.damage[0], path=task.source)
    dtype = pixels_for(reader, task.dtype)
    whole = look(reader, dtype) if packed else "it becomes a plain file"
    if task.remove and isinstance(whole, str):
        refuse_removal(reader, task)
    pixel_bytes = reader.size * dtype.itemsize
    tell = Counter(progress, 2 * pixel_bytes)
    counting, reason = find_foreign_counts(reader, task.integers if packed else None, task.destination, dtype, tell)
    new, why, lost = _written_foreign(reader, task, dtype, whole, tell, counting)
    try:
        prove = None if why is not None else lambda path: prove_source(path, new, reader)
        size, removed = _give_name(reader, task, before, new, lost, prove)
    finally:
        new.abort()
    title = by_name(reader.format).title
    notes = (f"of its metadata a plain file has no place for {', '.join(lost)}",) if lost else ()
    if packed:
        notes = () if why is None else (f"decompressing gives an MRC file, not the {title} file: {why}",)
    return Copy(
        os.fspath(task.source),
        os.fspath(task.destination),
        n_frames=len(reader),
        plain_bytes=1024 + pixel_bytes,
        stored_bytes=size if packed else before.size(reader),
        source_bytes=before.size(reader),
        destination_bytes=size,
        seconds=time.perf_counter() - started,
        checked=True,
        removed=removed,
        lost=lost,
        notes=(*notes, *notes_of(counting, reason)),
        integers=None if counting is None else counting.told(),
        integers_reason=reason,
        restores="file" if why is None else "pixels",
    )


def _written_foreign(
    reader: ForeignReader,
    task: _Task,
    dtype: np.dtype,
    whole: Whole | str,
    tell: Callable[[int], None],
    counting: Counting | None,
) -> tuple[NewFile, str | None, tuple[str, ...]]:
    """The new file, proven and without its name yet; why it does not give back the very file; what found no place."""
    packed = task.codec.is_compressed

    def write(more: Callable[[], Any] | None, told: Callable[[int], None]) -> NewFile:
        return write_foreign(
            reader,
            task.destination,
            task.codec,
            dtype,
            overwrite=task.replacing,
            tell=told,
            more=more,
            counting=counting,
        )

    while isinstance(whole, Whole):
        with ThreadPoolExecutor(1) as beside:
            surveyed = beside.submit(survey, reader, whole)
            new = write(surveyed.result, tell)
        try:
            found = surveyed.result()
            why = found if isinstance(found, str) else is_given_back(reader, new, tell)
            if why is None:
                return new, None, check_foreign(reader, new, dtype, keeps_all=True, tell=None)
        except BaseException:
            new.abort()
            raise
        new.abort()
        whole = whole.next or why
        if isinstance(whole, str) and task.remove:
            refuse_removal(reader, task)
    new = write(None, tell)
    try:
        return new, whole, check_foreign(reader, new, dtype, keeps_all=packed, tell=tell)
    except BaseException:
        new.abort()
        raise


def _sound(reader: Reader, task: _Task) -> Header | None:
    """The header of the plain file a source was made from, if any; one is refused that a copy would not hold all of."""
    if not len(reader):
        raise FormatError("not one whole frame is in it", path=task.source)
    if reader.damage and not task.permissive:
        raise DamagedSourceError(reader.damage[0], path=task.source)
    if reader.integers is not None and not reader.gives_floats_of_counts:
        raise FormatError(reader.notes[-1], path=task.source)
    if task.codec.is_compressed and not task.permissive:
        refuse_trailing(reader, task.source)
        refuse_half_bytes(reader, task.source)
    return original_header(reader)


def _restore(reader: Reader, original: Header, task: _Task, tell: Callable[[int], None]) -> NewFile:
    """The plain file, byte for byte, without its name yet; compared with the checksum of the file it was."""
    from _cmrcz.chunk import XXH64

    digest = XXH64()
    new = NewFile(task.destination, overwrite=task.replacing)
    try:
        with os.fdopen(os.dup(new.fd), "wb") as file:
            for piece in restored(reader, original, tell):
                digest.update(memoryview(piece).cast("B"))
                file.write(piece)
        if not task.permissive:
            _refuse_other_content(reader, digest.intdigest())
    except BaseException:
        new.abort()
        raise
    return new


def _write(
    reader: Reader,
    original: Header | None,
    task: _Task,
    tell: Callable[[int], None],
    counting: Counting | None = None,
) -> NewFile:
    """The same frames through a Writer, without their name yet; the footer of a compressed file says what they were."""
    header = reader.header
    plain = None
    extra: dict[str, Any] = {}
    entries: dict[str, Any] = {}
    if task.codec.is_compressed:
        extra["metadata"] = _footer_metadata(reader)
        if counting is not None:
            extra |= {"metadata": counting.added_to(extra["metadata"]), "labels": counting.labels(header)}
        if (kept := kept_pieces(reader) if pieces_of(reader) is not None else None) is not None:
            entries |= kept[0]
            extra["metadata"] = {**(extra["metadata"] or {}), **kept[1]}
        plain = original if original is not None else None if reader.is_compressed else header
        if plain is not None:  # else there is no plain file to give back
            extra["source_header"] = plain.tobytes()
            extra["source_name"] = source_name(reader) or file_name(task.source)
    summing = Summing(reader, plain)
    with (
        ThreadPoolExecutor(1) as beside,
        Writer(
            task.destination,
            codec=task.codec,
            header=header,
            # Neither dtype says what these hold: complex integers are read as complex64, RGB as three bytes.
            mrc_mode=header.mode if header.mode in (3, 16) else None,
            extended_header=reader.extended_header,
            slices=header.slices or 0,
            n_threads=reader.n_threads,
            overwrite=task.replacing,
            **extra,
        ) as writer,
    ):
        for frames in blocks(reader):
            adding = beside.submit(summing.add, frames)
            writer.extend(frames if counting is None else counting.count(frames, len(writer)))
            adding.result()  # before the next block takes its place
            tell(header.frame_nbytes * len(frames))
        entries |= summing.entries()
        if not task.permissive:
            _refuse_other_content(reader, entries.get("source_xxh64"))
        if counting is not None:
            entries |= counting.footer()
        return writer.finish(entries)


def _refuse_other_content(reader: Reader, xxh64: int | None) -> None:
    """Compare the plain file that a compressed one gives back with the checksum of the one it was made from."""
    known = origin(reader)
    if known is not None and known.xxh64 not in (None, xxh64):
        what = f"it does not give back {known.name}, which it was made from: their checksums differ"
        raise DamagedSourceError(what, path=reader.path)


def _footer_metadata(reader: Reader) -> dict[str, Any] | None:
    """Metadata for the footer of a copy; what the extended header says is copied with that, and not twice."""
    return reader.metadata if reader.footer is not None and reader.footer.metadata_span is not None else None


def _lost(reader: Reader, new: NewFile) -> tuple[str, ...]:
    """Names of metadata that did not find a place in the plain file."""
    metadata = _footer_metadata(reader)
    if not metadata:
        return ()
    with opened(new.fd, new.path) as copy:
        return tuple(str(name) for name in metadata if name not in copy.metadata)
