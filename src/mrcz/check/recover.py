"""What can be saved of a broken file: every whole frame, copied as it is stored, and an account of what was lost."""

from __future__ import annotations

import contextlib
import os
import struct
import warnings
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from mrcz.check.origin import Overwrite, check_replaceable, replacing
from mrcz.check.result import Result
from mrcz.container.chunks import CHUNK_HEADER_SIZE, parse_chunk_header, xxh64
from mrcz.container.footer import Footer, UnknownFooter, find_footer, load_footer
from mrcz.container.header.header import Header, claimed_nbytes
from mrcz.container.header.layout import COUNTS_LABEL
from mrcz.container.integers import COLUMNS, ENTRY, UnknownRecord, choose_columns, decode_record
from mrcz.container.metadata import pack, unpack
from mrcz.container.pieces import ENTRY as PIECES
from mrcz.errors import FormatError, FormatWarning
from mrcz.file.changing import changed_header
from mrcz.file.gains import moved
from mrcz.file.growing import GrowingFile
from mrcz.file.original import Progress
from mrcz.file.restoring import LOST
from mrcz.file.salvage import decoded, measured
from mrcz.storage.remote import is_url
from mrcz.storage.source import open_source

__all__ = ["Lost", "Recovery", "recover"]

_SCAN = 4 << 20  # bytes looked through at a time for the next chunk


@dataclass(frozen=True)
class Lost:
    """Bytes of a file that could not be saved.

    Attributes
    ----------
    offset, nbytes : int
        Where in the broken file, and how many.
    frame : int or None
        Number of the frame they were, where that is known.
    message : str
        What is wrong with them.
    """

    offset: int
    nbytes: int
    frame: int | None
    message: str

    def __str__(self) -> str:
        what = "bytes" if self.frame is None else f"frame {self.frame}:"
        return f"{what} {self.offset} to {self.offset + self.nbytes}: {self.message}"


@dataclass(frozen=True)
class Recovery(Result):
    """What `recover` saved.

    Attributes
    ----------
    source : str
        The broken file, which is left as it is.
    destination : str or None
        The new one; None if nothing was to be written.
    numbers : tuple of int or None
        Number in the broken file of each frame saved, in order; None where a gap hides how many were lost before it.
    n_expected : int
        Frames the broken file's header or footer speaks of, whichever are more.
    lost : tuple of Lost
    notes : tuple of str
        What else was repaired or is missing.
    """

    source: str
    destination: str | None
    numbers: tuple[int | None, ...]
    n_expected: int
    lost: tuple[Lost, ...]
    notes: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether every frame the file speaks of was saved."""
        return not self.lost and self.n_frames >= self.n_expected

    @property
    def n_frames(self) -> int:
        """Frames saved."""
        return len(self.numbers)

    def asdict(self) -> dict[str, Any]:
        """``ok``, every field and the number of frames as plain values."""
        return {**super().asdict(), "n_frames": self.n_frames}


def recover(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str] | None,
    *,
    overwrite: Overwrite = False,
    progress: Progress | None = None,
    storage_options: dict[str, Any] | None = None,
) -> Recovery:
    """Copy every undamaged frame of a broken file into a new one.

    A frame is undamaged if its stored bytes match their checksum, where there is one, and decode. Frames are
    copied as they are stored. Frames written after the last flush of a writer that was killed are found behind the
    others (also in its unfinished ``.part`` file); where the chain of chunks is broken, the next chunk is searched for.

    Parameters
    ----------
    source : path or URL
        A compressed or plain file, or the unfinished one of a killed writer.
    destination : path or None
        The new file; None only reports what could be saved.
    overwrite : bool or "any"
        True replaces a file named *destination*, but no archive of another file, nor one with more frames; "any" these
        too.
    progress : callable, optional
        Called as ``progress(done, total)`` in bytes.
    storage_options : dict, optional
        As `mrcz.open` takes them.

    Returns
    -------
    Recovery

    Raises
    ------
    FormatError
        Neither the header nor the copy of it in the footer can be understood, or no frame is whole.
    FileExistsError
        *destination* exists.
    OtherSourceError
        *destination* is an archive of another file.
    """
    if destination is not None and os.path.exists(destination):
        if os.path.exists(source) and os.path.samefile(source, destination):
            raise ValueError(f"{destination}: the recovered file needs a name of its own")
        if not overwrite:
            raise FileExistsError(f"{destination} exists; pass overwrite=True to replace it")
    opened = open_source(source, storage_options, claimed=claimed_nbytes)
    name = opened.name if is_url(source) else os.fspath(source)
    try:
        if (header := _plain_header(opened)) is not None:
            return _recover_plain(opened, header, name, destination, overwrite, progress)
        return _Recovering(opened, name, overwrite, progress).run(destination)
    finally:
        opened.close()


def _plain_header(source: Any) -> Header | None:
    """The header of a file that is not compressed; None for all others, damaged headers among them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FormatWarning)
        footer = None
        try:
            header = Header.parse(source.read(0, 1024), file_size=source.size, permissive=True)
            with contextlib.suppress(UnknownFooter):
                footer = load_footer(source.read, source.size)
        except FormatError:
            return None
    # A footer belongs to a compressed file, whatever its header has become.
    return None if header.compressed or footer is not None else header


def _recover_plain(
    source: Any,
    header: Header,
    path: str,
    target: str | os.PathLike[str] | None,
    overwrite: Overwrite,
    progress: Progress | None,
) -> Recovery:
    """Every whole frame of a plain MRC file that is cut short, or whose writer was killed."""
    start, nbytes = header.data_offset, header.frame_nbytes
    claimed, there = int(header["nz"]), (source.size - start) // nbytes
    # What a killed writer of ours wrote after its last flush; behind the frames of other programs may be anything.
    n = there if header.is_mrcz else min(there, claimed)
    if n < 1:
        raise FormatError("no frame of this file is whole", path=path)
    if target is not None:
        check_replaceable(target, overwrite)  # what is refused before any work leaves nothing behind
        _copy_plain(source, header, n, target, overwrite, progress)
    expected, end = max(n, claimed), start + n * nbytes
    lost: tuple[Lost, ...] = ()
    if n < claimed:
        rest = source.size - end
        lost = (Lost(end, rest, n, f"{rest} of {nbytes} bytes are there" if rest else "the file ends here"),)
    notes = ["the file is not compressed: nothing in it tells whether its pixels are right"]
    if n > claimed:
        notes.append(f"{n - claimed} frames follow the {claimed} the header counts")
    return Recovery(path, None if target is None else os.fspath(target), tuple(range(n)), expected, lost, tuple(notes))


def _copy_plain(
    source: Any,
    header: Header,
    n: int,
    target: str | os.PathLike[str],
    overwrite: Overwrite,
    progress: Progress | None,
) -> None:
    from mrcz.file.writer import Writer

    pixels, start, nbytes = header.pixel_format, header.data_offset, header.frame_nbytes
    extended = (header.exttyp, source.read(1024, start - 1024))
    volumes = header.kind == "volume stack" and n % header.mz == 0
    with Writer(
        target,
        codec="none",
        pack=pixels.packed,
        header=header,
        kind="stack" if header.kind == "volume stack" and not volumes else None,
        extended_header=extended,
        overwrite=replacing(overwrite),
        mrc_mode=header.mode if header.mode in (0, 3, 16) and not pixels.packed else None,
        mz=header.mz if volumes else None,
    ) as writer:
        for k in range(n):
            stored = np.frombuffer(source.read(start + k * nbytes, nbytes), pixels.stored)
            writer.append(pixels.from_stored(stored.reshape(pixels.stored_shape(header.ny, header.nx)), header.nx))
            if progress is not None:
                progress(start + (k + 1) * nbytes, source.size)


class _Frame(NamedTuple):
    """A whole frame: where it is, and what its pixels are if it is to be written."""

    number: int | None
    offset: int
    size: int
    row: np.ndarray | None
    moments: np.ndarray | None


class _Recovering:
    """One recovery: header, footer, frames, new file."""

    def __init__(self, source: Any, path: str, overwrite: Overwrite, progress: Progress | None) -> None:
        self.source, self.path, self.progress = source, path, progress
        self.overwrite: Overwrite = overwrite
        self.notes: list[str] = []
        self.lost: list[Lost] = []
        self.size = source.size
        # Bytes that may be decoded in vain in the search for chunks: what looks like a chunk at every place of a file
        # would otherwise take the square of its size.
        self.tries = 64 * self.size + (256 << 20)

    def run(self, target: str | os.PathLike[str] | None) -> Recovery:
        self.target = target
        self.footer = self._find_footer()
        self.header = self._read_header()
        if not self.header.compressed:
            raise FormatError("the header says that the file is not compressed, its footer that it is", path=self.path)
        self.stored = self.header.pixel_format.frame_nbytes(self.header.ny, self.header.nx)
        start = self.header.data_offset
        if self.footer is not None and len(self.footer.index):
            start = min(start, max(1024, int(self.footer.index.offsets[0])))
        extended = self.source.read(1024, start - 1024)
        if len(extended) != self.header.nsymbt:
            self.notes.append(f"NSYMBT is {self.header.nsymbt}, {len(extended)} bytes of extended header are there")
            self.header = self.header.replace(nsymbt=len(extended))
        if self.footer is not None and self.footer.extended_header_hash not in (None, xxh64(extended)):
            self.notes.append("the extended header does not match its checksum and is kept as it is")
        found = self._frames(start)
        if not found:
            raise FormatError("no frame of this file is whole", path=self.path)
        known = 0 if self.footer is None else len(self.footer.index)
        # An unfinished new file says 1 because its writer did not know better.
        expected = max(int(self.header["nz"]), known)
        if target is not None:
            self._write(os.fspath(target), extended, found)
        return Recovery(
            self.path,
            None if target is None else os.fspath(target),
            tuple(frame.number for frame in found),
            expected,
            tuple(self.lost),
            tuple(self.notes),
        )

    def _find_footer(self) -> Footer | None:
        try:
            try:
                footer = load_footer(self.source.read, self.size)
            except UnknownFooter:
                raise
            except FormatError as error:
                self.notes.append(error.message)
                footer = None
            if footer is None:
                # An older one may stand further on front; the search goes through the whole file if it must.
                footer = find_footer(self.source.read, 1024, self.size)
                if footer is not None:
                    self.notes.append("the footer is not at the end of the file")
        except UnknownFooter as error:
            self.notes.append(f"{error.message}, and what it holds besides the frames is not copied")
            return None
        if footer is None:
            self.notes.append("no footer: its metadata, statistics and checksums are lost, if there were any")
        return footer

    def _read_header(self) -> Header:
        raw = self.source.read(0, 1024)
        copy = None if self.footer is None else self.footer.header_copy
        if copy is not None and self.footer is not None and self.footer.header_hash != xxh64(raw):
            try:
                # NZ and statistics change while a file grows; everything else must be as it was.
                now = Header.parse(raw, permissive=False)
                same = now.replace(**{name: Header.parse(copy)[name] for name in _GROWING}).tobytes() == copy
            except (FormatError, Warning):
                same = False
            if not same:
                self.notes.append("the header was damaged and is restored from the footer's copy")
                raw = copy
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FormatWarning)
            return Header.parse(raw, path=self.path)

    def _frames(self, start: int) -> list[_Frame]:
        """Every whole frame, in file order."""
        found: list[_Frame] = []
        offset = start
        index = None if self.footer is None else self.footer.index
        if index is not None:
            for number, (offset, size) in enumerate(zip(index.offsets.tolist(), index.sizes.tolist(), strict=True)):
                data = self.source.read(offset, size)
                frame: _Frame | str
                if len(data) < size:
                    frame = f"{len(data)} of {size} bytes are there"
                elif index.hashes is not None and xxh64(data) != int(index.hashes[number]):
                    frame = "the stored bytes do not match their checksum"
                else:
                    frame = self._decoded(data, number, offset)
                self._take(found, frame, number, offset, size)
            offset = index.end if len(index) else start
        # What follows: frames the footer does not know, or all of them.
        number_: int | None = 0 if index is None else len(index)
        claimed = int(self.header["nz"])
        while offset < self.size:
            frame, size = self._chunk_at(offset, number_)
            if isinstance(frame, str):
                ours = number_ is not None and number_ < claimed
                following = self._next_chunk(offset + 1) if (ours or number_ is None or index is None) else None
                if following is None:
                    # Behind the last frame: the footer, or what a killed writer had begun.
                    if ours:
                        self._take(found, frame, number_, offset, self.size - offset)
                    break
                one = size == following - offset  # the header is whole, so it was one frame
                self._take(found, frame, number_ if one else None, offset, following - offset)
                size = following - offset
                if not one:
                    number_ = None
            else:
                self._take(found, frame, number_, offset, size)
            offset += size
            number_ = None if number_ is None else number_ + 1
        return found

    def _take(self, found: list[_Frame], frame: _Frame | str, number: int | None, offset: int, size: int) -> None:
        """Keep a frame, or (text) say what is wrong with it."""
        if isinstance(frame, str):
            self.lost.append(Lost(offset, size, number, frame))
        else:
            found.append(frame)
        if self.progress is not None:
            self.progress(offset + size, self.size)

    def _chunk_at(self, offset: int, number: int | None) -> tuple[_Frame | str, int]:
        """The frame that begins at a place, or what is wrong with it, and its size (0: unknown)."""
        try:
            head = parse_chunk_header(
                self.source.read(offset, CHUNK_HEADER_SIZE), nbytes=self.stored, remaining=self.size - offset
            )
        except FormatError as error:
            return error.message, 0
        return self._decoded(self.source.read(offset, head.cbytes), number, offset), head.cbytes

    def _decoded(self, data: bytes, number: int | None, offset: int) -> _Frame | str:
        """A frame that decodes, measured if it is to be written; else what is wrong with it."""
        from _cmrcz.status import CoreError

        try:
            out = decoded(data, self.stored)
        except (CoreError, FormatError) as error:
            return error.message
        row, moments = (None, None) if self.target is None else measured(self.header, out)
        return _Frame(number, offset, len(data), row, moments)

    def _next_chunk(self, offset: int) -> int | None:
        """The next place where a whole chunk of a frame's size begins."""
        pattern = struct.pack("<I", self.stored)
        while offset + CHUNK_HEADER_SIZE <= self.size:
            block = self.source.read(offset, _SCAN + CHUNK_HEADER_SIZE)
            at = block.find(pattern, 4)
            while at >= 0:
                if block[at - 4] in (2, 5):
                    if self.tries <= 0:
                        self.notes.append(f"the search for further frames was given up at byte {offset + at - 4}")
                        return None
                    frame, size = self._chunk_at(offset + at - 4, None)
                    if not isinstance(frame, str):
                        result: int | None = offset + at - 4
                        return result
                    self.tries -= size + CHUNK_HEADER_SIZE
                at = block.find(pattern, at + 1)
            offset += _SCAN
        return None

    def _new_header(self, found: list[_Frame], packed_bytes: int) -> Header:
        """The header of the new file: NZ, MZ and statistics of the frames that are in it."""
        from mrcz.container.statistics import total_stats

        n = len(found)
        if n == int(self.header["nz"]):
            return self.header.replace(packed_bytes=packed_bytes)
        stats = total_stats(np.array([frame.moments for frame in found])) or (0, -1, -2, -1)
        fields: dict[str, Any] = dict(zip(("dmin", "dmax", "dmean", "rms"), stats, strict=True))
        return _with_sections(self.header, {**fields, "packed_bytes": packed_bytes}, n)

    def _write(self, target: str, extended: bytes, found: list[_Frame]) -> None:
        from mrcz._version import __version__
        from mrcz.file.metadata import choose_frames

        footer = self.footer
        extra = {} if footer is None else dict(footer.extra)
        if self.lost:
            # So that nobody takes frame 41 of the new file for frame 41 of the exposure.
            numbers = [-1 if frame.number is None else frame.number for frame in found]
            extra.pop(PIECES, None)  # a whole file of another format is not given back any more
            extra["recovered_frames"] = np.array(numbers, "<i4").tobytes()
        metadata = None
        if footer is not None:
            try:
                if footer.metadata(self.source.read) is not None:
                    metadata = footer.metadata_bytes(self.source.read)
                if metadata is not None and self.lost:
                    metadata = choose_frames(metadata, [frame.number for frame in found])
            except FormatError as error:
                self.notes.append(f"{error.message}; they are left out")
        if ENTRY in extra:
            metadata = self._carry_integers(extra, metadata, [frame.number for frame in found], target)
        elif COUNTS_LABEL in self.header.labels:
            self.notes.append(LOST)
        fields = {
            "metadata": metadata,
            "extra": extra,
            "writer": f"mrcz {__version__}",
            "source_header": None if footer is None or self.lost else footer.source_header,
        }
        new = GrowingFile.create(
            target, self.header.tobytes(), extended, overwrite=replacing(self.overwrite), fields=fields
        )
        try:
            for frame in found:
                data = self.source.read(frame.offset, frame.size)
                new.append(data, xxh64(data), frame.row)
            new.finish(self._new_header(found, new.index.nbytes).tobytes())
            new.publish()
        except BaseException:
            new.abort()
            raise
        new.release()

    def _carry_integers(
        self, extra: dict[str, Any], metadata: bytes | None, numbers: list[int | None], target: str
    ) -> bytes | None:
        """Keep what makes floats of counts, for the frames that are left; the metadata with it. Where it cannot be
        kept the new file is one of counts."""
        assert self.footer is not None
        pixels, n = self.header.ny * self.header.nx, len(self.footer.index)
        try:
            record = decode_record(extra[ENTRY])
            values = None if metadata is None else unpack(metadata)
            if not isinstance(values, dict):
                raise FormatError("integers: the exceptions are missing from the metadata")
            known = [k for k in numbers if k is not None and k < n]
            if len(known) < len(numbers):
                raise FormatError("integers: nobody knows the exceptions of frames whose number is not known")
            columns, chosen = choose_columns(values.get(COLUMNS), record, n, pixels, known)
            if self.lost:
                values[COLUMNS], record = chosen, replace(record, exceptions=columns)
                metadata = pack(values)
            extra[ENTRY] = moved(record, self.path, target).entry()
        except FormatError as error:
            if not (isinstance(error, UnknownRecord) and not self.lost):
                del extra[ENTRY]
                self.notes.append(f"{error.message}: the counts are kept, what made floats of them is not")
        return metadata


def _with_sections(header: Header, fields: dict[str, Any], n: int) -> Header:
    """A header with these fields and n sections of the same pixel size; a volume that was its whole cell is that
    again, and volumes of which one is incomplete are a stack."""
    if header.kind == "volume" and header.mz == int(header["nz"]):
        kept = "mrcz_mz" if int(header["mrcz_mz"]) > 0 else "mz" if int(header["mz"]) > 0 else None
        fields |= {} if kept is None else {kept: n}
    new = header.replace(**fields, nz=n)
    before, after = header.pixel_size[2], new.pixel_size[2]
    if before > 0 and after > 0 and before != after:
        x, y, z = header["cella"]  # its edge was that of all sections
        new = new.replace(cella=(x, y, z * before / after))
    if header.kind == "volume stack" and n % header.mz:
        new = changed_header(new, kind="stack")  # as the Writer calls sections that are no whole volumes
    return new


_GROWING = ("nz", "mz", "dmin", "dmax", "dmean", "rms", "packed_bytes", "cella", "mrcz_mz")
