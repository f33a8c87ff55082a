"""Frames as Blosc 1 chunks for the files that hold such: HDF5's filter 32001 and Zarr's codec ``blosc``.

A chunk of an MRCZ file is such a buffer already, so it is handed on as it is: only its header is read, and its checksum
compared where the file has one.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from mrcz.errors import ChunkError
from mrcz.threads import count_threads

__all__ = ["FRAME_MAX", "check_frames", "chunks", "jsonable", "stored_chunk", "told"]

#: Bytes of a frame that Blosc 1 takes, which counts in 31 bits.
FRAME_MAX = 2**31 - 1 - 65536
#: Codecs of Blosc 1 that hdf5plugin and numcodecs have: BloscLZ, LZ4, zlib, zstd; not Snappy.
_CODECS = (0, 1, 3, 4)


def check_frames(frames: Any, title: str) -> tuple[int, int, int]:
    """The shape (nz, ny, nx) of what is to be written.

    Raises
    ------
    ValueError
        It is no stack of numbers.
    """
    shape = tuple(int(n) for n in frames.shape)
    if len(shape) != 3 or not all(shape):
        raise ValueError(f"frames of the shape {shape} are not written to {title}, only (nz, ny, nx) with pixels are")
    if np.dtype(frames.dtype).kind not in "buifc":
        raise ValueError(f"pixels of {frames.dtype} are not written to {title}")
    return shape


def stored_chunk(frames: Any, number: int) -> bytes | None:
    """The chunk of a frame as it is stored, where it is a Blosc 1 buffer of the very pixels `read` gives; else None."""
    from _cmrcz.chunk import xxh64

    pixels = getattr(frames, "pixel_format", None)
    if not getattr(frames, "is_compressed", False) or pixels is None or getattr(frames, "correction", None) is not None:
        return None
    if pixels.packed or pixels.stored != pixels.dtype or pixels.dtype != frames.dtype:
        return None
    raw: bytes = frames.stored(number)
    size = math.prod(frames.shape[1:]) * np.dtype(frames.dtype).itemsize
    # README_CHUNK_FORMAT of C-Blosc: version, version of the codec, flags, typesize, bytes, block size, stored bytes.
    if len(raw) < 16 or raw[0] != 2 or raw[2] >> 5 not in _CODECS:
        return None
    if int.from_bytes(raw[4:8], "little") != size or int.from_bytes(raw[12:16], "little") != len(raw):
        return None
    hashes = getattr(getattr(frames, "index", None), "hashes", None)
    if hashes is not None and xxh64(raw) != int(hashes[number]):
        raise ChunkError("checksum of the stored bytes does not match: damaged data", frame=number)
    return raw


def encoded(frame: np.ndarray) -> bytes:
    """A frame as a Blosc 1 chunk of zstd."""
    from _cmrcz.chunk import encode

    flat = np.ascontiguousarray(frame).reshape(-1)
    return encode(flat.view(np.uint8), typesize=flat.dtype.itemsize)


def chunks(
    frames: Any,
    make: Callable[[np.ndarray], bytes] = encoded,
    *,
    copy: bool = True,
    progress: Callable[[int, int], None] | None = None,
    n_threads: int | None = None,
) -> Iterator[bytes]:
    """The chunk of each frame in turn; made on several threads, of which no more than one a thread is waiting."""
    nz = int(frames.shape[0])
    size = math.prod(frames.shape[1:]) * np.dtype(frames.dtype).itemsize
    dtype = np.dtype(frames.dtype)

    def one(k: int) -> bytes:
        raw = stored_chunk(frames, k) if copy else None
        if raw is not None:
            return raw
        frame = np.asarray(frames.read(k), dtype)
        return make(frame.reshape(tuple(frames.shape[1:])))

    threads = count_threads(n_threads)
    waiting: deque[Future[bytes]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            ahead = 0
            for k in range(nz):
                while ahead < min(nz, k + threads + 1):
                    waiting.append(pool.submit(one, ahead))
                    ahead += 1
                yield waiting.popleft().result()
                if progress is not None:
                    progress((k + 1) * size, nz * size)
        finally:
            for future in waiting:
                future.cancel()


def told(frames: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Metadata of a movie and of its frames (empty where nothing is said of them), as JSON can say them. What an MRCZ
    header says of the microscope has its documented name."""
    metadata = jsonable(dict(getattr(frames, "metadata", None) or {}))
    metadata.pop("frame_metadata", None)  # where a Writer keeps them, which `frame_metadata` gives
    header = getattr(frames, "header", None)
    for name, field in (("voltage", "voltage"), ("cs", "c3")):
        value = float(getattr(header, field, 0.0) or 0.0)
        if value > 0 and math.isfinite(value):
            metadata.setdefault(name, value)
    said = [jsonable(dict(one)) for one in getattr(frames, "frame_metadata", None) or ()]
    return metadata, said if any(said) else []


def jsonable(value: Any) -> Any:
    """What JSON can say of a value of metadata."""
    if isinstance(value, dict):
        return {str(key): jsonable(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(part) for part in value]
    if isinstance(value, np.ndarray):
        return jsonable(value.tolist())
    if isinstance(value, np.generic):
        return jsonable(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, (str, int)) or value is None:
        return value
    return value.hex() if isinstance(value, bytes) else str(value)
