"""Frames to an HDF5 file that h5py reads with hdf5plugin: one chunk a frame, in the layout of NeXus.

======================== =====================================================================================
``/``                    attributes ``default`` = ``"entry"``, ``creator`` = ``"mrcz"``
``/entry``               NXentry
``/entry/data``          NXdata, ``signal`` = ``"data"``
``/entry/data/data``     (nz, ny, nx), chunks of (1, ny, nx); ``pixel_size`` (x, y, z) with ``pixel_size_unit`` =
                         ``"angstrom"`` where it is known, ``mrcz_kind`` = ``"image"``, ``"stack"`` or ``"volume"``
``/entry/mrcz_metadata`` NXnote of ``type`` ``"application/json"``: ``data`` is the metadata, and a list of those of
                         the frames in ``/entry/mrcz_frame_metadata``
======================== =====================================================================================

Nothing in it depends on when or where it was written: the same frames give the same bytes.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from typing import Any

import h5py
import numpy as np

from mrcz.errors import MissingDependencyError
from mrcz.formats._chunks import FRAME_MAX, check_frames, chunks, told

__all__ = ["COMPRESSIONS", "write_frames"]

#: Names of compressions: ``"blosc"`` is Blosc 1 with zstd (filter 32001), as in an MRCZ file.
COMPRESSIONS = ("blosc", "bitshuffle-lz4", "gzip", "none")
_BLOSC, _BITSHUFFLE = 32001, 32008


def write_frames(
    path: str | os.PathLike[str],
    frames: Any,
    *,
    compression: str = "blosc",
    progress: Callable[[int, int], None] | None = None,
    n_threads: int | None = None,
) -> None:
    """Write frames to a new HDF5 file.

    Parameters
    ----------
    path : path
        Written as it is; to rename it when it is whole is the caller's.
    frames : Reader or the like
        Has shape (nz, ny, nx), dtype, pixel_size in Å, metadata, and ``read(k)``. Chunks of a compressed MRCZ file are
        copied as they are where Blosc is asked for.
    compression : {"blosc", "bitshuffle-lz4", "gzip", "none"}
    progress : callable, optional
        Called as ``progress(done, total)`` with bytes of pixels.
    n_threads : int, optional

    Raises
    ------
    ValueError
        There is no such compression, or the frames are none that HDF5 holds so.
    MissingDependencyError
        hdf5plugin is not installed.
    """
    if compression not in COMPRESSIONS:
        raise ValueError(f"compression is {compression!r}, expected one of {', '.join(COMPRESSIONS)}")
    shape = check_frames(frames, "HDF5")
    dtype = np.dtype(frames.dtype)
    if compression == "blosc" and math.prod(shape[1:]) * dtype.itemsize > FRAME_MAX:
        raise ValueError(f"frames of {shape[1:]} {dtype} are larger than a Blosc chunk may be, 2 GiB")
    if compression in ("blosc", "bitshuffle-lz4"):
        try:
            import hdf5plugin  # noqa: F401 — HDF5 knows its filters from then on
        except ImportError:
            raise MissingDependencyError(
                f"{compression} in HDF5 needs the package hdf5plugin: pip install 'mrcz[hdf5]'", path=os.fspath(path)
            ) from None
    with h5py.File(os.fspath(path), "w", locking=False) as file:
        _describe(file, frames, _data_set(file, shape, dtype, compression))
        data = file["entry/data/data"]
        if compression == "blosc":
            for k, chunk in enumerate(chunks(frames, progress=progress, n_threads=n_threads)):
                data.id.write_direct_chunk((k, 0, 0), chunk)
            return
        size = math.prod(shape[1:]) * dtype.itemsize
        for k in range(shape[0]):
            data[k] = np.asarray(frames.read(k), dtype).reshape(shape[1:])
            if progress is not None:
                progress((k + 1) * size, shape[0] * size)


def _data_set(file: Any, shape: tuple[int, int, int], dtype: np.dtype, compression: str) -> Any:
    """The groups and the empty data set."""
    file.attrs["default"], file.attrs["creator"] = "entry", "mrcz"
    entry = file.create_group("entry")
    entry.attrs["NX_class"], entry.attrs["default"] = "NXentry", "data"
    group = entry.create_group("data")
    group.attrs["NX_class"], group.attrs["signal"] = "NXdata", "data"
    words: dict[str, Any] = {"chunks": (1, *shape[1:])}
    if compression == "blosc":
        # The first four the filter sets itself; level 1, bit shuffle, zstd. Chunks say of each what it really is.
        words |= {"compression": _BLOSC, "compression_opts": (0, 0, 0, 0, 1, 2, 5)}
    elif compression == "bitshuffle-lz4":
        words |= {"compression": _BITSHUFFLE, "compression_opts": (0, 2)}
    elif compression == "gzip":
        words |= {"compression": "gzip", "compression_opts": 4, "shuffle": dtype.itemsize > 1}
    return group.create_dataset("data", shape, dtype, track_times=False, **words)


def _describe(file: Any, frames: Any, data: Any) -> None:
    """What is known of the frames."""
    size = [float(one) for one in getattr(frames, "pixel_size", ()) or ()]
    if len(size) == 3 and any(size):
        data.attrs["pixel_size"], data.attrs["pixel_size_unit"] = size, "angstrom"
    kind = getattr(frames, "kind", None)
    if isinstance(kind, str):
        data.attrs["mrcz_kind"] = kind
    for name, words in zip(("mrcz_metadata", "mrcz_frame_metadata"), told(frames), strict=True):
        if words:
            note = file["entry"].create_group(name)
            note.attrs["NX_class"] = "NXnote"
            note["type"] = "application/json"
            note["data"] = json.dumps(words, sort_keys=True, ensure_ascii=False)
