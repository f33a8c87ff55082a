"""`open`, `read`, `write`: a file by one call; every keyword is spelt out, so that type checkers know a wrong one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, overload

import numpy as np

from mrcz.container.header.header import Header
from mrcz.file.batches import refuse_masked
from mrcz.file.codec import Codec
from mrcz.file.correcting import FrameCorrection
from mrcz.file.opening import ForeignFormatError
from mrcz.file.options import ReadOptions
from mrcz.file.reader import Reader
from mrcz.file.writer import Writer
from mrcz.file.wrong_names import MODES, right_keywords
from mrcz.storage.whole import Judge

__all__ = ["open", "open_reader", "read", "write"]


@overload
def open(
    path: Any,
    mode: Literal["r"] = "r",
    *,
    permissive: bool = False,
    signed_bytes: bool | None = None,
    n_threads: int | None = None,
    verify: bool = True,
    storage_options: Mapping[str, Any] | None = None,
    dataset: str | None = None,
    fraction: int | None = None,
    upsampling: int = 1,
    raw: bool = False,
    correction: FrameCorrection | None = None,
    options: ReadOptions | None = None,
) -> Reader: ...
@overload
def open(
    path: Any,
    mode: Literal["w", "a"],
    *,
    codec: str | Codec | None = None,
    level: int | None = None,
    profile: str | None = None,
    filter: str | None = None,
    blocksize: int | None = None,
    checksum: bool | None = None,
    pack: bool | str | None = None,
    backend: str | None = None,
    dtype: Any = None,
    mrc_mode: int | None = None,
    round_to: float | None = None,
    pixel_size: float | Sequence[float] | None = None,
    kind: str | None = None,
    mz: int | None = None,
    metadata: Mapping[str, Any] | None = None,
    metadata_codec: str | None = "zstd",
    extended_header: Any = None,
    header: Header | None = None,
    labels: Sequence[str] = (),
    byteorder: str | None = None,
    voltage: float | None = None,
    c3: float | None = None,
    counts_per_electron: float | None = None,
    source_header: bytes | None = None,
    source_name: str | None = None,
    slices: int = 0,
    whole_cell: bool = False,
    n_threads: int | None = None,
    overwrite: bool | Judge = False,
    sync: bool = True,
) -> Writer: ...
@overload
def open(path: Any, mode: str, *, n_threads: int | None = None) -> Reader | Writer: ...
@right_keywords
def open(path: Any, mode: str = "r", **keywords: Any) -> Reader | Writer:
    """Open a file: ``"r"`` gives a `Reader`, ``"w"`` a `Writer` of a new file, ``"a"`` one that adds frames to a file.

    Parameters
    ----------
    path : path, or a URL or binary file object for reading
    mode : {"r", "w", "a"}
        How to open it. The number of MRC's MODE is `mrc_mode`.
    permissive, signed_bytes, n_threads, verify, storage_options, dataset, fraction, upsampling, raw,
    correction, options
        With "r", of `Reader`.
    codec, level, profile, …, overwrite, sync
        With "w", of `Writer`; with "a", of `Writer.append_to`.

    Raises
    ------
    ValueError
        There is no such mode.
    TypeError
        A keyword of another mode, or of none.
    """
    if mode == "r":
        return open_reader(path, **keywords)
    if mode == "w":
        return Writer(path, **keywords)
    if mode == "a":
        return Writer.append_to(path, **keywords)
    more = f": {MODES[mode]}" if isinstance(mode, str) and mode in MODES else ""
    more = "; the number of MRC's MODE is mrc_mode" if isinstance(mode, int) else more
    raise ValueError(f"mode is {mode!r}, expected 'r', 'w' or 'a'{more}")


def open_reader(path: Any, **keywords: Any) -> Reader:
    """A Reader of an MRC or MRCZ file, or a ForeignReader of one of another format, by its first bytes: what `open`
    gives, for modules that need no Writer's keywords."""
    try:
        return Reader(path, **keywords)
    except (ForeignFormatError, IsADirectoryError) as error:
        from mrcz.file.foreign import ForeignReader, is_folder_of_frames

        if isinstance(error, IsADirectoryError) and not is_folder_of_frames(path):
            raise
        return ForeignReader(path, **keywords)


def _holds_frames(array: Any) -> bool:
    return isinstance(array, Iterable) and not isinstance(array, (str, bytes))


@right_keywords
def read(
    path: Any,
    *,
    frames: int | slice | Sequence[int] | np.ndarray | None = None,
    out: np.ndarray | None = None,
    dtype: Any = None,
    gain: np.ndarray | None = None,
    squeeze: bool = False,
    permissive: bool = False,
    signed_bytes: bool | None = None,
    n_threads: int | None = None,
    verify: bool = True,
    storage_options: Mapping[str, Any] | None = None,
    dataset: str | None = None,
    fraction: int | None = None,
    upsampling: int = 1,
    raw: bool = False,
    correction: FrameCorrection | None = None,
    options: ReadOptions | None = None,
) -> np.ndarray:
    """Read the frames of a file.

    Parameters
    ----------
    path : path, URL or binary file object
    frames, out, dtype, gain, squeeze
        Of `Reader.read`: which frames, into what, as what, multiplied by a gain reference (ny, nx), and shaped as
        mrcfile does, for ``imshow``.
    permissive, signed_bytes, n_threads, verify, storage_options, dataset, fraction, upsampling, raw,
    correction, options
        Of `Reader`: how it is opened.

    Returns
    -------
    (nz, ny, nx) ndarray, or (ny, nx) if `frames` is an int
        nz is 1 for a single image; RGB files have a last axis of 3 more.

    Raises
    ------
    FormatError
        This is no MRC file, or it is damaged.
    IndexError
        It has no such frames.
    """
    with open_reader(
        path,
        permissive=permissive,
        signed_bytes=signed_bytes,
        n_threads=n_threads,
        verify=verify,
        storage_options=storage_options,
        dataset=dataset,
        fraction=fraction,
        upsampling=upsampling,
        raw=raw,
        correction=correction,
        options=options,
    ) as reader:
        return reader.read(frames, out=out, dtype=dtype, gain=gain, squeeze=squeeze)


# Long because every keyword is spelt out.
@right_keywords
def write(
    path: Any,
    array: Any,
    *,
    codec: str | Codec | None = None,
    level: int | None = None,
    profile: str | None = None,
    filter: str | None = None,
    blocksize: int | None = None,
    checksum: bool | None = None,
    pack: bool | str | None = None,
    backend: str | None = None,
    dtype: Any = None,
    mrc_mode: int | None = None,
    round_to: float | None = None,
    pixel_size: float | Sequence[float] | None = None,
    kind: str | None = None,
    mz: int | None = None,
    metadata: Mapping[str, Any] | None = None,
    metadata_codec: str | None = "zstd",
    extended_header: Any = None,
    header: Header | None = None,
    labels: Sequence[str] = (),
    byteorder: str | None = None,
    voltage: float | None = None,
    c3: float | None = None,
    counts_per_electron: float | None = None,
    source_header: bytes | None = None,
    source_name: str | None = None,
    slices: int = 0,
    whole_cell: bool = False,
    n_threads: int | None = None,
    overwrite: bool | Judge = False,
    sync: bool = True,
) -> None:
    """Write an array as one file.

    Parameters
    ----------
    path : path
        ``.mrc`` and the like are written plain, all other suffixes compressed with zstd, unless `codec` says otherwise.
    array : (nz, ny, nx) array, (ny, nx) array, or iterable of (ny, nx) arrays
        NumPy, dask, h5py, zarr, a `Reader`: what slices is read a batch at a time. With ``mrc_mode=16`` there is a last
        axis of 3. 4-D arrays (volumes, nz, ny, nx) are written as a volume stack.
    codec, level, profile, …, overwrite, sync
        Of `Writer`.

    Raises
    ------
    ValueError, TypeError
        The array cannot be written as it is; the message says what would help.
    OSError
        The system refused; nothing is left behind, an existing file is untouched.
    """
    refuse_masked(array)
    ndim = len(array.shape) if hasattr(array, "shape") else None
    if ndim is None and not _holds_frames(array):
        raise TypeError(f"array is {type(array).__name__}, expected an array or an iterable of 2-D frames")
    if ndim is not None:
        axes = ndim - (mrc_mode == 16)
        if axes == 2:
            array = np.asarray(array)[np.newaxis]
            if kind is None and header is None:
                kind = "image"
        elif axes == 4:
            mz = int(array.shape[1]) if mz is None else mz
            kind = kind or "volume stack"
            array = array.reshape((array.shape[0] * array.shape[1], *array.shape[2:]))
        elif axes != 3:
            raise ValueError(f"an array of {ndim} axes is no file: frames are 2-D, stacks 3-D, volume stacks 4-D")
        if 0 in array.shape:
            raise ValueError(f"an array of shape {tuple(array.shape)} has no pixels to write")
    with Writer(
        path,
        codec=codec,
        level=level,
        profile=profile,
        filter=filter,
        blocksize=blocksize,
        checksum=checksum,
        pack=pack,
        backend=backend,
        dtype=dtype,
        mrc_mode=mrc_mode,
        round_to=round_to,
        pixel_size=pixel_size,
        kind=kind,
        mz=mz,
        metadata=metadata,
        metadata_codec=metadata_codec,
        extended_header=extended_header,
        header=header,
        labels=labels,
        byteorder=byteorder,
        voltage=voltage,
        c3=c3,
        counts_per_electron=counts_per_electron,
        source_header=source_header,
        source_name=source_name,
        slices=slices,
        whole_cell=whole_cell,
        n_threads=n_threads,
        overwrite=overwrite,
        sync=sync,
    ) as writer:
        writer.extend(array)
