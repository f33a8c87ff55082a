"""`mrcz compress --recover-integers`: the counts of a float movie, and the record that gives its floats back.

`mrcz.correct.integers` finds counts, gain and exceptions in a movie; here they become what a file says of itself
(`mrcz.container.integers`), and a gain reference finds its place, in the file or once a session beside it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mrcz.container.header.header import Header
from mrcz.container.header.layout import COUNTS_LABEL
from mrcz.container.integers import (
    COLUMNS,
    ENTRY,
    Columns,
    GainName,
    IntegersRecord,
    encode_columns,
    gain_checksum,
)
from mrcz.convert.gain_store import store_gain, stored_gains
from mrcz.correct.integers import (
    Integers,
    NoIntegersError,
    Operation,
    SessionGain,
    recover_integers,
)
from mrcz.errors import FormatError
from mrcz.file.calls import open as open_any
from mrcz.file.gains import load_gain, read_gain, relative_path
from mrcz.file.reader import Reader
from mrcz.file.restoring import RestoringDecoder

__all__ = ["Counting", "Wish", "find_counts", "kept_counts", "notes_of"]

_TRIED = 8  # gain references of a store: the newest first
_LARGEST = 192 << 20  # bytes of a gain in the metadata, of which readers take 256 MiB


@dataclass(frozen=True)
class Wish:
    """What a caller said about integers.

    Attributes
    ----------
    gain : (ny, nx) ndarray, path or None
    store : path or None
    """

    gain: Any = None
    store: str | os.PathLike[str] | None = None


@dataclass(frozen=True, eq=False)
class Counting:
    """Floats to counts, and what the file that holds these says of them.

    Attributes
    ----------
    record : IntegersRecord
    metadata : mapping
        For the key `COLUMNS`.
    count : callable
        ``count(frames, first)``: (n, ny, nx) floats, from that frame on, to counts, uint8 or uint16.
    notes : tuple of str
        What to say of how they were found.
    """

    record: IntegersRecord
    metadata: Mapping[str, Any]
    count: Callable[[np.ndarray, int], np.ndarray]
    notes: tuple[str, ...] = ()

    def told(self) -> dict[str, Any]:
        """As plain data, for a `Copy`."""
        entry = self.record.entry()
        names = ("divide", "wide", "before", "after", "exceptions", "gain")
        return {name: entry[name] for name in names if name in entry} | {"ranges": self.record.ranges}

    def labels(self, header: Header) -> list[str]:
        """What the header gets beside its labels, where it has room: all that is left to tell of floats when the footer
        is lost."""
        return [] if COUNTS_LABEL in header.labels or len(header.labels) > 8 else [COUNTS_LABEL]

    def footer(self) -> dict[str, Any]:
        """Entries of the footer."""
        return {ENTRY: self.record.entry()}

    def added_to(self, metadata: Mapping[str, Any] | None) -> dict[str, Any]:
        """The metadata of the file, with what belongs to its pixels."""
        return {**(metadata or {}), COLUMNS: dict(self.metadata)}


def find_counts(
    reader: Reader, wish: Wish, destination: str | os.PathLike[str], tell: Callable[[int], None]
) -> Counting | str:
    """The counts of an open movie, or why there are none.

    Raises
    ------
    FormatError, OSError, ValueError
        The gain reference given cannot be read, or is none for these frames.
    """
    refusal = _not_for_this(reader)
    if refusal is not None:
        return refusal
    given = None if wish.gain is None else _given(wish.gain)
    if given is not None and sorted(given.shape) != sorted(reader.shape[1:]):
        raise ValueError(f"the gain reference is {given.shape}, frames are {reader.shape[1:]}")
    shared = iter(()) if wish.store is None else _shared(wish.store)
    tried: list[SessionGain] = []

    def session() -> Iterator[SessionGain]:
        for one in shared:
            if one.gain.shape == reader.shape[1:]:
                tried.append(one)
                yield one

    try:
        found = recover_integers(
            reader, given, session=session(), n_threads=reader.n_threads, progress=lambda done, total: tell(0)
        )
    except NoIntegersError as error:
        return error.message
    return _counting(found, wish, destination, _notes(found, given is not None, bool(tried)))


def _not_for_this(reader: Reader) -> str | None:
    if reader.dtype.kind in "iu":
        return "its pixels are integers already, and are packed as they are"
    if len(reader.shape) != 3 or reader.dtype.kind != "f":
        return f"its pixels are {reader.dtype.name}, and no real numbers"
    if reader.dtype.itemsize == 2:
        return "its pixels are float16, rounded to 11 bits: their lattice is gone"
    return None


def _given(gain: Any) -> np.ndarray:
    """A gain reference as an array, from one or from a file of any format that opens."""
    if isinstance(gain, (str, os.PathLike)):
        with open_any(gain) as reader:
            if len(reader.shape) != 3 or len(reader) != 1:
                raise FormatError(f"a gain reference is one image, this is {reader.shape}", path=reader.path)
            gain = np.asarray(reader[0])
    array = np.asarray(gain)
    if array.ndim != 2 or array.dtype.kind not in "fiu":
        raise ValueError(f"a gain reference is {array.dtype} of {array.shape}, expected (ny, nx) floats")
    wide = array.dtype == np.float64 or array.dtype.kind in "iu"
    return array.astype(np.float64 if wide else np.float32)


def _shared(store: str | os.PathLike[str]) -> Iterator[SessionGain]:
    """The gain references of a store, the newest first; one that cannot be read is none."""
    for place in stored_gains(store)[:_TRIED]:
        try:
            gain, metadata = read_gain(place)
            if f"{gain_checksum(gain)}.mrcz" == os.path.basename(place):
                yield SessionGain(gain, Operation.from_dict(metadata.get("operation", Operation().asdict())))
        except (FormatError, ValueError, TypeError, OSError):
            continue


def _notes(found: Integers, given: bool, tried: bool) -> tuple[str, ...]:
    said = {
        "integers": "its floats are integers",
        "given": "stored as counts × the gain reference given",
        "session": "stored as counts × the session's gain reference",
        "completed": "stored as counts × the session's gain reference, with pixels that had not been hit before",
        "movie": "stored as counts × a gain reference found in it",
    }[found.found_by]
    notes = [said]
    if given and found.found_by in ("movie", "session", "completed"):
        notes.append("the gain reference given is not what it was made with")
    if tried and found.found_by == "movie":
        notes.append("no gain reference of the store is what it was made with: it has changed, and was found anew")
    if len(found.exceptions):
        notes.append(f"{len(found.exceptions)} pixels kept as they were")
    return tuple(notes)


def _counting(
    found: Integers, wish: Wish, destination: str | os.PathLike[str], notes: tuple[str, ...]
) -> Counting | str:
    operation, exceptions = found.operation, found.exceptions
    gain, name = found.gain, None
    if gain is not None:
        gain = np.ascontiguousarray(gain)
        if not (operation.precision == "float64" or gain.dtype == np.float32):
            gain = gain.astype(np.float32)
        name = GainName(gain_checksum(gain), gain.dtype.name)
        if wish.store is not None:
            told = replace(operation, orientation=(False, 0)).asdict()
            place = store_gain(wish.store, gain, {"operation": told})
            name = replace(name, path=relative_path(place, destination))
        elif gain.nbytes > _LARGEST:
            return f"its gain reference of {gain.nbytes >> 20} MiB is too large to lie in the file: give a gain store"
    record = IntegersRecord(
        operation.divide, operation.precision == "float64", operation.before, operation.after, len(exceptions), name
    )
    per_frame = np.bincount(exceptions.frames, minlength=found.counts.shape[0])
    columns = Columns(per_frame, exceptions.pixels.astype(np.int64), exceptions.values)
    inside = gain if name is not None and name.path is None else None
    return Counting(record, encode_columns(columns, inside), lambda frames, first: found.count(frames), notes)


def notes_of(counting: Counting | None, reason: str | None) -> tuple[str, ...]:
    """What to say of a copy: how its counts were found, or why there are none."""
    said = () if counting is None else counting.notes
    return said if reason is None else (*said, f"stored as it is: {reason}")


def kept_counts(reader: Reader, destination: str | os.PathLike[str]) -> Counting | None:
    """The record of a movie that is stored as counts already, for a new file that holds it the same way."""
    decoder = reader.decoder
    if not isinstance(decoder, RestoringDecoder):
        return None
    record, place = decoder.how
    parts, gain = decoder.parts, None
    if record.gain is not None:
        if place is not None:
            gain = load_gain(place, record.gain, (reader.shape[1], reader.shape[2]))
            record = replace(record, gain=replace(record.gain, path=relative_path(place, destination)))
        else:
            gain = decoder.gain_inside()

    def count(frames: np.ndarray, first: int) -> np.ndarray:
        return decoder.counts.decode(np.arange(first, first + len(frames)))

    inside = gain if place is None else None
    return Counting(record, encode_columns(parts.columns, inside), count)
