"""What a foreign format gives: its frames, behind one interface, and what it says about itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

__all__ = ["Bytes", "Format", "FormatOptions", "Frames", "Pieces", "Window", "plain_frames", "whole_frames"]

Window = tuple[int, int, int, int]  # (y0, y1, x0, x1)


class Bytes(Protocol):
    """Where the bytes of a file come from: a `mrcz.storage` source. Reading by place is safe from many threads."""

    name: str

    @property
    def size(self) -> int:
        """Bytes of the file."""
        ...

    def read(self, offset: int, n: int) -> bytes:
        """n bytes from offset on; fewer only at the end of the file."""
        ...


@dataclass(frozen=True)
class FormatOptions:
    """What a caller says about reading a foreign file; a format takes what concerns it.

    Attributes
    ----------
    dataset : str or None
        Which of several: the path of a data set (HDF5, Zarr), the number of a series (TIFF, EMI).
    fraction : int or None
        Frames of an electron-event file that are added up to one. None: each by itself.
    upsampling : int
        Of an electron-event file: 1, 2 or 4 pixels for each of the detector's, along x and along y.
    n_threads : int or None
    permissive : bool
        Take what is there of a damaged file.
    """

    dataset: str | None = None
    fraction: int | None = None
    upsampling: int = 1
    n_threads: int | None = None
    permissive: bool = False


@dataclass(frozen=True, eq=False)
class Pieces:
    """Where in a file the bytes of its frames lie, and how they are made of the pixels.

    A frame is cut into parts, row by row; those of all frames follow one another in the file, with other bytes between.
    That this is so is proven byte by byte before anybody relies on it: a format that is wrong here loses nothing.

    Attributes
    ----------
    offsets, nbytes : (nz, n) uint64
        Of each part in the file.
    dtype : numpy.dtype
        Of the pixels there, byte order included.
    height, width : int
        Rows and columns of a part, in pixels of the frame; at its end they may be smaller.
    tiled : bool
        Those at the end are filled up.
    turned : bool
        The last row of a frame comes first.
    packing : str
        How pixels share bytes, as `mrcz.container.pieces` calls it.
    differences : bool
        Each sample is stored as its difference from the one left of it (TIFF's predictor 2).
    lzw : bool
        Parts are packed as TIFF's LZW.
    """

    offsets: np.ndarray
    nbytes: np.ndarray
    dtype: np.dtype
    height: int
    width: int
    tiled: bool = False
    turned: bool = False
    packing: str = ""
    differences: bool = False
    lzw: bool = False


def whole_frames(first: int, step: int, nbytes: int, frames: Frames, *, turned: bool = False) -> Pieces:
    """Plain frames in one piece each, at equal distances."""
    offsets = np.uint64(first) + np.arange(frames.shape[0], dtype=np.uint64) * np.uint64(step)
    return plain_frames(offsets, nbytes, frames, turned=turned)


def plain_frames(offsets: np.ndarray, nbytes: int, frames: Frames, *, turned: bool = False) -> Pieces:
    """Plain frames in one piece each, at these places."""
    sizes = np.full((len(offsets), 1), nbytes, np.uint64)
    places = np.asarray(offsets, np.uint64).reshape(-1, 1)
    return Pieces(places, sizes, frames.dtype, frames.shape[1], frames.shape[2], turned=turned)


class Frames(ABC):
    """The frames of one open foreign file. A module of a format makes a subclass.

    Attributes
    ----------
    shape : tuple of int
        (nz, ny, nx), or (nz, ny, nx, 3) of colours. Compared with the bytes that are there before it is said.
    dtype : numpy.dtype
        Of the pixels as they are stored, byte order included.
    compression : str
        ``"none"``, or what the format calls it.
    kind : str
        ``"image"``, ``"stack"`` or ``"volume"``.
    pixel_size : tuple of float
        (x, y, z) in Å; 0 where the file does not say.
    metadata : mapping
        What the file says, under the names of `mrcz.formats.metadata`; what it says in its own words is kept verbatim
        under ``"original"``.
    oddities : tuple of str
        What is unusual about the file.
    warnings : tuple of str
        What of it the caller should be told: damage that was read around, frames that are left out.
    concurrent : bool
        `read_frame` may be called from several threads at a time, and gains by it.
    complete : bool
        Pixels, metadata and frame metadata hold all that the file says, so that nothing is lost where a proven copy of
        these takes its place. False where a file may hold more: other series and data sets, tags that are not kept.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    compression: str = "none"
    kind: str = "stack"
    pixel_size: tuple[float, float, float] = (0.0, 0.0, 0.0)
    metadata: Mapping[str, Any] = {}
    oddities: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    concurrent: bool = False
    complete: bool = False

    @abstractmethod
    def read_frame(self, number: int, out: np.ndarray) -> None:
        """Decode frame `number` into out, (ny, nx) C-contiguous, of `dtype`: all of it, or an error.

        Raises
        ------
        FormatError
            The frame is damaged. The caller adds its number and the file's name; a `ChunkError` says its offset.
        """

    def read_window(self, number: int, window: Window, out: np.ndarray) -> None:
        """Rows y0 to y1, columns x0 to x1 of a frame into out, (y1 - y0, x1 - x0): a format that need not decode the
        whole frame for it does better."""
        y0, y1, x0, x1 = window
        whole = np.empty(self.shape[1:], self.dtype)
        self.read_frame(number, whole)
        out[...] = whole[y0:y1, x0:x1]

    def add_frames(self, numbers: np.ndarray, total: np.ndarray, threads: int) -> bool:
        """Add frames to total, (ny, nx) int64, without making each; False where the format has no such way."""
        return False

    def check_claims(self, numbers: np.ndarray) -> None:  # noqa: B027 — most formats have nothing to prove
        """Decode, keeping nothing, frames that claim far more than their bytes: before memory is taken for them."""

    def pieces(self) -> Pieces | str:
        """Where the bytes of the frames lie in the file, so that it can be given back from pixels and all other bytes;
        or, in words, why that is not known."""
        return "where its frames lie in it is not known here"

    @property
    def frame_metadata(self) -> list[dict[str, Any]]:
        """What is said of each frame, under the same names; an empty list where nothing is."""
        return []

    def close(self) -> None:  # noqa: B027 — the source is closed by the Reader
        """Let go of the file."""


@dataclass(frozen=True)
class Format:
    """A format as the registry knows it: enough to recognise a file, without importing what reads it.

    Attributes
    ----------
    name : str
        As ``--to`` takes it: ``"tiff"``.
    title : str
        As a person writes it.
    suffixes : tuple of str
        Usual ends of names, lower case. For writing; of a file that is there its first bytes decide.
    magic : tuple of (int, bytes)
        Bytes at an offset; any of them is enough.
    module : str
        Has ``open_frames(source, options) -> Frames``, ``write_frames(path, frames, …)`` if `writes`, and
        ``matches(source) -> bool`` if `decides`.
    reads, writes : bool
    decides : bool
        Its magic is that of other formats too: the module looks closer.
    directory : tuple of str
        Names of files, one of which is in every folder of this format.
    extra : str or None
        What to install: ``pip install 'mrcz[extra]'``. None: nothing.
    needs : tuple of str
        The packages that are in it, for the table.
    licence : str
        Of these.
    """

    name: str
    title: str
    suffixes: tuple[str, ...]
    module: str
    magic: tuple[tuple[int, bytes], ...] = ()
    reads: bool = True
    writes: bool = False
    decides: bool = False
    directory: tuple[str, ...] = ()
    extra: str | None = None
    needs: tuple[str, ...] = ()
    licence: str = ""
