"""A float movie that is stored as integers, as the floats it was: the counts' decoder with one step behind it.

What an ordinary reader takes for a file of counts has a record in its footer (`mrcz.container.integers`). Here the
producer's own operation makes the floats of the counts again, and what was no count is put back as it was.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy as np

from mrcz.container.footer import Footer
from mrcz.container.header.layout import COUNTS_LABEL
from mrcz.container.integers import (
    COLUMNS,
    ENTRY,
    Columns,
    IntegersRecord,
    UnknownRecord,
    decode_columns,
    decode_gain,
    decode_record,
)
from mrcz.container.modes import format_for
from mrcz.errors import FormatError
from mrcz.file.decoding import BATCH, Decoder, Window
from mrcz.file.gains import find_gain, load_gain
from mrcz.file.options import ReadOptions

__all__ = ["LOST", "Parts", "RestoringDecoder", "Stored", "look_for_integers"]


#: Said where only the label in the header is left.
LOST = (
    "these are the counts of a float movie, as its header says: what makes floats of them was in a footer that is gone"
)


class Stored(NamedTuple):
    """How a float movie is stored as counts.

    ``gain_path`` is the file that holds its gain reference; None where that lies in the movie, is 1, or is missing.
    """

    record: IntegersRecord
    gain_path: str | None


class Parts(NamedTuple):
    """What makes floats of the counts: (ny, nx) gain or None for 1, the exceptions and the ranges."""

    gain: np.ndarray | None
    columns: Columns
    ends: np.ndarray


def look_for_integers(counts: Decoder, footer: Footer | None, options: ReadOptions) -> tuple[Any, Stored | None, str]:
    """The decoder that gives the floats (None: counts are all there is to give), how they are stored, and what to say.

    Raises
    ------
    FormatError
        The record contradicts itself or the file; not if ``permissive``, nor where the counts are wanted.
    """
    if footer is None or ENTRY not in footer.extra:
        lost = COUNTS_LABEL in counts.header.labels and counts.pixels.dtype.kind in "iu" and not options.raw
        return None, None, LOST if lost else ""
    try:
        record = decode_record(footer.extra[ENTRY])
        if len(counts.shape) != 3 or counts.pixels.dtype not in (np.uint8, np.uint16) or footer.metadata_span is None:
            raise FormatError(
                f"integers: {counts.pixels.dtype} pixels of shape {counts.shape} are no counts of a movie"
            )
    except UnknownRecord as error:
        return None, None, "" if options.raw else f"{error.message}: these are its counts"
    except FormatError as error:
        if not (options.raw or options.permissive):
            raise FormatError(error.message, path=counts.path) from None
        return None, None, "" if options.raw else f"{error.message}; these are the counts"
    place, missing = None, False
    if record.gain is not None and record.gain.path is not None:
        place = find_gain(counts.path, record.gain, options.storage_options)
        missing = place is None
    stored = Stored(record, place)
    if options.raw:
        return None, stored, ""
    if missing:
        assert record.gain is not None
        return (
            None,
            stored,
            (
                f"these are the counts of a float movie: its gain reference {record.gain.file_name} was not found "
                f"({record.gain.path}, the file's folder, MRCZ_GAIN_STORE)"
            ),
        )
    return RestoringDecoder(counts, stored, footer, options), stored, ""


class RestoringDecoder(Decoder):
    """The floats of a movie whose counts another decoder gives."""

    def __init__(self, counts: Decoder, stored: Stored, footer: Footer, options: ReadOptions) -> None:
        super().__init__(counts.source, counts.path, counts.header, counts.index, options)
        self.counts, self.how = counts, stored
        self.pixels = format_for(np.dtype(np.float32))
        self.stored = self.shape[1] * self.shape[2] * 4
        self._footer, self._storage = footer, options.storage_options
        self._parts: Parts | None = None
        self._lock = threading.Lock()

    @property
    def fusable(self) -> bool:
        return False  # the core knows chunks, and no lattices

    @property
    def parts(self) -> Parts:
        """Gain and exceptions, read when they are first needed.

        Raises
        ------
        FormatError
            They are damaged, or no such gain reference is where it was found.
        """
        with self._lock:
            if self._parts is None:
                try:
                    self._parts = self._load()
                except FormatError as error:
                    raise FormatError(error.message, path=error.path or self.path) from error.__cause__
            return self._parts

    def gain_inside(self) -> np.ndarray:
        """The gain that lies in the file, as it was given; FormatError if it is damaged."""
        name, (ny, nx) = self.how.record.gain, self.shape[1:]
        assert name is not None
        return decode_gain(self._entry(), name, (ny, nx))

    def _entry(self) -> Any:
        return (self._footer.metadata(self.source.read) or {}).get(COLUMNS)

    def _load(self) -> Parts:
        record, (ny, nx) = self.how.record, (self.shape[1], self.shape[2])
        entry = self._entry()
        columns = decode_columns(entry, record, len(self._footer.index), ny * nx)
        gain = None
        if record.gain is not None:
            if self.how.gain_path is not None:
                try:
                    gain = load_gain(self.how.gain_path, record.gain, (ny, nx), self._storage)
                except OSError as error:
                    raise FormatError(f"its gain reference {self.how.gain_path} is gone: {error}") from error
            else:
                gain = decode_gain(entry, record.gain, (ny, nx))
            # Where no count can be told from is never divided by; the same rule as where the counts were found.
            odd = ~(np.isfinite(gain) & (gain > 0))
            if odd.any():
                gain = gain.copy()
                gain[odd] = 1
        return Parts(gain, columns, columns.frames.cumsum())

    def decode(
        self,
        numbers: np.ndarray,
        window: Window | None = None,
        out: np.ndarray | None = None,
        threads: int | None = None,
        **fused: Any,
    ) -> np.ndarray:
        ny, nx = self.shape[1:3]
        threads = self.threads(threads)
        window = window or (0, ny, 0, nx)
        height, width = window[1] - window[0], window[3] - window[2]
        self.check_claims(numbers)
        if out is None:
            out = np.empty((len(numbers), height, width), np.float32)
        if out.size == 0:
            return out
        target, make = out, self._maker(window)
        per = max(threads, BATCH // max(1, self.stored))
        workers = min(threads, len(numbers))
        with ThreadPoolExecutor(workers) if workers > 1 else nullcontext() as pool:
            for a in range(0, len(numbers), per):
                chosen = numbers[a : a + per].tolist()
                counts = self.counts.decode(numbers[a : a + per], window, threads=threads)
                work = (chosen, counts, target[a : a + per])
                for _ in map(make, *work) if pool is None else pool.map(make, *work):
                    pass  # an error in a thread is raised here
        return out

    def _maker(self, window: Window) -> Callable[[int, np.ndarray, np.ndarray], None]:
        """What makes the floats of a window of a frame: ``make(number, counts, into)``."""
        parts, record = self.parts, self.how.record
        y0, y1, x0, x1 = window
        nx = self.shape[2]
        whole = (y1 - y0, x1 - x0) == self.shape[1:3]
        gain = None if parts.gain is None else np.ascontiguousarray(parts.gain[y0:y1, x0:x1])
        plain = not record.divide and not record.wide and record.before == record.after == 1
        words: dict[str, Any] = {
            "divide": record.divide,
            "wide": record.wide,
            "before": record.before,
            "after": record.after,
        }
        wide = None
        if not plain:
            shape = (y1 - y0, x1 - x0)
            wide = np.ones(shape) if gain is None else gain.astype(np.float64)

        def make(number: int, counts: np.ndarray, into: np.ndarray) -> None:
            if wide is not None:
                from _cmrcz.lattice import to_floats

                narrow = np.ascontiguousarray(counts, np.uint16)
                to_floats(narrow.reshape(-1), wide.reshape(-1), into.reshape(-1), **words)
            elif parts.columns.ranges is not None:
                parts.columns.ranges.floats(number, counts, into)
            elif gain is None:
                into[...] = counts
            else:  # one rounding of float32, as the producer did
                np.multiply(counts, gain, out=into, dtype=np.float32, casting="unsafe")
            places, values = parts.columns.of(number, parts.ends)
            if not whole:
                y, x = np.divmod(places, nx)
                inside = (y >= y0) & (y < y1) & (x >= x0) & (x < x1)
                places, values = (y[inside] - y0) * (x1 - x0) + x[inside] - x0, values[inside]
            into.reshape(-1).view(np.uint32)[places] = values.view(np.uint32)

        return make

    def sum_fused(
        self,
        numbers: np.ndarray,
        total: np.ndarray,
        weights: Sequence[float] | None,
        gain: np.ndarray | None,
        threads: int,
    ) -> bool:
        return False

    def check_claims(self, numbers: np.ndarray) -> None:
        self.counts.check_claims(numbers)

    def stored_bytes(self, number: int) -> bytes:
        """The chunk of counts."""
        return self.counts.stored_bytes(number)

    def hashes(self) -> np.ndarray:
        """XXH64 of each frame's stored bytes, (nz,) uint64."""
        return self.counts.hashes()
