"""A frame, or a sum of frames, as a PNG or JPEG that a person looks at: 8-bit grey, scaled by percentiles.

Row 0 of an MRC file is the lowest one: pictures are turned over, so that they look as 3dmod and RELION show the file.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mrcz.check.origin import Overwrite, replacing
from mrcz.errors import MissingDependencyError
from mrcz.file.reader import Reader
from mrcz.storage.whole import whole_file

__all__ = ["SUFFIXES", "Picture", "grey", "shrink", "write_picture"]

#: What Pillow calls the formats, by suffix.
SUFFIXES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}

Picture = np.ndarray
"""Rows from the top down: (height, width) uint8 grey, or (height, width, 3) of colours."""


def write_picture(
    reader: Reader,
    destination: str | os.PathLike[str],
    *,
    frame: int | None = None,
    frames: slice | Sequence[int] | None = None,
    percentiles: tuple[float, float] = (1.0, 99.0),
    bin: int = 1,
    size: int | None = None,
    overwrite: Overwrite = False,
) -> tuple[tuple[int, ...], int]:
    """Write a picture of a frame, or of the sum of frames; the same file, the same bytes.

    Parameters
    ----------
    reader : Reader
    destination : path
        ``.png``, or ``.jpg`` of quality 90.
    frame : int, optional
        Show this one. A file of colours is shown by a frame, the first if none is named.
    frames : slice or sequence of int, optional
        Show the sum of these; of all, if nothing is said.
    percentiles : (float, float)
        Of the pixels that are finite: what is black and what is white.
    bin : int
        Pixels are averaged by so many along x and along y; what does not fill a block at the end is left out.
    size : int, optional
        Width or height in pixels, whichever is larger, to which the image is then cut in Fourier space.
    overwrite : bool or "any"
        As `mrcz.compress` takes it.

    Returns
    -------
    shape : tuple of int
        Of the picture: (height, width), or (height, width, 3).
    nbytes : int
        Of the file.

    Raises
    ------
    ValueError
        There is no such suffix, frame, percentile, bin or size.
    MissingDependencyError
        Pillow is not installed.
    """
    suffix = os.path.splitext(os.fspath(destination))[1].lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"{os.fspath(destination)}: a picture is {', '.join(SUFFIXES)}")
    if frame is not None and frames is not None:
        raise ValueError("frame shows one frame, frames the sum of several: say one of them")
    image_of = _pillow(destination)
    picture = grey(_chosen(reader, frame, frames), percentiles, bin, size)
    made = io.BytesIO()
    options: dict[str, Any] = {"quality": 90} if suffix != ".png" else {}
    image_of(picture).save(made, SUFFIXES[suffix], **options)
    with whole_file(destination, overwrite=replacing(overwrite)) as file:
        file.write(made.getbuffer())
    return picture.shape, Path(destination).stat().st_size


def grey(
    image: np.ndarray, percentiles: tuple[float, float] = (1.0, 99.0), bin: int = 1, size: int | None = None
) -> Picture:
    """An image as a picture: (ny, nx) from the bottom up, or (ny, nx, 3) of colours, which stay as they are.

    Complex pixels are shown by their magnitude; NaN is black, and so is an image of one value.
    """
    low, high = (float(value) for value in percentiles)
    if not 0 <= low < high <= 100:
        raise ValueError(f"percentiles are {low:g} and {high:g}, expected two from 0 to 100, the lower one first")
    if image.ndim == 3:
        if bin != 1 or size is not None:
            raise ValueError("colours are shown as they are: bin and size are for grey images")
        return np.ascontiguousarray(image[::-1].astype(np.uint8))
    image = np.abs(image) if image.dtype.kind == "c" else image
    image = shrink(image.astype(np.float64), bin, size)
    finite = np.isfinite(image)
    made = np.zeros(image.shape, np.uint8)
    if finite.any():
        dark, bright = np.percentile(image[finite], (low, high))
        if bright > dark:
            # Of what is beyond float64's range when it is subtracted nothing is left but black and white.
            scaled = (np.clip(image[finite], dark, bright) / 2 - dark / 2) / (bright / 2 - dark / 2)
            made[finite] = np.rint(255 * scaled).astype(np.uint8)
    made[np.isposinf(image)] = 255
    return np.ascontiguousarray(made[::-1])


def shrink(image: np.ndarray, bin: int = 1, size: int | None = None) -> np.ndarray:
    """A float64 image (ny, nx), averaged over blocks of bin × bin and then cut in Fourier space, so that its longer
    side has `size` pixels. One pixel that is not finite makes its block so; in Fourier space it counts as the mean."""
    ny, nx = image.shape
    if isinstance(bin, bool) or not isinstance(bin, int) or not 1 <= bin <= min(ny, nx):
        raise ValueError(f"bin is {bin!r}, expected 1 to {min(ny, nx)} for frames of {nx} x {ny}")
    if bin > 1:
        ny, nx = ny // bin, nx // bin
        image = image[: ny * bin, : nx * bin].reshape(ny, bin, nx, bin).mean((1, 3))
    if size is None:
        return image
    if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= max(ny, nx):
        raise ValueError(f"size is {size!r}, expected 1 to {max(ny, nx)} for an image of {nx} x {ny}")
    if size == max(ny, nx):
        return image
    finite = np.isfinite(image)
    if not finite.any():
        return np.full((max(1, round(ny * size / max(ny, nx))), max(1, round(nx * size / max(ny, nx)))), np.nan)
    image = np.where(finite, image, image[finite].mean())
    height, width = (max(1, round(n * size / max(ny, nx))) for n in (ny, nx))
    transform = np.fft.fft2(image)
    rows = np.fft.fftfreq(height, 1 / height).astype(int)
    columns = np.fft.fftfreq(width, 1 / width).astype(int)
    kept = transform[np.ix_(rows % ny, columns % nx)]
    made: np.ndarray = np.real(np.fft.ifft2(kept)) * (height * width / (ny * nx))
    return made


def _chosen(reader: Reader, frame: int | None, frames: slice | Sequence[int] | None) -> np.ndarray:
    """The image that is shown."""
    if frames is None and (frame is not None or len(reader.shape) == 4 or len(reader) == 1):
        number = 0 if frame is None else frame
        try:
            return np.asarray(reader.read(number))
        except IndexError as error:
            raise ValueError(f"{reader.path}: {error}") from None
    if len(reader.shape) == 4:
        raise ValueError(f"{reader.path}: frames in colours are not added up; name one with frame=")
    try:
        return np.asarray(reader.sum(frames=frames) if frames is not None else reader.sum())
    except IndexError as error:
        raise ValueError(f"{reader.path}: {error}") from None


def _pillow(destination: str | os.PathLike[str]) -> Any:
    """What makes a picture of an array."""
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingDependencyError(
            "pictures need the package Pillow: pip install 'mrcz[picture]'", path=os.fspath(destination)
        ) from error
    return Image.fromarray
