"""The tags of Gatan Digital Micrograph DM3 and DM4 files: a tree, and the images in it.

A file is a short header and one group of tags; a tag is a group again or a value, described by a few integers: a
number for its type, or 15 and the types of a structure, or 20, the type of the elements and their count. DM3 counts in
32 bits, DM4 in 64 and gives every entry its length. The tree itself is big-endian; values have the byte order named in
the header. Layout after C. Boothroyd, "Description of the Digital Micrograph tag structure".

Nothing here is believed until it is compared with the bytes that are there: groups end inside their parents, arrays
inside the file, and an image's dimensions must account for its values.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from mrcz.errors import FormatError
from mrcz.formats.base import Bytes
from mrcz.storage.source import FileSource
from mrcz.storage.wrapped import open_regular

__all__ = ["PACKED_COMPLEX", "Image", "StoredArray", "Tags", "paired", "read_images", "text", "walk_images"]

_SIMPLE = {2: "i2", 3: "i4", 4: "u2", 5: "u4", 6: "f4", 7: "f8", 8: "?", 9: "i1", 10: "u1", 11: "i8", 12: "u8"}
_STRUCT, _STRING, _ARRAY = 15, 18, 20
_END, _GROUP, _VALUE = 0, 20, 21

COMPLEX = {3: "c8", 13: "c16"}  # ImageData/DataType of arrays stored as pairs of floats
PACKED_COMPLEX = (5, 27)  # half of a Fourier transform of real data; the other half is its conjugate

_MAX_DEPTH = 64  # Gatan nests about 15 deep
_MAX_INFO = 1 << 16
_MAX_DIMENSIONS = 16
_MAX_IMAGES = 1 << 12
_MAX_TAGS = 1 << 20  # real files have some thousands
_MAX_TEXT = 1 << 20  # bytes
_BLOCK = 1 << 16  # bytes read at a time; arrays are stepped over
_IN_MEMORY = 16 << 20  # arrays above this many bytes are mapped, not read


@dataclass(frozen=True)
class StoredArray:
    """Where an array of the file is: ``count`` elements of ``dtype`` at ``offset``.

    With a ``source`` it is read from there, else from the file called ``path``.
    """

    path: str
    dtype: np.dtype
    count: int
    offset: int
    source: Bytes | None = field(default=None, repr=False, compare=False)

    @property
    def nbytes(self) -> int:
        return self.count * self.dtype.itemsize

    def read(self, shape: tuple[int, ...] | None = None) -> np.ndarray:
        """The values, 1-D or of ``shape``: a new array, or, above 16 MiB, a copy-on-write map of the file."""
        shape = (self.count,) if shape is None else shape
        if self.source is not None:
            raw = self.source.read(self.offset, self.nbytes)
            if len(raw) != self.nbytes:
                raise FormatError(f"offset {self.offset}: {self.nbytes} bytes expected, {len(raw)} are there")
            return np.frombuffer(raw, self.dtype).reshape(shape)
        if self.nbytes > _IN_MEMORY:
            return np.memmap(self.path, dtype=self.dtype, mode="c", offset=self.offset, shape=shape)
        return np.fromfile(self.path, dtype=self.dtype, count=self.count, offset=self.offset).reshape(shape)


@dataclass
class Image:
    """One entry of the file's ImageList.

    Attributes
    ----------
    dimensions : list of int
        As stored, fastest first: (nx, ny, nz…).
    data : StoredArray or None
        The pixels.
    data_type : int or None
        Gatan's number for the pixel type.
    tags : list of (path, value)
        The values asked for, in file order. ``path`` is relative to the image, such as
        ``("ImageData", "Calibrations", "Dimension", "0", "Scale")``; groups without a name are numbered.
    """

    dimensions: list[int] = field(default_factory=list)
    data: StoredArray | None = None
    data_type: int | None = None
    tags: list[tuple[tuple[str, ...], Any]] = field(default_factory=list)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the pixels in NumPy's order, (…, nz, ny, nx)."""
        return tuple(reversed(self.dimensions))

    def pixels(self) -> np.ndarray:
        """The pixels, of :attr:`shape`; first row first, as stored.

        A packed Fourier transform (DataType 5 or 27) gives the half that is there, (ny, nx // 2 + 1) complex values.

        Raises
        ------
        FormatError
            The dimensions and the number of stored values contradict each other.
        """
        if self.data is None:
            raise FormatError("the image has no data")
        data, shape = self.data, self.shape
        if self.data_type in PACKED_COMPLEX and shape:
            shape = shape[:-1] + (shape[-1] // 2 + 1,)
            data = paired(data, "c8")
        elif self.data_type in COMPLEX:
            data = paired(data, COMPLEX[self.data_type])
        if math.prod(shape) != data.count:
            raise FormatError(
                f"an image of {' x '.join(map(str, self.dimensions)) or 'no dimensions'} "
                f"cannot have {data.count} values of {data.dtype}",
                path=data.path,
            )
        return data.read(shape)


def paired(data: StoredArray, kind: str) -> StoredArray:
    """The same bytes as complex numbers; they may be stored as floats or as structures of two."""
    dtype = np.dtype(kind).newbyteorder(data.dtype["f0"].byteorder if data.dtype.names else data.dtype.byteorder)
    return StoredArray(data.path, dtype, data.nbytes // dtype.itemsize, data.offset, data.source)


def read_images(path: str | os.PathLike[str], keep: Callable[[tuple[str, ...]], bool] | None = None) -> list[Image]:
    """The images of a DM3 or DM4 file, their pixels not read yet.

    Parameters
    ----------
    path : path-like
        The file.
    keep : callable, optional
        Says of a tag's path within its image whether its value is wanted in :attr:`Image.tags`; all are by default.

    Returns
    -------
    list of Image
        In file order. The first is often a thumbnail.

    Raises
    ------
    FormatError
        Not a DM3 or DM4 file, or a damaged one.
    """
    name = os.fsdecode(os.fspath(path))
    with closing(FileSource(open_regular(name), name)) as source:
        images, _ = walk_images(source, keep, by_source=False)
    return list(images.values())


#: Paths and values, in the order of the file; repeated ones are there as often.
Tags = list[tuple[tuple[str, ...], Any]]


def walk_images(
    source: Bytes, keep: Callable[[tuple[str, ...]], bool] | None = None, *, by_source: bool = True
) -> tuple[dict[str, Image], Tags]:
    """The images by their names in the ImageList, and the tags that are outside of it.

    Parameters
    ----------
    source : source of bytes
    keep : callable, optional
        As of `read_images`; of tags within images.
    by_source : bool
        Arrays are read from the source, as long as it is open; or by the name of the file.
    """
    images: dict[str, Image] = {}
    others: Tags = []
    name = source.name
    for count, (where, value) in enumerate(_Walk(source, by_source)):
        if count == _MAX_TAGS:
            raise FormatError(f"more than {_MAX_TAGS} tags", path=name)
        if len(where) < 3 or where[0] != "ImageList":
            if by_source:
                others.append((where, value))
            continue
        if where[1] not in images and len(images) == _MAX_IMAGES:
            raise FormatError(f"more than {_MAX_IMAGES} images", path=name)
        image = images.setdefault(where[1], Image())
        inner = where[2:]
        if inner == ("ImageData", "Data"):
            if not isinstance(value, StoredArray):
                raise FormatError(f"image {where[1]}: Data is not an array", path=name)
            image.data = value
        elif inner == ("ImageData", "DataType"):
            image.data_type = _integer(value, "DataType", name)
        elif inner[:2] == ("ImageData", "Dimensions"):
            image.dimensions.append(_integer(value, "Dimensions", name))
            if len(image.dimensions) > _MAX_DIMENSIONS:
                raise FormatError(f"image {where[1]} has more than {_MAX_DIMENSIONS} dimensions", path=name)
        elif keep is None or keep(inner):
            image.tags.append((inner, value))
    return images, others


def text(value: Any) -> str:
    """The string a value stands for; Gatan stores text as arrays of UTF-16 codes, the empty one as an empty array."""
    if isinstance(value, str):
        return value
    if isinstance(value, StoredArray) and value.dtype.kind in "iu":
        wide = value.dtype.itemsize > 1
        raw = value.read().astype("<u2" if wide else "u1").tobytes()
        return raw.decode("utf-16-le" if wide else "latin-1", "replace").rstrip("\0")
    return ""


def _integer(value: Any, what: str, path: str) -> int:
    if not isinstance(value, np.integer) or value < 0:
        raise FormatError(f"{what} is {value!r}, expected a whole number", path=path)
    return int(value)


class _Walk:
    """The tags of a file, depth first: pairs of a path and a value.

    A value is a NumPy scalar, a list of them (a structure), a str, a StoredArray, or None for an unknown type.
    """

    def __init__(self, source: Bytes, by_source: bool) -> None:
        self.source, self.path, self.size, self.at = source, source.name, source.size, 0
        self.given = source if by_source else None
        self.block, self.block_at = b"", 0
        if self.size < 16:
            raise FormatError("too short for a Digital Micrograph file", path=self.path)
        version = self.number(">i")
        if version not in (3, 4):
            raise FormatError(
                f"not a Digital Micrograph file: its version is {version}, expected 3 or 4", path=self.path
            )
        self.counter = ">i" if version == 3 else ">q"
        self.lengths = version == 4  # DM4 says how long each entry is
        self.number(self.counter)  # length of the root group; some writers leave a few bytes out
        order = self.number(">i")
        if order not in (0, 1):
            raise FormatError(f"byte order {order}, expected 0 or 1", path=self.path)
        self.order: Literal["<", ">"] = "<" if order else ">"

    def take(self, size: int) -> int:
        """Step over ``size`` bytes, which must be there; their offset."""
        start = self.at
        if size < 0 or size > self.size - start:
            raise FormatError(f"offset {start}: {size} bytes expected, {self.size - start} remain", path=self.path)
        self.at = start + size
        return start

    def bytes(self, size: int) -> bytes:
        """Step over ``size`` bytes: these bytes."""
        start = self.take(size)
        first = start - self.block_at
        if not 0 <= first <= first + size <= len(self.block):
            self.block, self.block_at, first = self.source.read(start, max(size, _BLOCK)), start, 0
            if len(self.block) < size:
                raise FormatError(f"offset {start}: {size} bytes expected, {len(self.block)} are there", path=self.path)
        return self.block[first : first + size]

    def number(self, form: str) -> int:
        result: int = struct.unpack(form, self.bytes(struct.calcsize(form)))[0]
        return result

    def group(self) -> int:
        """The head of a group; the number of its entries."""
        self.take(2)  # sorted, open: of no consequence
        return self.number(self.counter)

    def __iter__(self) -> Iterator[tuple[tuple[str, ...], Any]]:
        # One level of the tree: its path, entries left, unnamed entries so far, end (None in DM3).
        levels: list[list[Any]] = [[(), self.group(), 0, None]]
        while levels:
            level = levels[-1]
            where, left, unnamed, end = level
            kind = self.number(">B") if left > 0 else _END
            if kind == _END:
                if end is not None:
                    self.at = end
                levels.pop()
                continue
            level[1] = left - 1
            name = self.bytes(self.number(">H")).decode("latin-1")
            if not name:
                name = str(unnamed)
                level[2] = unnamed + 1
            stop = None
            if self.lengths:
                size = self.number(">q")
                stop = self.take(size) + size
                if end is not None and stop > end:
                    raise FormatError(f"offset {self.at - size}: tag {name!r} ends outside its group", path=self.path)
                self.at = stop - size
            if kind == _GROUP:
                if len(levels) > _MAX_DEPTH:
                    raise FormatError(f"offset {self.at}: tags nested more than {_MAX_DEPTH} deep", path=self.path)
                levels.append([(*where, name), self.group(), 0, stop])
            elif kind == _VALUE:
                value = self.value()
                if stop is not None:
                    if self.at > stop:
                        raise FormatError(f"offset {stop}: tag {name!r} is longer than it says", path=self.path)
                    self.at = stop
                yield (*where, name), value
            else:
                raise FormatError(f"offset {self.at}: entry of unknown kind {kind}", path=self.path)

    def value(self) -> Any:
        start = self.at
        if self.bytes(4) != b"%%%%":
            raise FormatError(f"offset {start}: %%%% expected before a value", path=self.path)
        count = self.number(self.counter)
        if not 0 <= count <= _MAX_INFO:
            raise FormatError(f"offset {start}: a value described by {count} integers", path=self.path)
        width = struct.calcsize(self.counter)
        info = struct.unpack(f">{count}{self.counter[1]}", self.bytes(count * width))
        if not info:
            return None
        if info[0] == _ARRAY:
            dtype = self.element(info[1:-1])
            if dtype is None:
                return self.unknown(info)
            offset = self.take_array(info[-1], dtype.itemsize)
            return StoredArray(self.path, dtype, info[-1], offset, self.given)
        if info[0] == _STRING:
            size = info[1] if count > 1 else 0
            if size > _MAX_TEXT:
                raise FormatError(
                    f"offset {start}: a text of {size} bytes, expected at most {_MAX_TEXT}", path=self.path
                )
            return self.bytes(size).decode("utf-16-le" if self.order == "<" else "utf-16-be", "replace")
        dtype = self.element(info)
        if dtype is None:
            return self.unknown(info)
        found = np.frombuffer(self.bytes(dtype.itemsize), dtype=dtype)[0]
        return [found[name] for name in dtype.names] if dtype.names else found

    def take_array(self, count: int, itemsize: int) -> int:
        if count < 0 or count > (self.size - self.at) // itemsize:
            raise FormatError(
                f"offset {self.at}: an array of {count} x {itemsize} bytes, {self.size - self.at} remain",
                path=self.path,
            )
        return self.take(count * itemsize)

    def element(self, info: tuple[int, ...]) -> np.dtype | None:
        """The dtype of a number or a structure; None for a type unknown to us."""
        if len(info) >= 1 and info[0] in _SIMPLE:
            return np.dtype(_SIMPLE[info[0]]).newbyteorder(self.order)
        if len(info) >= 3 and info[0] == _STRUCT:
            count, fields = info[2], info[4::2]
            if count < 1 or len(fields) != count or any(code not in _SIMPLE for code in fields):
                raise FormatError(f"offset {self.at}: structure of {count} fields is malformed", path=self.path)
            return np.dtype([(f"f{i}", self.order + _SIMPLE[code]) for i, code in enumerate(fields)])
        return None

    def unknown(self, info: tuple[int, ...]) -> None:
        if not self.lengths:  # in DM3 nothing says where the next entry starts
            raise FormatError(f"offset {self.at}: value of unknown type {info[:4]}", path=self.path)
