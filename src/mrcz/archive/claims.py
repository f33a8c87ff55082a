"""What a record claims of a file, held against itself, against its line and against the file.

A journal can be forged, or damaged in a way that leaves lines which are records. Whoever checks an archive believes
nothing of them that the archive can show.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterator
from typing import Any

from mrcz.archive.forms import kind_of
from mrcz.archive.record import FORMS, Record
from mrcz.file.original import original_header, pieces_of
from mrcz.file.reader import Reader

__all__ = ["contradiction", "line_fault", "shown_faults"]


def line_fault(line: bytes, record: Record) -> str | None:
    """Why other programs would read another record from this line than this one does; None where they would not.

    `ratio` is made of the sizes, a name in base64 is the same as the one beside it, and nothing stands there twice:
    DuckDB and pandas read the line as it is. What we do not know is a later version's, and let be.
    """
    twice: list[str] = []

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(found)
        if len(made) != len(found):
            twice.append(next(name for name, _ in found if [one for one, _ in found].count(name) > 1))
        return made

    said = json.loads(line.decode("utf-8"), object_pairs_hook=pairs)
    if twice:
        return f"its line says {twice[0]!r} twice"
    for name, value in {"ratio": 0, **json.loads(record.to_line())}.items():
        if name in said and said[name] != value:
            return f"its line says that {name} is {_short(said[name])}, and the rest of it {_short(value)}"
    return None


def contradiction(record: Record) -> str | None:
    """What of a record that says something is there contradicts itself, or its form; None where nothing does."""
    if record.event in ("link", "folder"):
        if record.path or record.form or record.sha256_stored or record.parts:
            return f"it is a {record.event}, and its record has a file"
        lost = record.event == "link" and not record.target
        return "it is a link, and its record does not say what it leads to" if lost else None
    if record.event != "stored":
        return None
    if record.form not in FORMS:
        return f"its form is {_short(record.form)}, which this version does not know"
    if record.form == "same":
        if record.path or record.stored_bytes or record.parts or not record.target:
            return "it is a second name, and its record has a file of its own"
        return None
    if not (record.path and record.sha256_stored and record.sha256_source):
        return "its record has no path or no checksums"
    below = f"{record.session}/data/"
    for path in (record.path, *(part[0] for part in record.parts)):
        if not path.startswith(below):
            return f"its record has {_short(path)}, which is not below {below}"
    restores = "pixels" if record.form == "pixels" else "file"
    if record.restores != restores:
        return f"its form {record.form} gives back the {restores}, and its record says {_short(record.restores)}"
    if record.form == "copy" and record.sha256_stored != record.sha256_source:
        return "it is a copy, and its record has two checksums"
    if record.form == "copy" and record.stored_bytes != record.source_bytes:
        return f"it is a copy of {record.stored_bytes} bytes, and its record says {record.source_bytes} of its source"
    if record.form == "copy" and record.sha256_pixels:
        return "it is a copy, and its record has a checksum of its pixels, which are not decoded for one"
    if record.form == "copy" and not record.format and (record.frames or record.shape or record.dtype):
        return "its record has a shape, frames or a dtype, and no format that has these"
    if record.form == "pixels" and not record.sha256_pixels:
        return "its record has no checksum of its pixels"
    if record.form in ("mrcz", "integers") and record.format not in ("", "mrc"):
        return f"its form {record.form} is of MRC files, and its record says {_short(record.format)}"
    if record.parts and record.form != "integers":
        return f"its form {record.form} needs nothing else, and its record has parts"
    return None


def shown_faults(record: Record, reader: Reader) -> Iterator[str]:
    """What a record says and its file, which is open, does not."""
    shape = tuple(int(n) for n in reader.shape)
    for name, said, found in (
        ("shape", record.shape, shape),
        ("frames", record.frames, shape[0]),
        ("dtype", record.dtype, reader.dtype.name),
        ("format", record.format if record.form == "copy" else "", kind_of(reader)),
    ):
        if said and said != found:
            yield f"its record says that {name} is {_short(said)}, and it is {_short(found)}"
    if record.form == "copy":
        return
    if (record.form == "integers") != (reader.integers is not None):
        counts = "counts" if reader.integers is not None else "no counts"
        yield f"its record says that its form is {record.form}, and it holds {counts} of floats"
    if record.form == "pixels" and (original_header(reader) is not None or pieces_of(reader) is not None):
        yield "its record says that its pixels are given back, and it gives back a file"
    gain = None if reader.integers is None else reader.integers.record.gain
    needed = () if gain is None or gain.path is None else (posixpath.join(posixpath.dirname(record.path), gain.path),)
    if record.form == "integers" and {posixpath.normpath(path) for path in needed} != {one[0] for one in record.parts}:
        yield f"its record says that it needs {_short([one[0] for one in record.parts])}, and it needs {list(needed)}"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 100 else text[:97] + "…"
