"""What users of mrcfile know a file's attributes by; docs/mrcfile.md is the page about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mrcz.file.wrong_names import READER, right_name

if TYPE_CHECKING:
    from mrcz.container.header.header import Header

__all__ = ["MrcfileNames"]


class MrcfileNames:
    """The part of a Reader that speaks as mrcfile does."""

    header: Header
    kind: Any
    _data: np.ndarray | None
    _mappable: Any
    memmap: Any
    read: Any

    @property
    def data(self) -> np.ndarray:
        """All pixels, shaped as mrcfile shapes them: 2-D for an image, 4-D for a stack of volumes.

        Decoded once and kept until the Reader is closed; a memory map if the file is not compressed. Not to be written
        to, as that would change no file.
        """
        if self._data is None:
            self._data = self._squeezed(self.memmap() if self._mappable else self.read())
            self._data.flags.writeable = False
        return self._data

    def _squeezed(self, data: np.ndarray) -> np.ndarray:
        """The file's pixels as mrcfile shapes them."""
        if self.kind == "image" and data.shape[0] == 1:
            return data[0]
        mz = self.header.mz
        if self.kind == "volume stack" and mz > 0 and data.shape[0] % mz == 0:
            return data.reshape(data.shape[0] // mz, mz, *data.shape[1:])
        return data

    @property
    def pixel_size(self) -> tuple[float, float, float]:
        """(x, y, z) in Å: CELLA / (MX, MY, MZ); 0 where the header does not say."""
        return self.header.pixel_size

    @property
    def voxel_size(self) -> np.recarray:
        """Pixel size in Å as a record with fields x, y and z."""
        record = np.rec.array(np.zeros((), dtype=[("x", "f4"), ("y", "f4"), ("z", "f4")]))
        record[...] = self.pixel_size
        record.flags.writeable = False  # it would change no file
        return record

    if not TYPE_CHECKING:

        @voxel_size.setter
        def voxel_size(self, value: Any) -> None:
            raise AttributeError("a Reader changes no file: use mrcz.edit_header(path, pixel_size=...)")

        @pixel_size.setter
        def pixel_size(self, value: Any) -> None:
            raise AttributeError("a Reader changes no file: use mrcz.edit_header(path, pixel_size=...)")

        def __getattr__(self, name: str) -> Any:
            raise AttributeError(right_name("a Reader", name, READER))

    def is_single_image(self) -> bool:
        return self.kind == "image"

    def is_image_stack(self) -> bool:
        return self.kind == "stack"

    def is_volume(self) -> bool:
        return self.kind == "volume"

    def is_volume_stack(self) -> bool:
        return self.kind == "volume stack"
