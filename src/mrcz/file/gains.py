"""Gain references of movies stored as counts: where they lie, read, and compared with their checksum."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from mrcz.container.integers import GainName, IntegersRecord, gain_checksum
from mrcz.errors import FormatError, MrczError
from mrcz.file.decoding import Decoder
from mrcz.file.opening import open_frames
from mrcz.file.options import ReadOptions
from mrcz.storage.remote import is_url
from mrcz.storage.source import open_source

__all__ = ["STORE", "find_gain", "load_gain", "moved", "read_gain", "relative_path"]

STORE = "MRCZ_GAIN_STORE"
"""Environment variable: one more folder in which gain references are looked for."""

_GAINS: weakref.WeakValueDictionary[str, np.ndarray] = weakref.WeakValueDictionary()
"""Those in use, by checksum: the movies of a session share one array."""
_lock = threading.Lock()


def find_gain(movie: str, name: GainName, storage: Mapping[str, Any] | None = None) -> str | None:
    """Where the gain reference of a movie lies; None if it is nowhere.

    Looked for at the path that the movie names, in the movie's own folder, and in ``MRCZ_GAIN_STORE``.
    """
    for place in _places(movie, name):
        if _answers(place, storage) if is_url(place) else os.path.isfile(place):
            return place
    return None


def _answers(place: str, storage: Mapping[str, Any] | None) -> bool:
    """Whether a URL gives a file: one request."""
    try:
        source = open_source(place, None if storage is None else dict(storage))
        try:
            return len(source.read(0, 1024)) == 1024
        finally:
            source.close()
    except (OSError, MrczError):
        return False


def _places(movie: str, name: GainName) -> Iterator[str]:
    if is_url(movie):
        base = movie.rsplit("/", 1)[0]
        if name.path is not None and "?" not in movie:
            parts = name.path.split("/")
            while parts and parts[0] == ".." and base.count("/") > 3:
                base, parts = base.rsplit("/", 1)[0], parts[1:]
            yield f"{base}/{'/'.join(parts)}"
    else:
        folder = os.path.dirname(os.path.abspath(movie))
        if name.path is not None:
            yield os.path.join(folder, *name.path.split("/"))
        yield os.path.join(folder, name.file_name)
    if store := os.environ.get(STORE):
        yield os.path.join(store, name.file_name)


def load_gain(place: str, name: GainName, shape: tuple[int, int], storage: Mapping[str, Any] | None = None) -> Any:
    """The gain reference at a place, (ny, nx), compared with its checksum; shared by all that ask for it.

    Raises
    ------
    FormatError
        It is another one, or damaged.
    """
    with _lock:
        known = _GAINS.get(name.checksum)
    if known is not None and known.shape == shape:
        return known
    try:
        gain, _ = read_gain(place, storage, shape)
    except FormatError as error:
        raise FormatError(f"its gain reference cannot be read: {error}", path=place) from error
    if gain.shape != shape or gain.dtype != np.dtype(name.dtype) or gain_checksum(gain) != name.checksum:
        raise FormatError(
            f"this is not the gain reference {name.checksum[:16]}… that the movie was made with", path=place
        )
    gain.flags.writeable = False
    with _lock:
        _GAINS[name.checksum] = gain
    return gain


def read_gain(
    place: str, storage: Mapping[str, Any] | None = None, expected: tuple[int, int] | None = None
) -> tuple[np.ndarray, dict[str, Any]]:
    """A gain reference of a store, (ny, nx) float32 or float64, and what its metadata say; with `expected`, of that
    shape, which is compared before anything is decoded.

    Raises
    ------
    FormatError
        It is none.
    """
    source = open_source(place, None if storage is None else dict(storage))
    try:
        opened = open_frames(source)
        metadata = (opened.footer.metadata(source.read) if opened.footer is not None else None) or {}
        counts = Decoder(source, place, opened.header, opened.index, ReadOptions())
        shape, dtype = counts.shape, counts.pixels.dtype
        gain32 = len(shape) == 3 and shape[0] == 1 and dtype == np.float32
        if not gain32 and not (len(shape) == 3 and shape[0] == 4 and dtype == np.uint16):
            raise FormatError(f"{dtype} of shape {shape} is no gain reference", path=place)
        if expected is not None and shape[1:] != expected:
            raise FormatError(f"it is for frames of {shape[1:]}, the movie has {expected}", path=place)
        planes = counts.decode(np.arange(shape[0]))
    finally:
        source.close()
    if gain32:
        return planes[0].astype(np.float32, copy=False), metadata
    return np.ascontiguousarray(planes.transpose(1, 2, 0)).astype("<u2").view("<f8")[..., 0], metadata


def relative_path(place: str, destination: str | os.PathLike[str]) -> str:
    """The path from the folder of the new file, with slashes; the name alone where there is none."""
    try:
        path = os.path.relpath(os.path.realpath(place), os.path.dirname(os.path.realpath(destination)))
    except ValueError:  # another drive
        return os.path.basename(place)
    return path.replace(os.sep, "/")


def moved(record: IntegersRecord, movie: str, destination: str | os.PathLike[str]) -> IntegersRecord:
    """The record of a movie for a file elsewhere that holds the same: the path to the gain reference is another."""
    name = record.gain
    if name is None or name.path is None or (place := find_gain(movie, name)) is None or is_url(place):
        return record
    return replace(record, gain=replace(name, path=relative_path(place, destination)))
