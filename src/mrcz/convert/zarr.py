"""A file as a Zarr array, without copying: references that say which bytes of it each Zarr chunk is.

A frame of an MRCZ file is stored exactly as numcodecs' Blosc stores a Zarr chunk, so a few kilobytes of JSON make the
file an array for every program that reads Zarr through kerchunk or VirtualiZarr references (reference file system
specification, version 1: https://fsspec.github.io/kerchunk/spec.html).
"""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np

from mrcz.file.reader import Reader
from mrcz.storage.disk import is_same_place
from mrcz.storage.remote import is_url
from mrcz.storage.whole import whole_file

__all__ = ["references", "write_references"]

# README_CHUNK_FORMAT of c-blosc: codec format in bits 5 to 7 of the flags, and what numcodecs calls it.
_CNAMES = {0: "blosclz", 1: "lz4", 2: "snappy", 3: "zlib", 4: "zstd"}


def references(reader: Reader, *, url: str | None = None, zarr_format: int = 2, name: str = "data") -> dict[str, Any]:
    """Kerchunk references that present a file as a Zarr group with one array.

    Parameters
    ----------
    reader : Reader
        The open file; its header and index are used, no frame is read.
    url : str, optional
        Where readers of the references will find the file: a URL or an absolute path. Default: where it is now.
    zarr_format : {2, 3}
        Version of the Zarr metadata.
    name : str
        Of the array in the group.

    Returns
    -------
    dict
        ``{"version": 1, "refs": {...}}``, for ``json.dump`` or ``fsspec.filesystem("reference", fo=...)``. The array is
        (nz, ny, nx), one frame a chunk, of the file's dtype; its attributes hold pixel sizes in Å and the metadata.

    Raises
    ------
    ValueError
        The pixels are of a kind Zarr does not know (4-bit, complex int16), the file is not where a URL can point
        (inside gzip, or a file object), or its chunks are Blosc 2.
    """
    if zarr_format not in (2, 3):
        raise ValueError(f"zarr_format={zarr_format}: expected 2 or 3")
    pixels = reader.pixel_format
    if pixels.packed or pixels.stored != pixels.dtype:
        raise ValueError(f"{reader.path}: pixels of mode {pixels.mode} have no Zarr equivalent")
    if url is None:
        url = _locate(reader)
    described = _zarr_2(reader, name) if zarr_format == 2 else _zarr_3(reader, name)
    refs: dict[str, Any] = {key: json.dumps(value) for key, value in described.items()}
    for k, (offset, size) in enumerate(zip(reader.index.offsets.tolist(), reader.index.sizes.tolist(), strict=True)):
        refs[_key(name, k, len(reader.shape), zarr_format)] = [url, offset, size]
    return {"version": 1, "refs": refs}


def _key(name: str, k: int, ndim: int, zarr_format: int) -> str:
    """What Zarr calls the chunk of frame k."""
    place = [str(k), *["0"] * (ndim - 1)]
    return f"{name}/{'.'.join(place)}" if zarr_format == 2 else f"{name}/c/{'/'.join(place)}"


def _zarr_2(reader: Reader, name: str) -> dict[str, Any]:
    """A group with the array in it, as the files of version 2 describe them."""
    compressor = _compressor(reader) if reader.is_compressed else None
    array = {
        "zarr_format": 2,
        "shape": list(reader.shape),
        "chunks": [1, *reader.shape[1:]],
        "dtype": reader.pixel_format.dtype.str,
        "compressor": None if compressor is None else {"id": "blosc", **compressor},
        "fill_value": None,
        "order": "C",
        "filters": None,
    }
    attributes = {"_ARRAY_DIMENSIONS": _axes(reader), **_attributes(reader)}
    return {".zgroup": {"zarr_format": 2}, ".zattrs": {}, f"{name}/.zarray": array, f"{name}/.zattrs": attributes}


def _zarr_3(reader: Reader, name: str) -> dict[str, Any]:
    """The same in version 3."""
    pixels = reader.pixel_format
    endian = "big" if pixels.byteorder == ">" else "little"
    codecs: list[dict[str, Any]] = [{"name": "bytes", "configuration": {"endian": endian}}]
    if reader.is_compressed:
        compressor = _compressor(reader)
        shuffles = {0: "noshuffle", 1: "shuffle", 2: "bitshuffle"}
        configuration = compressor | {
            "shuffle": shuffles[compressor["shuffle"]],
            "typesize": max(1, pixels.dtype.itemsize),
        }
        codecs.append({"name": "blosc", "configuration": configuration})
    array = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(reader.shape),
        "data_type": pixels.dtype.name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1, *reader.shape[1:]]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": [0.0, 0.0] if pixels.dtype.kind == "c" else 0.0 if pixels.dtype.kind == "f" else 0,
        "codecs": codecs,
        "attributes": _attributes(reader),
        "dimension_names": _axes(reader),
        "storage_transformers": [],
    }
    return {"zarr.json": {"zarr_format": 3, "node_type": "group", "attributes": {}}, f"{name}/zarr.json": array}


def _axes(reader: Reader) -> list[str]:
    return ["z", "y", "x", "c"][: len(reader.shape)]


def write_references(
    source: str | os.PathLike,
    destination: str | os.PathLike,
    *,
    overwrite: bool = False,
    url: str | None = None,
    zarr_format: int = 2,
    name: str = "data",
    storage_options: dict[str, Any] | None = None,
) -> None:
    """Write `references` of a file as JSON to *destination*, whole or not at all; url, zarr_format, name as there.

    Raises FileExistsError for a *destination* that is there, unless `overwrite`, and ValueError where it is *source*
    itself.
    """
    if not is_url(source) and is_same_place(source, destination):
        raise ValueError(f"{os.fspath(destination)} is the source itself")
    with Reader(source, storage_options=storage_options) as reader:
        text = json.dumps(references(reader, url=url, zarr_format=zarr_format, name=name))
    with whole_file(destination, overwrite=overwrite) as file:
        file.write(text.encode())


def _locate(reader: Reader) -> str:
    path = str(reader.path)
    if "://" in path:
        return path
    if not os.path.isfile(path):
        raise ValueError(f"{path}: pass url=, no file of this name can be pointed to")
    with open(path, "rb") as file:
        # Offsets refer to the plain bytes, so what is inside gzip or zstd cannot be pointed to.
        if file.read(1024) != reader.header.tobytes():
            raise ValueError(f"{path}: the file is wrapped; unpack it first")
    return os.path.abspath(path)


def _compressor(reader: Reader) -> dict[str, Any]:
    """The Blosc settings of the first chunk. Decoders take what they need from each chunk's own header."""
    from mrcz.container.chunks import CHUNK_HEADER_SIZE, parse_chunk_header

    if not len(reader):
        return {"cname": "zstd", "clevel": 1, "shuffle": 0, "blocksize": 0}
    head = parse_chunk_header(reader.source.read(int(reader.index.offsets[0]), CHUNK_HEADER_SIZE))
    if head.version != 2:
        raise ValueError(f"{reader.path}: chunks are Blosc 2, Zarr reads Blosc 1")
    shuffle = 2 if head.flags & 4 else head.flags & 1
    return {"cname": _CNAMES.get(head.flags >> 5, "zstd"), "clevel": 1, "shuffle": shuffle, "blocksize": 0}


def _attributes(reader: Reader) -> dict[str, Any]:
    x, y, z = (float(size) for size in reader.pixel_size)
    attributes: dict[str, Any] = {"kind": reader.kind, "pixel_size": [x, y, z], "pixel_size_unit": "angstrom"}
    metadata = _plain(reader.metadata)
    if metadata:
        attributes["metadata"] = metadata
    return attributes


def _plain(value: Any) -> Any:
    """What JSON can say of a metadata value."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float):
        return value if np.isfinite(value) else str(value)
    if isinstance(value, (str, int, bool)) or value is None:
        return value
    return value.hex() if isinstance(value, bytes) else str(value)
