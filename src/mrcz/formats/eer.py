"""Electron-event files (EER) of Thermo Fisher's Falcon 4, 4i and C: where each electron fell, frame by frame.

Layout: "EER File Format" 3.0 (Thermo Fisher Scientific, 2023): a BigTIFF with a directory for each frame, whose strips
are one stream of bits (`_cmrcz.eer`). 65001 and 65002 are numbers of compressions and, as well, of fields: acquisition
and frame metadata. A first directory without compression is the camera's own sum, the *final image*.

* Several hundred frames are usual, of which some are added to one: `fraction`. What is left over becomes a shorter
  last fraction, where RELION drops it; as nothing is wrong with such a file it stands among the oddities, and in
  ``frame_metadata`` each fraction has its number of frames.
* Compression 65000 is read in two ways by different programs: after a run of 255 pixels comes the next run (the vendor,
  imagecodecs), or a place of 4 bits that means nothing (RELION). Only one adds up to the frame's pixels. The first
  frame that tells them apart decides for the file.
* Rows come as they are stored; the Orientation field is told in the metadata and not followed, as by RELION and
  tifffile. A ``.gain`` reference lies as the frames do.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from _cmrcz import eer as core
from _cmrcz.status import CoreError
from mrcz.errors import ChunkError, FormatError
from mrcz.formats import _eer_metadata as said
from mrcz.formats._tiff_tags import Directory, TiffFile
from mrcz.formats.base import Bytes, FormatOptions, Frames

__all__ = ["EerFrames", "FinalImage", "matches", "open_frames"]

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _OFFSETS, _ORIENTATION, _COUNTS = 256, 257, 258, 259, 273, 274, 279
_ACQUISITION, _ABOUT_FRAME, _ABOUT_FINAL = 65001, 65002, 65006
_CODE = (65007, 65008, 65009)
_TAGS = frozenset((_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _OFFSETS, _ORIENTATION, _COUNTS, _ACQUISITION, _ABOUT_FRAME,
                   _ABOUT_FINAL, *_CODE))  # fmt: skip
_EVENTS = {65000: (8, 2, 2), 65001: (7, 2, 2), 65002: None}  # bits of a run, and of a place along x and y
_PLAIN = 1
_NEAR = 1024  # bytes read where a directory is: its frame lies between it and the next
_MOST_SIDE = 1 << 16  # pixels
_MOST_STRIPS = 1 << 16  # of a frame
_MOST_SAID = 1 << 14  # bytes of what is said of one frame; 600 are usual
_BATCH = 64 << 20  # bytes of frames that are read before they are decoded
_DOUBTFUL = 1000  # times larger than its bytes, from which on a frame is followed before memory is taken for it
_SMALL = 1 << 20  # bytes of a frame that nobody need worry about
_FEW = 4  # frames that are added to a sum at once; more go through a small image first


class _Stored(NamedTuple):
    """A frame of the camera: its directory and its strips, (offset, bytes)."""

    directory: Directory
    strips: tuple[tuple[int, int], ...]

    @property
    def size(self) -> int:
        return sum(size for _, size in self.strips)


def matches(source: Bytes) -> bool:
    """Whether the first or second directory is of electron events."""
    try:
        tiff = TiffFile(source, _NEAR)
        for directory in tiff.walk((_COMPRESSION,)):
            if directory.one(_COMPRESSION, _PLAIN) in _EVENTS:
                return True
            if directory.number == 1:
                break
    except FormatError:
        pass
    return False


def open_frames(source: Bytes, options: FormatOptions) -> Frames:
    """Open an electron-event file; with ``dataset="final"`` the camera's own sum in it."""
    if options.dataset not in (None, "frames", "final"):
        raise ValueError(f"an EER file has the datasets 'frames' and 'final', not {options.dataset!r}")
    if options.dataset == "final":
        return FinalImage(source)
    return EerFrames(source, options)


class EerFrames(Frames):
    """The frames of an electron-event file, or fractions of several of them.

    Attributes
    ----------
    code : (int, int, int)
        Bits of a run, of a place along x, of a place along y.
    camera_frames : int
        Frames of the camera.
    fraction : int
        Of which so many are added to one.
    upsampling : int
    """

    concurrent = True

    def __init__(self, source: Bytes, options: FormatOptions) -> None:
        self.source = source
        self.final: Directory | None = None
        self.stored: list[_Stored] = []
        self.upsampling = options.upsampling
        self._strips = 0
        self._wasteful: bool | None = None
        self._lock = threading.Lock()
        self._list(options.permissive)
        first = self.stored[0].directory
        self.number = first.one(_COMPRESSION)
        self.code = self._code(first)
        self.detector = self._detector(first)
        self._compare(options.permissive)
        if self.upsampling > 2 ** min(self.code[1:]):
            raise ValueError(
                f"{source.name}: upsampling {self.upsampling}, places of {self.code[1]} and {self.code[2]} bits are "
                f"stored: {2 ** min(self.code[1:])} at most"
            )
        self.camera_frames = count = len(self.stored)
        self.fraction = min(options.fraction or 1, count)
        self.shape = (-(-count // self.fraction), *(n * self.upsampling for n in self.detector))
        self.dtype = np.dtype("u1" if self.fraction <= 255 else "u2" if self.fraction <= 65535 else "u4")
        self.compression = f"eer {self.number}"
        if count % self.fraction:
            self.oddities += (
                f"the last of {self.shape[0]} fractions has {count % self.fraction} frames, the others {self.fraction}",
            )
        self._describe(first)

    # ---- what is in the file ----

    def _list(self, permissive: bool) -> None:
        other = 0
        try:
            for directory in TiffFile(self.source, _NEAR).walk(_TAGS):
                kind = directory.one(_COMPRESSION, _PLAIN)
                if kind in _EVENTS:
                    self.stored.append(self._stored(directory))
                elif kind == _PLAIN and directory.number == 0:
                    self.final = directory
                else:
                    other += 1
        except FormatError as error:
            if not permissive or not self.stored:
                raise
            self.warnings += (f"{error.message}: {len(self.stored)} frames before it are there",)
        if not self.stored:
            raise FormatError("no directory of this file has electron events", path=self.source.name)
        if other:
            self.oddities += (f"{other} directories of other compressions are passed over",)

    def _stored(self, directory: Directory) -> _Stored:
        offsets = directory.whole(_OFFSETS, _MOST_STRIPS)
        counts = directory.whole(_COUNTS, _MOST_STRIPS)
        self._strips += len(offsets)
        if 4 * self._strips > self.source.size:
            raise directory.wrong(f"{self._strips} strips to here, whose places alone would fill the file")
        if not offsets or len(offsets) != len(counts):
            raise directory.wrong(f"it has {len(offsets)} offsets and {len(counts)} sizes of strips")
        for offset, size in zip(offsets, counts, strict=True):
            if offset + size > self.source.size:
                raise directory.wrong(
                    f"its strip of {size} bytes at byte {offset} ends beyond the file's {self.source.size}"
                )
        return _Stored(directory, tuple(zip(offsets, counts, strict=True)))

    def _code(self, directory: Directory) -> tuple[int, int, int]:
        known = _EVENTS[directory.one(_COMPRESSION)]
        if known is not None:
            return known
        skip, across, down = (directory.one(tag) for tag in _CODE)
        if not (2 <= skip <= 16 and across <= 4 and down <= 4):
            raise directory.wrong(f"codes of {skip} + {across} + {down} bits, which no camera writes")
        return skip, across, down

    def _detector(self, directory: Directory) -> tuple[int, int]:
        height, width = (directory.one(tag) for tag in (_HEIGHT, _WIDTH))
        if not (1 <= height <= _MOST_SIDE and 1 <= width <= _MOST_SIDE):
            raise directory.wrong(f"a frame of {height} x {width} pixels")
        return height, width

    def _compare(self, permissive: bool) -> None:
        """All frames are alike, and their bytes can be so many pixels: nothing is as long as a run of all ones."""
        height, width = self.detector
        skip = self.code[0]
        for k, stored in enumerate(self.stored):
            here = stored.directory
            number, detector = here.one(_COMPRESSION), self._detector(here)
            if (number, detector) != (self.number, self.detector) or self._code(here) != self.code:
                wrong = here.wrong(
                    f"frame {k} has compression {number} and {detector[0]} x {detector[1]} pixels, the first "
                    f"{self.number} and {height} x {width}",
                )
            elif height * width > (8 * stored.size // skip) * ((1 << skip) - 1):
                wrong = here.wrong(
                    f"frame {k} has {stored.size} bytes, which cannot be the runs of {height} x {width} pixels"
                )
            else:
                continue
            if not permissive or k == 0:
                raise wrong
            self.warnings += (f"{wrong.message}: {k} frames before it are there",)
            del self.stored[k:]
            return

    def _text(self, directory: Directory, tag: int, most: int = said.MOST) -> str:
        raw = directory.raw(tag, most)
        return said.decoded(raw) if raw else ""

    def _describe(self, first: Directory) -> None:
        owner = self.final if self.final is not None and _ACQUISITION in self.final.tags else first
        acquisition = self._text(owner, _ACQUISITION)
        found, oddities = said.parse(acquisition)
        self.oddities += tuple(f"acquisition metadata: {oddity}" for oddity in oddities)
        self.metadata = said.acquisition(
            found,
            frames=self.camera_frames,
            fraction=self.fraction,
            upsampling=self.upsampling,
            original={
                "acquisition": acquisition,
                "final": self._text(self.final, _ABOUT_FINAL) if self.final is not None else "",
                "compression": self.number,
                "code": list(self.code),
                "orientation": first.one(_ORIENTATION, 1),
            },
        )
        x, y = self.metadata.get("pixel_size", (0.0, 0.0))
        self.pixel_size = (x, y, 0.0)

    @property
    def frame_metadata(self) -> list[dict[str, Any]]:
        """Of each fraction: how many frames are in it, the time of the first, the electrons a pixel that the camera
        counted in all."""
        found = []
        for k in range(self.shape[0]):
            texts = [self._text(self.stored[j].directory, _ABOUT_FRAME, _MOST_SAID) for j in self._members(k)]
            found.append(said.fraction(texts))
        return found

    # ---- electrons ----

    def _members(self, number: int) -> range:
        """The camera's frames that fraction `number` is made of."""
        return range(number * self.fraction, min((number + 1) * self.fraction, self.camera_frames))

    def _bytes(self, k: int) -> bytes:
        parts = []
        for offset, size in self.stored[k].strips:
            part = self.source.read(offset, size)
            if len(part) != size:
                raise ChunkError(f"the file ends after {len(part)} of {size} bytes of a strip", frame=k, offset=offset)
            parts.append(part)
        return b"".join(parts)

    @property
    def wasteful(self) -> bool:
        """Places follow runs of all ones, as RELION reads compression 65000."""
        if self._wasteful is None:
            with self._lock:
                if self._wasteful is None:
                    self._wasteful = self.number == 65000 and self._settle()
        return self._wasteful

    def _settle(self) -> bool:
        """What the first frame says that can be read in one of the two ways alone, and is not the same in both."""
        for k in range(self.camera_frames):
            frame = self._bytes(k)
            adds_up = [self._follows(frame, wasteful) for wasteful in (False, True)]
            if adds_up[0] != adds_up[1]:
                return adds_up[1]
        return False

    def _follows(self, frame: bytes, wasteful: bool) -> bool:
        try:
            core.walk(frame, shape=self.detector, code=self.code, wasteful=wasteful)
        except CoreError:
            return False
        return True

    def _batches(self, members: Sequence[int]) -> list[list[int]]:
        """The camera's frames in groups whose bytes are held at a time."""
        found: list[list[int]] = []
        room = 0
        for k in members:
            if self.stored[k].size > room:
                found.append([])
                room = _BATCH
            found[-1].append(k)
            room -= self.stored[k].size
        return found

    def _render(self, members: Sequence[int], out: np.ndarray, fraction: int | None) -> None:
        done = 0
        way: dict[str, Any] = {
            "shape": self.detector,
            "code": self.code,
            "wasteful": self.wasteful,
            "upsampling": self.upsampling,
        }
        for batch in self._batches(members):
            frames = [self._bytes(k) for k in batch]
            try:
                if out.dtype == np.int64:
                    core.add_frames(frames, out, **way)
                else:
                    core.render_frames(frames, out, before=done, **way)
            except CoreError as error:
                raise self._named(error, batch[error.frame or 0], fraction) from None
            done += len(batch)

    def _named(self, error: CoreError, k: int, fraction: int | None) -> ChunkError:
        message = error.message if self.fraction == 1 else f"frame {k} of the camera: {error.message}"
        return ChunkError(
            message, frame=k // self.fraction if fraction is None else fraction, offset=self.stored[k].strips[0][0]
        )

    def read_frame(self, number: int, out: np.ndarray) -> None:
        self._render(self._members(number), out, number)

    def add_frames(self, numbers: np.ndarray, total: np.ndarray, threads: int) -> bool:
        if total.dtype != np.int64 or not total.flags.c_contiguous or total.shape != self.shape[1:]:
            return False
        members = [k for number in numbers for k in self._members(int(number))]
        if len(members) <= _FEW:
            self._render(members, total, None)
            return True
        threads = max(1, min(threads, len(members) // _FEW))
        share = min(255, -(-len(members) // threads))
        lock = threading.Lock()

        def some(first: int) -> None:
            # Bytes, as a sum in 64 bits is eight times as much memory to go through; 255 frames fit them.
            image = np.empty(total.shape, np.uint8)
            self._render(members[first : first + share], image, None)
            with lock:
                np.add(total, image, out=total)

        with ThreadPoolExecutor(threads) as pool:
            for _ in pool.map(some, range(0, len(members), share)):
                pass
        return True

    def check_claims(self, numbers: np.ndarray) -> None:
        pixels = self.shape[1] * self.shape[2] * self.dtype.itemsize
        if pixels <= _SMALL:
            return
        for number in numbers:
            for k in self._members(int(number)):
                if self.stored[k].size * _DOUBTFUL < pixels:
                    try:
                        core.walk(self._bytes(k), shape=self.detector, code=self.code, wasteful=self.wasteful)
                    except CoreError as error:
                        raise self._named(error, k, int(number)) from None

    def read_events(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Where the electrons of the camera's frame `k` fell, in the order of its pixels.

        Returns
        -------
        x, y : (n,) int64
            In pixels of the finest grid, 2^bits for one of the detector (4 of a Falcon 4, 2 of a Falcon C).
        """
        frame = self._bytes(k)
        across, down = self.code[1:]
        events = np.empty(8 * len(frame) // sum(self.code) + 64, np.uint64)
        try:
            n = core.list_events(frame, events, shape=self.detector, code=self.code, wasteful=self.wasteful)
        except CoreError as error:
            raise self._named(error, k, None) from None
        events = events[:n].astype(np.int64)
        y, x = np.divmod(events >> 8, self.detector[1])
        place = events & 255
        # "sub ^ bits": how the vendor's reader turns a place round
        return (x << across) + ((place & (1 << across) - 1) ^ across), (y << down) + ((place >> across) ^ down)


class FinalImage(Frames):
    """The sum that the camera's own software made, beside the events: (1, ny, nx) uint16."""

    kind = "image"

    def __init__(self, source: Bytes) -> None:
        self.source = source
        tiff = TiffFile(source, _NEAR)
        first = next(tiff.walk(_TAGS), None)
        if first is None or first.one(_COMPRESSION, _PLAIN) != _PLAIN:
            raise FormatError("this file has no final image", path=source.name)
        height, width = first.one(_HEIGHT), first.one(_WIDTH)
        bits = first.one(_BITS)
        if bits != 16 or not (1 <= height <= _MOST_SIDE and 1 <= width <= _MOST_SIDE):
            raise first.wrong(f"a final image of {height} x {width} pixels of {bits} bits")
        offsets = first.whole(_OFFSETS, _MOST_STRIPS)
        counts = first.whole(_COUNTS, _MOST_STRIPS)
        if len(offsets) != len(counts) or sum(counts) != 2 * height * width:
            raise first.wrong(f"strips of {sum(counts)} bytes for {height} x {width} pixels of 16 bits")
        for offset, size in zip(offsets, counts, strict=True):
            if offset + size > source.size:
                raise first.wrong(f"its strip at byte {offset} ends beyond the file's {source.size}")
        self.strips = list(zip(offsets, counts, strict=True))
        self.shape = (1, height, width)
        self.dtype = np.dtype(tiff.order + "u2")
        texts = [said.decoded(first.raw(tag, said.MOST) or b"") for tag in (_ACQUISITION, _ABOUT_FINAL)]
        self.metadata = said.final(*texts)

    def read_frame(self, number: int, out: np.ndarray) -> None:
        raw = out.reshape(-1).view(np.uint8)
        at = 0
        for offset, size in self.strips:
            part = self.source.read(offset, size)
            if len(part) != size:
                raise ChunkError(f"the file ends after {len(part)} of {size} bytes of a strip", offset=offset)
            raw[at : at + size] = np.frombuffer(part, np.uint8)
            at += size
