"""What an archive knows of one file: a line of its journal.

A record is what happened to one file, once. The last one of a file is what counts; the ones before it are its history.
"""

from __future__ import annotations

import base64
import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from mrcz.errors import FormatError

__all__ = ["EVENTS", "FORMS", "RESTORES", "Record", "check_relative", "encode_name"]

#: What a record can say happened: the file is in the archive; a link or an empty folder is written down; it could not
#: be stored, and why; it could be, and something went wrong; the original was removed.
EVENTS = ("stored", "link", "folder", "refused", "failed", "removed")

#: How a file is stored: byte by byte; compressed MRC; floats as the counts they are made of; pixels compressed and the
#: other bytes of the file beside them; pixels and what the file says of itself; a second name of a file that is there.
FORMS = ("copy", "mrcz", "integers", "pieces", "pixels", "same")

#: What is given back: the very file, or its pixels and what it said of itself, as MRC.
RESTORES = ("file", "pixels")

_NAMES = ("source", "path", "session", "target")
_SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Record:
    """One line of the journal.

    Attributes
    ----------
    event : str
        One of `EVENTS`.
    source : str
        Path below the source folder, ``/`` between its parts; bytes that are no UTF-8 as Python carries them (PEP 383).
    session : str
        The folder of the archive it lies in, which is one bag; with ``/`` in it where sessions lie deeper.
    path : str
        Where it lies below the archive: ``SESSION/data/…``; empty where nothing lies there.
    form, restores : str
        Of `FORMS` and `RESTORES`.
    format : str
        What the source is: ``"mrc"``, ``"mrcz"``, a name of `mrcz.formats`, or ``""``.
    source_bytes, stored_bytes : int
        Sizes of both files.
    mtime_ns, mode : int
        Of the source: nanoseconds since 1970, permissions.
    sha256_source, sha256_stored, sha256_pixels : str
        Hexadecimal. Pixels are those of `mrcz.read`, little-endian, frame after frame; empty for what has none.
    frames : int
    shape : tuple of int
    dtype : str
    camera : str
        As the file or those beside it say; empty where they do not.
    seconds : float
        Wall time of storing and proving it.
    time : str
        When, UTC, ISO 8601.
    run, worker : str
        Which run of the archive, and which machine and process.
    versions : mapping
        Of mrcz, Python and NumPy.
    target : str
        What a link leads to, or the `source` of the file that this is a second name of.
    parts : tuple of (str, str, int)
        Other files of the archive it needs, shared by several: path, SHA-256, bytes (gain references).
    changed : bool
        There was an earlier one of this name, and the source has changed since.
    error, reason : str
        Why it was refused or failed: a sentence, and the same in few words.
    notes : tuple of str
        What else there is to say.
    """

    event: str
    source: str
    session: str = ""
    path: str = ""
    form: str = ""
    restores: str = ""
    format: str = ""
    source_bytes: int = 0
    stored_bytes: int = 0
    mtime_ns: int = 0
    mode: int = 0
    sha256_source: str = ""
    sha256_stored: str = ""
    sha256_pixels: str = ""
    frames: int = 0
    shape: tuple[int, ...] = ()
    dtype: str = ""
    camera: str = ""
    seconds: float = 0.0
    time: str = ""
    run: str = ""
    worker: str = ""
    versions: Mapping[str, str] | None = None
    target: str = ""
    parts: tuple[tuple[str, str, int], ...] = ()
    changed: bool = False
    error: str = ""
    reason: str = ""
    notes: tuple[str, ...] = ()

    @property
    def ratio(self) -> float:
        """How many times smaller it is stored; 0 where nothing is."""
        return self.source_bytes / self.stored_bytes if self.stored_bytes else 0.0

    def second_name(self, source: str, session: str, *, changed: bool = False) -> Record:
        """The record of another name of this file: what the file is, and where nothing of it lies."""
        return replace(
            self,
            source=source,
            session=session,
            path="",
            form="same",
            stored_bytes=0,
            sha256_stored="",
            target=self.source,
            parts=(),
            notes=(),
            seconds=0.0,
            changed=changed,
        )

    def to_line(self) -> bytes:
        """One line of JSON, ASCII, with its newline."""
        text = json.dumps(self.asdict(), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
        return text.encode("ascii") + b"\n"

    def asdict(self) -> dict[str, Any]:
        """What there is, as plain values. Names that are no UTF-8 stand there as base64, too, because other programs
        refuse the escapes that would say them."""
        record: dict[str, Any] = {"event": self.event}
        for name, _ in _FIELDS:
            value = getattr(self, name)
            if value or name == "source":
                record[name] = value if name in _NAMES or name == "parts" else _readable(value)
        if self.ratio:
            record["ratio"] = round(self.ratio, 4)
        for name in _NAMES:
            if name in record:
                record[name], raw = encode_name(record[name])
                if raw is not None:
                    record[f"{name}_base64"] = raw
        return record

    @classmethod
    def from_line(cls, line: bytes) -> Record:
        """A line of a journal, which may have been damaged or forged.

        Raises
        ------
        FormatError
        """
        try:
            record = json.loads(line.decode("utf-8"))  # bytes would be taken for UTF-16 where they look like it
        except (ValueError, RecursionError) as error:
            raise FormatError(f"is no line of JSON ({error})") from None
        if not isinstance(record, dict):
            raise FormatError("is no record")
        for name in _NAMES:
            raw = record.pop(f"{name}_base64", None)
            if raw is not None:
                try:
                    record[name] = os.fsdecode(base64.b64decode(raw, validate=True))
                except (ValueError, TypeError):
                    raise FormatError(f"{name}_base64 is {raw!r}, no base64") from None
            elif type(said := record.get(name)) is str and not said.isascii():
                try:  # the same bytes on a machine, or in a cron job, whose names are in another encoding
                    record[name] = os.fsdecode(said.encode("utf-8"))
                except UnicodeEncodeError:
                    raise FormatError(f"{name} is {said!r}, which is no name of a file") from None
        values = {}
        for name, kind in _FIELDS:
            if name in record:
                value = _checked(name, record[name], kind)
                values[name] = value if name in _NAMES or name == "parts" else _readable_again(value)
        for name in ("event", "source"):
            if name not in values:
                raise FormatError(f"the record has no {name}")
        made = cls(**values)
        if made.event not in EVENTS:
            raise FormatError(f"event is {made.event!r}, expected one of {', '.join(EVENTS)}")
        for name in (made.source, made.session, made.path, made.target, *(part[0] for part in made.parts)):
            if not _is_name(name):
                raise FormatError(f"{name!r} is no name that a file can have")
        check_relative(made.source)
        for path in (made.session, made.path):
            if path:
                check_relative(path)
        for part in made.parts:
            check_relative(part[0])
        sums = (made.sha256_source, made.sha256_stored, made.sha256_pixels, *(part[1] for part in made.parts))
        for digest in sums:
            if digest and not _SHA256.fullmatch(digest):
                raise FormatError(f"{digest!r} is no SHA-256")
        if min(made.source_bytes, made.stored_bytes, *(part[2] for part in made.parts)) < 0:
            raise FormatError("a size is negative")
        return made


_FIELDS = tuple((field.name, str(field.type)) for field in fields(Record))


_PLAIN: dict[str, Any] = {"str": str, "int": int, "bool": bool}


def _readable(value: Any) -> Any:
    """Text that may tell a name which is no UTF-8, as all programs can read it."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, (tuple, list)):
        return [_readable(one) for one in value]
    return value


def _readable_again(value: Any) -> Any:
    """`_readable` of what was read: only a forged line has to be changed."""
    if isinstance(value, str):
        return value if value.isascii() else _readable(value)
    return tuple(map(_readable_again, value)) if isinstance(value, tuple) else value


def _checked(name: str, value: Any, kind: str) -> Any:
    """A value of a record as its field's type; FormatError if it is none."""
    if kind in _PLAIN:
        if type(value) is _PLAIN[kind] and (kind != "int" or _fits(value)):
            return value
    elif kind == "float":
        if (type(value) is int and _fits(value)) or (type(value) is float and math.isfinite(value)):
            return float(value)
    elif kind == "tuple[str, ...]":
        if isinstance(value, list) and all(type(one) is str for one in value):
            return tuple(value)
    elif kind == "tuple[int, ...]":
        if isinstance(value, list) and all(type(one) is int and _fits(one) for one in value):
            return tuple(value)
    elif name == "parts":
        if isinstance(value, list) and all(
            isinstance(one, list) and [type(part) for part in one] == [str, str, int] and _fits(one[2]) for one in value
        ):
            return tuple((part[0], part[1], part[2]) for part in value)
    elif name == "versions":
        if isinstance(value, dict) and all(type(one) is str for one in value.values()):
            return value
    raise FormatError(f"{name} is {value!r}, expected {kind}")


def _fits(value: int) -> bool:
    """Whether databases and tables hold a number."""
    return abs(value) < 1 << 63


def _is_name(name: str) -> bool:
    """Whether this is how Python carries the bytes of a name, which is one way only."""
    try:
        return os.fsdecode(os.fsencode(name)) == name
    except UnicodeError:
        return False


def encode_name(name: str) -> tuple[str, str | None]:
    """A name as other programs can read it, and its bytes in base64 where that is not all of it."""
    try:
        name.encode("utf-8")
        return name, None
    except UnicodeEncodeError:
        raw = os.fsencode(name)
        return raw.decode("utf-8", "replace"), base64.b64encode(raw).decode("ascii")


def check_relative(path: str) -> None:
    """Refuse a path that would lead out of the folder it is below.

    Raises
    ------
    FormatError
        It is absolute, or has empty parts, ``.``, ``..`` or NUL; on Windows also drives and backslashes.
    """
    parts = path.split("/")
    if any(part in ("", ".", "..") or "\0" in part for part in parts):
        raise FormatError(f"path is {path!r}, which is not below its folder")
    if os.name == "nt" and any("\\" in part or ":" in part for part in parts):
        raise FormatError(f"path is {path!r}, which Windows would take elsewhere")
