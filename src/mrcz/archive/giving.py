"""What a stored file was before: its bytes, in pieces, whatever its form."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import warnings
from collections.abc import Callable, Generator, Iterator
from typing import Any

import numpy as np

from mrcz.archive.place import Folder, Place
from mrcz.archive.record import Record
from mrcz.convert.pieces import made_again
from mrcz.errors import FormatError, FormatWarning
from mrcz.file.options import ReadOptions
from mrcz.file.original import (
    Seen,
    blocks,
    original_header,
    pieces_of,
    plain_header,
    plain_pixels,
    restored,
    skeleton_of,
)
from mrcz.file.original import plain_head as head_of
from mrcz.file.reader import Reader

__all__ = ["Tell", "local_copy", "pieces", "pixel_sum", "read_pieces", "sum_of_pixels"]

_BLOCK = 4 << 20

#: Told of bytes of the original that are done; what it raises ends the work.
Tell = Callable[[int], None]


#: Is shown a stored file that is open.
Look = Callable[[Reader], None]


def _nobody(n_bytes: int) -> None:
    pass


def _no_look(reader: Reader) -> None:
    pass


def read_pieces(place: Place, path: str, tell: Tell = _nobody) -> Iterator[bytes]:
    """A file of the archive as it lies there."""
    with place.open(path) as file:
        while data := file.read(_BLOCK):
            yield data
            tell(len(data))


def pieces(
    place: Place,
    record: Record,
    *,
    n_threads: int | None = None,
    tell: Tell = _nobody,
    pixels: Any = None,
    look: Look | None = None,
) -> Iterator[bytes | memoryview]:
    """The bytes of the file that a record is of, as it was before it was archived; of one that `restores` its pixels,
    those of an MRC file. They are not compared with anything here.

    Parameters
    ----------
    place : Place
    record : Record
        ``"stored"``, and no second name.
    n_threads : int, optional
    tell : callable
    pixels : hash, optional
        Is given the pixels of what is not copied as `Record.sha256_pixels` has them.
    look : callable, optional
        Is shown the open file of what is not copied, before anything is decoded.

    Raises
    ------
    FormatError
        What is stored does not decode, or is not what the record says.
    OSError
    """
    seen = None if pixels is None else lambda frames: pixels.update(_little(frames))
    given, done = _given(place, record, n_threads, tell, seen, look or _no_look), 0
    with contextlib.closing(given):
        for piece in given:
            done += memoryview(piece).nbytes
            if record.restores == "file" and done > record.source_bytes:  # neither a disk nor a night is given to a lie
                raise FormatError(f"gives more than the {record.source_bytes} bytes of its original", path=record.path)
            yield piece


def _given(
    place: Place, record: Record, n_threads: int | None, tell: Tell, seen: Seen | None, look: Look
) -> Generator[bytes | memoryview, None, None]:
    if record.form == "copy":
        yield from read_pieces(place, record.path, tell)
    elif record.form in ("mrcz", "integers"):
        with local_copy(place, record) as path, _opened(path, n_threads) as reader:
            look(reader)
            original = original_header(reader)
            if original is None:
                raise FormatError("it does not say which file it was made from", path=record.path)
            yield from restored(reader, original, tell, seen)
    elif record.form == "pieces":
        with local_copy(place, record) as path, _opened(path, n_threads) as reader:
            look(reader)
            how = pieces_of(reader)
            if how is None:
                raise FormatError("it does not say which file it was made from", path=record.path)
            yield from made_again(reader, how, skeleton_of(reader, how), tell, seen)
    elif record.form == "pixels":
        with local_copy(place, record) as path, _opened(path, n_threads) as reader:
            look(reader)
            header = plain_header(reader)
            yield head_of(reader, header)
            for frames in blocks(reader, seen):
                yield plain_pixels(header, frames).data
                tell(frames.nbytes)
    else:
        raise FormatError(f"its form is {record.form!r}, which this version does not know", path=record.path)


def pixel_sum(path: str, n_threads: int | None = None, tell: Tell = _nobody) -> str:
    """SHA-256 of the pixels of a file, as `Record.sha256_pixels` has it."""
    with _opened(path, n_threads) as reader:
        return sum_of_pixels(reader, tell)


def sum_of_pixels(reader: Reader, tell: Tell = _nobody) -> str:
    """As `pixel_sum`, of a file that is open."""
    digest = hashlib.sha256()
    for frames in blocks(reader):
        digest.update(_little(frames))
        tell(frames.nbytes)
    return digest.hexdigest()


def _little(frames: np.ndarray) -> memoryview:
    return np.ascontiguousarray(frames.astype(frames.dtype.newbyteorder("<"), copy=False)).data.cast("B")


def _opened(path: str, n_threads: int | None) -> Reader:
    with warnings.catch_warnings():  # what is odd about an original, its copy is too
        warnings.simplefilter("ignore", FormatWarning)
        reader = Reader(path, options=ReadOptions(n_threads=n_threads))
    if reader.integers is not None and not reader.gives_floats_of_counts:
        reader.close()
        raise FormatError(reader.notes[-1] if reader.notes else "its gain reference is missing", path=path)
    return reader


@contextlib.contextmanager
def local_copy(place: Place, record: Record) -> Iterator[str]:
    """A stored file as one of this machine, with what it needs (`Record.parts`) where it looks for that."""
    with contextlib.ExitStack() as stack:
        path = stack.enter_context(place.local(record.path))
        if not record.parts or isinstance(place, Folder):
            yield path
            return
        # The same paths below a folder of its own, because a movie names its gain reference by the way there.
        top = stack.enter_context(tempfile.TemporaryDirectory())
        for name in (record.path, *(part[0] for part in record.parts)):
            target = os.path.join(top, *name.split("/"))
            os.makedirs(os.path.dirname(target), exist_ok=True)
            source = path if name == record.path else stack.enter_context(place.local(name))
            try:
                os.symlink(os.path.abspath(source), target)
            except OSError:  # Windows, without the right to
                import shutil

                shutil.copyfile(source, target)
        yield os.path.join(top, *record.path.split("/"))
