"""What a caller may say about reading and writing a file, as frozen values that are checked once."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from mrcz.container.header.build import three_sizes
from mrcz.container.header.header import Header
from mrcz.file.codec import Codec
from mrcz.filetypes import MRC_SUFFIXES
from mrcz.threads import check_threads

if TYPE_CHECKING:
    from mrcz.storage.whole import Judge

__all__ = ["ReadOptions", "WriteOptions"]


@dataclass(frozen=True)
class ReadOptions:
    """How to read a file: the same words, with the same defaults, wherever one is opened.

    Attributes
    ----------
    permissive : bool
        Open damaged files too: every defect is a `FormatWarning` and an entry of `Reader.oddities`, and the frames are
        those that are really there.
    signed_bytes : bool or None
        Mode 0 holds signed (True) or unsigned (False) bytes, whatever the header says.
    n_threads : int or None
        Most threads a read may use. Default: the processors this process may use.
    verify : bool
        Compare checksums on every read. Costs little; off only for recovering damaged files.
    storage_options : dict or None
        For the file system of a URL: keys, endpoints.
    dataset : str or None
        Which of several in a file of another format: the path of a data set (HDF5, Zarr), the number of a series.
    fraction : int or None
        Frames of an electron-event file (EER) to add up to one; the last ones, if fewer are left, are one of their own.
    upsampling : int
        Of an electron-event file: 1, 2 or 4 pixels for each of the detector's, along x and along y.
    raw : bool
        Of a float movie that is stored as counts × gain (``mrcz compress --recover-integers``): its counts.

    Raises
    ------
    ValueError
        `n_threads` or `fraction` is below 1, or there is no such `upsampling`.

    Examples
    --------
    >>> careful = mrcz.ReadOptions(n_threads=2, permissive=True)
    >>> with mrcz.open("movie.mrcz", options=careful) as movie:     # doctest: +SKIP
    ...     total = movie.sum()
    """

    permissive: bool = False
    signed_bytes: bool | None = None
    n_threads: int | None = None
    verify: bool = True
    storage_options: Mapping[str, Any] | None = None
    dataset: str | None = None
    fraction: int | None = None
    upsampling: int = 1
    raw: bool = False

    def __post_init__(self) -> None:
        check_threads(self.n_threads)
        if self.fraction is not None and not (isinstance(self.fraction, int) and self.fraction >= 1):
            raise ValueError(f"fraction is {self.fraction!r}, expected a number of frames from 1 on")
        if self.upsampling not in (1, 2, 4):
            raise ValueError(f"upsampling is {self.upsampling!r}, expected 1, 2 or 4")

    def asdict(self) -> dict[str, Any]:
        """The keywords of `mrcz.Reader` that say the same."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def refuse_foreign(self, path: str) -> None:
        """ValueError where something is asked for that an MRC file has not."""
        for name in ("dataset", "fraction", "upsampling"):
            if getattr(self, name) != getattr(_DEFAULTS, name):
                raise ValueError(f"{path}: {name} is for files of other formats; this is an MRC file")

    def instead_of(self, given: ReadOptions | None) -> ReadOptions:
        """These, spelt out as keywords, or `given` as ``options=``.

        Raises
        ------
        TypeError
            Both say something.
        """
        if given is None:
            return self
        if not isinstance(given, ReadOptions):
            raise TypeError(f"options is {type(given).__name__}, expected mrcz.ReadOptions")
        twice = [name for name, value in self.asdict().items() if value != getattr(_DEFAULTS, name)]
        if twice:
            raise TypeError(f"{', '.join(twice)}: say it in options= or as a keyword, not both")
        return given


_DEFAULTS = ReadOptions()


@dataclass(frozen=True)
class WriteOptions:
    """What `mrcz.Writer` was asked for, its keywords one by one; see there for what each means.

    Raises
    ------
    TypeError, ValueError
        One cannot be, or contradicts another.
    """

    codec: str | Codec | None = None
    level: int | None = None
    profile: str | None = None
    filter: str | None = None
    blocksize: int | None = None
    checksum: bool | None = None
    pack: bool | str | None = None
    backend: str | None = None
    dtype: Any = None
    mrc_mode: int | None = None
    round_to: float | None = None
    pixel_size: float | Sequence[float] | None = None
    kind: str | None = None
    mz: int | None = None
    metadata: Mapping[str, Any] | None = None
    metadata_codec: str | None = "zstd"
    extended_header: Any = None
    header: Header | None = None
    labels: Sequence[str] = ()
    byteorder: str | None = None
    voltage: float | None = None
    c3: float | None = None
    counts_per_electron: float | None = None
    source_header: bytes | None = None
    source_name: str | None = None
    slices: int = 0
    whole_cell: bool = False
    n_threads: int | None = None
    overwrite: bool | Judge = False
    sync: bool = True

    def __post_init__(self) -> None:
        check_threads(self.n_threads)
        if self.pixel_size is not None:
            three_sizes(self.pixel_size)  # told now, not at the first frame
        if self.round_to is not None and not (self.round_to > 0 and math.isfinite(self.round_to)):
            raise ValueError(f"round_to must be positive, got {self.round_to}")
        if self.metadata is not None and not isinstance(self.metadata, Mapping):
            raise TypeError(f"metadata is {type(self.metadata).__name__}, expected a dict")
        if self.header is not None and not isinstance(self.header, Header):
            raise TypeError(f"header is {type(self.header).__name__}, expected a mrcz.Header such as that of a Reader")
        if self.metadata_codec not in ("zstd", "lz4", None):
            raise ValueError(f"metadata_codec is {self.metadata_codec!r}, expected 'zstd', 'lz4' or None")
        if isinstance(self.codec, Codec) and (twice := self.choices()):
            raise ValueError(f"{', '.join(twice)}: codec= is a Codec, which says it already; dataclasses.replace it")
        if self.dtype is not None:
            object.__setattr__(self, "dtype", np.dtype(self.dtype))

    def choices(self) -> dict[str, Any]:
        """Of `Codec`, what was said by a keyword of its own."""
        return {name: getattr(self, name) for name in _CHOICES if getattr(self, name) is not None}

    def codec_for(self, path: str) -> Codec:
        """The codec of a new file, by its name if nothing else says."""
        if isinstance(self.codec, Codec):
            return self.codec
        plain = os.path.splitext(path)[1].lower() in MRC_SUFFIXES
        return Codec(self.codec or ("none" if plain else "zstd"), **self.choices())

    def given(self) -> list[str]:
        """Names of what is not at its default."""
        return [field.name for field in fields(self) if not _same(getattr(self, field.name), field.default)]


def _same(value: Any, default: Any) -> bool:
    return value is default or (isinstance(value, (int, str, tuple)) and value == default)


_CHOICES = ("level", "profile", "filter", "blocksize", "checksum", "pack", "backend")
