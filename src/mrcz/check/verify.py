"""Is a file whole? `verify` looks at everything in it that can tell, and names each fault by frame and byte."""

from __future__ import annotations

import os
import re
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mrcz.check.compare import open_either
from mrcz.check.result import Result
from mrcz.errors import ChunkError, FormatError, FormatWarning
from mrcz.file.original import Progress, pieces_of, skeleton_of
from mrcz.file.reader import Reader
from mrcz.file.restoring import RestoringDecoder
from mrcz.storage.disk import bytes_on_disk
from mrcz.storage.remote import is_url
from mrcz.threads import default_threads

if TYPE_CHECKING:
    from mrcz.container.ranges import ReadRange

__all__ = ["Fault", "Verification", "verify"]

# What a new file is called while it grows.
_UNFINISHED = re.compile(r"\..+\.[0-9a-f]{8}\.part")
_UNFINISHED_NOTE = "the unfinished file of a writer that is at work or was killed: `mrcz recover` saves its frames"

_PART = 8 << 20  # stored bytes a thread reads at a time


@dataclass(frozen=True)
class Fault:
    """Something wrong with a file.

    Attributes
    ----------
    message : str
    frame : int or None
        Number of the frame it is in; None for headers, footer and metadata.
    offset : int or None
        Byte of the file where that frame begins.
    """

    message: str
    frame: int | None = None
    offset: int | None = None

    def __str__(self) -> str:
        where = [f"frame {self.frame}"] if self.frame is not None else []
        where += [f"offset {self.offset}"] if self.offset is not None else []
        return f"{', '.join(where)}: {self.message}" if where else self.message


@dataclass(frozen=True)
class Verification(Result):
    """What `verify` found.

    Attributes
    ----------
    faults : tuple of Fault
        Empty for a sound file.
    n_frames : int
        Frames the header claims.
    checksums : bool
        Every frame was compared with a checksum in the footer. Without a footer a fault shows only where it makes a
        frame undecodable, or where the codec has checksums of its own (zstd as we write it).
    fast : bool
        Nothing was decoded.
    file_bytes : int
    seconds : float
    notes : tuple of str
        What is unusual about the file and no damage: `Reader.oddities`.
    """

    path: str
    faults: tuple[Fault, ...]
    n_frames: int
    checksums: bool
    fast: bool
    file_bytes: int
    seconds: float
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.faults


# Longer than 60 lines: half of it are its words.
def verify(
    path: str | os.PathLike[str],
    *,
    fast: bool = False,
    n_threads: int | None = None,
    progress: Progress | None = None,
    storage_options: dict[str, Any] | None = None,
    dataset: str | None = None,
    fraction: int | None = None,
    upsampling: int = 1,
) -> Verification:
    """Check a file for damage.

    Header against file size, extended header, footer and metadata against their checksums, the chain of chunks, and
    every frame: its checksum, then decoded, then minimum, maximum, mean and standard deviation of its pixels against
    those in the footer. A plain MRC file has no checksums: its headers and its size are checked,
    and that its bytes can be read. Of a file of another format every frame is decoded; it has no checksums, other than
    its codecs may have, and `Verification.checksums` is False.

    Parameters
    ----------
    path : path or URL
        MRC or MRCZ, or of another format; also inside gzip, bzip2, xz or zstd (whose own checksums are compared, too).
    fast : bool
        Decode nothing: structure and checksums only, at the speed of the disk.
    n_threads, storage_options, dataset, fraction, upsampling
        As `mrcz.open` takes them.
    progress : callable, optional
        Called as ``progress(done, total)`` in frames.

    Returns
    -------
    Verification
        Damage is in it, as many faults as can be told apart; it is not raised.

    Raises
    ------
    OSError
        The file cannot be read at all.
    """
    size = 0 if is_url(path) else bytes_on_disk(path)
    started = time.perf_counter()
    faults: list[Fault] = []
    frames, checksums = 0, False
    notes: tuple[str, ...] = ()
    name = os.fspath(path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", FormatWarning)
        how: dict[str, Any] = {"n_threads": n_threads, "storage_options": storage_options}
        reader = _opened(path, faults, how, {"dataset": dataset, "fraction": fraction, "upsampling": upsampling})
    if reader is not None:
        with reader:
            warned = [_own(str(w.message), reader.path) for w in caught if issubclass(w.category, FormatWarning)]
            faults += [Fault(text) for text in warned if text not in reader.notes]
            frames = max(int(reader.header["nz"]), len(reader)) if not faults else len(reader)
            checksums = reader.index.hashes is not None
            if is_url(path):
                name, size = reader.path, reader.file_nbytes
            told = {fault.message for fault in faults}
            notes = tuple(oddity for oddity in reader.oddities if oddity not in told)
            if _UNFINISHED.fullmatch(os.path.basename(os.fspath(path))):
                notes = (_UNFINISHED_NOTE, *notes)
            faults += _metadata_faults(reader)
            faults += _integers_faults(reader)
            faults += _pieces_faults(reader)
            faults += _stored_faults(reader, progress) if fast else _decoded_faults(reader, progress)
    return Verification(
        name,
        tuple(faults),
        n_frames=frames,
        checksums=checksums,
        fast=fast,
        file_bytes=size,
        seconds=time.perf_counter() - started,
        notes=notes,
    )


def _opened(
    path: str | os.PathLike[str], faults: list[Fault], how: dict[str, Any], foreign: dict[str, Any]
) -> Reader | None:
    """The file, opened all the same if it is damaged, which is noted; None if it cannot be."""
    try:
        reader = open_either(path, how, foreign)
        _ = reader.extended_bytes  # of a URL it comes, and is judged, only now
        return reader
    except FormatError as error:
        faults.append(_fault(error))
    # What can still be opened is searched on: one report for all faults.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FormatWarning)
        try:
            return open_either(path, {**how, "permissive": True}, foreign)
        except FormatError:
            return None


def _fault(error: FormatError) -> Fault:
    if isinstance(error, ChunkError):
        return Fault(error.message, error.frame, error.offset)
    return Fault(error.message)


def _own(text: str, path: str) -> str:
    return text.removeprefix(f"{path}: ")


def _metadata_faults(reader: Reader) -> Iterator[Fault]:
    try:
        _ = reader.metadata
    except FormatError as error:
        yield _fault(error)


def _integers_faults(reader: Reader) -> Iterator[Fault]:
    """What makes floats of counts: the exceptions and the gain reference, wherever it lies."""
    if isinstance(decoder := reader.decoder, RestoringDecoder):
        try:
            _ = decoder.parts
        except FormatError as error:
            yield _fault(error)


def _pieces_faults(reader: Reader) -> Iterator[Fault]:
    """What a file of another format held besides its pixels. The pixels have checksums of their own."""
    try:
        if (record := pieces_of(reader)) is not None:
            skeleton_of(reader, record)
    except FormatError as error:
        yield _fault(error)


def _stored_faults(reader: Reader, progress: Progress | None) -> Iterator[Fault]:
    """Stored bytes against the checksums of the footer, some megabytes a thread at a time."""
    from mrcz.container.chunks import xxh64
    from mrcz.container.ranges import plan_reads

    index = reader.index
    if index.hashes is None:
        return
    hashes = index.hashes

    def check(part: ReadRange) -> list[Fault]:
        data = memoryview(reader.source.read(part.start, part.size))
        found = []
        for frame in part.frames:
            offset, size = int(index.offsets[frame]), int(index.sizes[frame])
            stored = data[offset - part.start :][:size]
            if len(stored) != size:
                found.append(Fault(f"{size} bytes expected, {len(stored)} remain", frame, offset))
            elif xxh64(stored) != int(hashes[frame]):
                found.append(Fault(f"the {size} stored bytes do not match their checksum", frame, offset))
        return found

    done = 0
    plan = plan_reads(index, max_size=_PART)
    for part, faults in zip(plan, _in_threads(check, plan, _threads(reader)), strict=True):
        yield from faults
        done += len(part.frames)
        if progress is not None:
            progress(done, len(index))


def _decoded_faults(reader: Reader, progress: Progress | None) -> Iterator[Fault]:
    """Every frame decoded, and its pixels against the statistics of the footer: a frame a thread, or, where there are
    fewer frames than threads, all threads on one."""
    nz = len(reader)
    if not nz or not reader.size:
        return
    threads = min(nz, _threads(reader))
    own = threading.local()

    def check(frame: int) -> Fault | None:
        try:
            reader.check_claims(np.array([frame]))
            if not hasattr(own, "out"):
                own.out = np.empty(reader.shape[1:], reader.dtype)
            reader.read(frame, out=own.out, n_threads=max(1, _threads(reader) // threads))
        except FormatError as error:
            return _fault(error)
        difference = _other_stats(reader, frame, own.out)
        return None if difference is None else Fault(difference, frame, int(reader.index.offsets[frame]))

    for frame, fault in enumerate(_in_threads(check, range(nz), threads)):
        if fault is not None:
            yield fault
        if progress is not None:
            progress(frame + 1, nz)


def _other_stats(reader: Reader, frame: int, pixels: np.ndarray) -> str | None:
    """How a decoded frame's statistics differ from the footer's; None if they do not, or there are none."""
    from _cmrcz.pixels import stats
    from mrcz.container.statistics import frame_stats

    stats_of = reader.frame_stats
    if stats_of is None or pixels.dtype.kind not in "iuf":
        return None
    expected = stats_of[frame]
    count, *moments = stats(pixels.astype(pixels.dtype.newbyteorder("="), copy=False))
    row = frame_stats(np.array([[*moments, count]]))
    if np.isnan(expected).all() or row is None:
        return None
    # Minimum and maximum are pixels. Sums depend on their order, and the variance is a difference of large ones.
    found, size = row[0], float(np.abs(row[0, :2]).max())
    with np.errstate(invalid="ignore"):
        near = ~np.isfinite(found) | (np.abs(found - expected) <= 1e-6 * size)
        same = (found == expected) | (near & (np.arange(4) >= 2))
    if same.all():
        return None
    k = int(np.argmin(same))
    name = ("minimum", "maximum", "mean", "standard deviation")[k]
    return f"the {name} of its pixels is {found[k]:.9g}, the footer says {expected[k]:.9g}"


def _threads(reader: Reader) -> int:
    return reader.n_threads or default_threads()


def _in_threads(work: Callable[[Any], Any], items: Sequence[Any], n_threads: int) -> Iterator[Any]:
    """The results of ``work(item)`` in order; what was not begun is left when the caller stops."""
    with ThreadPoolExecutor(n_threads, thread_name_prefix="mrcz-verify") as pool:
        try:
            yield from pool.map(work, items)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
