"""SerialEM's .mdoc: text beside a movie or an image file, in IMOD's autodoc form.

SerialEM's help, "File Formats", section Image Metadata Files. Pairs ``key = value``, first of the file, then of
sections: ``[ZValue = n]`` of the n-th image of a stack, ``[FrameSet = 0]`` of a movie, ``[MontSection = n]`` of a
montage; titles are ``[T = …]``. Lengths are micrometres there, pixels Å, angles degrees, doses electrons per Å².

Of a tilt series in one movie each image has ``FrameTSStartEndFrames``. These count from a frame that the file does not
name (IMOD looks for it in the movie), so they stay in the file's own words, and no frame gets a tilt of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from mrcz.errors import FormatError
from mrcz.formats.metadata import checked, scaled

Told = tuple[dict[str, Any], list[dict[str, Any]], list[str]]

__all__ = ["MOST", "Mdoc", "Section", "base_name", "of_images", "of_movie", "parse", "section_of"]

MOST = 8 << 20  # bytes; a series of 100 tilts takes 100 kB
_FRAMES = 1 << 16  # of one movie, of which the doses are read
_LINES = 300_000  # of 10,000 images: each takes far more memory than its bytes

_NOTES = 100
_NUMBERS = 16  # in a value; a dose a frame is a pair of them
_AXIS = re.compile(r"Tilt axis angle\s*=\s*([-+.\d]+)")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DATE = re.compile(r"(\d{1,2})-([A-Za-z]{3})-(\d{2}|\d{4})\s+(\d{1,2}):(\d\d):(\d\d)", re.ASCII)


@dataclass(frozen=True)
class Section:
    """A section: its type and name as the file has them, and each key with every value it is given there."""

    kind: str
    name: str
    entries: dict[str, list[str]] = field(default_factory=dict)

    def verbatim(self) -> dict[str, Any]:
        """Keys and values; a list of values where a key stands more than once."""
        said: dict[str, Any] = {key: found if len(found) > 1 else found[0] for key, found in self.entries.items()}
        return {"section": [self.kind, self.name], **said} if self.kind else said


@dataclass(frozen=True)
class Mdoc:
    """A file: what is said of all, the sections in their order, the titles, and what could not be understood."""

    whole: Section
    sections: tuple[Section, ...]
    titles: tuple[str, ...]
    notes: tuple[str, ...]

    def verbatim(self, sections: Iterable[Section]) -> dict[str, Any]:
        """The file's own words, of some sections."""
        return {
            "global": self.whole.verbatim(),
            "titles": list(self.titles),
            "sections": [one.verbatim() for one in sections],
        }


def parse(raw: bytes) -> Mdoc:
    """The bytes of a file.

    Raises
    ------
    FormatError
        It is larger than is read, or nothing of it is a pair of a key and a value.
    """
    if len(raw) > MOST:
        raise FormatError(f"an .mdoc of {len(raw)} bytes; {MOST} are read at most")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    whole = now = Section("", "")
    sections: list[Section] = []
    titles: list[str] = []
    strange: list[str] = []
    for number, found in enumerate(re.finditer(r"[^\r\n]+", text)):
        if number == _LINES:
            raise FormatError(f"an .mdoc of more than {_LINES} lines is not read")
        line = found[0].strip(" \t\0")
        if not line or line.startswith("#"):
            continue
        head = line.startswith("[")  # no pattern: one that looks for the end of blanks looks at each again and again
        key, equals, value = (line[1:].removesuffix("]") if head else line).partition("=")
        key, value = key.strip(), value.strip()
        if not equals or not key:
            strange.append(line[:40])
        elif key == "T":
            titles.append(value)
        elif head:
            now = Section(key, value)
            sections.append(now)
        else:
            now.entries.setdefault(key, []).append(value)
    if not sections and not whole.entries:
        raise FormatError("there is no key with a value in this .mdoc")
    notes = [f"lines that are no key with a value: {len(strange)}, the first {strange[0]!r}"] if strange else []
    return Mdoc(whole, tuple(sections), tuple(titles), tuple(notes))


def base_name(path: str) -> str:
    """The last part of a path, which may be one of Windows: ``X:\\\\frames\\\\a.tif`` → ``a.tif``."""
    return re.split(r"[\\/]", path.strip())[-1]


def section_of(mdoc: Mdoc, name: str) -> list[Section]:
    """The sections whose ``SubFramePath`` ends in this file name; if none, whose stem is its: of a converted file."""

    def stem(text: str) -> str:
        return text.rpartition(".")[0] or text

    paths = [
        (one, base_name(found[0]).casefold()) for one in mdoc.sections if (found := one.entries.get("SubFramePath"))
    ]
    name = name.casefold()
    return [one for one, path in paths if path == name] or [one for one, path in paths if stem(path) == stem(name)]


# ---- documented names --------------------------------------------------------------------------------------------


class _Words:
    """The values of keys: a section's, then those of the whole file; none where a key has two that differ."""

    def __init__(self, *sections: Section) -> None:
        self.sections = sections
        self.notes: list[str] = []

    def text(self, key: str) -> str | None:
        for section in self.sections:
            found = section.entries.get(key)
            if found is None:
                continue
            if any(one != found[0] for one in found):
                where = f"[{section.kind} = {section.name}]" if section.kind else "the beginning"
                self.notes.append(f"{key} has {len(found)} values in {where}: none is taken")
                return None
            return found[0]
        return None

    def numbers(self, key: str, most: int = _NUMBERS) -> list[float]:
        parts = (self.text(key) or "").split(maxsplit=most)
        found = [scaled(part) for part in parts] if len(parts) <= most else []
        return [] if None in found else [one for one in found if one is not None]

    def number(self, key: str) -> float | None:
        found = self.numbers(key)
        return found[0] if len(found) == 1 else None

    def positive(self, key: str) -> float | None:
        """SerialEM writes 0 of what it does not know."""
        found = self.number(key)
        return found if found is not None and found > 0 else None

    def whole(self, key: str) -> int | None:
        found = self.number(key)
        return int(found) if found is not None and found == int(found) and 0 <= found < 1 << 31 else None


def _timestamp(text: str | None) -> str | None:
    """``30-Nov-15  15:21:38`` → ``2015-11-30T15:21:38``; local time of the instrument. SerialEM is of this century."""
    found = _DATE.fullmatch((text or "").strip())
    if found is None or found[2].lower() not in _MONTHS:
        return None
    year = int(found[3]) + (2000 if len(found[3]) == 2 else 0)
    hour, minute, second = (int(part) for part in found.groups()[3:])
    try:
        return datetime(year, _MONTHS.index(found[2].lower()) + 1, int(found[1]), hour, minute, second).isoformat()
    except ValueError:
        return None


def _axis(mdoc: Mdoc, words: _Words) -> float | None:
    """The angle of the tilt axis as it is told. ``RotationAngle`` is another: that of the image."""
    told = words.number("TiltAxisAngle")
    if told is not None:
        return told
    found = {one[1] for title in mdoc.titles if (one := _AXIS.search(title))}
    return scaled(found.pop()) if len(found) == 1 else None


def _doses(words: _Words) -> list[float]:
    """The dose of each frame, of ``FrameDosesAndNumber``: pairs of a dose and how many frames have it."""
    pairs = words.numbers("FrameDosesAndNumber", 2 * _FRAMES)
    doses: list[float] = []
    for dose, count in zip(pairs[::2], pairs[1::2], strict=False):
        if not 0 < count <= _FRAMES or count != int(count) or dose <= 0:
            return []
        doses += [dose] * int(count)
        if len(doses) > _FRAMES:
            return []
    return doses


def _common(words: _Words) -> dict[str, Any]:
    """What is said of an exposure, whichever file of it is asked about."""
    stage, height = words.numbers("StagePosition"), words.number("StageZ")
    return {
        "voltage": words.positive("Voltage"),
        "cs": words.positive("Cs"),
        "dose": words.positive("ExposureDose"),
        "dose_rate": words.positive("DoseRate"),
        "exposure_time": words.positive("ExposureTime"),
        "tilt": words.number("TiltAngle"),
        "defocus": words.number("Defocus"),
        "magnification": words.positive("Magnification"),
        "spot_size": words.whole("SpotSize"),
        "stage": None if len(stage) != 2 else stage + ([] if height is None else [height]),
        "timestamp": _timestamp(words.text("DateTime")),
        "binning": words.positive("Binning"),
        "gain_file": base_name(words.text("GainReference") or ""),
        "defect_file": base_name(words.text("DefectFile") or ""),
        "frame_file": base_name(words.text("SubFramePath") or ""),
        "frames": words.whole("NumSubFrames"),
        "rotation_flip": words.whole("RotationAndFlip"),
    }


def _fits(words: _Words, size: tuple[int, int] | None) -> str | None:
    """What the file says of another size of image than (nx, ny): then pixels are not of that size either."""
    for key in ("UncroppedSize", "ImageSize"):
        told = [abs(n) for n in words.numbers(key)]
        if size is not None and len(told) == 2 and sorted(told) != sorted(size):
            said = f"{key} = {words.text(key)}, the frames are {size[0]} × {size[1]}"
            return f"{said}: its pixel size and binning are not theirs"
    return None


def of_movie(mdoc: Mdoc, section: Section, shape: tuple[int, ...] | None = None) -> Told:
    """What an .mdoc says of the movie that is in a section of it.

    Parameters
    ----------
    mdoc, section
        [FrameSet], or [ZValue] of the image that the movie was added up to.
    shape : (nz, ny, nx), optional
        Of the movie.

    Returns
    -------
    values : dict
        Documented names.
    frames : list of dict
        Of each frame; empty where nothing is said of them.
    notes : list of str
    """
    words = _Words(section, mdoc.whole)
    found = {**_common(words), "tilt_axis": _axis(mdoc, words)}
    frames: list[dict[str, Any]] = []
    other = _fits(words, None if shape is None else (shape[2], shape[1]))
    if other is None:
        found["pixel_size"] = [words.positive("PixelSpacing")] * 2
    else:
        found["binning"] = None
        words.notes.append(other)
    doses = _doses(words)
    if doses and len(set(doses)) == 1:
        found["frame_dose"] = doses[0]
    elif doses and shape is not None and len(doses) == shape[0]:
        frames = [checked({"frame_dose": dose}) for dose in doses]
    return checked(_stated(found)), frames, [*mdoc.notes, *words.notes]


def of_images(mdoc: Mdoc, shape: tuple[int, ...]) -> Told:
    """What the .mdoc of an image file says of its images, [ZValue = 0] of the first: as `of_movie`.

    Values that all images share are those of the file.
    """
    frames: list[dict[str, Any]] = [{} for _ in range(shape[0])]
    notes = list(mdoc.notes)
    seen: dict[int, Section] = {}
    for section in mdoc.sections:
        if section.kind.casefold() != "zvalue" or not re.fullmatch(r"[0-9]{1,9}", section.name):
            continue
        z = int(section.name)
        if z >= shape[0]:
            notes.append(f"[ZValue = {z}], and there are {shape[0]} images")
        elif z in seen:
            notes.append(f"[ZValue = {z}] is there twice: neither is taken")
            frames[z] = {}
        else:
            seen[z] = section
            frames[z], said = _image(mdoc, section, shape)
            notes += [one for one in said if len(notes) < _NOTES and one not in notes]
    words = _Words(mdoc.whole)
    values: dict[str, Any] = {"voltage": words.positive("Voltage"), "tilt_axis": _axis(mdoc, words)}
    whole = checked(_stated(values))
    if _fits(words, (shape[2], shape[1])) is None and words.positive("PixelSpacing"):
        whole["pixel_size"] = [words.positive("PixelSpacing")] * 2
    if frames:
        whole |= {key: one for key, one in frames[0].items() if all(other.get(key) == one for other in frames)}
    return whole, frames if any(frames) else [], notes[:_NOTES]


def _image(mdoc: Mdoc, section: Section, shape: tuple[int, ...]) -> tuple[dict[str, Any], list[str]]:
    words = _Words(section)
    found = {**_common(words), "counts_per_electron": words.positive("CountsPerElectron")}
    other = _fits(_Words(mdoc.whole), (shape[2], shape[1]))
    if other is None:
        found["pixel_size"] = [words.positive("PixelSpacing")] * 2
    else:
        words.notes.append(other)
        found["binning"] = None
    return checked(_stated(found)), words.notes


def _stated(values: Mapping[str, Any]) -> dict[str, Any]:
    """Without lists of what is not known."""
    return {key: one for key, one in values.items() if not (isinstance(one, list) and None in one)}
