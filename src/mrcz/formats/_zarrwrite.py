"""Frames to a folder of Zarr 3, one chunk a frame. What is written is simple enough to need no package for it."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from mrcz.formats._chunks import FRAME_MAX, check_frames, chunks, told

__all__ = ["COMPRESSIONS", "write_frames"]

#: Names of compressions: ``"blosc"`` is Blosc 1 with zstd, as in an MRCZ file.
COMPRESSIONS = ("blosc", "zstd", "none")


def write_frames(
    path: str | os.PathLike[str],
    frames: Any,
    *,
    compression: str = "blosc",
    progress: Callable[[int, int], None] | None = None,
    n_threads: int | None = None,
) -> None:
    """Write frames to a new folder, an array of Zarr 3 with one chunk a frame.

    Its attributes are ``kind``, ``pixel_size`` (x, y, z) with ``pixel_size_unit`` = ``"angstrom"`` where it is known,
    ``metadata``, and ``frame_metadata``, a list. The same frames give the same files.

    Parameters
    ----------
    path : path
        A folder that is not there yet, or empty; to rename it when it is whole is the caller's.
    frames : Reader or the like
        Has shape (nz, ny, nx), dtype, pixel_size in Å, metadata, and ``read(k)``. Chunks of a compressed MRCZ file are
        copied as they are where Blosc is asked for.
    compression : {"blosc", "zstd", "none"}
    progress : callable, optional
        Called as ``progress(done, total)`` with bytes of pixels.
    n_threads : int, optional

    Raises
    ------
    ValueError
        There is no such compression, or the frames are none that Zarr holds so.
    FileExistsError
        There is something in the folder.
    """
    if compression not in COMPRESSIONS:
        raise ValueError(f"compression is {compression!r}, expected one of {', '.join(COMPRESSIONS)}")
    shape = check_frames(frames, "Zarr")
    dtype = np.dtype(frames.dtype)
    if compression == "blosc" and math.prod(shape[1:]) * dtype.itemsize > FRAME_MAX:
        raise ValueError(f"frames of {shape[1:]} {dtype} are larger than a Blosc chunk may be, 2 GiB")
    top = os.fspath(path)
    os.makedirs(top, exist_ok=True)
    if os.listdir(top):
        raise FileExistsError(f"there is something in {top} already")
    words: dict[str, Any] = {"progress": progress, "n_threads": n_threads, "copy": compression == "blosc"}
    if compression != "blosc":
        words["make"] = _pack_zstd if compression == "zstd" else _pack_not
    for k, chunk in enumerate(chunks(frames, **words)):
        folder = os.path.join(top, "c", str(k), "0")
        os.makedirs(folder)
        with open(os.path.join(folder, "0"), "wb") as file:
            file.write(chunk)
    # Last: what has no zarr.json is no array.
    with open(os.path.join(top, "zarr.json"), "w", encoding="utf-8", newline="\n") as text:
        json.dump(_array(frames, shape, dtype, compression), text, indent=2, sort_keys=True)


def _pack_zstd(frame: np.ndarray) -> bytes:
    import zstandard

    packed: bytes = zstandard.ZstdCompressor(level=1, write_checksum=True).compress(np.ascontiguousarray(frame).data)
    return packed


def _pack_not(frame: np.ndarray) -> bytes:
    return frame.tobytes()


def _array(frames: Any, shape: tuple[int, ...], dtype: np.dtype, compression: str) -> dict[str, Any]:
    """The array's zarr.json."""
    endian = "big" if dtype.str[0] == ">" else "little"
    codecs: list[dict[str, Any]] = [{"name": "bytes", "configuration": {"endian": endian}}]
    if compression == "blosc":
        # For readers that write: each chunk says of itself what it really is.
        words = {"cname": "zstd", "clevel": 1, "shuffle": "bitshuffle", "typesize": dtype.itemsize, "blocksize": 0}
        codecs.append({"name": "blosc", "configuration": words})
    elif compression == "zstd":
        codecs.append({"name": "zstd", "configuration": {"level": 1, "checksum": True}})
    attributes: dict[str, Any] = {}
    kind = getattr(frames, "kind", None)
    if isinstance(kind, str):
        attributes["kind"] = kind
    size = [float(one) for one in getattr(frames, "pixel_size", ()) or ()]
    if len(size) == 3 and any(size):
        attributes |= {"pixel_size": size, "pixel_size_unit": "angstrom"}
    metadata, said = told(frames)
    if metadata:
        attributes["metadata"] = metadata
    if said:
        attributes["frame_metadata"] = said
    fill: Any = {"b": False, "f": 0.0, "c": [0.0, 0.0]}.get(dtype.kind, 0)
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": dtype.name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1, *shape[1:]]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": fill,
        "codecs": codecs,
        "dimension_names": ["z", "y", "x"],
        "attributes": attributes,
        "storage_transformers": [],
    }
