"""Gain, dark and defect references from and to files: the one module of the corrections that knows file names.

Conventions of those who write them:

* Gatan (DM4, MRC), RELION, SerialEM: the gain multiplies.
* EPU / Falcon 4 ``.gain`` (a TIFF): multiplies, and its rows lie as those of the ``.eer`` files beside it. RELION takes
  it so (its manual, "Movie Compression"; `relion_convert_to_tiff --gain` writes the same values, in the same rows).
* Gain references for EER in MRC, of the first versions of EPU: RELION divides by them; ``inverse=True`` does the same,
  mean/value, zeros staying bad.
* SerialEM and IMOD, and RELION and MotionCor with them, flip a TIFF along Y when they read it, because their row 0 is
  at the bottom; so does `mrcz.open` with a movie. A reference is not flipped unasked: ``flip_y=True`` does the same.
* RELION's ``--gain_rot`` and ``--gain_flip``: `mrcz.correct.Orientation`.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from mrcz.correct.defects import format_relion, format_serialem, parse_defects
from mrcz.correct.gain import Orientation, check_gain, orient
from mrcz.correct.statistics import MAPS, SessionStatistics
from mrcz.errors import FormatError, MissingDependencyError, MrczError
from mrcz.file.calls import read, write
from mrcz.file.reader import Reader
from mrcz.filetypes import MRC_SUFFIXES
from mrcz.storage.whole import Judge, whole_file

__all__ = [
    "load_gain",
    "load_image",
    "load_mask",
    "load_statistics",
    "match_shape",
    "save_image",
    "save_mask",
    "save_statistics",
]

_TIFF = {".tif", ".tiff", ".gain"}


def load_image(path: str | os.PathLike[str]) -> np.ndarray:
    """One image (ny, nx) from MRC or MRCZ, TIFF, ``.gain``, DM3, DM4 or ``.npy``, as stored; a stack is averaged.

    Raises FormatError for a file that holds no image, MissingDependencyError for a packed TIFF without imagecodecs.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix == ".npy":
        with _named(path):
            image = np.load(path, allow_pickle=False)
    elif suffix in _TIFF:
        image = _read_tiff(path)
    elif suffix in (".dm3", ".dm4"):
        from mrcz.formats import dm

        # A thumbnail comes first in the list; the data is the largest.
        stored = [i for i in dm.read_images(path) if i.data is not None]
        if not stored:
            raise FormatError("no image in it", path=path)
        image = np.array(max(stored, key=lambda i: i.data.nbytes if i.data else 0).pixels())
    else:
        image = read(path)
    if image.ndim > 2:
        image = image.reshape(-1, *image.shape[-2:])
        image = image[0] if len(image) == 1 else image.mean(0, dtype=np.float64)
    if image.ndim != 2 or not image.size:
        raise FormatError(f"a reference is an image, this is an array of {image.shape}", path=path)
    if image.dtype.kind not in "biuf":
        raise FormatError(f"a reference holds real numbers, this one {image.dtype}", path=path)
    return np.ascontiguousarray(image)


def load_gain(
    path: str | os.PathLike[str],
    *,
    shape: tuple[int, int] | None = None,
    orientation: Orientation | None = None,
    inverse: bool | None = None,
    flip_y: bool = False,
) -> np.ndarray:
    """A multiplicative gain reference (ny, nx) float32, 0 where a pixel is bad.

    Parameters
    ----------
    path : path-like
        MRC, TIFF, ``.gain`` (EER), DM3, DM4 or ``.npy``.
    shape : (int, int), optional
        Of the frames: a gain half or a quarter as large (frames in super-resolution) is repeated, one twice or four
        times as large averaged.
    orientation : Orientation, optional
        How to turn it, after ``flip_y``.
    inverse : bool, optional
        It divides, as those for EER do that are in MRC. By default it multiplies.
    flip_y : bool
        Reverse the rows first, as IMOD and RELION do with TIFF.

    Raises
    ------
    FormatError
        For a file that holds no gain.
    ValueError
        Where sizes differ by another ratio than 2 or 4, the same in both directions.
    """
    image = load_image(path)
    with _named(path):
        gain, bad = check_gain(image)
        if inverse:
            gain = (gain[~bad].mean(dtype=np.float64) / gain).astype(np.float32)
        gain[bad] = 0
        if flip_y:
            gain = gain[::-1]
        if orientation is not None:
            gain = orient(gain, orientation)
    if shape is not None:
        # The file is sound and its size is another's: not damage, so not a FormatError.
        try:
            gain = match_shape(gain, shape)
        except ValueError as error:
            raise ValueError(f"{os.fspath(path)}: {error}") from None
    return np.ascontiguousarray(gain)


def match_shape(gain: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A gain (ny, nx) for frames of ``shape``: itself, repeated × 2 or × 4, or the average of 2 × 2 or 4 × 4 blocks.

    A block with a zero in it is zero: its pixel would be partly bad. Raises ValueError for any other shape.
    """
    if gain.shape == tuple(shape):
        return gain
    ny, nx = shape
    for factor in (2, 4):
        if gain.shape == (ny * factor, nx * factor):
            blocks = gain.reshape(ny, factor, nx, factor)
            return np.where((blocks == 0).any((1, 3)), 0, blocks.mean((1, 3), dtype=np.float64)).astype(np.float32)
        if (gain.shape[0] * factor, gain.shape[1] * factor) == (ny, nx):
            return np.repeat(np.repeat(gain, factor, 0), factor, 1)
    raise ValueError(
        f"a gain reference of shape {gain.shape} for frames of {tuple(shape)}: neither the same nor 2 or "
        "4 times as large or as small in both directions"
    )


def load_mask(path: str | os.PathLike[str], shape: tuple[int, int], *, flip_y: bool | None = None) -> np.ndarray:
    """A defect map (ny, nx) bool, True where bad, for frames of ``shape``.

    ``.txt`` is RELION's ``x y w h`` or SerialEM's ``defects.txt``, told apart by their words; anything else is an
    image, non-zero where bad (RELION, MotionCor). ``flip_y``: as in `mrcz.correct.defects`; images only if asked.
    """
    if Path(path).suffix.lower() == ".txt":
        with _named(path):
            return parse_defects(Path(path).read_text(encoding="utf-8", errors="replace"), shape, flip_y=flip_y)
    mask = load_image(path) != 0
    if mask.shape != tuple(shape):
        raise FormatError(f"a defect map of {mask.shape} for frames of {tuple(shape)}", path=path)
    return np.ascontiguousarray(mask[::-1]) if flip_y else mask


def save_mask(
    path: str | os.PathLike[str],
    mask: np.ndarray,
    *,
    style: str | None = None,
    flip_y: bool | None = None,
    overwrite: bool | Judge = False,
) -> None:
    """Write a map (ny, nx), non-zero where bad, as uint8 0 and 1 in MRC or TIFF, or as text.

    ``.txt`` is RELION's list, or SerialEM's with ``style="serialem"`` or for the name ``defects.txt``. Raises
    FileExistsError for a file that is there, unless `overwrite`.
    """
    path = Path(path)
    bad = np.asarray(mask) != 0
    if path.suffix.lower() == ".txt":
        style = style or ("serialem" if path.name.lower() == "defects.txt" else "relion")
        if style not in ("relion", "serialem"):
            raise ValueError(f"style is 'relion' or 'serialem', not {style!r}")
        if style == "serialem":
            text = format_serialem(bad, flip_y=True if flip_y is None else flip_y)
        else:
            text = format_relion(bad[::-1] if flip_y else bad)
        with whole_file(path, overwrite=overwrite) as file:
            file.write(text.encode("ascii"))
        return
    save_image(path, (bad[::-1] if flip_y else bad).astype(np.uint8), overwrite=overwrite)


def save_image(
    path: str | os.PathLike[str], image: np.ndarray, *, pixel_size: float | None = None, overwrite: bool | Judge = False
) -> None:
    """Write one image (ny, nx) as MRC or MRCZ, TIFF or ``.npy``, by suffix; whole or not at all.

    Raises ValueError for any other suffix, FileExistsError for a file that is there, unless `overwrite`.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    image = np.ascontiguousarray(image)
    if suffix == ".npy":
        with whole_file(path, overwrite=overwrite) as file:
            np.save(file, image)
    elif suffix in (".tif", ".tiff"):
        made = io.BytesIO()  # tifffile asks a file for its name, and one that is yet to be published has none
        _tifffile().imwrite(made, image, photometric="minisblack")
        with whole_file(path, overwrite=overwrite) as file:
            file.write(made.getbuffer())
    else:
        if suffix not in (*MRC_SUFFIXES, ".mrcz"):
            raise ValueError(f"{path}: an image is written as .mrc, .mrcz, .tif or .npy, told by its suffix")
        options: dict[str, Any] = {} if pixel_size is None else {"pixel_size": pixel_size}
        write(path, image[None], kind="image", overwrite=overwrite, **options)


def save_statistics(
    path: str | os.PathLike[str], statistics: SessionStatistics, *, sources: Iterable[str] = (), overwrite: bool = False
) -> None:
    """Write the statistics of a session as an MRCZ or MRC stack of its maps; whole or not at all.

    The frames are float32, in the order of ``SessionStatistics.maps``, so that any viewer shows them; the numbers, and
    ``sources``, the names of the stacks that are in, are metadata. Raises ValueError for another suffix,
    FileExistsError for a file that is there, unless `overwrite`.
    """
    path = Path(path)
    if path.suffix.lower() not in (*MRC_SUFFIXES, ".mrcz"):
        raise ValueError(f"{path}: statistics are written as .mrcz or .mrc")
    state = statistics.to_dict()
    maps = np.stack([np.asarray(image, np.float32) for image in state.pop("maps").values()])
    write(
        path,
        maps,
        kind="stack",
        overwrite=overwrite,
        metadata={"session_statistics": state, "sources": [str(name) for name in sources]},
    )


def load_statistics(path: str | os.PathLike[str]) -> tuple[SessionStatistics, list[str]]:
    """The statistics that `save_statistics` wrote, and the names of the stacks in them.

    Raises FormatError for a file that holds anything else, or what cannot be true.
    """
    with Reader(path) as reader:
        state, sources = reader.metadata.get("session_statistics"), reader.metadata.get("sources", [])
        if not isinstance(state, Mapping) or tuple(reader.shape)[:1] != (len(MAPS),):
            raise FormatError("not the statistics of a session", path=path)
        if not isinstance(sources, list) or not all(isinstance(name, str) for name in sources):
            raise FormatError("the statistics of a session with names of stacks that are none", path=path)
        with _named(path):
            return SessionStatistics.from_dict({**state, "maps": dict(zip(MAPS, reader.read(), strict=True))}), sources


def _tifffile() -> Any:
    try:
        import tifffile
    except ImportError:
        raise MissingDependencyError("TIFF references need tifffile: install mrcz[tiff]") from None
    return tifffile


def _read_tiff(path: Path) -> np.ndarray:
    """The first series of a TIFF, (nz, ny, nx), rows in the order of the file; by content: a .gain is a TIFF."""
    from mrcz.formats.base import FormatOptions
    from mrcz.formats.tiff import TiffFrames
    from mrcz.storage.source import open_source

    with closing(open_source(path)) as source, _named(path):
        frames = TiffFrames(source, FormatOptions(), top_down=True)
        frames.check_claims(np.arange(frames.shape[0]))
        if len(frames.shape) != 3:
            raise FormatError("an image in colours is no reference")
        stack = np.empty(frames.shape, frames.dtype)
        for k in range(frames.shape[0]):
            frames.read_frame(k, stack[k])
        return stack


@contextmanager
def _named(path: str | os.PathLike[str]) -> Iterator[None]:
    """Errors about the content name the file."""
    try:
        yield
    except MrczError as error:
        if error.path is None:
            error.path = os.fspath(path)
        raise
    except (ValueError, EOFError) as error:
        raise FormatError(str(error), path=path) from error
