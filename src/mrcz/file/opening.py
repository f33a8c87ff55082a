"""Opening: bytes -> header, extended header, footer, frame index, each compared with the others before it is believed.

A file may be written while it is opened, or be damaged; the two look alike at first. So what is wrong is looked at
again, until two looks find the same bytes, before anybody hears of it.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from mrcz.container.chunks import FOOTER_MARK, xxh64
from mrcz.container.footer import (
    TAIL_SIZE,
    TRAILER_SIZE,
    Footer,
    UnknownFooter,
    find_footer,
    load_footer,
    parse_trailer,
)
from mrcz.container.header.header import Header, claimed_nbytes
from mrcz.container.index import FrameIndex
from mrcz.container.walk import walk_chunks
from mrcz.errors import FormatError

__all__ = ["DAMAGED_EXTENDED", "ForeignFormatError", "Opened", "open_frames"]

DAMAGED_EXTENDED = "the extended header does not match its checksum: it is damaged"

# Seconds between two looks: what a writer does between two states that are whole takes microseconds, or one fsync.
_PAUSES = (0.001, 0.002, 0.004, 0.008, 0.016, 0.03, 0.06, 0.12, 0.25)

# Largest footer that comes with one request over a network: some 38000 frames with checksums and statistics.
_FOOTER_AHEAD = 1 << 20


class ForeignFormatError(FormatError):
    """A file of another format that can be read: by `mrcz.open`, not by `mrcz.Reader`."""


def claimed_in_wrapper(head: bytes, path: str) -> int:
    """Bytes that a file in gzip and the like may have at most, by the first 1024 of them.

    Raises
    ------
    ForeignFormatError
        It is no MRC file, but begins as one of another format.
    FormatError
        It is neither.
    """
    try:
        return claimed_nbytes(head, path)
    except FormatError as error:
        from mrcz.formats.registry import candidates

        if found := candidates(head):
            text = f"not an MRC file: it looks like {found[0].title}, which mrcz.open reads"
            raise ForeignFormatError(text, path=path) from error
        raise


@dataclass(frozen=True)
class Opened:
    """What is in a file.

    Attributes
    ----------
    header : Header
    extended_bytes : bytes or None
        None where reading it would cost a request, which is for whoever wants it.
    footer : Footer or None
    index : FrameIndex
        As many frames as are there.
    oddities : tuple of str
        What is unusual, `warnings` and `notes` among it.
    warnings : tuple of str
        What contradicts itself: the caller should be told.
    notes : tuple of str
        What is as it should be, and still not all that a newer version would see: the caller should be told, too.
    has_unknown_footer : bool
        There is a footer of another version. It counts as absent, but may hold what is nowhere else.
    """

    header: Header
    extended_bytes: bytes | None
    footer: Footer | None
    index: FrameIndex
    oddities: tuple[str, ...]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    has_unknown_footer: bool


class _Look:
    """One look at a file: finds out what `Opened` says, and collects what is wrong with it on the way."""

    header: Header
    extended_bytes: bytes | None
    index: FrameIndex

    def __init__(self, source: Any, *, permissive: bool, signed_bytes: bool | None) -> None:
        self.source, self.path = source, source.name
        self.permissive, self.signed_bytes = permissive, signed_bytes
        self.footer: Footer | None = None
        self.oddities: list[str] = []
        self.warnings: list[str] = []
        self.notes: list[str] = []
        self.has_unknown_footer = False
        # Over a network a request costs more than its bytes: the first one takes what may be an extended header along.
        raw = source.read(0, TAIL_SIZE if source.remote else 4096)
        if not source.remote:
            source.refresh()  # frames are there before a header that counts them: the size must not be older than it
        try:
            self._take_header(raw)
        except FormatError as error:
            self._refuse_foreign(error)
            raise
        self._check_plain_or_compressed()
        if not self.header.compressed:
            nz, stored = self.header.nz, self._stored
            offsets = self.header.data_offset + np.arange(nz, dtype=np.int64) * stored
            self.index = FrameIndex(offsets, np.full(nz, stored, np.int64))
        else:
            self.index = self._find_chunks()
        self.oddities[:0] = self.header.oddities

    # ---- header --------------------------------------------------------------------------------------------------

    def _take_header(self, raw: bytes) -> None:
        source = self.source
        unknown = source.remote and not source.knows_size
        self.header = self._parse(raw, None if unknown else source.size)
        if unknown and not self.header.compressed:
            self.header = self._parse(raw, source.size)
        start = self.header.data_offset
        self.extended_bytes = raw[1024:start] if start <= len(raw) else None
        if self.extended_bytes is None and not source.remote:
            self.extended_bytes = source.read(1024, start - 1024)

    def _parse(self, raw: bytes, size: int | None, permissive: bool | None = None) -> Header:
        return Header.parse(
            raw,
            file_size=size,
            permissive=self.permissive if permissive is None else permissive,
            signed_bytes=self.signed_bytes,
            path=self.path,
        )

    def _refuse_foreign(self, error: FormatError) -> None:
        """What is no MRC file by its sizes may be one of another format by its first bytes."""
        from mrcz.formats.registry import find_format

        if (known := find_format(self.source)) is not None:
            raise ForeignFormatError(
                f"not an MRC file: it looks like {known.title}, which mrcz.open reads", path=self.path
            ) from error

    @property
    def _stored(self) -> int:
        return self.header.frame_nbytes

    def _check_plain_or_compressed(self) -> None:
        """A MODE that says "not compressed" before a footer that says otherwise: chunks are no pixels."""
        source, header = self.source, self.header
        if header.compressed:
            return
        pixels_end = header.data_offset + header.nz * self._stored
        if source.remote and pixels_end == source.size and not header.packed_bytes:
            return  # nothing hints at a footer, and looking for it would cost a request
        try:
            tail = source.read(source.size - TRAILER_SIZE, TRAILER_SIZE) if source.size >= 2 * TRAILER_SIZE else b""
            if parse_trailer(tail, source.size) is None:
                return
            footer = load_footer(source.read, source.size, data_offset=0)
        except UnknownFooter as error:
            self._note(error)
            return
        except FormatError as error:
            self._warn(f"the file ends as a compressed one does, but MODE says that it is not ({error.message})")
            return
        if footer is not None:
            what = f"MODE {header.mode} says that the file is not compressed, the footer that it is"
            self._contradiction(footer, what)

    def _check_copy(self, footer: Footer) -> bool:
        """Compare the header with the footer's copy: True if the header was replaced by it."""
        copy = footer.header_copy
        if copy is None or copy == self.header.tobytes():
            return False
        try:
            other = self._parse(copy, None, permissive=False)
        except FormatError:
            return False  # a copy that is no header says nothing
        here = self.header
        differing = [
            f"{name} is {mine}, the copy has {its}"
            for name, mine, its in (
                ("NX", here.nx, other.nx),
                ("NY", here.ny, other.ny),
                ("MODE", here["mode"], other["mode"]),
                ("NSYMBT", here.nsymbt, other.nsymbt),
                ("the byte order", here.byteorder, other.byteorder),
                ("the dtype of pixels", here.pixel_format.dtype, other.pixel_format.dtype),
            )
            if mine != its and (name != "MODE" or here.mode != other.mode)
        ]
        if not differing:
            return False
        self._contradiction(footer, f"the header contradicts the footer's copy of it: {'; '.join(differing)}")
        return True

    def _contradiction(self, footer: Footer, what: str) -> None:
        """The header does not describe these pixels: an error, or the footer's copy of it in its place."""
        advice = "`mrcz recover` puts the footer's copy of the header back"
        if footer.header_copy is None:
            advice = "the footer has no copy of the header to put back"
        if not self.permissive or footer.header_copy is None:
            raise FormatError(f"{what}; {advice}", path=self.path)
        self._warn(f"{what}; the copy is used")
        self._take_header(footer.header_copy + self.source.read(1024, 4096))
        if not self.header.compressed:
            raise FormatError(f"{what}, and so does its copy", path=self.path)

    # ---- frames --------------------------------------------------------------------------------------------------

    def _find_chunks(self) -> FrameIndex:
        """The index: the footer's if it is sound, else from the chunks themselves (docs/container.md §3)."""
        source = self.source
        footer, problem = None, ""
        try:
            footer = self._load_footer()
        except UnknownFooter as error:
            self._note(error)
        except FormatError as error:
            problem = error.message
            with contextlib.suppress(FormatError):  # chunks that begin within the headers: is NSYMBT wrong?
                footer = load_footer(source.read, source.size)
        if footer is not None and self._check_copy(footer):
            problem = ""
        if problem:
            footer = None
            self._warn(f"{problem}; the frames were found without it")
        if footer is not None and len(footer.index) > self.header.nz and not source.remote:
            # A header is written before the footer of its frames, and may have been read before both.
            self._take_header(source.read(0, 4096))
        start, nz = self.header.data_offset, self.header.nz
        self.footer = footer
        known = FrameIndex.from_sizes([], 0) if footer is None else footer.index
        if len(known) < nz:
            # No footer, or an append was interrupted between its header and its footer: the rest is found by walking.
            at = known.end if len(known) else start
            walk = walk_chunks(
                source.read,
                at,
                source.size,
                nz - len(known),
                nbytes=self._stored,
                first_frame=len(known),
                read_ahead=TAIL_SIZE if source.remote else 16,
            )
            if footer is None and walk.end < source.size and not self.has_unknown_footer:
                known = self._last_footer(walk.end, walk.index)
            index = walk.index
            if len(known):
                index = FrameIndex.concatenate([known, index[len(known) :] if footer is None else index])
            if walk.defect is not None:
                walk.defect.path = self.path
                if not self.permissive or not len(index):
                    raise walk.defect
                self._warn(f"{walk.defect.message}: {len(index)} of {nz} frames are there")
            self.footer = footer or self.footer
            return index
        if footer is not None:
            if footer.header_hash not in (None, xxh64(self.header.tobytes())):
                self._warn("the header does not match its checksum: it was edited or damaged")
            if self.extended_bytes is not None and footer.extended_header_hash not in (
                None,
                xxh64(self.extended_bytes),
            ):
                self._warn(DAMAGED_EXTENDED)
        if len(known) > nz:
            self._warn(f"the footer knows {len(known)} frames, the header {nz}")
        return known[:nz] if len(known) > nz else known

    def _load_footer(self) -> Footer | None:
        source, start = self.source, self.header.data_offset
        if source.remote and (packed := self.header.packed_bytes):
            # The header says where the footer should be, so all of it comes at once, and without asking for the size of
            # the file first.
            at = start + packed
            if not source.knows_size:
                tail = source.read(at, _FOOTER_AHEAD)
                if tail[: len(FOOTER_MARK)] == FOOTER_MARK and len(tail) < _FOOTER_AHEAD:
                    source.size = at + len(tail)
                    return load_footer(source.read, at + len(tail), data_offset=start, tail=tail)
            elif TAIL_SIZE < source.size - at <= _FOOTER_AHEAD:
                tail = source.read(at, source.size - at)
                return load_footer(source.read, source.size, data_offset=start, tail=tail)
        if source.remote:
            return load_footer(source.read, source.size, data_offset=start)
        tail = source.read_tail(TAIL_SIZE)
        room = max(0, source.size - start)
        return load_footer(source.read, source.size, data_offset=start, tail=tail[max(0, len(tail) - room) :])

    def _last_footer(self, at: int, walked: FrameIndex) -> FrameIndex:
        """What a footer among the bytes behind the last frame knows of the frames: their writer was killed."""
        source = self.source
        try:
            found = find_footer(source.read, at, source.size, data_offset=self.header.data_offset)
        except UnknownFooter as error:
            self._note(error)
            self.oddities.append("the file was not closed: its footer is not at its end")
            return FrameIndex.from_sizes([], 0)
        if found is None:
            rest = source.size - at
            if source.read(at, len(FOOTER_MARK)) == FOOTER_MARK:
                if not self.warnings:  # else what is wrong with it has been said
                    self._warn(f"the footer, {rest} bytes, is damaged; the frames were found without it")
            else:
                self.oddities.append(f"{rest} bytes follow the last frame")
            return FrameIndex.from_sizes([], 0)
        n = min(len(found.index), len(walked))
        if not np.array_equal(found.index.offsets[:n], walked.offsets[:n]):
            return FrameIndex.from_sizes([], 0)
        if self._check_copy(found):
            raise FormatError("the header is damaged and the file was not closed: see `mrcz recover`", path=self.path)
        self.footer = found
        self.oddities.append("the file was not closed: its footer is not at its end")
        return found.index[:n]

    def result(self) -> Opened:
        return Opened(
            self.header,
            self.extended_bytes,
            self.footer,
            self.index,
            tuple(self.oddities),
            tuple(self.warnings),
            tuple(self.notes),
            self.has_unknown_footer,
        )

    def _note(self, error: UnknownFooter) -> None:
        self.has_unknown_footer = True
        self.oddities.append(error.message)
        self.notes.append(error.message)

    def _warn(self, text: str) -> None:
        self.oddities.append(text)
        self.warnings.append(text)


def open_frames(source: Any, *, permissive: bool = False, signed_bytes: bool | None = None) -> Opened:
    """Read everything but the pixels.

    Parameters
    ----------
    source : FileSource, ObjectSource or RemoteSource
    permissive : bool
        Take what is there of a damaged file.
    signed_bytes : bool, optional
        As in `mrcz.Reader`.

    Raises
    ------
    FormatError
        This is no MRC file, or it is damaged: the same in two looks at it.
    """
    before = None
    error: FormatError | None = None
    opened: Opened | None = None
    for pause in (*_PAUSES, None):
        error = opened = None
        try:
            opened = _Look(source, permissive=False, signed_bytes=signed_bytes).result()
        except ForeignFormatError:
            raise
        except FormatError as found:
            error = found
        if opened is not None and not opened.warnings:
            # A footer that is not there may be one that comes: where the file grew meanwhile, look for it.
            footless = opened.header.compressed and opened.footer is None
            if not (footless and not source.remote and source.grew()):
                return opened
        now = None if source.remote else source.state()
        if pause is None or now is None or now == before:
            break
        before = now
        time.sleep(pause)
        source.refresh()
    if error is None:
        assert opened is not None
        return opened
    if not permissive:
        raise error
    return _Look(source, permissive=True, signed_bytes=signed_bytes).result()
