"""Files beside a movie that tell of it: which there are, and what each says.

Only files of the same folder are opened, by names made of the movie's own or found in a listing of the folder. No name
within a file is followed.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from mrcz.errors import FormatError
from mrcz.filetypes import plain_name
from mrcz.formats import epu, mdoc
from mrcz.storage.wrapped import open_regular

__all__ = ["Told", "told_beside"]

_SERIES = 200  # .mdoc files of a folder that are searched for this movie's name, and bytes of all of them
_BYTES = 32 << 20
_MOVIES = (".mrc", ".tif", ".tiff", ".eer", ".st", ".mrcs")  # of what a file of another suffix was made from
_EPU = re.compile(r"_(fractions|eer)$", re.IGNORECASE)


@dataclass(frozen=True)
class Told:
    """What one file says: documented names, of all frames and of each; its own words; and what is odd about it."""

    source: str
    values: dict[str, Any] = field(default_factory=dict)
    frames: list[dict[str, Any]] = field(default_factory=list)
    original: Any = None
    notes: tuple[str, ...] = ()


def told_beside(path: str, shape: tuple[int, ...]) -> list[Told]:
    """What the files beside a movie say of it, the more trustworthy first. Missing ones are no matter; a damaged one
    is a note.

    Parameters
    ----------
    path : str
        Of the movie, on this computer.
    shape : (nz, ny, nx)
        Of the movie.
    """
    folder, name = os.path.split(plain_name(path))
    stem = os.path.splitext(name)[0]
    found: list[Told] = []
    own = dict.fromkeys([f"{name}.mdoc", f"{stem}.mdoc", *(f"{stem}{suffix}.mdoc" for suffix in _MOVIES)])
    for file in own:
        if (raw := _read(folder, file, mdoc.MOST)) is not None:
            found.append(_of_mdoc(file, raw, name, shape))
            break
    else:
        found += _of_series(folder, name, shape)
    for file in dict.fromkeys([f"{stem}.xml", f"{_EPU.sub('', stem)}.xml"]):
        if (raw := _read(folder, file, epu.MOST)) is not None:
            found.append(_of_epu(file, raw, shape))
            break
    return found


def _read(folder: str, name: str, most: int) -> bytes | str | None:
    """The bytes of a regular file; words, if it cannot be read; None, if there is none."""
    path = os.path.join(folder, name)
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return None
        with open_regular(path) as file:
            raw = file.read(most + 1)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        return f"cannot be read: {getattr(error, 'strerror', None) or error}"
    return raw if len(raw) <= most else f"more than {most} bytes, which is not read"


def _of_mdoc(file: str, raw: bytes | str, name: str, shape: tuple[int, ...]) -> Told:
    """An .mdoc whose name is that of the movie."""
    if isinstance(raw, str):
        return Told(file, notes=(raw,))
    try:
        parsed = mdoc.parse(raw)
    except FormatError as error:
        return Told(file, notes=(error.message,))
    sets = [one for one in parsed.sections if one.kind.casefold() == "frameset"]
    if len(sets) == 1:
        values, frames, notes = mdoc.of_movie(parsed, sets[0], shape)
        if "frame_file" in values and os.path.splitext(values["frame_file"])[0] != _stem(name):
            notes.append(f"it is named after this file, and tells of {values['frame_file']}")
    elif sets:
        values, frames, notes = {}, [], [f"{len(sets)} sections [FrameSet]: none is taken"]
    else:
        values, frames, notes = mdoc.of_images(parsed, shape)
    return Told(file, values, frames, parsed.verbatim(parsed.sections), tuple(notes))


def _stem(name: str) -> str:
    return os.path.splitext(name)[0]


def _of_series(folder: str, name: str, shape: tuple[int, ...]) -> Iterator[Told]:
    """The .mdoc of a tilt series, one of whose images was added up from this movie."""
    try:
        with os.scandir(folder or ".") as listing:
            names = sorted(entry.name for entry in listing if entry.name.lower().endswith(".mdoc"))
    except OSError:
        return
    wanted, left = os.fsencode(_stem(name)).lower(), _BYTES
    for file in names[:_SERIES]:
        raw = _read(folder, file, min(mdoc.MOST, left))
        if not isinstance(raw, bytes):
            continue
        left -= len(raw)
        if wanted not in raw.lower():
            continue
        try:
            parsed = mdoc.parse(raw)
        except FormatError:
            continue  # an .mdoc of something else for all we know
        sections = mdoc.section_of(parsed, name)
        if len(sections) == 1:
            values, frames, notes = mdoc.of_movie(parsed, sections[0], shape)
            yield Told(file, values, frames, parsed.verbatim(sections), tuple(notes))
        elif sections:
            yield Told(file, notes=(f"{len(sections)} sections tell of {name}: none is taken",))
    if len(names) > _SERIES:
        yield Told(
            names[_SERIES], notes=(f"this one and {len(names) - _SERIES - 1} more .mdoc files were not searched",)
        )


def _of_epu(file: str, raw: bytes | str, shape: tuple[int, ...]) -> Told:
    if isinstance(raw, str):
        return Told(file, notes=(raw,))
    try:
        root = epu.parse(raw)
    except FormatError as error:
        return Told(file, notes=(error.message,))
    values, notes = epu.of_movie(root, shape)
    return Told(file, values, [], raw.decode("utf-8-sig"), tuple(notes))
