"""What is known of how a file was taken: from itself, its headers, and the files beside it, with who said what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from mrcz.container.extended import ExtendedHeader
from mrcz.container.header.header import Header
from mrcz.errors import FormatError
from mrcz.file.stated import of_extended, of_header
from mrcz.formats.metadata import ORIGINAL, TABLE
from mrcz.formats.told import Told, told_beside

__all__ = ["Acquisition", "acquisition_of"]

_NAMES = {entry.name: entry.kind for entry in TABLE}


class Readable(Protocol):
    """What is asked of a Reader."""

    shape: tuple[int, ...]
    header: Header

    @property
    def format(self) -> str: ...
    @property
    def metadata(self) -> dict[str, Any]: ...
    @property
    def frame_metadata(self) -> list[dict[str, Any]]: ...
    @property
    def extended_header(self) -> ExtendedHeader: ...


@dataclass(frozen=True)
class Acquisition:
    """How a file was taken, under the names of `mrcz.formats.metadata`. What nobody says is absent.

    Sources, the first that states a value is believed: ``"metadata"``, what an MRCZ file keeps of the file it was made
    of, or the name of a foreign format; ``"FEI1"``, ``"FEI2"`` or ``"SERI"``, the extended header; ``"header"``; then
    files beside it by their names, SerialEM's ``.mdoc`` before EPU's XML.

    Attributes
    ----------
    values : dict
        By name.
    sources : dict
        Of each of these, who said it.
    conflicts : dict
        Names of which sources state different values: what each of them says. Numbers that agree to a thousandth are
        not different, nor times to a second.
    frames : list of dict
        What is said of each frame; empty where nothing is.
    original : dict
        By source: in its own words.
    notes : tuple of str
        What could not be read, is damaged or in doubt, and each conflict.
    """

    values: Mapping[str, Any]
    sources: Mapping[str, str]
    conflicts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    frames: list[dict[str, Any]] = field(default_factory=list)
    original: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def acquisition_of(reader: Readable, path: str | None) -> Acquisition:
    """Ask a Reader, and the folder its file is in, now; path is None where it is in none."""
    told = _of_itself(reader)
    if path is not None:
        told += told_beside(path, tuple(reader.shape[:3]))
    return _merged(told, reader.shape[0])


def _of_itself(reader: Readable) -> list[Told]:
    """From the best to the last."""
    found = reader.metadata
    foreign = reader.format not in ("mrc", "mrcz")
    told: list[Told] = []
    # In a file of ours stands what its writer liked; it is of these names and units where it came from a foreign file.
    if foreign or isinstance(found.get(ORIGINAL), Mapping):
        values = {name: value for name, value in found.items() if name in _NAMES and _is(value, _NAMES[name])}
        frames = [
            {name: value for name, value in one.items() if name in _NAMES and _is(value, _NAMES[name])}
            for one in reader.frame_metadata
        ]
        original = found.get(ORIGINAL)
        told.append(
            Told(reader.format if foreign else "metadata", values, frames if any(frames) else [], original or None)
        )
    if foreign:
        return told
    kind = reader.header.exttyp.strip()
    if kind in ("FEI1", "FEI2", "SERI"):
        try:
            values, frames, records = of_extended(reader.extended_header, reader.shape[0])
            told.append(Told(kind, values, frames, records))
        except FormatError as error:
            told.append(Told(kind, notes=(error.message,)))
    told.append(Told("header", of_header(reader.header)))
    return told


def _is(value: Any, kind: type) -> bool:
    """Whether a value is what stands under such a name."""
    if kind is list:
        return isinstance(value, (list, tuple)) and all(_is(part, float) for part in value)
    if kind is str:
        return isinstance(value, str)
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _merged(told: list[Told], count: int) -> Acquisition:
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    conflicts: dict[str, dict[str, Any]] = {}
    frames: list[dict[str, Any]] = []
    notes: list[str] = []
    for one in told:
        notes += [f"{one.source}: {note}" for note in one.notes]
        for name, value in one.values.items():
            if name not in values:
                values[name], sources[name] = value, one.source
            elif not _same(values[name], value):
                conflicts.setdefault(name, {sources[name]: values[name]})[one.source] = value
        if len(one.frames) == count:
            frames = frames or [{} for _ in range(count)]
            notes += _differing(frames, one)
            frames = [{**more, **known} for known, more in zip(frames, one.frames, strict=True)]
    for name, said in conflicts.items():
        every = ", ".join(f"{value!r} ({source})" for source, value in said.items())
        notes.append(f"{name}: {every}: the first is taken")
    original = {one.source: one.original for one in told if one.original is not None}
    return Acquisition(values, sources, conflicts, frames, original, tuple(notes))


def _differing(frames: list[dict[str, Any]], one: Told) -> list[str]:
    """Names of frames of which a source says another thing than those before it, with the first such frame."""
    first: dict[str, int] = {}
    for number, (known, more) in enumerate(zip(frames, one.frames, strict=True)):
        for name in known.keys() & more.keys():
            if name not in first and not _same(known[name], more[name]):
                first[name] = number
    return [
        f"{name} of frame {k}: {frames[k][name]!r}, and {one.frames[k][name]!r} ({one.source}): the first is taken"
        for name, k in sorted(first.items())
    ]


def _same(a: Any, b: Any) -> bool:
    """Whether two sources mean the same."""
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return all(map(_same, a, b))  # a stage may be told without z
    if isinstance(a, str) and isinstance(b, str):
        return a.strip().casefold() == b.strip().casefold() or _same_time(a, b)
    if isinstance(a, (str, list, tuple)) or isinstance(b, (str, list, tuple)):
        return False
    return bool(abs(a - b) <= 1e-3 * max(abs(a), abs(b), 1e-3))


def _same_time(a: str, b: str) -> bool:
    """Without their zones, where only one is told."""
    try:
        first, second = datetime.fromisoformat(a), datetime.fromisoformat(b)
    except ValueError:
        return False
    if (first.tzinfo is None) != (second.tzinfo is None):
        first, second = first.replace(tzinfo=None), second.replace(tzinfo=None)
    return abs((first - second).total_seconds()) <= 1
