"""An HDF5 file: how it is opened, where its links lead, and what it says in attributes and small data sets.

Every link is followed here, one step at a time, and never by the HDF5 library: so a file that is not there is named,
nothing that is no regular file is opened, and no circle is walked. HDF5's own words for an error become ours.

Layout: HDF5 File Format Specification, version 3.0. The library is h5py.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np

from mrcz.errors import FormatError
from mrcz.formats._h5texts import attribute_references, heap_objects, sound_references
from mrcz.formats._words import THEIRS, in_our_words
from mrcz.formats.base import Bytes
from mrcz.storage.source import FileSource
from mrcz.storage.wrapped import open_regular

__all__ = ["H5File", "MissingLink", "attributes", "plain", "scalar", "scalars", "text"]

_HEAP = b"GCOL\x01\0\0\0"  # mark and version of a global heap
_DEEP = 32  # links that lead to links
_MOST_OBJECTS = 200_000  # that are looked at
_MOST_VALUES = 64  # elements of what is taken for metadata
_MOST_TEXT = 1 << 20  # bytes of one text
_MOST_SAID = 2000  # values of one file


class MissingLink(FormatError):
    """A link of a file leads to what is not there."""


class _File(io.RawIOBase):
    """A source as the file object h5py reads.

    HDF5 walks for ever through a damaged global heap, where it keeps texts of variable length (seen in HDF5 2.0), so
    that is looked at when HDF5 asks for it.
    """

    def __init__(self, source: Bytes) -> None:
        self.source, self.at = source, 0
        self.heaps: set[int] = set()  # that are sound

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self.at = offset + (0, self.at, self.source.size)[whence]
        return self.at

    def tell(self) -> int:
        return self.at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        begin = self.at
        if (
            len(view) <= _MOST_TEXT
        ):  # HDF5 reads ahead: a heap, or a part of its mark, may lie anywhere in what it reads
            begin = max(0, self.at - len(_HEAP) + 1)
        around = self.source.read(begin, self.at - begin + len(view) + (self.at > begin) * (len(_HEAP) - 1))
        data = around[self.at - begin :][: len(view)]
        if len(data) != len(view):
            raise OSError(f"{len(view)} bytes are expected at byte {self.at}, {len(data)} are there")
        if len(view) <= _MOST_TEXT:
            k = around.find(_HEAP)
            while k >= 0:
                if not self._sound(begin + k):
                    raise OSError(f"the global heap at byte {begin + k} is damaged")
                k = around.find(_HEAP, k + 1)
        view[:] = data
        self.at += len(data)
        return len(data)

    def _sound(self, place: int) -> bool:
        if place not in self.heaps and heap_objects(self.source, place) is not None:
            self.heaps.add(place)
        return place in self.heaps


class H5File:
    """An open HDF5 file, and those its links lead to.

    It is read through our source: so HDF5 takes no lock, which a file that is being written or lies on some servers
    would refuse, and h5py may open the file a second time as it likes.

    Attributes
    ----------
    source : Bytes
        Of chunks that are read by their place.
    path : str
    folder : str or None
        Where links begin that are relative; None where there is no folder.
    root : h5py.File

    Raises
    ------
    FormatError
        HDF5 does not take the file.
    """

    def __init__(self, source: Bytes, first: H5File | None = None) -> None:
        self.source, self.path = source, source.name
        self.first = first if first is not None else self
        self.linked: dict[str, H5File] = {}
        self._named: Any = None
        self.folder = os.path.dirname(os.path.abspath(source.name)) if os.path.isfile(source.name) else None
        with in_our_words("HDF5 does not open this file", self.path):
            self.root = h5py.File(_File(source), "r")
            self.userblock = int(self.root.userblock_size)

    def close(self) -> None:
        """Close it, and what its links led to."""
        for other in self.linked.values():
            other.close()
            other.source.close()  # type: ignore[attr-defined]  # those are opened here
        self.linked.clear()
        try:
            if self._named is not None:
                self._named.close()
            self.root.close()
        except THEIRS:  # what was read is read
            pass

    def by_name(self) -> Any:
        """The file as HDF5 itself opens it by its name."""
        if self._named is None:
            if not isinstance(self.source, FileSource) or not self.source.same_file(self.path):
                raise FormatError("sources of virtual data sets are read of local files only", path=self.path)
            self._named = h5py.File(self.path, "r")
        return self._named

    def beside(self, name: str, what: str) -> str:
        """Where a file lies that this one names: at its name, or of this name beside this file.

        Raises
        ------
        MissingLink
            Nowhere; or the name is that of a device or a pipe.
        """
        if self.folder is None:
            raise MissingLink(f"{what} leads to {name}, and no folder is known to look for it in", path=self.path)
        places = [os.path.join(self.folder, name)]  # an absolute name stays as it is
        if os.path.isabs(name):
            places.append(os.path.join(self.folder, os.path.basename(name)))
        for place in places:
            if "\0" not in place and os.path.isfile(place):
                return place
        raise MissingLink(f"{what} leads to {name}, which is not there: looked for {places[0]}", path=self.path)

    def follow(self, name: str, what: str) -> H5File:
        """The file of this name that a link leads to."""
        place = self.beside(name, what)
        real, first = os.path.realpath(place), self.first
        if first.folder is not None and real == os.path.realpath(first.path):
            return first
        if real not in first.linked:
            source = FileSource(open_regular(place), place)
            try:
                first.linked[real] = H5File(source, first)
            except BaseException:
                source.close()
                raise
        return first.linked[real]

    def find(self, path: str, start: Any = None, depth: int = 0) -> tuple[H5File, Any]:
        """The object at a path, and the file it lies in: links are followed.

        Raises
        ------
        MissingLink
            There is none; the message names the link that leads nowhere.
        """
        file, here = self, self.root if start is None or path.startswith("/") else start
        for name in path.split("/"):
            if name in ("", "."):
                continue
            file, here = file.step(here, name, depth)
        return file, here

    def step(self, group: Any, name: str, depth: int = 0) -> tuple[H5File, Any]:
        """What a group calls so, and the file it lies in."""
        if depth > _DEEP:
            raise FormatError(f"links lead to links more than {_DEEP} times, the last of them {name}", path=self.path)
        where = f"{getattr(group, 'name', None) or ''}/{name}".replace("//", "/")
        with in_our_words(f"{where} cannot be read", self.path):
            link = group.get(name, getlink=True) if isinstance(group, h5py.Group) else None
            if link is None:
                raise MissingLink(f"there is no {where} in this file", path=self.path)
            if isinstance(link, h5py.ExternalLink):
                other = self.follow(link.filename, f"the link {where}")
                return other.find(link.path, None, depth + 1)
            if isinstance(link, h5py.SoftLink):
                try:
                    return self.find(link.path, group, depth + 1)
                except MissingLink as error:
                    raise MissingLink(f"the link {where} leads nowhere: {error.message}", path=error.path) from None
            if not isinstance(link, h5py.HardLink):
                raise MissingLink(f"{where} is a link of a kind that is not known", path=self.path)
            return self, group[name]

    def walk(self, start: Any = None) -> Iterator[tuple[str, H5File, Any, MissingLink | None]]:
        """Everything below a group, each once, as (path, its file, the object, what a link misses).

        Of a link that leads nowhere the object is None. Paths are those that lead there from `start`.
        """
        seen: set[tuple[int, int]] = set()
        waiting: list[tuple[str, H5File, Any]] = [("", self, self.root if start is None else start)]
        count = 0
        while waiting:
            at, file, group = waiting.pop()
            with in_our_words(f"the group {at or '/'} cannot be read", self.path):
                names = list(group)
            below = []
            for name in names:
                count += 1
                if count > _MOST_OBJECTS:
                    raise FormatError(f"there are more than {_MOST_OBJECTS} objects in this file", path=self.path)
                path = f"{at}/{name}"
                try:
                    owner, found = file.step(group, name)
                except MissingLink as error:
                    yield path, file, None, error
                    continue
                with in_our_words(f"{path} cannot be read", self.path):
                    address = int(h5py.h5o.get_info(found.id).addr)
                if (id(owner), address) in seen:
                    continue
                seen.add((id(owner), address))
                yield path, owner, found, None
                if isinstance(found, h5py.Group):
                    below.append((path, owner, found))
            waiting.extend(reversed(below))


def text(value: Any) -> str:
    """A text of a file as one."""
    if isinstance(value, np.ndarray):
        value = value.reshape(-1)[0] if value.size == 1 else ""
    if isinstance(value, bytes):
        return value.split(b"\0")[0].decode("utf-8", "replace")
    return str(value)


def plain(value: Any) -> Any:
    """A small value of a file as Python has it; None for what is none (references, large arrays)."""
    if isinstance(value, (h5py.Empty, h5py.Reference, h5py.RegionReference)):
        return None
    if isinstance(value, (bytes, np.bytes_)):
        return text(bytes(value))
    if isinstance(value, str):
        return value
    if isinstance(value, np.ndarray):
        return None if value.size > _MOST_VALUES else plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    return value if isinstance(value, (bool, int, float)) or value is None else str(value)


def _simple(stored: Any) -> bool:
    """Whether values are of a type that HDF5 reads safely from a damaged file, too: numbers and texts."""
    kind = stored.get_class()
    return kind in (h5py.h5t.INTEGER, h5py.h5t.FLOAT, h5py.h5t.STRING, h5py.h5t.ENUM)


def attributes(found: Any, file: H5File) -> dict[str, Any]:
    """The attributes of an object; what cannot be read, or is no small value, is left out."""
    source = None if file.userblock else file.source  # places are counted from behind the block, and it is rare
    said: dict[str, Any] = {}
    with in_our_words("attributes cannot be read", file.path):
        for name in list(found.attrs)[:_MOST_SAID]:
            try:
                attribute = h5py.h5a.open(found.id, name.encode("utf-8", "surrogateescape"))
                kind, size = attribute.get_type(), attribute.get_storage_size()
                if size > _MOST_TEXT or not _simple(kind):
                    continue
                if source is not None and kind.get_class() == h5py.h5t.STRING and kind.is_variable_str():
                    place = h5py.h5o.get_info(found.id).addr
                    raw = attribute_references(source, place, name.encode("utf-8", "surrogateescape"), size)
                    if raw is not None and not sound_references(source, raw):
                        continue
                value = plain(found.attrs[name])
            except THEIRS:
                continue
            if value is not None:
                said[name] = value
    return said


def _reference_bytes(found: Any, source: Bytes) -> bytes | None:
    """What a small data set of texts of variable length stores; None where that is nowhere to be seen."""
    size = int(found.id.get_storage_size())
    place = found.id.get_offset() if found.chunks is None else None
    if found.chunks is not None and found.id.get_num_chunks() == 1 and not found.id.get_create_plist().get_nfilters():
        place = found.id.get_chunk_info(0).byte_offset
    return None if place is None else source.read(int(place), size)


def scalar(found: Any, file: H5File) -> Any:
    """The value of a small data set; None for a large one, and for what cannot be read."""
    try:
        if not isinstance(found, h5py.Dataset) or found.shape is None or found.size > _MOST_VALUES:
            return None
        if found.is_virtual or found.external or found.id.get_storage_size() > _MOST_TEXT:
            return None
        kind = found.id.get_type()
        if not _simple(kind) or (found.chunks is not None and math.prod(found.chunks) > _MOST_TEXT):
            return None
        if kind.get_class() == h5py.h5t.STRING and kind.is_variable_str() and not file.userblock:
            raw = _reference_bytes(found, file.source)
            if raw is None or not sound_references(file.source, raw):
                return None
        return plain(found[()])
    except THEIRS:
        return None


def scalars(file: H5File, start: Any = None) -> dict[str, Any]:
    """The small data sets below a group by their paths, and their units as ``path@units``."""
    said: dict[str, Any] = {}
    for path, owner, found, _ in file.walk(start):
        value = scalar(found, owner)
        if value is None:
            continue
        said[path] = value
        units = attributes(found, owner).get("units")
        if units is not None:
            said[f"{path}@units"] = units
        if len(said) >= _MOST_SAID:
            break
    return said
