"""Defect lists as text: RELION's and MotionCor2's ``x y w h``, and SerialEM's ``defects.txt``.

Here they are strings on one side and maps (ny, nx) of bool, True where bad, on the other; `mrcz.session.references`
reads and writes the files. Row 0 of a map is row 0 of the arrays it is for.

SerialEM counts rows from the top of the image while an MRC file starts at the bottom, so its lists are flipped in Y
(``flip_y``, on by default) as IMOD does; turn it off for frames read from TIFF row for row. RotationAndFlip says how
SerialEM had turned the frames when it wrote the list, which is already in the turned coordinates.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mrcz.errors import FormatError

__all__ = ["format_relion", "format_serialem", "is_serialem", "parse_defects", "parse_relion", "parse_serialem"]

#: Runs of at least this many pixels become a partial column or row.
_LEAST_RUN = 4
#: SerialEM reads no more than 50 numbers and 511 characters of a line; it writes 20.
_PER_LINE = 20


def is_serialem(text: str) -> bool:
    """Whether a defect list is SerialEM's (keywords) and not RELION's (numbers only)."""
    return any(line.split()[:1] and not _is_number(line.split()[0]) for line in _lines(text))


def parse_defects(text: str, shape: tuple[int, int], *, flip_y: bool | None = None) -> np.ndarray:
    """A map (ny, nx) bool from a defect list of either kind; see `parse_relion` and `parse_serialem`."""
    if is_serialem(text):
        return parse_serialem(text, shape, flip_y=True if flip_y is None else flip_y)
    return parse_relion(text, shape, flip_y=bool(flip_y))


def parse_relion(text: str, shape: tuple[int, int], *, flip_y: bool = False) -> np.ndarray:
    """A map (ny, nx) bool from lines ``x y w h``: w × h pixels from column x, row y, counted from 0.

    Rectangles are cut at the frame's edge, empty ones skipped, lines starting with # ignored. Raises FormatError for
    a line that is not four whole numbers.
    """
    out = np.zeros(shape, bool)
    for number, line in _numbered(text):
        values = line.split()
        if len(values) != 4 or not all(_is_number(v) for v in values):
            raise FormatError(f"defect list, line {number}: expected x y w h, found {line!r}")
        x, y, w, h = (int(float(v)) for v in values)
        if w > 0 and h > 0:
            out[max(0, y) : max(0, y + h), max(0, x) : max(0, x + w)] = True
    return np.ascontiguousarray(out[::-1]) if flip_y else out


def format_relion(mask: np.ndarray) -> str:
    """``x y w h`` lines of a map (ny, nx), non-zero where bad: few rectangles, each bad pixel in exactly one."""
    rows = [f"{x} {y} {w} {h}" for x, y, w, h in _rectangles(_as_mask(mask))]
    return "".join(f"{row}\n" for row in rows)


def _rectangles(mask: np.ndarray) -> Iterator[tuple[int, int, int, int]]:
    """Runs of a row, extended down while the same run repeats: (x, y, w, h)."""
    open_runs: dict[tuple[int, int], int] = {}
    for y in range(mask.shape[0] + 1):
        runs = set(_runs(mask[y])) if y < mask.shape[0] else set()
        for run in sorted(set(open_runs) - runs):
            top = open_runs.pop(run)
            yield run[0], top, run[1] - run[0], y - top
        for run in runs:
            open_runs.setdefault(run, y)


def _runs(line: np.ndarray) -> list[tuple[int, int]]:
    if not line.any():
        return []
    steps = np.flatnonzero(np.diff(np.concatenate(([0], line.astype(np.int8), [0]))))
    return [(int(a), int(b)) for a, b in zip(steps[::2], steps[1::2], strict=True)]


# ---- SerialEM --------------------------------------------------------------------------------------------------------

_COUNTS = {
    "CameraSizeX": 1,
    "CameraSizeY": 1,
    "RotationAndFlip": 1,
    "WasScaled": 1,
    "K2Type": 1,
    "FalconType": 1,
    "NumToAvgSuperRes": 1,
    "UsableArea": 4,
    "PartialBadColumn": 4,
    "PartialBadRow": 4,
    "BadPixels": 2,
    "BadColumns": 1,
    "BadRows": 1,
}


# Longer than 60 lines: one branch a keyword of the format.
def parse_serialem(text: str, shape: tuple[int, int], *, flip_y: bool = True) -> np.ndarray:
    """A map (ny, nx) bool from SerialEM's ``defects.txt``.

    Frames twice the CameraSize are super-resolution: every coordinate is doubled and a pixel covers 2 × 2. Frames of
    half the size are binned: a pixel is bad if one of its four is. WasScaled says that the list is in super-resolution
    coordinates already; its BadPixels then mark 2 × 2 blocks (4 × 4 for 2). UsableArea (top left bottom right) marks
    all around it.

    Raises FormatError for a text without a single keyword, for a keyword without its numbers, for coordinates outside
    the camera and for a camera whose size is neither the frames' nor half nor twice that.
    """
    entries: list[tuple[int, str, list[int]]] = []
    for number, line in _numbered(text):
        name, *rest = line.split()
        if name not in _COUNTS:
            # SerialEM adds keywords over the years and skips what it does not know; so is it here.
            continue
        if len(rest) < _COUNTS[name] or not all(_is_number(v) for v in rest) or (name == "BadPixels" and len(rest) % 2):
            raise FormatError(f"defect list, line {number}: {name} with {' '.join(rest) or 'no numbers'}")
        entries.append((number, name, [int(float(v)) for v in rest]))
    if not entries:
        raise FormatError("defect list with neither 'x y w h' (RELION) nor a keyword of SerialEM's defects.txt")
    single = {name: values[0] for _, name, values in entries if _COUNTS[name] == 1 and not name.startswith("Bad")}
    camera = (single.get("CameraSizeY", shape[0]), single.get("CameraSizeX", shape[1]))
    if min(camera) < 1 or max(camera) > 1 << 20:
        raise FormatError(f"defect list for a camera of {camera[1]} × {camera[0]} pixels")
    out = np.zeros(camera, bool)
    ny, nx = camera
    block = {0: 1, 1: 2, 2: 4}.get(max(0, single.get("WasScaled", 0)), 2)
    for number, name, values in entries:
        if name == "BadPixels":
            x, y = np.array(values[::2]), np.array(values[1::2])
            _inside(number, name, x, nx)
            _inside(number, name, y, ny)
            for dy in range(block):
                for dx in range(block):
                    out[np.minimum(y + dy, ny - 1), np.minimum(x + dx, nx - 1)] = True
        elif name in ("BadColumns", "BadRows"):
            across = np.array(values)
            _inside(number, name, across, nx if name == "BadColumns" else ny)
            if name == "BadColumns":
                out[:, across] = True
            else:
                out[across] = True
        elif name in ("PartialBadColumn", "PartialBadRow"):
            at, width, start, end = values[:4]
            column = name == "PartialBadColumn"
            _inside(number, name, np.array([at]), nx if column else ny)
            _inside(number, name, np.array([start, end]), ny if column else nx)
            if column:
                out[start : end + 1, at : at + max(1, width)] = True
            else:
                out[at : at + max(1, width), start : end + 1] = True
        elif name == "UsableArea":
            top, left, bottom, right = values[:4]
            # 0 0 0 0 is how SerialEM says that all of the camera is usable.
            if bottom > 0 and right > 0:
                outside = np.ones(camera, bool)
                outside[top : bottom + 1, left : right + 1] = False
                out |= outside
    if flip_y:
        out = out[::-1]
    return _fitted(out, shape)


def _inside(number: int, name: str, values: np.ndarray, limit: int) -> None:
    wrong = values[(values < 0) | (values >= limit)]
    if wrong.size:
        raise FormatError(f"defect list, line {number}: {name} {wrong[0]} on a camera of {limit}")


def _fitted(mask: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    ny, nx = shape
    if mask.shape == (ny, nx):
        return np.ascontiguousarray(mask)
    for factor in (2, 4):
        if (mask.shape[0] * factor, mask.shape[1] * factor) == (ny, nx):
            return np.repeat(np.repeat(mask, factor, 0), factor, 1)
        if (mask.shape[0] // factor, mask.shape[1] // factor) == (ny, nx):
            cut = mask[: ny * factor, : nx * factor]
            return np.asarray(cut.reshape(ny, factor, nx, factor).any((1, 3)))
    raise FormatError(f"a defect list for a camera of {mask.shape[1]} × {mask.shape[0]} and frames of {nx} × {ny}")


def format_serialem(mask: np.ndarray, *, flip_y: bool = True, rotation_and_flip: int = 0) -> str:
    """SerialEM's ``defects.txt`` of a map (ny, nx), non-zero where bad.

    Whole columns and rows become BadColumns and BadRows, runs of four or more pixels PartialBadColumn and
    PartialBadRow, the rest BadPixels. The camera size is the map's: write a super-resolution list from the map of the
    physical pixels (``mask[::2, ::2]``).
    """
    bad = _as_mask(mask)
    bad = np.array(bad[::-1] if flip_y else bad)
    ny, nx = bad.shape
    lines = [f"CameraSizeX {nx}", f"CameraSizeY {ny}", f"RotationAndFlip {rotation_and_flip}", "WasScaled 0"]
    columns = np.flatnonzero(bad.all(0))
    rows = np.flatnonzero(bad.all(1)) if columns.size < nx else np.empty(0, int)
    bad[:, columns] = False
    bad[rows] = False
    partial = []
    for name, image in (("PartialBadColumn", bad.T), ("PartialBadRow", bad)):
        for at in np.flatnonzero(image.sum(1) >= _LEAST_RUN):
            for start, stop in _runs(image[at]):
                if stop - start >= _LEAST_RUN:
                    partial.append(f"{name} {at} 1 {start} {stop - 1}")
                    image[at, start:stop] = False
    lines += partial
    y, x = np.nonzero(bad)
    lines += _chopped("BadPixels", np.stack([x, y], 1).ravel())
    lines += _chopped("BadColumns", columns)
    lines += _chopped("BadRows", rows)
    return "".join(f"{line}\n" for line in lines)


def _chopped(name: str, values: np.ndarray) -> list[str]:
    return [f"{name} {' '.join(map(str, values[i : i + _PER_LINE]))}" for i in range(0, len(values), _PER_LINE)]


def _as_mask(mask: np.ndarray) -> np.ndarray:
    mask = np.asarray(mask)
    if mask.ndim != 2:
        raise ValueError(f"a defect map is one image (ny, nx), not {mask.shape}")
    return mask != 0


def _lines(text: str) -> list[str]:
    return [line for _, line in _numbered(text)]


def _numbered(text: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if line and not line.startswith("#"):
            yield number, line


def _is_number(word: str) -> bool:
    try:
        value = float(word)
    except ValueError:
        return False
    return np.isfinite(value) and value == int(value) and abs(value) < 1 << 31
