"""The directories of a TIFF or BigTIFF file, as values; each count and offset compared with the bytes that are there.

Layout: TIFF revision 6.0 (Adobe, 1992), section 2; BigTIFF as libtiff defines it. A file begins with ``II`` (little) or
``MM`` (big-endian), 42 (BigTIFF: 43, 8, 0) and the offset of the first directory. A directory is a count of entries
(u2; u8), the entries (tag u2, type u2, count u4; u8, value or its offset in 4; 8 bytes) and the offset of the next one,
0 after the last.

Nothing here is recursive and nothing is unbounded: the chain may not come back to a directory, all directories together
are no larger than the file, and neither are the values read from them.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mrcz.errors import FormatError
from mrcz.formats.base import Bytes

__all__ = ["MOST_TEXT", "Directory", "Tag", "TiffFile"]

#: Bytes of a text that is read; OME-XML of thousands of planes has megabytes.
MOST_TEXT = 1 << 24

_BLOCK = 1 << 14  # bytes read at a time: a directory and its values are mostly near each other
_MOST_ENTRIES = 65535  # of a directory: what a classic TIFF can count; a BigTIFF that claims more is damaged
_SLACK = 1 << 20  # bytes of values that directories may share before they are called overlapping

# NumPy's codes of the types of values; rationals are two numbers. TIFF 6.0 page 15; 13 is an IFD, 16 to 18 BigTIFF's.
_TYPES = {
    1: "u1", 2: "u1", 3: "u2", 4: "u4", 5: "2u4", 6: "i1", 7: "u1", 8: "i2", 9: "i4", 10: "2i4", 11: "f4", 12: "f8",
    13: "u4", 16: "u8", 17: "i8", 18: "u8",
}  # fmt: skip
_WHOLE = (1, 3, 4, 13, 16, 18)  # of these numbers without a sign
_ORDERS: dict[bytes, Literal["<", ">"]] = {b"II": "<", b"MM": ">"}
_SIZES = {kind: np.dtype(code).itemsize for kind, code in _TYPES.items()}


@dataclass(frozen=True, slots=True)
class Tag:
    """An entry of a directory: its value is `count` of type `kind`, from byte `offset` of the file on."""

    code: int
    kind: int
    count: int
    offset: int
    value: bytes  # the 4 or 8 bytes that hold the value or its offset

    @property
    def nbytes(self) -> int:
        return self.count * _SIZES[self.kind]


class TiffFile:
    """Bytes of a TIFF file and the chain of its directories.

    Parameters
    ----------
    source : Bytes
    block : int
        Bytes read at a time where less is asked for, a quarter of them before it: values may stand in front of their
        directory.

    Attributes
    ----------
    order : str
        ``"<"`` or ``">"``.
    big : bool
        It is a BigTIFF.
    first : int
        Offset of the first directory.

    Raises
    ------
    FormatError
        The first bytes are not a TIFF's.
    """

    def __init__(self, source: Bytes, block: int = _BLOCK) -> None:
        self.source = source
        self.size = source.size
        self._ahead, self._before = block, block // 4
        self._block, self._start = b"", 0
        head = source.read(0, 16)
        order = _ORDERS.get(head[:2])
        version = struct.unpack(f"{order}H", head[2:4])[0] if order and len(head) >= 4 else 0
        if order is None or version not in (42, 43):
            raise FormatError("the first bytes are not those of a TIFF file", path=source.name)
        self.order, self.big = order, version == 43
        if len(head) < (16 if self.big else 8):
            raise FormatError(f"the file ends within its header, after {len(head)} bytes", path=source.name)
        if self.big and struct.unpack(f"{order}HH", head[4:8]) != (8, 0):
            raise FormatError("a BigTIFF whose offsets are not of 8 bytes", path=source.name)
        self.first: int = (
            struct.unpack(f"{order}Q", head[8:16])[0] if self.big else struct.unpack(f"{order}I", head[4:8])[0]
        )
        self._unread = self.size + _SLACK

    def directories(self) -> tuple[list[Directory], str | None]:
        """All directories of the chain, in its order, and what is wrong with the rest of it; None if nothing is."""
        found: list[Directory] = []
        if not self.first:
            return found, "there is no directory in it"
        try:
            found.extend(self.walk())
        except FormatError as error:
            return found, error.message
        return found, None

    def walk(self, codes: Collection[int] | None = None) -> Iterator[Directory]:
        """One directory of the chain after the other; of its tags those of these codes, or all.

        Raises
        ------
        FormatError
            One is not whole in the file, or was there before, or they overlap.
        """
        seen: set[int] = set()
        offset, left = self.first, self.size
        while offset:
            where = f"directory {len(seen)} at byte {offset}"
            if offset in seen:
                raise FormatError(f"{where} was in the chain before: it is a loop", path=self.source.name)
            try:
                made, after = self._directory(len(seen), offset, codes)
            except FormatError as error:
                raise FormatError(f"{where}: {error.message}", path=self.source.name) from None
            seen.add(offset)
            left -= made.nbytes
            if left < 0:
                raise FormatError(
                    f"{where} overlaps others: together they are larger than the file", path=self.source.name
                )
            yield made
            offset = after

    def _directory(self, number: int, offset: int, codes: Collection[int] | None) -> tuple[Directory, int]:
        """The directory at an offset, and the offset of the next."""
        n_count, n_entry, n_offset = (8, 20, 8) if self.big else (2, 12, 4)
        (count,) = struct.unpack(self.order + ("Q" if self.big else "H"), self.read(offset, n_count))
        nbytes = n_count + count * n_entry + n_offset
        if count == 0:
            raise FormatError("it has no entries")
        if nbytes > self.size - offset:
            raise FormatError(f"it claims {count} entries, {self.size - offset} bytes remain")
        if count > _MOST_ENTRIES:
            raise FormatError(f"it claims {count} entries, at most {_MOST_ENTRIES} are believed")
        raw = self.read(offset + n_count, nbytes - n_count)
        tags: dict[int, Tag] = {}
        entries = struct.iter_unpack(self.order + ("HHQ8s" if self.big else "HHI4s"), raw[:-n_offset])
        place = offset + n_count + n_entry - n_offset
        for k, (code, kind, n, value) in enumerate(entries):
            # A type that is not known is to be skipped (TIFF 6.0 page 16); of two entries the first counts.
            if kind in _SIZES and code not in tags and (codes is None or code in codes):
                inline = n * _SIZES[kind] <= n_offset
                at = (
                    place + k * n_entry
                    if inline
                    else int(struct.unpack(self.order + ("Q" if self.big else "I"), value)[0])
                )
                tags[code] = Tag(code, kind, n, at, value)
        (after,) = struct.unpack(self.order + ("Q" if self.big else "I"), raw[-n_offset:])
        return Directory(self, number, offset, nbytes, tags), after

    def read(self, offset: int, n: int) -> bytes:
        """n bytes from offset on, or a FormatError."""
        if n > self.size - offset:
            raise FormatError(f"{n} bytes from byte {offset} on, the file ends at {self.size}")
        if not self._start <= offset <= offset + n <= self._start + len(self._block):
            if n >= self._ahead - self._before:
                return self._all(self.source.read(offset, n), offset, n)
            self._start = max(0, offset - self._before)
            self._block = self.source.read(self._start, self._ahead)
        return self._all(self._block[offset - self._start : offset - self._start + n], offset, n)

    def value_bytes(self, tag: Tag) -> bytes:
        """The bytes of a value, or a FormatError; all that are read have to be in the file without overlapping."""
        n = tag.nbytes
        if n <= len(tag.value):
            return tag.value[:n]
        if n > self.size - tag.offset:
            raise FormatError(f"tag {tag.code} claims {n} bytes at byte {tag.offset}, the file ends at {self.size}")
        self._unread -= n
        if self._unread < 0:
            raise FormatError(f"tag {tag.code}: the values of the directories overlap, they are larger than the file")
        return self.read(tag.offset, n)

    def _all(self, data: bytes, offset: int, n: int) -> bytes:
        if len(data) != n:
            raise FormatError(f"{n} bytes from byte {offset} on, {len(data)} came")
        return data


class Directory:
    """One directory: its tags by their codes.

    Attributes
    ----------
    number : int
        Its place in the chain.
    offset, nbytes : int
        Where it is, and how large.
    tags : dict
        `Tag` by code.
    """

    __slots__ = ("_texts", "file", "nbytes", "number", "offset", "tags")

    def __init__(self, file: TiffFile, number: int, offset: int, nbytes: int, tags: dict[int, Tag]) -> None:
        self.file, self.number, self.offset, self.nbytes, self.tags = file, number, offset, nbytes, tags
        self._texts: dict[int, str] = {}

    def numbers(self, code: int) -> np.ndarray | None:
        """The numbers of a tag, (n,) or (n, 2) for rationals, in the machine's byte order; None without the tag.

        Raises
        ------
        FormatError
            They are not in the file.
        """
        tag = self.tags.get(code)
        if tag is None:
            return None
        values = np.frombuffer(self.file.value_bytes(tag), np.dtype(self.file.order + _TYPES[tag.kind]))
        return values.astype(values.dtype.newbyteorder("="))

    def integer(self, code: int, default: int | None = None) -> int | None:
        """The first number of a tag that holds whole numbers; the default without one."""
        tag = self.tags.get(code)
        if tag is None or tag.count == 0 or np.dtype(_TYPES[tag.kind]).kind not in "ui" or tag.kind == 2:
            return default
        n = _SIZES[tag.kind]
        if tag.nbytes > len(tag.value):  # only the first is read, from where all of them are
            if n > self.file.size - tag.offset:
                raise FormatError(f"tag {code} is at byte {tag.offset}, the file ends at {self.file.size}")
            raw = self.file.read(tag.offset, n)
        else:
            raw = tag.value[:n]
        return int(np.frombuffer(raw, np.dtype(self.file.order + _TYPES[tag.kind]))[0])

    def wrong(self, what: str) -> FormatError:
        """The error that says this of it."""
        return FormatError(f"directory {self.number} at byte {self.offset}: {what}", path=self.file.source.name)

    def raw(self, code: int, most: int) -> bytes | None:
        """The bytes of a tag's value, None without it; safe from many threads, and again and again.

        Raises
        ------
        FormatError
            They are more than `most`, or not all in the file.
        """
        tag = self.tags.get(code)
        if tag is None:
            return None
        n, file = tag.nbytes, self.file
        if n <= len(tag.value):
            return tag.value[:n]
        if n > most or n > file.size - tag.offset:
            raise self.wrong(
                f"tag {code} claims {n} bytes at byte {tag.offset}, the file has {file.size} and {most} are allowed"
            )
        found = file.source.read(tag.offset, n)
        if len(found) != n:
            raise self.wrong(f"tag {code} ends after {len(found)} bytes")
        return found

    def whole(self, code: int, most: int) -> list[int]:
        """The whole numbers of a tag, at most `most`; none where it is not there or holds something else."""
        tag = self.tags.get(code)
        if tag is None or tag.kind not in _WHOLE:
            return []
        found: list[int] = np.frombuffer(
            self.raw(code, most * _SIZES[tag.kind]) or b"", self.file.order + _TYPES[tag.kind]
        ).tolist()
        return found

    def one(self, code: int, default: int | None = None) -> int:
        """The one whole number of a tag.

        Raises
        ------
        FormatError
            It is not there and there is no default, or it is not one number.
        """
        found = self.whole(code, 1)
        if len(found) == 1:
            return found[0]
        if default is None or code in self.tags:
            raise self.wrong(f"tag {code} has {len(found)} numbers, not one")
        return default

    def text(self, code: int) -> str | None:
        """A text, up to its first NUL; None without the tag, or where it is no text or longer than `MOST_TEXT`."""
        tag = self.tags.get(code)
        if tag is None or tag.kind not in (1, 2, 7) or tag.nbytes > MOST_TEXT:
            return None
        if code not in self._texts:  # asked for more than once, and read once
            self._texts[code] = self._read_text(tag)
        return self._texts[code]

    def _read_text(self, tag: Tag) -> str:
        raw = self.file.value_bytes(tag).split(b"\0", 1)[0]
        try:
            return raw.decode()
        except UnicodeDecodeError:
            return raw.decode("latin-1")
