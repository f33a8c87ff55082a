"""Is a file whole? `verify` looks at everything in it that can tell, and names each fault by frame and byte."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mrcz.errors import ChunkError, FormatError, FormatWarning

if TYPE_CHECKING:
    from mrcz.reader import Reader

__all__ = ["Fault", "Verification", "verify"]

_BLOCK = 64 << 20  # bytes of frames decoded at a time


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
class Verification:
    """What `verify` found.

    Attributes
    ----------
    faults : tuple of Fault
        Empty for a sound file.
    frames : int
        Frames the header claims.
    checksums : bool
        Every frame was compared with a checksum in the footer. Without a footer a fault shows only where it makes a
        frame undecodable, or where the codec has checksums of its own (zstd as we write it).
    fast : bool
        Nothing was decoded.
    file_bytes : int
    seconds : float
    """

    path: str
    faults: tuple[Fault, ...]
    frames: int
    checksums: bool
    fast: bool
    file_bytes: int
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.faults

    def asdict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return {"ok": self.ok, **asdict(self)}


def verify(
    path: str | os.PathLike,
    *,
    fast: bool = False,
    n_threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Verification:
    """Check a file for damage.

    Header against file size, extended header, footer and metadata against their checksums, the chain of chunks, and
    every frame: its checksum, then decoded. A plain MRC file has no checksums: its headers and its size are checked,
    and that its bytes can be read.

    Parameters
    ----------
    path : path
        MRC or MRCZ, also inside gzip, bzip2, xz or zstd (whose own checksums are compared as well).
    fast : bool
        Decode nothing: structure and checksums only, at the speed of the disk.
    n_threads : int, optional
        Most threads for decoding.
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
    import mrcz

    started = time.perf_counter()
    faults: list[Fault] = []
    frames, checksums = 0, False
    reader: Reader | None = None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", FormatWarning)
        try:
            reader = mrcz.open(path, n_threads=n_threads)
        except FormatError as error:
            faults.append(_fault(error))
            # What can still be opened is searched on: one report for all faults.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FormatWarning)
                try:
                    reader = mrcz.open(path, permissive=True, n_threads=n_threads)
                except FormatError:
                    reader = None
    if reader is not None:
        with reader:
            faults += [
                Fault(_own(str(w.message), reader.path)) for w in caught if issubclass(w.category, FormatWarning)
            ]
            frames = max(int(reader.header["nz"]), len(reader)) if not faults else len(reader)
            checksums = reader.index.hashes is not None
            faults += _metadata_faults(reader)
            faults += _stored_faults(reader, progress) if fast else _decoded_faults(reader, progress)
    return Verification(
        os.fspath(path),
        tuple(faults),
        frames=frames,
        checksums=checksums,
        fast=fast,
        file_bytes=os.stat(path).st_size,
        seconds=time.perf_counter() - started,
    )


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


def _stored_faults(reader: Reader, progress: Callable[[int, int], None] | None) -> Iterator[Fault]:
    """Stored bytes against the checksums of the footer."""
    from mrcz.index import xxh64

    index = reader.index
    for frame in range(len(index)):
        offset, size = int(index.offsets[frame]), int(index.sizes[frame])
        if index.hashes is not None:
            data = reader.stored(frame)
            if len(data) != size:
                yield Fault(f"{size} bytes expected, {len(data)} remain", frame, offset)
            elif xxh64(data) != int(index.hashes[frame]):
                yield Fault(f"the {size} stored bytes do not match their checksum", frame, offset)
        if progress is not None:
            progress(frame + 1, len(index))


def _decoded_faults(reader: Reader, progress: Callable[[int, int], None] | None) -> Iterator[Fault]:
    """Every frame decoded; a block that fails is gone through frame by frame."""
    nz = len(reader)
    if not nz or not reader.size:
        return
    count = min(nz, max(1, _BLOCK // max(1, reader.nbytes // nz)))
    buffer = np.empty((count, *reader.shape[1:]), reader.dtype)
    for start in range(0, nz, count):
        stop = min(nz, start + count)
        try:
            reader.read(slice(start, stop), out=buffer[: stop - start])
        except FormatError:
            for frame in range(start, stop):
                try:
                    reader.read(frame, out=buffer[0])
                except FormatError as error:
                    yield _fault(error)
        if progress is not None:
            progress(stop, nz)
