"""The directories of a TIFF or BigTIFF file: which fields there are and where, and no more.

TIFF Revision 6.0 (Adobe, 1992), pages 13 to 16; "The BigTIFF File Format" (Aware Systems). A directory says how many
fields it has, of 12 bytes each (BigTIFF 20), and where the next one is. Nothing here is believed before it is compared
with the size of the file: directories and values lie within it, no directory comes twice, and lists are as long as they
may be. Fields of unknown type are passed over, as the standard asks.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator
from typing import NamedTuple

import numpy as np

from mrcz.errors import FormatError
from mrcz.formats.base import Bytes

__all__ = ["Directory", "Field", "TiffFile"]

_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_WHOLE = {1: "u1", 3: "u2", 4: "u4", 13: "u4", 16: "u8", 18: "u8"}  # types of numbers, sizes and offsets
_MOST_FIELDS = 4096  # of a directory; cameras write about fifteen
_AHEAD = 1024  # bytes read where a directory begins: most are shorter


class Field(NamedTuple):
    """A field of a directory: `values` values of a type (TIFF's number for it) from byte `offset` on."""

    kind: int
    values: int
    offset: int
    inline: bytes  # the values themselves, where they stand in the directory

    @property
    def size(self) -> int:
        """Bytes of the values."""
        return self.values * _SIZES[self.kind]


class Directory(NamedTuple):
    """One directory, at byte `offset` of the file, the `number`-th from 0."""

    number: int
    offset: int
    fields: dict[int, Field]


class TiffFile:
    """The frame of a TIFF or BigTIFF file, of either byte order.

    Raises
    ------
    FormatError
        It is none, or too short to be one.
    """

    def __init__(self, source: Bytes) -> None:
        self.source = source
        head = source.read(0, 16)
        self.order = {b"II": "<", b"MM": ">"}.get(head[:2], "")
        version = struct.unpack(self.order + "H", head[2:4])[0] if self.order and len(head) >= 4 else 0
        if version not in (42, 43):
            raise FormatError("this is no TIFF file", path=source.name)
        self.big = version == 43
        if len(head) < (16 if self.big else 8):
            raise FormatError(f"a TIFF header of {len(head)} bytes", path=source.name)
        if self.big and struct.unpack(self.order + "HH", head[4:8]) != (8, 0):
            raise FormatError("the offsets of this BigTIFF file are not of 8 bytes", path=source.name)
        self.first = self._number(head[8:16] if self.big else head[4:8])

    def directories(self, tags: Collection[int]) -> Iterator[Directory]:
        """The directories one after the other, and of their fields those of these tags.

        Raises
        ------
        FormatError
            One is cut short, beyond the end of the file, or was there before; or they overlap.
        """
        offset, number, seen, room = self.first, 0, set[int](), self.source.size
        while offset:
            if offset in seen:
                raise self.wrong(number, offset, "it was there before: the directories go in a circle")
            seen.add(offset)
            directory, link, size = self._directory(number, offset, tags)
            room -= size
            if room < 0:
                raise self.wrong(number, offset, "the directories overlap: together they are longer than the file")
            yield directory
            offset, number = link, number + 1

    def _directory(self, number: int, offset: int, tags: Collection[int]) -> tuple[Directory, int, int]:
        counted, entry, link = (8, 20, 8) if self.big else (2, 12, 4)
        raw = self.source.read(offset, _AHEAD) if offset < self.source.size else b""
        if len(raw) < counted:
            raise self.wrong(number, offset, f"the file ends at byte {self.source.size}")
        count = self._number(raw[:counted])
        if not 1 <= count <= _MOST_FIELDS:
            raise self.wrong(number, offset, f"it claims {count} fields")
        need = counted + count * entry + link
        if need > len(raw):
            raw += self.source.read(offset + len(raw), need - len(raw)) if len(raw) == _AHEAD else b""
        if need > len(raw):
            raise self.wrong(number, offset, f"it has {count} fields, {need} bytes, and the file ends after {len(raw)}")
        fields = {}
        for k in range(count):
            at = counted + k * entry
            tag, kind = struct.unpack_from(self.order + "HH", raw, at)
            if tag in tags and kind in _SIZES and tag not in fields:
                half = (entry - 4) // 2
                values = self._number(raw[at + 4 : at + 4 + half])
                fields[tag] = self._field(kind, values, raw[at + 4 + half : at + entry], offset + at + 4 + half)
        return Directory(number, offset, fields), self._number(raw[need - link : need]), need

    def _field(self, kind: int, count: int, value: bytes, here: int) -> Field:
        size = count * _SIZES[kind]
        if size <= len(value):
            return Field(kind, count, here, value[:size])
        return Field(kind, count, self._number(value), b"")

    def _number(self, raw: bytes) -> int:
        return int.from_bytes(raw, "little" if self.order == "<" else "big")

    def wrong(self, number: int, offset: int, what: str) -> FormatError:
        return FormatError(f"directory {number} at byte {offset}: {what}", path=self.source.name)

    def raw(self, directory: Directory, tag: int, most: int) -> bytes | None:
        """The bytes of a field's values, None where there is no such field.

        Raises
        ------
        FormatError
            They are more than `most`, or not all in the file.
        """
        field = directory.fields.get(tag)
        if field is None:
            return None
        if field.inline or not field.values:
            return field.inline
        if field.size > most or field.offset + field.size > self.source.size:
            raise self.wrong(
                directory.number,
                directory.offset,
                f"field {tag} claims {field.size} bytes at byte {field.offset}, the file has {self.source.size} and "
                f"{most} are allowed",
            )
        found = self.source.read(field.offset, field.size)
        if len(found) != field.size:
            raise self.wrong(directory.number, directory.offset, f"field {tag} ends after {len(found)} bytes")
        return found

    def numbers(self, directory: Directory, tag: int, most: int) -> list[int]:
        """The whole numbers of a field, none where it is not there or holds something else; at most `most`."""
        field = directory.fields.get(tag)
        if field is None or field.kind not in _WHOLE:
            return []
        raw = self.raw(directory, tag, most * _SIZES[field.kind])
        found: list[int] = np.frombuffer(raw or b"", self.order + _WHOLE[field.kind]).tolist()
        return found

    def number(self, directory: Directory, tag: int, default: int | None = None) -> int:
        """The one whole number of a field.

        Raises
        ------
        FormatError
            It is not there and there is no default, or it is not one number.
        """
        found = self.numbers(directory, tag, 1)
        if len(found) == 1:
            return found[0]
        if default is None or tag in directory.fields:
            raise self.wrong(directory.number, directory.offset, f"field {tag} has {len(found)} numbers, not one")
        return default
