"""EMAN2's image stacks in HDF5: ``/MDF/images/N/image``, with attributes ``EMAN.…`` on the group of each image.

Layout: EMAN2's wiki, "EMAN2 HDF5 format", and its page on e2compress: images of reduced bits are stored as integers of
0 to 2^bits - 1, and value = integer / (2^bits - 1) * (max - min) + min, in float32, from ``EMAN.stored_renderbits``,
``stored_rendermin`` and ``stored_rendermax``. That is what EMAN2 gives, and what is given here;
``dataset="integers"`` gives the integers, and ``original["eman"]["scales"]`` says the scale of each image.
"""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np

from mrcz.errors import FormatError
from mrcz.formats._h5file import H5File, attributes
from mrcz.formats._h5stack import Stack
from mrcz.formats._words import in_our_words
from mrcz.formats.base import FormatOptions, Frames, Window
from mrcz.formats.metadata import checked

__all__ = ["INTEGERS", "EmanFrames", "open_layout"]

#: What `dataset` is for the integers as they are stored.
INTEGERS = "integers"
_MOST_BITS = 24  # that float32 holds
_OPEN = 2000  # images whose data sets are kept open

Scale = tuple[int, float, float]  # bits, min, max


def open_layout(file: H5File, options: FormatOptions) -> Frames | None:
    """The images of an EMAN2 file; None for any other file."""
    wanted = options.dataset
    if wanted not in (None, INTEGERS, "/MDF/images", "MDF/images"):
        return None
    try:
        owner, images = file.find("/MDF/images")
    except FormatError:
        return None
    if not isinstance(images, h5py.Group):
        return None
    return EmanFrames(file, owner, images, options)


class EmanFrames(Frames):
    """The images of one file, all of one shape; or the sections of its one volume.

    Attributes
    ----------
    scales : list of (bits, min, max) or None
        Of each image, where its bits were reduced.
    """

    def __init__(self, file: H5File, owner: H5File, images: Any, options: FormatOptions) -> None:
        self.file, self.owner, self.images, self.layout = file, owner, images, "eman"
        self.permissive = options.permissive
        with in_our_words("/MDF/images cannot be read", owner.path):
            self.numbers = sorted(int(name) for name in images if name.isdecimal() and str(int(name)) == name)
        if not self.numbers:
            raise FormatError("there are no images in /MDF/images", path=owner.path)
        gaps = self.numbers[-1] + 1 - len(self.numbers)
        if gaps:
            lost = next(k for k, number in enumerate(self.numbers) if k != number)
            words = f"{gaps} of {self.numbers[-1] + 1} images are not there, the first of them /MDF/images/{lost}"
            if not options.permissive:
                raise FormatError(words, path=owner.path)
            self.warnings = (f"{words}: the frames are those that are",)
        self._open: dict[int, Stack] = {}
        self.scales: list[Scale | None] = [self._scale(k, self._said(k)) for k in range(len(self.numbers))]
        shape, types = self._check(options)
        volume = len(self.numbers) == 1 and len(shape) == 3 and shape[0] > 1
        self.kind = "volume" if volume else "image" if len(self.numbers) == 1 else "stack"
        self.shape = (shape[0] if volume else len(self.numbers), *shape[-2:])
        self.volume, self.integers = volume, options.dataset == INTEGERS
        if self.integers and len(types) > 1:
            raise FormatError(f"the images are of several types, {', '.join(sorted(types))}", path=owner.path)
        scaled = any(self.scales) or len(types) > 1
        self.dtype = np.dtype("<f4") if scaled and not self.integers else np.dtype(types.pop())
        self._describe(self._said(0))

    def _said(self, k: int) -> dict[str, Any]:
        """The attributes of an image, without ``EMAN.``."""
        _, group = self.owner.find(str(self.numbers[k]), self.images)
        return {name.removeprefix("EMAN."): value for name, value in attributes(group, self.owner).items()}

    def _scale(self, k: int, said: dict[str, Any]) -> Scale | None:
        """How an image's bits were reduced.

        Raises
        ------
        FormatError
            In a way that cannot be.
        """
        bits = said.get("stored_renderbits", 0)
        bits = bits[0] if isinstance(bits, list) and len(bits) == 1 else bits
        if not isinstance(bits, (int, float)) or bits == 0:
            return None
        low, high = said.get("stored_rendermin"), said.get("stored_rendermax")
        if not isinstance(low, (int, float)) or not isinstance(high, (int, float)):
            raise FormatError(
                f"image {self.numbers[k]} has {bits} bits and does not say of which values", path=self.owner.path
            )
        if not 0 < bits <= _MOST_BITS or bits != int(bits) or not np.isfinite([low, high]).all():
            raise FormatError(
                f"image {self.numbers[k]} has {bits} bits of {low} to {high}, which cannot be", path=self.owner.path
            )
        if low == high != 0:
            raise FormatError(f"image {self.numbers[k]} has its values from {low} to {high}", path=self.owner.path)
        # Of 0 to 0 EMAN2 takes the integers as they are: it writes that of an empty image.
        return (int(bits), float(low), float(high)) if high != low else None

    def _check(self, options: FormatOptions) -> tuple[tuple[int, ...], set[str]]:
        """The shape that all images have, and their types."""
        shapes: dict[tuple[int, ...], int] = {}
        types = set()
        several = len(self.numbers) > 1
        for k, number in enumerate(self.numbers):
            stack = self._stack(k)
            shape = stack.shape
            if several and len(shape) == 3 and shape[0] == 1:
                shape = shape[1:]
            shapes.setdefault(shape, number)
            if len(shapes) > 1:
                (first, one), (other, two) = shapes.items()
                raise FormatError(
                    f"image {one} has the shape {first}, image {two} has {other}: no stack has both",
                    path=self.owner.path,
                )
            types.add(stack.dtype.str)
            if self.scales[k] is not None and stack.dtype.kind != "u":
                raise FormatError(f"image {number} has reduced bits and is of {stack.dtype}", path=self.owner.path)
            self.compression = stack.compression
        (shape,) = shapes
        if several and len(shape) == 3:
            raise FormatError(f"there are {len(self.numbers)} volumes of {shape}: no stack", path=self.owner.path)
        if len(shape) > 3:
            raise FormatError(f"an image has the shape {shape}", path=self.owner.path)
        return shape, types

    def _describe(self, first: dict[str, Any]) -> None:
        said = (first.get(f"apix_{axis}") for axis in "xyz")
        sizes = [float(size) if isinstance(size, (int, float)) and 0 < size < np.inf else 0.0 for size in said]
        self.pixel_size = (sizes[0], sizes[1], sizes[2] if self.kind == "volume" else 0.0)
        names = {"voltage": "microscope_voltage", "cs": "microscope_cs"}
        stated = {name: first[word] for name, word in names.items() if isinstance(first.get(word), (int, float))}
        if all(self.pixel_size[:2]):
            stated["pixel_size"] = list(self.pixel_size[:2])
        original = {"image": first, "scales": [None if one is None else list(one) for one in self.scales]}
        self.metadata = checked(stated, {"eman": original})

    @property
    def frame_metadata(self) -> list[dict[str, Any]]:
        if self.volume:
            return []
        with in_our_words("the metadata of images cannot be read", self.owner.path):
            return [checked({}, {"eman": self._said(k)}) for k in range(len(self.numbers))]

    def _stack(self, k: int) -> Stack:
        """The data set of an image; few are kept open."""
        if k not in self._open:
            path = f"/MDF/images/{self.numbers[k]}/image"
            owner, found = self.owner.find(f"{self.numbers[k]}/image", self.images)
            while len(self._open) >= _OPEN:
                self._open.pop(next(iter(self._open)))
            self._open[k] = Stack(owner, found, path, permissive=self.permissive)
        return self._open[k]

    def read_frame(self, number: int, out: np.ndarray) -> None:
        self.read_window(number, (0, self.shape[1], 0, self.shape[2]), out)

    def read_window(self, number: int, window: Window, out: np.ndarray) -> None:
        k, section = (0, number) if self.volume else (number, 0)
        stack, scale = self._stack(k), self.scales[k]
        whole = window == (0, stack.ny, 0, stack.nx)
        if stack.dtype == self.dtype and (scale is None or self.integers):
            stack.read(section, None if whole else window, out)
            return
        stored = np.empty(out.shape, stack.dtype)
        stack.read(section, None if whole else window, stored)
        out[...] = stored if scale is None else scaled(stored, scale)

    def stored(self, number: int) -> np.ndarray:
        """A frame as it is stored, (ny, nx): the integers where its bits were reduced."""
        stack = self._stack(0 if self.volume else number)
        out = np.empty(self.shape[1:], stack.dtype)
        stack.read(number if self.volume else 0, None, out)
        return out

    def stored_dtype(self, number: int) -> np.dtype:
        """The dtype of that."""
        found: np.dtype = self._stack(0 if self.volume else number).dtype
        return found

    def scale(self, number: int) -> Scale | None:
        """How a frame's bits were reduced."""
        return self.scales[0 if self.volume else number]

    def close(self) -> None:
        self._open.clear()
        self.file.close()


def scaled(integers: np.ndarray, scale: Scale) -> np.ndarray:
    """What EMAN2 makes of integers of reduced bits: float32, computed in float32 in this order."""
    bits, low, high = scale
    values = integers.astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):  # a range beyond float32 gives infinities, as it does there
        values /= np.float32((1 << bits) - 1)
        values *= np.float32(high) - np.float32(low)
        values += np.float32(low)
    return values
