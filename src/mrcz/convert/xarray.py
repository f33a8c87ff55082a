"""xarray: ``xarray.open_dataset("movie.mrcz")`` gives a lazy array with coordinates in Å."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, ClassVar

import numpy as np

from mrcz.file.reader import Reader
from mrcz.filetypes import MRC_SUFFIXES

try:
    from xarray import Dataset, Variable
    from xarray.backends import BackendArray, BackendEntrypoint
    from xarray.core import indexing
except ImportError as _error:  # pragma: no cover - xarray itself imports this module
    from mrcz.errors import MissingDependencyError

    raise MissingDependencyError("mrcz.convert.xarray needs xarray: pip install 'mrcz[xarray]'") from _error

__all__ = ["MrczBackend"]


class _Frames(BackendArray):
    """What xarray indexes: decodes the frames asked for, when they are asked for."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.shape = reader.shape
        self.dtype = reader.dtype

    def __getitem__(self, key: Any) -> Any:
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.BASIC, self.reader.__getitem__
        )


class MrczBackend(BackendEntrypoint):
    """Entry point ``mrcz`` of ``xarray.open_dataset``.

    The dataset has one variable, ``data`` (z, y, x), lazy; coordinates ``y`` and ``x`` (and ``z`` of a volume) in Å,
    where the header says the pixel size; the metadata as attributes.
    """

    description = "MRC and compressed MRCZ files of electron microscopy"
    open_dataset_parameters: ClassVar[tuple[Any, ...] | None] = (
        "filename_or_obj",
        "drop_variables",
        "n_threads",
        "storage_options",
    )

    def open_dataset(
        self,
        filename_or_obj: Any,
        *,
        drop_variables: str | Iterable[str] | None = None,
        n_threads: int | None = None,
        storage_options: dict[str, Any] | None = None,
    ) -> Dataset:
        """Open a file; see the class."""
        reader = Reader(filename_or_obj, n_threads=n_threads, storage_options=storage_options)
        axes = ("z", "y", "x", "channel")[: reader.ndim]
        x, y, z = reader.pixel_size
        spacing = {"y": y, "x": x} | ({"z": z} if "volume" in reader.kind else {})
        coordinates = {
            axis: Variable((axis,), np.arange(reader.shape["zyx".index(axis)]) * step, {"units": "angstrom"})
            for axis, step in spacing.items()
            if step > 0
        }
        attributes = {"kind": reader.kind, "pixel_size": [x, y, z], "pixel_size_unit": "angstrom"}
        data = Variable(axes, indexing.LazilyIndexedArray(_Frames(reader)), attributes)
        data.encoding = {"preferred_chunks": {"z": 1}, "source": str(reader.path)}
        dropped = {drop_variables} if isinstance(drop_variables, str) else set(drop_variables or ())
        variables = {name: value for name, value in {"data": data, **coordinates}.items() if name not in dropped}
        dataset = Dataset(variables, attrs=reader.metadata)
        dataset.set_close(reader.close)
        return dataset

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """By the suffix."""
        if not isinstance(filename_or_obj, (str, os.PathLike)):
            return False
        return os.fspath(filename_or_obj).lower().endswith((".mrcz", *MRC_SUFFIXES))
