"""A data set of an HDF5 file as frames: what of it is stored, and how one frame is read.

What lies in one piece, and chunks whose filters are known (`mrcz.formats._h5chunks`), are read by their place through
our source and decoded outside of HDF5's lock, so by many threads at once where a chunk has no more than one frame. All
else HDF5 reads: it fills what was never stored, or is in a file that is not there, with a value and says nothing, so
that is looked for before.
"""

from __future__ import annotations

import bisect
import itertools
import math
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import h5py
import numpy as np

from mrcz.errors import ChunkError, FormatError, MissingDependencyError
from mrcz.formats._h5chunks import SHUFFLE, decoder
from mrcz.formats._h5file import H5File, MissingLink
from mrcz.formats._words import in_our_words
from mrcz.formats.base import Frames, Window
from mrcz.storage.source import FileSource
from mrcz.storage.wrapped import open_regular

__all__ = ["FILTERS", "H5Frames", "Stack", "is_stack"]

#: What filters are called that a person may know.
FILTERS = {
    1: "gzip",
    4: "szip",
    5: "nbit",
    6: "scaleoffset",
    307: "bzip2",
    32000: "lzf",
    32001: "blosc",
    32004: "lz4",
    32008: "bitshuffle",
    32013: "zfp",
    32015: "zstd",
    32026: "blosc2",
}
_FLETCHER = 3
_OURS = {1, SHUFFLE, _FLETCHER, 4, 5, 6}  # of the HDF5 library itself; szip where it was built with it
_TABLE = 1 << 20  # chunks whose places are kept
_LARGE = 64 << 20  # bytes from which a claim is doubted
_SHRINK = 1 << 16  # times smaller than its pixels no chunk is: a block of zstd has 128 KiB at most and 4 bytes at least
_CACHE = 256 << 20  # bytes of decoded chunks that are kept, where a chunk has many frames


def is_stack(found: Any) -> bool:
    """Whether a data set holds numbers along two to four axes, none of them empty."""
    try:
        return (
            isinstance(found, h5py.Dataset)
            and found.shape is not None
            and 2 <= len(found.shape) <= 4
            and all(n > 0 for n in found.shape)
            and found.dtype.kind in "buifc"
            and found.dtype.subdtype is None
        )
    except (OSError, TypeError, ValueError, RuntimeError, KeyError):
        return False


class Stack:
    """A data set as frames.

    Parameters
    ----------
    file : H5File
        That it lies in.
    found : h5py.Dataset
    path : str
        As it is to be named.
    last : bool
        The frames are along the last axis (Velox), not along the first ones.
    permissive : bool
        Take a data set of which parts are not stored.

    Attributes
    ----------
    count, ny, nx : int
    dtype : numpy.dtype
    compression : str
    direct : bool
        Frames are read by their place.
    warnings : list of str

    Raises
    ------
    FormatError
        It holds no pixels, claims more than is there, or parts of it were never stored.
    MissingDependencyError
        A filter is not installed.
    """

    def __init__(self, file: H5File, found: Any, path: str, *, last: bool = False, permissive: bool = False) -> None:
        self.file, self.found, self.path, self.last = file, found, path, last
        self.warnings: list[str] = []
        self.permissive = permissive
        with in_our_words(f"{path} cannot be read", file.path):
            self._describe()
            self._check_storage()
        self._check_claims()

    # ---- what it is ------------------------------------------------------------------------------------------

    def _error(self, words: str) -> FormatError:
        return FormatError(f"{self.path} {words}", path=self.file.path)

    def _describe(self) -> None:
        found = self.found
        if not isinstance(found, h5py.Dataset):
            raise self._error("is a group, no data set")
        shape = found.shape
        if shape is None or not 2 <= len(shape) <= 4:
            raise self._error(f"has {0 if shape is None else len(shape)} axes, expected 2 to 4")
        if any(n < 1 for n in shape):
            raise self._error(f"has the shape {shape} and no pixels")
        dtype = found.dtype
        if dtype.kind not in "buifc" or dtype.itemsize > 16 or (dtype.kind == "f" and dtype.itemsize > 8):
            raise self._error(f"is of type {dtype}, which are no pixels")
        self.shape = tuple(int(n) for n in shape)
        self.typed = dtype.metadata is None  # an enumeration else, which HDF5 does not convert to a number
        self.dtype = np.dtype(dtype.str)
        self.lead = self.shape[-1:] if self.last and len(shape) == 3 else () if self.last else self.shape[:-2]
        self.last = self.last and len(shape) == 3
        self.count = math.prod(self.lead)
        self.ny, self.nx = self.shape[:2] if self.last else self.shape[-2:]
        self.frame_bytes = self.ny * self.nx * self.dtype.itemsize
        self.plist = found.id.get_create_plist()
        self.filters = [int(self.plist.get_filter(k)[0]) for k in range(self.plist.get_nfilters())]
        named = [FILTERS.get(one, f"filter {one}") for one in self.filters if one not in (SHUFFLE, _FLETCHER)]
        self.compression = "+".join(named) or "none"
        self._check_filters()

    def _check_filters(self) -> None:
        """Each filter is there that its chunks need."""
        size = self.found.id.get_type().get_size()
        for k, number in enumerate(self.filters):
            values = self.plist.get_filter(k)[2]
            if number == 32008 and (len(values) < 3 or values[2] != size):  # the plugin would divide by it
                raise self._error(f"is bitshuffled with {list(values)}, which is not of pixels of {size} bytes")
        absent = [one for one in self.filters if not h5py.h5z.filter_avail(one)]
        if absent and any(one not in _OURS for one in absent):
            try:
                import hdf5plugin  # noqa: F401 — HDF5 knows its filters from then on
            except ImportError:
                names = ", ".join(f"{FILTERS.get(one, 'a filter')} ({one})" for one in absent)
                raise MissingDependencyError(
                    f"{self.path} is compressed with {names}, for which the package hdf5plugin is needed: "
                    "pip install 'mrcz[hdf5]'",
                    path=self.file.path,
                ) from None
            size = self.found.id.get_type().get_size()
        for k, number in enumerate(self.filters):
            values = self.plist.get_filter(k)[2]
            if number == 32008 and (len(values) < 3 or values[2] != size):  # the plugin would divide by it
                raise self._error(f"is bitshuffled with {list(values)}, which is not of pixels of {size} bytes")
        absent = [one for one in self.filters if not h5py.h5z.filter_avail(one)]
        if absent:
            names = ", ".join(f"{FILTERS.get(one, 'number')} ({one})" for one in absent)
            raise self._error(f"is compressed with the HDF5 filter {names}, which neither HDF5 here nor hdf5plugin has")

    # ---- what of it is there ---------------------------------------------------------------------------------

    def _check_storage(self) -> None:
        """All of it is stored, in a file that is there; and by which way frames are read."""
        found = self.found
        self.place: int | None = None
        self.pieces: list[tuple[int, int, str, int]] = []  # of raw files: from, to, name, offset in it
        self.table: dict[tuple[int, ...], tuple[int, int, int]] | None = None
        self.decode: Callable[[bytes, np.ndarray], None] | None = None
        self.kept: dict[tuple[int, ...], np.ndarray] = {}
        self.lock = threading.Lock()
        self.deep = 1
        self.direct = False
        self.stored = int(found.id.get_storage_size())
        total = self.count * self.frame_bytes
        # What the numbers are in the file: HDF5 may store them with fewer bits, which only it unpacks.
        native = self.typed and self.dtype.kind in "uif" and found.id.get_type().equal(h5py.h5t.py_create(self.dtype))
        if found.is_virtual:
            self.stored = self._check_sources(found)
            # HDF5 finds the sources by the name of the file.
            self.found = self.file.by_name()[found.name]
            return
        if found.external:
            self._check_external(found.external, total, native)
            return
        if self.stored > self.file.source.size:
            raise self._error(
                f"claims {self.stored} bytes of pixels, the file has {self.file.source.size} bytes in all"
            )
        if found.chunks is not None:
            self._check_chunks(native)
            return
        if self.stored == 0:
            self._absent(f"was never written: {self.shape} {self.dtype} is what it says, and no byte of it is stored")
            return
        if self.stored < total:
            raise self._error(f"claims {total} bytes of pixels for {self.shape} {self.dtype}, {self.stored} are stored")
        place = found.id.get_offset()
        if place is not None and native and not self.last and not self.file.userblock:
            if place + total > self.file.source.size:
                raise self._error(
                    f"claims {total} bytes from byte {place} on, the file has {self.file.source.size} in all"
                )
            self.place, self.direct = int(place), True

    def _absent(self, words: str) -> None:
        """Something was never stored."""
        if not self.permissive:
            raise self._error(f"{words}; with permissive=True it is read as the fill value")
        if self.count * self.frame_bytes > _LARGE and self.stored * _SHRINK < self.count * self.frame_bytes:
            raise self._error(words)
        self.warnings.append(f"{self.path} {words}: it is read as the fill value")

    def _check_external(self, files: Any, total: int, native: bool) -> None:
        """The raw files of a data set are there, as long as they have to be, and nowhere else than beside this file.

        They are read here: HDF5 looks for them from where the process is.
        """
        if not native or self.last:
            raise self._error(
                f"is stored in other files and of a type that only HDF5 unpacks: {self.found.id.get_type()}"
            )
        within = os.path.realpath(self.file.folder or "") + os.sep
        start = 0
        for name, offset, size in files:
            place = self.file.beside(name, f"{self.path} is stored in another file, and this")
            if not os.path.realpath(place).startswith(within):
                raise self._error(f"is stored in {name}, outside of the folder of this file: that is not read")
            wanted = min(total - start, int(size))  # of unlimited size is a number larger than any
            there = max(0, os.path.getsize(place) - int(offset))
            if there < wanted:
                raise self._error(f"is stored in {name}, of which {wanted - there} bytes are missing")
            self.pieces.append((start, start + wanted, place, int(offset)))
            start += wanted
        if start < total:
            raise self._error(f"claims {total} bytes of pixels, the files it is stored in are to have {start}")
        self.stored, self.place, self.direct = total, 0, True

    def _check_sources(self, found: Any, depth: int = 0) -> int:
        """Bytes stored for a virtual data set; every source of it is there, and all of it comes from one."""
        if depth > 8:
            raise self._error("is virtual, of virtual ones, more than 8 deep")
        mapped = stored = 0
        for source in found.virtual_sources():
            name, path = source.file_name, "/" + source.dset_name.lstrip("/")
            if "%b" in name or "%b" in path:
                raise self._error(f"takes its pixels from a pattern of names ({name}, {path}), which is not read")
            here = self.file if name == "." else self.file.follow(name, f"{self.path} is virtual, and a source of it")
            try:
                owner, part = here.find(path)
            except MissingLink as error:
                raise MissingLink(
                    f"{self.path} is virtual, and misses a source: {error.message}", path=error.path
                ) from None
            mapped += int(source.vspace.get_select_npoints())
            if part.is_virtual:
                stored += self._check_sources(part, depth + 1)
            else:
                stored += self._check_source(owner, part, path)
        if mapped < math.prod(found.shape):
            self._absent(f"is virtual, and {math.prod(found.shape) - mapped} of its pixels have no source")
        return stored

    def _check_source(self, owner: H5File, part: Any, path: str) -> int:
        """Bytes stored of a data set that is a source of this one."""
        if 2 <= part.ndim <= 4:
            source = Stack(owner, part, path, permissive=self.permissive)
            self.warnings += source.warnings
            return source.stored
        stored = int(part.id.get_storage_size())
        grid = [-(-n // c) for n, c in zip(part.shape, part.chunks or part.shape, strict=True)]
        if part.external or stored == 0 or (part.chunks and part.id.get_num_chunks() < math.prod(grid)):
            self._absent(f"is virtual, and its source {path} is not stored, or not all of it")
        return stored

    def _check_chunks(self, native: bool) -> None:
        """Every chunk is stored; where each lies, if there are not too many."""
        found, chunk = self.found, self.found.chunks
        grid = [-(-n // c) for n, c in zip(self.shape, chunk, strict=True)]
        expected, there = math.prod(grid), int(found.id.get_num_chunks())
        places: dict[tuple[int, ...], tuple[int, int, int]] = {}
        if there <= _TABLE:
            size = self.file.source.size
            left_out = (1 << len(self.filters)) - 1

            def note(info: Any) -> None:
                if not self.file.userblock and info.byte_offset + info.size > size:
                    raise self._error(
                        f"has a chunk of {info.size} bytes at byte {info.byte_offset}, the file has {size} in all"
                    )
                if info.size <= 4 * self.filters.count(_FLETCHER):  # HDF5 would read before the chunk's first byte
                    raise self._error(f"has a chunk of {info.size} bytes at byte {info.byte_offset}")
                corner = tuple(int(k) for k in info.chunk_offset)
                if any(k % c or k >= n for k, c, n in zip(corner, chunk, self.shape, strict=True)):
                    raise self._error(f"has a chunk at {corner}, where none begins")
                places[corner] = (int(info.byte_offset), int(info.size), int(info.filter_mask) & left_out)

            found.id.chunk_iter(note)
            there = len(places)
        if there < expected:
            first = next(
                (k for k in range(min(self.count, _TABLE)) if not self._whole(k, places)),
                0,
            )
            self._absent(f"has {there} of its {expected} chunks; frame {first} is the first that was never written")
        # How many frames a chunk has: it is decoded for each of them, unless it is kept.
        self.deep = math.prod(chunk) // (math.prod(chunk[:2]) if self.last else math.prod(chunk[-2:]))
        # A filter that would not shrink a chunk is left out, as the mask says: all of them, or none, is known here.
        masks = {mask for _, _, mask in places.values()} <= {0, (1 << len(self.filters)) - 1}
        if native and masks and not self.file.userblock and (len(places) == expected or there < expected <= _TABLE):
            values = [self.plist.get_filter(k) for k in range(len(self.filters))]
            self.decode = decoder([(int(one[0]), one[2]) for one in values], self.dtype.itemsize)
            self.table = None if self.decode is None else places
        self.direct = self.table is not None and self.deep == 1
        if self.table is None:
            self._cache(chunk)

    def _whole(self, number: int, places: dict[tuple[int, ...], Any]) -> bool:
        """Whether the first chunk of a frame is stored."""
        at = [int(k) for k in np.unravel_index(number, self.lead)] if self.lead else []
        corner = [0, 0, *at] if self.last else [*at, 0, 0]
        return tuple(k - k % c for k, c in zip(corner, self.found.chunks, strict=True)) in places

    def _cache(self, chunk: tuple[int, ...]) -> None:
        """Let HDF5 keep the chunks of a frame where they hold other frames too: each would be decoded once a frame."""
        if self.deep < 2:
            return
        along = zip((self.ny, self.nx), chunk[:2] if self.last else chunk[-2:], strict=True)
        needed = math.prod(chunk) * self.dtype.itemsize * math.prod(-(-n // c) for n, c in along)
        access = h5py.h5p.create(h5py.h5p.DATASET_ACCESS)
        access.set_chunk_cache(12421, min(needed, _CACHE), 0.75)
        self.found = h5py.Dataset(h5py.h5d.open(self.file.root.id, self.found.name.encode(), access))

    def _check_claims(self) -> None:
        """No frame, and no chunk that has to be decoded for it, is larger than anything that shrinks to what is
        stored."""
        chunk = self.found.chunks
        most = max(self.frame_bytes, math.prod(chunk) * self.dtype.itemsize if chunk else 0)
        if most > _LARGE and self.stored * _SHRINK < most:
            raise self._error(f"claims {most} bytes a frame or chunk, and has {self.stored} bytes stored in all")

    # ---- frames ----------------------------------------------------------------------------------------------

    def read(self, number: int, window: Window | None, out: np.ndarray) -> None:
        """A frame, or a window (y0, y1, x0, x1) of it, into out.

        Raises
        ------
        FormatError
            It is damaged.
        """
        y0, y1, x0, x1 = window if window is not None else (0, self.ny, 0, self.nx)
        if self.place is not None:
            row = self.nx * self.dtype.itemsize
            if window is None and out.flags.c_contiguous and out.dtype == self.dtype and self._straight(number, out):
                return
            raw = self._bytes(self.place + (number * self.ny + y0) * row, (y1 - y0) * row)
            out[...] = np.frombuffer(raw, self.dtype).reshape(y1 - y0, self.nx)[:, x0:x1]
        elif self.table is not None:
            self._of_chunks(number, (y0, y1, x0, x1), out)
        else:
            self._through_hdf5(number, (slice(y0, y1), slice(x0, x1)), out)

    def _through_hdf5(self, number: int, area: tuple[slice, slice], out: np.ndarray) -> None:
        at = tuple(int(k) for k in np.unravel_index(number, self.lead)) if self.lead else ()
        where = (*area, *at) if self.last else (*at, *area)
        with in_our_words(f"{self.path} cannot be read", self.file.path):
            if self.typed and out.flags.c_contiguous and out.dtype == self.dtype:
                self.found.read_direct(out, where)
            else:
                out[...] = self.found[where]

    def _bytes(self, place: int, n: int) -> bytes:
        if self.pieces:
            return b"".join(self._of_pieces(place, place + n))
        raw = self.file.source.read(place, n)
        if len(raw) != n:
            raise ChunkError(f"{n} bytes are expected, {len(raw)} are there", offset=place, path=self.file.path)
        return raw

    def _straight(self, number: int, out: np.ndarray) -> bool:
        """A plain frame straight into out, where the system can read so."""
        source = self.file.source
        if self.pieces or self.place is None or not isinstance(source, FileSource) or not hasattr(os, "preadv"):
            return False
        view = out.reshape(-1).view(np.uint8).data
        begin, done = self.place + number * self.frame_bytes, 0
        with source as fd:
            while done < len(view):
                got = os.preadv(fd, [view[done:]], begin + done)
                if not got:
                    raise ChunkError(
                        f"{len(view)} bytes are expected, {done} are there", offset=begin, path=self.file.path
                    )
                done += got
        return True

    def _of_pieces(self, begin: int, end: int) -> Iterator[bytes]:
        """Bytes of a data set in raw files."""
        for first, last, name, offset in self.pieces:
            low, high = max(begin, first), min(end, last)
            if low >= high:
                continue
            try:
                with open_regular(name) as file:
                    file.seek(offset + low - first)
                    raw = file.read(high - low)
            except OSError as error:
                raise ChunkError(f"{name} cannot be read: {error.strerror}", path=self.file.path) from error
            if len(raw) != high - low:
                raise ChunkError(f"{name} is shorter than it was", path=self.file.path)
            yield raw

    def _of_chunks(self, number: int, window: Window, out: np.ndarray) -> None:
        """A window of a frame, from the chunks that have a part of it."""
        y0, y1, x0, x1 = window
        chunk = self.found.chunks
        at = [int(k) for k in np.unravel_index(number, self.lead)] if self.lead else []
        cy, cx = chunk[:2] if self.last else chunk[-2:]
        lead = chunk[2:] if self.last else chunk[:-2]
        first = [k - k % c for k, c in zip(at, lead, strict=True)]
        within = tuple(k % c for k, c in zip(at, lead, strict=True))
        whole = (y0, y1, x0, x1) == (0, self.ny, 0, self.nx) and (cy, cx) == (self.ny, self.nx) and self.deep == 1
        if whole and out.flags.c_contiguous and out.dtype == self.dtype:
            self._decode(tuple([0, 0, *first] if self.last else [*first, 0, 0]), out)
            return
        for y in range(y0 - y0 % cy, y1, cy):
            for x in range(x0 - x0 % cx, x1, cx):
                corner = tuple([y, x, *first] if self.last else [*first, y, x])
                found = self._chunk(corner)
                image = found[(slice(None), slice(None), *within)] if self.last else found[within]
                top, bottom, left, right = max(y, y0), min(y + cy, y1), max(x, x0), min(x + cx, x1)
                out[top - y0 : bottom - y0, left - x0 : right - x0] = image[top - y : bottom - y, left - x : right - x]

    def _chunk(self, corner: tuple[int, ...]) -> np.ndarray:
        """A chunk, decoded; some are kept where each has several frames."""
        shape = self.found.chunks
        if self.deep == 1:
            made = np.empty(shape, self.dtype)
            self._decode(corner, made)
            return made
        with self.lock:  # for threads that ask for frames of one chunk
            if corner not in self.kept:
                made = np.empty(shape, self.dtype)
                while self.kept and (len(self.kept) + 1) * made.nbytes > _CACHE:
                    self.kept.pop(next(iter(self.kept)))
                self._decode(corner, made)
                self.kept[corner] = made
            return self.kept[corner]

    def _decode(self, corner: tuple[int, ...], out: np.ndarray) -> None:
        """The chunk that begins at a corner into out, C-contiguous."""
        assert self.table is not None and self.decode is not None
        if corner not in self.table:  # as was told when the file was opened
            with in_our_words(f"{self.path} cannot be read", self.file.path):
                out[...] = self.found.fillvalue
            return
        place, size, mask = self.table[corner]
        raw = self._bytes(place, size)
        flat = out.reshape(-1).view(np.uint8)
        try:
            if mask and len(raw) != len(flat):
                raise ChunkError(f"the chunk has {len(raw)} bytes of pixels, {len(flat)} are expected")
            if mask:
                flat[:] = np.frombuffer(raw, np.uint8)
            else:
                self.decode(raw, flat)
        except ChunkError as error:
            raise ChunkError(f"{self.path}: {error.message}", offset=place, path=self.file.path) from None


class H5Frames(Frames):
    """The frames of one data set, or of several one after the other.

    Parameters
    ----------
    file : H5File
        Closed with this.
    stacks : sequence of Stack
        At least one, all of one shape and type.
    layout : str
        Which of the layouts the file has: ``"hdf5"``, ``"nexus"``, ``"velox"``, ``"emd"``, ``"hyperspy"``.
    metadata : mapping
    pixel_size : tuple of float
        (x, y, z), Å.
    kind : str, optional
        Default: an image where there is one frame, else a stack.
    oddities, warnings : sequence of str
    frame_metadata : callable, optional
        Gives them, when they are asked for.
    """

    def __init__(
        self,
        file: H5File,
        stacks: Sequence[Stack],
        *,
        layout: str = "hdf5",
        metadata: Mapping[str, Any] | None = None,
        pixel_size: tuple[float, float, float] = (0.0, 0.0, 0.0),
        kind: str | None = None,
        oddities: Sequence[str] = (),
        warnings: Sequence[str] = (),
        frame_metadata: Callable[[], list[dict[str, Any]]] | None = None,
    ) -> None:
        first = stacks[0]
        for stack in stacks:
            if (stack.ny, stack.nx, stack.dtype) != (first.ny, first.nx, first.dtype):
                raise FormatError(
                    f"{stack.path} has frames of {stack.ny} x {stack.nx} {stack.dtype}, {first.path} of "
                    f"{first.ny} x {first.nx} {first.dtype}: no movie has both",
                    path=file.path,
                )
        self.file, self.stacks, self.layout = file, list(stacks), layout
        self.starts = list(itertools.accumulate((stack.count for stack in stacks), initial=0))
        self.shape = (self.starts[-1], first.ny, first.nx)
        self.dtype = first.dtype
        self.compression = first.compression
        self.kind = kind or ("image" if len(first.shape) == 2 and len(stacks) == 1 else "stack")
        self.metadata = metadata or {}
        self.pixel_size = pixel_size
        self.oddities = tuple(oddities)
        self.warnings = (*warnings, *(word for stack in stacks for word in stack.warnings))
        # What HDF5 reads, it reads for one thread at a time.
        self.concurrent = all(stack.direct for stack in stacks)
        self._said = frame_metadata

    def _stack(self, number: int) -> tuple[Stack, int]:
        k = bisect.bisect_right(self.starts, number) - 1
        return self.stacks[k], number - self.starts[k]

    def read_frame(self, number: int, out: np.ndarray) -> None:
        stack, k = self._stack(number)
        stack.read(k, None, out)

    def read_window(self, number: int, window: Window, out: np.ndarray) -> None:
        stack, k = self._stack(number)
        stack.read(k, window, out)

    @property
    def frame_metadata(self) -> list[dict[str, Any]]:
        with in_our_words("the metadata of frames cannot be read", self.file.path):
            return [] if self._said is None else self._said()

    def close(self) -> None:
        self.file.close()
