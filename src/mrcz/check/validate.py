"""Is a file what MRC2014 says? `validate` judges every field of its header, and the statistics against the pixels.

The standard is MRC2014 with its update 20141 (CCP-EM; Cheng et al. 2015, doi 10.1016/j.jsb.2015.04.002). Whatever
``mrcfile.validate`` complains of is a problem here too, with the exceptions that docs/header.md lists; beyond that,
the meaning of fields is compared with that of others. `mrcz.verify` asks another question: whether bytes are damaged.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from mrcz.check.result import Result
from mrcz.container.chunks import FRAME_MAX
from mrcz.container.header.header import Header
from mrcz.container.header.layout import PLACES, STAMPS, default_mz
from mrcz.errors import FormatError, FormatWarning
from mrcz.file.original import Progress, blocks, plain_header
from mrcz.file.reader import Reader

__all__ = ["Validation", "validate"]

_MODES = (0, 1, 2, 3, 4, 6, 12, 101)
_EXTTYPS = (b"CCP4", b"MRCO", b"SERI", b"AGAR", b"FEI1", b"FEI2", b"HDF5")


@dataclass(frozen=True)
class Validation(Result):
    """What `validate` found.

    Attributes
    ----------
    problems : tuple of str
        Where the file is not as the standard wants it: field, byte, found, expected, and what to do.
    notes : tuple of str
        What is unusual and allowed, or was not looked at.
    """

    path: str
    problems: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether there is no problem."""
        return not self.problems


def validate(
    path: str | os.PathLike[str],
    *,
    pixels: bool = True,
    n_threads: int | None = None,
    progress: Progress | None = None,
    storage_options: dict[str, Any] | None = None,
) -> Validation:
    """Judge a file against the MRC2014 standard.

    Parameters
    ----------
    path : path or URL
        MRC or MRCZ, also inside gzip and the like. A compressed file is judged as the plain file that decompressing it
        gives, and its footer against its header; that MODE holds the codec is allowed.
    pixels : bool
        Compare DMIN, DMAX, DMEAN and RMS with the pixels, which takes reading them all.
    n_threads, storage_options
        As `mrcz.open` takes them.
    progress : callable, optional
        Called as ``progress(done, total)`` in frames.

    Returns
    -------
    Validation

    Raises
    ------
    OSError
        The file cannot be read at all.
    """
    judge = _Judge()
    name = os.fspath(path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", FormatWarning)
        try:
            reader = Reader(path, permissive=True, n_threads=n_threads, storage_options=storage_options)
        except FormatError as error:
            return Validation(name, (f"{error.message}; nothing else can be judged",))
    with reader:
        told = [str(w.message).removeprefix(f"{reader.path}: ") for w in caught]
        judge.notes += reader.notes
        for text in (text for text in told if text not in reader.notes):
            judge.problem_text(f"{text}; `mrcz recover` saves what can be saved")
        header = judge.as_plain(reader)
        judge.header(header, reader)
        judge.extended(header, reader)
        judge.size(reader)
        if pixels and len(reader):
            judge.statistics(header, reader, progress)
        elif not pixels:
            judge.notes.append("statistics were not compared with the pixels")
    return Validation(name, tuple(judge.problems), tuple(judge.notes))


class _Judge:
    """Collects what is wrong, a group of fields at a time."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.notes: list[str] = []

    def problem(self, field: str, found: Any, expected: str, advice: str, byte: int | None = None) -> None:
        if byte is None:
            byte = PLACES[field.lower()]
        self.problem_text(f"{field} (byte {byte}) is {found}, expected {expected}: {advice}")

    def problem_text(self, text: str) -> None:
        if text not in self.problems:
            self.problems.append(text)

    def as_plain(self, reader: Reader) -> Header:
        """The header of the plain file: for a compressed one, that which decompressing gives."""
        header = reader.header
        if not reader.is_compressed:
            return header
        if not header.is_mrcz:
            self.problem_text(
                "label (byte 224) has no 'MRCZ' and a version first, as a compressed file needs it: older readers take "
                "the file for another; decompress it and compress it again"
            )
        if header.packed_bytes is not None and len(reader.index) and not reader.header.oddities:
            chunks = int(reader.index.sizes.sum())
            if header.packed_bytes not in (0, chunks):
                self.problem(
                    "packed_bytes",
                    header.packed_bytes,
                    f"{chunks}, the bytes of all chunks",
                    "`mrcz recover` counts them anew",
                )
        nz = max(1, len(reader))
        try:
            return plain_header(reader, nz=nz)
        except FormatError as error:
            self.problem_text(f"the footer's header of the plain file is wrong: {error.message}")
            return plain_header(reader, nz=nz, original=False)

    # ---- fields --------------------------------------------------------------------------------------------------

    def header(self, header: Header, reader: Reader) -> None:
        self._pixels(header)
        self._cell(header)
        self._kind(header)
        self._marks(header)
        self._labels(header)

    def _pixels(self, header: Header) -> None:
        word = int(header["mode"])
        if word not in _MODES:
            self.problem(
                "MODE",
                word,
                f"one of {', '.join(map(str, _MODES))}",
                "other programs cannot read these pixels; write them with another dtype",
            )
        if header.is_half_width:
            self.problem(
                "MODE",
                word,
                "101 for 4-bit pixels",
                "NX counts bytes of two pixels each; read the file and write it anew",
            )
        for field in ("nx", "ny", "nz"):
            if header[field] < 1:
                self.problem(field.upper(), header[field], "at least 1", "the sizes do not say what is in the file")

    def _cell(self, header: Header) -> None:
        for field in ("mx", "my", "mz"):
            if header[field] < 1:
                self.problem(
                    field.upper(),
                    header[field],
                    "at least 1",
                    "without a sampling there is no pixel size; `edit_header(path, pixel_size=...)` sets both",
                )
        for field, byte, what in (("CELLA", 40, "edges"), ("CELLB", 52, "angles")):
            for i, value in enumerate(header[field.lower()]):
                axis = "xyz"[i] if what == "edges" else ("alpha", "beta", "gamma")[i]
                if not (math.isfinite(value) and value >= 0 and (what == "edges" or value < 180)):
                    limit = "a finite number of Å, 0 or more" if what == "edges" else "0 to 180 degrees"
                    way = "pixel_size=..." if what == "edges" else "cellb=(90, 90, 90)"
                    self.problem(f"{field} {axis}", value, limit, f"`edit_header(path, {way})` sets it", byte + 4 * i)
        if header["cella"] == (0, 0, 0):
            self.notes.append("the pixel size is not given (CELLA, byte 40, is 0)")
        if header["cellb"] == (0, 0, 0):
            self.notes.append("the angles of the cell (CELLB, byte 52) are 0, usual are 90 degrees")
        for i, value in enumerate(header["origin"]):
            if not math.isfinite(value):
                self.problem(
                    f"ORIGIN {'xyz'[i]}",
                    value,
                    "a finite number of Å",
                    "`edit_header(path, origin=...)` sets it",
                    196 + 4 * i,
                )
        axes = [header[name] for name in ("mapc", "mapr", "maps")]
        if sorted(axes) != [1, 2, 3]:
            self.problem(
                "MAPC, MAPR, MAPS",
                axes,
                "1, 2, 3 in some order",
                "`edit_header(path, mapc=1, mapr=2, maps=3)` sets them",
                64,
            )

    def _kind(self, header: Header) -> None:
        ispg, mz, nz = header["ispg"], header["mz"], header["nz"]
        if not (0 <= ispg <= 230 or 401 <= ispg <= 630):
            self.problem(
                "ISPG", ispg, "0 to 230, or 401 to 630 for a stack of volumes", "`edit_header(path, kind=...)` sets it"
            )
        elif header.kind == "volume stack" and mz > 0 and nz % mz:
            self.problem(
                "MZ",
                mz,
                f"a divisor of NZ = {nz} for a stack of volumes",
                "`edit_header(path, kind='volume stack', mz=...)` sets it",
            )
        elif header.kind in ("image", "stack") and mz > 1:
            self.problem(
                "MZ",
                mz,
                "1 for images (ISPG 0)",
                f"`edit_header(path, kind={'volume' if mz == nz else 'stack'!r})` makes ISPG and MZ agree",
            )
        elif header.kind == "volume" and mz > 0 and mz != default_mz("volume", nz):
            self.notes.append(f"MZ {mz} differs from NZ {nz}: the volume is part of a cell, or more than one")

    def _marks(self, header: Header) -> None:
        raw = header.tobytes()
        if raw[208:212] != b"MAP ":
            self.problem("MAP", raw[208:212], "b'MAP '", "`edit_header(path, map='MAP')` sets it")
        stamp = STAMPS.get(raw[212:214])
        if stamp != header.byteorder:
            right = "44 44 00 00" if header.byteorder == "<" else "11 11 00 00"
            self.problem(
                "MACHST",
                raw[212:216].hex(" "),
                f"{right} for the byte order of this file",
                f"`edit_header(path, machst={bytes.fromhex(right)!r})` sets it",
            )
        if header["nversion"] not in (20140, 20141):
            self.problem(
                "NVERSION", header["nversion"], "20140 or 20141", "`edit_header(path, nversion=20141)` sets it"
            )

    def _labels(self, header: Header) -> None:
        filled = [bool(label.strip()) for label in header["label"]]  # as mrcfile counts
        n = sum(filled)
        way = f"`edit_header(path, nlabl={n})`"
        if header["nlabl"] != n:
            self.problem("NLABL", header["nlabl"], f"{n}, the labels with text", f"{way} sets it")
        if not all(filled[:n]):
            self.problem("LABEL", "empty lines between others", "the lines with text first", f"{way} sorts them")
        for i, label in enumerate(header["label"]):
            if any(byte < 32 and byte not in b"\0\t\r\n" for byte in label.rstrip(b"\0")):
                self.notes.append(f"label {i} (byte {224 + 80 * i}) holds control characters")

    def extended(self, header: Header, reader: Reader) -> None:
        nsymbt, exttyp = header["nsymbt"], header.tobytes()[104:108]
        if nsymbt <= 0:
            if nsymbt < 0:
                self.problem("NSYMBT", nsymbt, "0 or more", "the place of the pixels is a guess; write the file anew")
            return
        if exttyp == b"json":
            self.notes.append("EXTTYP 'json' is of this package, not of the standard")
        elif exttyp not in _EXTTYPS:
            self.problem(
                "EXTTYP",
                exttyp,
                f"one of {', '.join(t.decode() for t in _EXTTYPS)} for {nsymbt} bytes",
                "`edit_header(path, exttyp=...)` sets it" + (" (CCP4: symmetry records)" if nsymbt % 80 == 0 else ""),
            )
        elif exttyp == b"CCP4" and nsymbt % 80:
            self.problem("NSYMBT", nsymbt, "a multiple of 80 for CCP4 records", "the last record is cut")
        elif exttyp in (b"FEI1", b"FEI2"):
            decoded = reader.extended_header.decoded
            records = decoded.size if isinstance(decoded, np.ndarray) else 0
            if records < len(reader):
                self.problem(
                    "NSYMBT",
                    nsymbt,
                    f"{len(reader)} records of {exttyp.decode()}, one a section",
                    f"{records} are there; metadata of the last sections are missing",
                )

    def size(self, reader: Reader) -> None:
        """Bytes that belong to nothing."""
        end = reader.index.end if len(reader.index) else reader.header.data_offset
        for text in reader.oddities:
            if text.endswith(("after the last frame", "follow the last frame", "its footer is not at its end")):
                self.problem_text(
                    f"file size is {reader.file_nbytes}, the last frame ends at byte {end}: {text}; `mrcz recover` "
                    "writes a file without them"
                )
        frame = reader.header.frame_nbytes
        if not reader.is_compressed and frame > FRAME_MAX:
            self.notes.append(f"frames of {frame} bytes cannot be compressed")

    # ---- pixels --------------------------------------------------------------------------------------------------

    def statistics(self, header: Header, reader: Reader, progress: Progress | None) -> None:
        """DMIN, DMAX, DMEAN, RMS against the pixels, with the tolerances of mrcfile: 1 % for the last two."""
        low, high, mean, rms = header.stats
        for name, value in zip(("DMIN", "DMAX", "DMEAN", "RMS"), header.stats, strict=True):
            if not math.isfinite(value):
                self._stats_problem(name, value, "a finite number")
        try:
            found = _totals(reader, progress)
        except FormatError as error:
            self.problem_text(f"{error.message}: the pixels cannot be read; `mrcz recover` saves the others")
            return
        if found.nan:
            self.notes.append(f"{found.nan} pixels are NaN, which the statistics leave out")
        if header.mode == 0 and reader.dtype.kind == "u" and found.high > 127:
            self.problem(
                "MODE", 0, "6 for bytes above 127", "bytes of mode 0 are signed; IMOD reads them as here, others do not"
            )
        if reader.pixel_format.components != 1:
            return
        if reader.dtype.kind == "c":
            if low < high:
                self._stats_problem("DMIN", low, "above DMAX (not computed): complex pixels have no order")
        elif low < high:
            for name, value, true in (("DMIN", low, found.low), ("DMAX", high, found.high)):
                if value != float(np.float32(true)):
                    self._stats_problem(name, value, f"{true:.9g}, as the pixels have it")
        if rms >= 0 and not _near(found.rms, rms):
            self._stats_problem("RMS", rms, f"{found.rms:.6g}, as the pixels have it")
        if mean > min(low, high) and reader.dtype.kind != "c" and not _near(found.mean, mean):
            self._stats_problem("DMEAN", mean, f"{found.mean:.6g}, as the pixels have it")

    def _stats_problem(self, field: str, found: float, expected: str) -> None:
        self.problem(field, f"{found:.9g}", expected, "`edit_header(path, statistics='compute')` mends it")


@dataclass
class _Totals:
    low: float = math.inf
    high: float = -math.inf
    mean: float = math.nan
    rms: float = math.nan
    nan: int = 0


def _totals(reader: Reader, progress: Progress | None) -> _Totals:
    """Of all pixels, NaN left out; a block of frames at a time, in two steps a frame so that no digits are lost."""
    totals = _Totals()
    count, mean, squares = 0, 0.0 + 0.0j if reader.dtype.kind == "c" else 0.0, 0.0
    done = 0
    for block in blocks(reader):
        for frame in _rows(block):
            if frame.dtype.kind in "fc":
                keep = ~np.isnan(frame)
                missing = int(frame.size - np.count_nonzero(keep))
                totals.nan += missing
                frame = frame[keep] if missing else frame
            if not frame.size:
                continue
            if frame.dtype.kind != "c":
                totals.low = min(totals.low, float(frame.min()))
                totals.high = max(totals.high, float(frame.max()))
            wide = frame.astype(np.complex128 if frame.dtype.kind == "c" else np.float64)
            with np.errstate(invalid="ignore", over="ignore"):
                own: Any = wide.mean()
                wide -= own
                own_squares = float((wide.real**2).sum() + ((wide.imag**2).sum() if wide.dtype.kind == "c" else 0.0))
                # Chan, Golub and LeVeque 1979: means and squares of parts add up to those of the whole.
                n = count + frame.size
                shift = own - mean
                mean = mean + shift * (frame.size / n)
                squares += own_squares + abs(shift) ** 2 * (count * frame.size / n)
                count = n
        done += len(block)
        if progress is not None:
            progress(done, len(reader))
    if count:
        totals.mean, totals.rms = float(np.real(mean)), math.sqrt(squares / count) if squares >= 0 else math.nan
    return totals


def _rows(block: np.ndarray) -> Iterator[np.ndarray]:
    """Pieces of a few megabytes, so that wide copies of them stay small."""
    for frame in block:
        step = max(1, (4 << 20) // max(1, frame[0].nbytes))
        for y in range(0, len(frame), step):
            yield frame[y : y + step].reshape(-1)


def _near(true: float, stored: float) -> bool:
    return bool(np.isclose(true, stored, rtol=0.01))
