"""Zarr, versions 2 and 3: a folder, or one in a .zip; arrays by path, the first level of OME-Zarr images.

Layouts: https://zarr-specs.readthedocs.io (v2, v3, sharding-indexed), https://ngff.openmicroscopy.org (multiscales).
The package zarr reads the metadata and all kinds of chunks. Where a chunk is one frame, plain, of Blosc or of zstd, its
file is read and decoded here, on as many threads as are asked for.

A chunk that is not stored is all fill value to Zarr: it may have been so when it was written, and it may be lost. Which
of the two nothing tells, so it is an error unless it is asked for with ``permissive=True``.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import zarr
from zarr.storage import LocalStore, ZipStore

from mrcz.errors import ChunkError, FormatError
from mrcz.formats._chunks import jsonable
from mrcz.formats._units import angstrom
from mrcz.formats._words import THEIRS, as_written, frames_as_written, in_our_words
from mrcz.formats._zarrwrite import write_frames
from mrcz.formats.base import Bytes, FormatOptions, Frames, Window
from mrcz.formats.metadata import checked

__all__ = ["matches", "open_frames", "write_frames"]

_MARKS = ("zarr.json", ".zarray", ".zgroup")
_MOST_META = 16 << 20  # bytes of one file of metadata
_MOST_NODES = 10_000
_DEEP = 16  # groups in groups
_LARGE = 64 << 20  # bytes from which a claim is doubted
_SHRINK = 1 << 16  # times smaller than its pixels no chunk is
_ABSENT = 2**64 - 1  # in the index of a shard
_SHOWN = 20


def matches(source: Bytes) -> bool:
    """Whether a .zip holds a Zarr array or group at its root."""
    try:
        with zipfile.ZipFile(source.name) as archive:
            return any(mark in archive.namelist() for mark in _MARKS)
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError):
        return False


class _Files:
    """The files of a store: their names and sizes."""

    def __init__(self, path: str) -> None:
        self.path, self.zip = path, None
        if os.path.isdir(path):
            self.store: Any = LocalStore(path, read_only=True)
        else:
            self.zip = zipfile.ZipFile(path)
            self.store = ZipStore(path, mode="r", read_only=True)

    def sizes(self, below: str) -> dict[str, int]:
        """The size of each regular file below a node, by its name from there."""
        start = f"{below}/" if below else ""
        if self.zip is not None:
            return {
                one.filename[len(start) :]: one.file_size
                for one in self.zip.infolist()
                if one.filename.startswith(start) and not one.is_dir()
            }
        found = {}
        top = os.path.join(self.path, below)
        for folder, _, names in os.walk(top):
            at = os.path.relpath(folder, top).replace(os.sep, "/")
            for name in names:
                place = os.path.join(folder, name)
                if os.path.isfile(place):
                    found[name if at == "." else f"{at}/{name}"] = os.path.getsize(place)
        return found

    def nodes(self, below: str) -> list[str]:
        """The paths of the arrays below a group, from there; the chunks of none are looked at."""
        if self.zip is not None:
            found = {os.path.dirname(name) for name in self.sizes(below) if os.path.basename(name) in _MARKS}
            return sorted(found - {""})
        found, top = set(), os.path.join(self.path, below)
        for folder, inside, names in os.walk(top):
            at = os.path.relpath(folder, top).replace(os.sep, "/")
            if at != "." and set(names) & set(_MARKS):
                found.add(at)
            array = ".zarray" in names or ("zarr.json" in names and _is_array(os.path.join(folder, "zarr.json")))
            if array or at.count("/") > _DEEP or len(found) > _MOST_NODES:
                inside.clear()
        return sorted(found)

    def close(self) -> None:
        with contextlib.suppress(*THEIRS):  # a store that was never opened cannot be closed
            self.store.close()
        if self.zip is not None:
            self.zip.close()


class ZarrFrames(Frames):
    """The frames of one array; its leading axes are one, in C order.

    Parameters
    ----------
    files : _Files
        Closed with this.
    array : zarr.Array
    path : str
        Of the array in the store; empty for the store itself.
    options : FormatOptions
    """

    def __init__(self, files: _Files, array: Any, path: str, options: FormatOptions) -> None:
        self.files, self.array, self.path = files, array, path
        self.name = path or "the array"
        shape = tuple(int(n) for n in array.shape)
        if not 2 <= len(shape) <= 5:
            raise self._error(f"has {len(shape)} axes, expected 2 to 5")
        if any(n < 1 for n in shape):
            raise self._error(f"has the shape {shape} and no pixels")
        try:
            dtype = np.dtype(array.dtype)
        except TypeError:
            dtype = np.dtype("O")
        if dtype.kind not in "buifc":
            raise self._error(f"is of type {array.dtype}, which are no pixels")
        self.lead = shape[:-2]
        self.dtype = dtype
        self.shape = (math.prod(self.lead), *shape[-2:])
        self.kind = "image" if len(shape) == 2 else "stack"
        self.frame_bytes = shape[-2] * shape[-1] * dtype.itemsize
        meta = array.metadata.to_dict()
        self.codecs = _codecs(meta)
        self.compression = "+".join(_name(codec) for codec in self.codecs if _name(codec) != "bytes") or "none"
        self._check_chunks(meta, options.permissive)
        self.concurrent = self.direct is not None
        self.said: list[dict[str, Any]] = []  # of each frame

    @property
    def frame_metadata(self) -> list[dict[str, Any]]:
        return self.said

    def _error(self, words: str) -> FormatError:
        return FormatError(f"{self.name} {words}", path=self.files.path)

    # ---- what of it is there ---------------------------------------------------------------------------------

    def _check_chunks(self, meta: Mapping[str, Any], permissive: bool) -> None:
        """Every chunk is stored, and none is larger than what shrinks to that."""
        array = self.array
        shards = getattr(array, "shards", None)
        step = tuple(int(n) for n in (shards or array.chunks))
        if len(step) != len(array.shape) or any(n < 1 for n in step):
            raise self._error(f"has chunks of {step}")
        grid = [-(-n // c) for n, c in zip(array.shape, step, strict=True)]
        sizes = {name: size for name, size in self.files.sizes(self.path).items() if name not in (*_MARKS, ".zattrs")}
        expected, first = math.prod(grid), None
        encode = array.metadata.encode_chunk_key
        # More chunks than there are files: no need to look for each.
        places = itertools.product(*map(range, grid))
        missing = max(0, expected - len(sizes))
        stored = 0
        for place in itertools.islice(places, len(sizes) + 1):
            size = sizes.get(encode(place))
            if size is None:
                first = place if first is None else first
                missing += expected <= len(sizes)
            else:
                stored += size
        if missing:
            first = first or (0,) * len(grid)
            self._absent(f"lacks {missing} of its {expected} chunks, the first of them {encode(first)}", permissive)
        elif shards:
            self._check_shards(meta, grid, permissive)
        most = max(self.frame_bytes, math.prod(step) * self.dtype.itemsize)
        if most > _LARGE and stored * _SHRINK < most:
            raise self._error(f"claims {most} bytes a frame or chunk, and has {stored} bytes stored in all")
        frame = (*(1 for _ in self.lead), *self.shape[1:])
        self.direct = None if missing or shards or step != frame or self.files.zip else _decoder(self.codecs)
        if self.direct is not None and meta.get("zarr_format") == 3 and self.dtype.itemsize > 1:
            endian = (self.codecs[0].get("configuration") or {}).get("endian")
            self.stored = self.dtype.newbyteorder(">" if endian == "big" else "<")
        else:
            self.stored = self.dtype

    def _absent(self, words: str, permissive: bool) -> None:
        if not permissive:
            raise self._error(f"{words}; with permissive=True they are read as the fill value, as Zarr does")
        self.warnings = (f"{self.name} {words}: they are read as the fill value",)

    def _check_shards(self, meta: Mapping[str, Any], grid: list[int], permissive: bool) -> None:
        """The index of each shard has all its chunks, of those that lie within the array."""
        array = self.array
        sharding = next((one for one in self.codecs if _name(one) == "sharding_indexed"), None)
        words = (sharding or {}).get("configuration", {})
        index_codecs = [_name(one) for one in words.get("index_codecs", ())]
        if len(self.codecs) != 1 or sharding is None or index_codecs not in (["bytes", "crc32c"], ["bytes"]):
            raise self._error(f"has shards of the codecs {self.compression}, whose index is not known")
        inner = [s // c for s, c in zip(array.shards, array.chunks, strict=True)]
        length = 16 * math.prod(inner)
        whole = length + 4 * (len(index_codecs) == 2)
        at_end = words.get("index_location", "end") != "start"
        for place in itertools.product(*map(range, grid)):
            key = array.metadata.encode_chunk_key(place)
            raw = self._index(key, whole, at_end)[:length]
            if len(raw) != length:
                raise self._error(f"has a shard {key} that is shorter than its index of {whole} bytes")
            pairs = np.frombuffer(raw, "<u8").reshape(*inner, 2)[..., 0]
            inside = tuple(
                slice(0, min(n, -(-(size - k * n * c) // c)))
                for k, n, c, size in zip(place, inner, array.chunks, array.shape, strict=True)
            )
            if (pairs[inside] == _ABSENT).any():
                self._absent(f"has a shard {key} that lacks chunks", permissive)
                return

    def _index(self, key: str, n: int, at_end: bool) -> bytes:
        name = f"{self.path}/{key}" if self.path else key
        if self.files.zip is not None:
            with self.files.zip.open(name) as file:
                data = file.read()
            return data[-n:] if at_end else data[:n]
        with open(os.path.join(self.files.path, name), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, size - n) if at_end else 0)
            return file.read(n)

    # ---- frames ----------------------------------------------------------------------------------------------

    def read_frame(self, number: int, out: np.ndarray) -> None:
        self.read_window(number, (0, self.shape[1], 0, self.shape[2]), out)

    def read_window(self, number: int, window: Window, out: np.ndarray) -> None:
        y0, y1, x0, x1 = window
        at = tuple(int(k) for k in np.unravel_index(number, self.lead)) if self.lead else ()
        if self.direct is None:
            with in_our_words(f"{self.name} cannot be read", self.files.path):
                out[...] = self.array[(*at, slice(y0, y1), slice(x0, x1))]
            return
        key = self.array.metadata.encode_chunk_key((*at, 0, 0))
        name = os.path.join(self.files.path, self.path, key)
        try:
            with open(name, "rb") as file:
                raw = file.read()
        except OSError as error:
            raise ChunkError(f"the chunk {key} cannot be read: {error.strerror}", path=self.files.path) from error
        try:
            whole = np.frombuffer(self.direct(raw, self.frame_bytes), self.stored).reshape(self.shape[1:])
        except ChunkError as error:
            raise ChunkError(f"chunk {key}: {error.message}", path=self.files.path) from None
        out[...] = whole[y0:y1, x0:x1]

    def close(self) -> None:
        self.files.close()


def _is_array(place: str) -> bool:
    """Whether a zarr.json is that of an array, below which there are no others."""
    try:
        if not os.path.isfile(place) or os.path.getsize(place) > _MOST_META:
            return True  # not read, and not searched
        with open(place, "rb") as file:
            said = json.load(file)
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(said, dict) and said.get("node_type") == "array"


def _name(codec: Mapping[str, Any]) -> str:
    return str(codec.get("name", codec.get("id", "")))


def _codecs(meta: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What each chunk goes through, as version 3 says it."""
    if meta.get("zarr_format") == 3:
        return [dict(codec) for codec in meta.get("codecs", ())]
    found = [dict(codec) for codec in meta.get("filters") or ()]
    compressor = meta.get("compressor")
    if compressor:
        found.append(dict(compressor if isinstance(compressor, dict) else compressor.get_config()))
    # Columns first is an order that the package undoes.
    return [{"name": "bytes" if meta.get("order", "C") == "C" else "transpose"}, *found]


Decode = Callable[[bytes, int], Any]


def _decoder(codecs: list[dict[str, Any]]) -> Decode | None:
    """What makes a chunk of these codecs the bytes of its pixels; None where zarr does."""
    names = [_name(codec) for codec in codecs]
    return {("bytes",): _as_is, ("bytes", "blosc"): _blosc, ("bytes", "zstd"): _zstd}.get(tuple(names))


def _as_is(raw: bytes, expected: int) -> bytes:
    if len(raw) != expected:
        raise ChunkError(f"{len(raw)} bytes are there, the frame has {expected}")
    return raw


def _blosc(raw: bytes, expected: int) -> np.ndarray:
    from _cmrcz.chunk import decode
    from _cmrcz.status import CoreError

    out = np.empty(expected, np.uint8)
    try:
        decode(raw, out)
    except CoreError as error:
        raise ChunkError(error.message) from None
    return out


def _zstd(raw: bytes, expected: int) -> bytes:
    import zstandard

    try:
        claimed = zstandard.frame_content_size(raw)
        if claimed not in (-1, expected):
            raise ChunkError(f"the chunk claims {claimed} bytes of pixels, the frame has {expected}")
        pixels: bytes = zstandard.ZstdDecompressor().decompress(raw, max_output_size=expected)
    except zstandard.ZstdError as error:
        raise ChunkError(f"the chunk does not decode: {error}") from None
    return _as_is(pixels, expected)


# ---- opening -------------------------------------------------------------------------------------------------


def open_frames(source: Bytes, options: FormatOptions) -> ZarrFrames:
    """Open a Zarr store.

    Raises
    ------
    FormatError
        It is damaged, holds no frames, or several that are equally good; a chunk is not stored.
    """
    path = source.name
    with in_our_words("Zarr does not open this", path):
        files = _Files(path)
    try:
        with in_our_words("Zarr does not open this", path):
            for name, size in files.sizes("").items() if files.zip else _marks(path):
                if os.path.basename(name) in (*_MARKS, ".zattrs") and size > _MOST_META:
                    raise FormatError(f"{name} has {size} bytes, more than metadata have", path=path)
            root = zarr.open(files.store, mode="r")
            node, where, said, oddities = _chosen(root, files, options)
        with in_our_words(f"{where or 'the array'} cannot be read", path):
            frames = ZarrFrames(files, node, where, options)
            frames.oddities = tuple(oddities)
            _describe(frames, node, said)
        return frames
    except BaseException:
        files.close()
        raise


def _marks(path: str) -> list[tuple[str, int]]:
    """The metadata of a folder, of which each has to be a regular file."""
    found = []
    for name in (*_MARKS, ".zattrs"):
        place = os.path.join(path, name)
        if os.path.lexists(place):
            if not os.path.isfile(place):
                raise FormatError(f"{name} is no regular file", path=path)
            found.append((name, os.path.getsize(place)))
    return found


def _chosen(root: Any, files: _Files, options: FormatOptions) -> tuple[Any, str, dict[str, Any], list[str]]:
    """The array that is meant, its path, what OME-Zarr says of it, and what to say of others."""
    node, where, path = root, "", files.path
    if options.dataset is not None and options.dataset.strip("/"):
        where = options.dataset.strip("/")
        if not isinstance(root, zarr.Group) or where not in root:
            raise FormatError(f"there is no {where} in this store{_listed(root, files)}", path=path)
        node = root[where]
    if isinstance(node, zarr.Array):
        return node, where, {}, []
    attributes = dict(node.attrs)
    ome = attributes.get("ome") if isinstance(attributes.get("ome"), dict) else attributes
    scales = ome.get("multiscales") if isinstance(ome, dict) else None
    if isinstance(scales, list) and scales and isinstance(scales[0], dict):
        levels = scales[0].get("datasets")
        if not isinstance(levels, list) or not levels or not isinstance(levels[0], dict):
            raise FormatError("the multiscales of this OME-Zarr image name no level", path=path)
        level = str(levels[0].get("path", ""))
        if level not in node or not isinstance(node[level], zarr.Array):
            raise FormatError(f"the first level of this OME-Zarr image, {level!r}, is not there", path=path)
        more = [f"the first of {len(levels)} levels"] if len(levels) > 1 else []
        return node[level], f"{where}/{level}".strip("/"), {"multiscales": scales[0], "level": levels[0]}, more
    return _largest(node, where, files)


def _arrays(node: Any, where: str, files: _Files) -> list[tuple[str, Any]]:
    """The arrays below a group that can be frames."""
    found = []
    for name in files.nodes(where):
        member = node[name]
        if isinstance(member, zarr.Array) and 2 <= member.ndim <= 5 and member.size:
            found.append((name, member))
    return found


def _listed(root: Any, files: _Files) -> str:
    if not isinstance(root, zarr.Group):
        return ", which is one array"
    names = ", ".join(name for name, _ in _arrays(root, "", files)[:_SHOWN])
    return f"; there are {names}" if names else ""


def _largest(node: Any, where: str, files: _Files) -> tuple[Any, str, dict[str, Any], list[str]]:
    path = files.path
    found = sorted(_arrays(node, where, files), key=lambda one: (-one[1].size, one[0]))
    if not found:
        raise FormatError("there is no array of 2 to 5 axes in this store", path=path)
    most = [name for name, array in found if array.size == found[0][1].size]
    if len(most) > 1:
        names = ", ".join(f"{where}/{name}".strip("/") for name in most[:_SHOWN])
        raise FormatError(f"{len(most)} arrays are equally large: {names}; say which with dataset=", path=path)
    name, array = found[0]
    others = ", ".join(f"{other} {one.shape}" for other, one in found[1 : _SHOWN + 1])
    notes = [f"{name} is the largest array; dataset= opens the others: {others}"] if others else []
    return array, f"{where}/{name}".strip("/"), {}, notes


def _describe(frames: ZarrFrames, node: Any, ome: dict[str, Any]) -> None:
    """Pixel size and metadata: as `write_frames` puts them, or OME-Zarr."""
    attributes = jsonable(dict(node.attrs))
    size = attributes.get("pixel_size")
    stated: dict[str, Any] = {}
    if isinstance(size, list) and len(size) == 3 and attributes.get("pixel_size_unit") == "angstrom":
        if all(isinstance(one, (int, float)) and math.isfinite(one) and one >= 0 for one in size):
            frames.pixel_size = (float(size[0]), float(size[1]), float(size[2]))
    elif ome:
        frames.pixel_size = _ome_size(frames, ome)
    if any(frames.pixel_size[:2]):
        stated["pixel_size"] = list(frames.pixel_size[:2])
    if attributes.get("kind") in ("image", "stack", "volume"):
        frames.kind = attributes["kind"]
    own, said = attributes.pop("metadata", None), attributes.pop("frame_metadata", None)
    original = {"attributes": attributes, **({"ome": jsonable(ome)} if ome else {})}
    written = as_written(own) if isinstance(own, dict) else {}
    frames.metadata = {**checked(stated, {"zarr": original}), **written}
    frames.said = frames_as_written(said, frames.shape[0])


def _ome_size(frames: ZarrFrames, ome: dict[str, Any]) -> tuple[float, float, float]:
    """The pixel size an OME-Zarr image gives, in Å."""
    axes = ome["multiscales"].get("axes")
    names = [one.get("name") if isinstance(one, dict) else one for one in axes] if isinstance(axes, list) else []
    if len(names) != len(frames.array.shape):
        return (0.0, 0.0, 0.0)
    if names[-2:] != ["y", "x"]:
        raise FormatError(f"the axes of this OME-Zarr image are {', '.join(map(str, names))}, expected y, x at the end")
    scale: list[float] = [1.0] * len(names)
    for made in (ome["level"].get("coordinateTransformations"), ome["multiscales"].get("coordinateTransformations")):
        for one in made if isinstance(made, list) else ():
            if isinstance(one, dict) and one.get("type") == "scale" and isinstance(one.get("scale"), list):
                factors = one["scale"]
                if len(factors) != len(scale) or not all(isinstance(f, (int, float)) for f in factors):
                    return (0.0, 0.0, 0.0)
                scale = [a * b for a, b in zip(scale, factors, strict=True)]
    units = [one.get("unit") if isinstance(one, dict) else None for one in axes]
    y, x = (angstrom(scale[k], units[k]) for k in (-2, -1))
    z = angstrom(scale[-3], units[-3]) if len(names) > 2 and names[-3] == "z" else 0.0
    return (x, y, z) if x and y else (0.0, 0.0, 0.0)
