"""The surface of mrcz 0.x over the new one: same calls, same return values. Nothing else depends on it.

Where 0.6.0 was wrong this is right; docs/differences.md lists each case. `readMRC` and `writeMRC` are long because more
than half of each says what the arguments of 0.x mean.
"""

from __future__ import annotations

import io
import logging
import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, BinaryIO, Literal

import numpy as np

from mrcz.container.header.header import Header
from mrcz.container.metadata import encode_json
from mrcz.container.modes import format_for
from mrcz.errors import HeaderError
from mrcz.file.codec import Codec
from mrcz.file.reader import Reader
from mrcz.file.writer import Writer
from mrcz.legacy.background import background_thread, same_arguments
from mrcz.legacy.header import (
    COMPRESSOR_ENUM,
    EMAN2_ENUM,
    PLUGINS,
    REVERSE_CCPEM_ENUM,
    REVERSE_COMPRESSOR_ENUM,
    describe,
    pixel_size,
)
from mrcz.legacy.sections import insert
from mrcz.threads import default_threads

logger: logging.Logger = logging.getLogger("MRCZ")  # configured by the program that uses us, never here

BLOSC_PRESENT = True  # the codecs are inside this package
BLOSC2_PRESENT = True
CAN_COMPRESS = True

DEFAULT_N_THREADS = default_threads()

_asyncExecutor = background_thread()

_PIXEL_SIZE = [0.1, 0.1, 0.1]  # the old default, only ever read
_cast_told: set[str] = set()  # which narrowing was already logged


def setDefaultThreads(n_threads: int) -> None:
    """Set how many threads `readMRC` and `writeMRC` use when their argument `n_threads` is not given."""
    global DEFAULT_N_THREADS
    DEFAULT_N_THREADS = _threads(n_threads)


def _threads(n_threads: int | None) -> int:
    if n_threads is None:
        return DEFAULT_N_THREADS
    if int(n_threads) < 1:
        raise ValueError(f"n_threads must be at least 1, got {n_threads}")
    return int(n_threads)


def _setAsyncWorkers(N_workers: int) -> None:
    """Set the number of background threads of `asyncReadMRC` and `asyncWriteMRC`; 1 at first."""
    if N_workers <= 0:
        raise ValueError(f"N_workers must be greater than 0, got {N_workers}")
    _asyncExecutor._max_workers = int(N_workers)  # threads are started one by one, when work is submitted


def defaultHeader() -> dict[str, Any]:
    """A header dictionary with every field `writeMRCHeader` knows, at its default."""
    return {
        "fileConvention": "ccpem",
        "endian": "le",
        "MRCtype": 0,
        "dimensions": np.array([0, 0, 0], dtype=int),
        "dtype": "u1",
        "compressor": None,
        "backend": None,
        "packedBytes": 0,
        "clevel": 1,
        "maxImage": 1.0,
        "minImage": 0.0,
        "meanImage": 0.0,
        "pixelsize": 0.1,
        "pixelunits": "nm",
        "voltage": 300.0,
        "C3": 2.7,
        "gain": 1.0,
        "n_threads": DEFAULT_N_THREADS,
    }


# ---- reading ---------------------------------------------------------------------------------------------------------


# NumPy functions that only look at shape and dtype.
_OUTSIDE = frozenset(
    (np.shape, np.ndim, np.size, np.result_type, np.can_cast, np.iscomplexobj, np.isrealobj)
    + (np.empty_like, np.zeros_like, np.ones_like, np.full_like)
)


class _Lazy(Reader):
    """A Reader given away as an array.

    HyperSpy takes what speaks NumPy's ``__array_function__`` as it is, anything else it makes an ndarray of; then it
    asks for ``atleast_1d``. Only frames that are indexed are decoded.
    """

    def __array_function__(self, func: Any, types: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if func in (np.atleast_1d, np.atleast_2d, np.atleast_3d) and len(args) == 1:
            return self
        hollow = func in _OUTSIDE
        return func(*_as_arrays(args, hollow), **{key: _as_arrays(value, hollow) for key, value in kwargs.items()})


def _as_arrays(value: Any, hollow: bool) -> Any:
    """The same with arrays in place of readers: of their pixels, or (hollow) of nothing but their shape and dtype."""
    if isinstance(value, _Lazy):
        return np.broadcast_to(np.zeros((), value.dtype), value.shape) if hollow else np.asarray(value)
    if isinstance(value, (list, tuple)):
        return type(value)(_as_arrays(item, hollow) for item in value)
    return value


# Longer than 60 lines: half of it are its words.
def readMRC(
    MRCfilename: str | os.PathLike[str],
    idx: int | tuple[int, int] | None = None,
    endian: str = "le",
    pixelunits: str = "\\AA",
    fileConvention: str = "ccpem",
    useMemmap: bool = False,
    n_threads: int | None = None,
    slices: int | None = None,
) -> tuple[Any, dict[str, Any]]:
    r"""Read an MRC or MRCZ file.

    Parameters
    ----------
    MRCfilename : path-like
        The file.
    idx : int or (int, int), optional
        One section, or the first and the last to read, **both included**; negative numbers count from the end. Of
        compressed files only the chunks asked for are decoded.
    endian : str
        Accepted and not needed: the byte order is found in the file.
    pixelunits : {'\\AA', 'pm', 'nm', '\\mum', 'µm', ...}
        Unit of ``header["pixelsize"]``.
    fileConvention : {'ccpem', 'eman2'}
        Meaning of MODE; ``'eman2'`` for files of EMAN2 that are not compressed.
    useMemmap : bool
        Do not read pixels now. Gives a copy-on-write `numpy.memmap` (nz, ny, nx) where pixels are stored plainly; else
        (compressed, 4-bit, complex integers) a `Reader` (nz, ny, nx), which decodes what is indexed.
    n_threads : int, optional
        Threads that decode. Default: see `setDefaultThreads`.
    slices : int, optional
        0: one array. 1: a list of images (ny, nx). n: a list of arrays (n, ny, nx), the last shorter if sections are
        left over. Default: as the file was written, if an ``MRCZ`` label says that this package wrote it, else 0.

    Returns
    -------
    image : ndarray or list of ndarray
        New, writeable arrays in the byte order of the file. One array has its axes of length 1 removed.
    header : dict
        ``dimensions`` (z, y, x), ``MRCtype``, ``compressor``, ``dtype``, ``pixelsize`` (z, y, x), ``pixelunits``,
        ``minImage``, ``maxImage``, ``meanImage``, ``extendedBytes``, ``metaId``, ``voltage`` (kV), ``C3`` (mm),
        ``gain``, ``packedBytes``, and the keys of JSON metadata. See also `MRCHeader`.

    Raises
    ------
    FormatError
        This is no MRC file, or it is damaged.
    ValueError
        `idx` is outside the stack, or another argument is wrong.

    Examples
    --------
    >>> image, header = readMRC("movie.mrcz")             # doctest: +SKIP
    >>> tenth, header = readMRC("movie.mrcz", idx=9)      # doctest: +SKIP
    """
    threads = _threads(n_threads)
    reader = _open(MRCfilename, fileConvention, threads)
    keep = False
    try:
        header, slices = describe(reader, slices, fileConvention, pixelunits)
        first, count = _range(idx, len(reader))
        header["dimensions"][0] = count
        image: Any
        if useMemmap:
            try:
                image = reader.memmap("c")[first : first + count]
            except ValueError:  # not plain pixels
                keep = idx is None
                image = reader if keep else reader.read(slice(first, first + count))
            return image, header
        image = reader.read(slice(first, first + count))
        if slices == 0:
            image = np.squeeze(image)
        elif slices == 1:
            image = list(image)
        else:
            image = [image[k : k + slices] for k in range(0, count, slices)]
        return image, header
    finally:
        if not keep:
            reader.close()


def readMRCHeader(
    MRCfilename: str | os.PathLike[str],
    slices: int | None = None,
    endian: str = "le",
    fileConvention: str = "ccpem",
    pixelunits: str = "\\AA",
) -> tuple[dict[str, Any], int]:
    """Read header and metadata, no pixels; arguments as for `readMRC`.

    Returns
    -------
    header : dict
        As `readMRC` returns it.
    slices : int
        What `readMRC` would give: 0 one array, 1 a list of images, n a list of arrays of n sections.
    """
    with _open(MRCfilename, fileConvention, 1) as reader:
        return describe(reader, slices, fileConvention, pixelunits)


def _open(path: str | os.PathLike[str], convention: str, threads: int) -> Reader:
    name = str(convention).lower()
    if name not in ("ccpem", "eman2"):
        raise ValueError(f"unrecognized MRC file convention: {convention!r}, expected 'ccpem' or 'eman2'")
    try:
        return _open_eman2(path, threads) if name == "eman2" else _Lazy(path, n_threads=threads)
    except HeaderError as error:
        number = error.found // 1000 if error.field == "mode" and isinstance(error.found, int) else 0
        if number in COMPRESSOR_ENUM:
            raise
        raise HeaderError(
            f"unrecognized MRCZ compressor id = {number}, expected 0 to {max(COMPRESSOR_ENUM)}",
            field="mode",
            found=error.found,
            expected=error.expected,
            path=path,
        ) from None


def _open_eman2(path: str | os.PathLike[str], threads: int) -> Reader:
    """A file whose MODE is EMAN2's number for a dtype; taken into memory to put MRC's there."""
    with open(path, "rb") as file:
        raw = bytearray(file.read())
    order: Literal["little", "big"] = "little" if raw[12:13] != b"\0" else "big"
    number = int.from_bytes(raw[12:16], order)
    if number not in EMAN2_ENUM:
        known = ", ".join(map(str, EMAN2_ENUM))
        raise HeaderError(field="mode", found=number, expected=f"one of EMAN2's {known}", path=path)
    dtype = EMAN2_ENUM[number]
    raw[12:16] = REVERSE_CCPEM_ENUM[dtype].to_bytes(4, order)
    return _Lazy(io.BytesIO(raw), n_threads=threads, signed_bytes=dtype == "i1" if dtype[1] == "1" else None)


def _range(idx: Any, nz: int) -> tuple[int, int]:
    """First section and number of sections of `idx`, whose two ends are both included."""
    if idx is None:
        return 0, nz
    ends = [int(value) for value in np.atleast_1d(np.asarray(idx))]
    if len(ends) not in (1, 2):
        raise ValueError(f"idx is {idx!r}, expected one number or the first and the last")
    first, last = (end + nz if end < 0 else end for end in (ends[0], ends[-1]))
    if not (0 <= first < nz and 0 <= last < nz):
        raise ValueError(f"image or slice index out of range: idx = {idx}, z_dimension = {nz}")
    if last < first:
        raise ValueError(f"idx = {idx} asks for no section: the last, which is included, comes before the first")
    return first, last - first + 1


# ---- writing ---------------------------------------------------------------------------------------------------------


# Longer than 60 lines: half of it are its words.
def writeMRC(
    input_image: Any,
    MRCfilename: str | os.PathLike[str],
    meta: dict[str, Any] | None = None,
    endian: str = "le",
    dtype: Any = None,
    pixelsize: Any = _PIXEL_SIZE,
    pixelunits: str = "\\AA",
    shape: Any = None,
    voltage: float | None = 0.0,
    C3: float | None = 0.0,
    gain: float | None = 1.0,
    compressor: str | None = None,
    clevel: int = 1,
    n_threads: int | None = None,
    quickStats: bool = True,
    idx: int | None = None,
    backend: str | None = None,
) -> None:
    r"""Write an MRC file, or an MRCZ file if a `compressor` is named. The file appears when it is complete.

    Parameters
    ----------
    input_image : (ny, nx) or (nz, ny, nx) array, or list of (ny, nx) or (n, ny, nx) arrays
        float64 is written as float32 and complex128 as complex64; the caller's arrays stay as they are. dask arrays
        (and h5py, zarr: anything that slices) are brought in a few frames at a time. A list comes back as a list.
    MRCfilename : path-like
    meta : dict, optional
        Written as JSON into the extended header: arrays become lists, Enum members ``"Enum.Class.NAME"``.
    endian : {'le', 'be'}
        Byte order of the file.
    dtype : dtype or 'uint4', optional
        Cast the pixels to it. ``'uint4'`` stores two pixels a byte and refuses values outside 0 to 15.
    pixelsize : float, or (y, x), or (z, y, x)
        In `pixelunits`. Of two, z takes that of x.
    pixelunits : {'\\AA', 'pm', 'nm', '\\mum', 'µm', ...}
        Unknown units are taken as nm, with a warning on the logger ``MRCZ``.
    shape, quickStats
        Accepted and not needed: statistics are always those of the whole stack.
    voltage, C3, gain : float or None
        kV, mm, counts per electron.
    compressor : {None, 'zstd', 'lz4', 'lz4hc', 'zlib', 'blosclz'}
    clevel : int
        0 to 9, as Blosc counts.
    n_threads : int, optional
        Threads that compress. Default: see `setDefaultThreads`.
    idx : int, optional
        Write into an existing uncompressed file from this section on, replacing sections or, up to one past the last,
        adding to them; negative numbers count from the end. A file that does not exist begins with ``idx=0``.
    backend : {None, 'blosc1', 'blosc2'}
        ``'blosc2'`` writes version 5 chunks, which only mrcz 0.6 and later reads.

    Raises
    ------
    ValueError, TypeError
        An argument is wrong, or no MRC mode holds the pixels.
    RuntimeError
        `idx` with compression; a compressor that is a plug-in of C-Blosc2.
    """
    threads = _threads(n_threads)
    codec = _codec(compressor, clevel, backend)
    frames, slices, found = _frames(input_image)
    packed = isinstance(dtype, str) and dtype == "uint4"
    if packed and found.kind not in "bui":
        frames, found = _counts(frames), np.dtype(np.int8)
    if packed and codec.is_compressed:
        raise TypeError("dtype='uint4' cannot be combined with a compressor, which older versions could not read")
    order = "<" if endian == "le" else ">"
    if idx is not None:
        exists = os.path.isfile(MRCfilename)
        if exists:
            with Reader(MRCfilename) as reader:
                compressor = COMPRESSOR_ENUM[reader.header.codec_number]
        if compressor is not None:
            raise RuntimeError(
                f"writing at a position is not supported for compressed files, compressor = {compressor}"
            )
        if exists:
            insert(
                MRCfilename, frames, int(idx), dtype=_narrowed(found if dtype is None or packed else np.dtype(dtype))
            )
            return
        if idx not in (0, -1):
            raise ValueError(f"image or slice index out of range: idx = {idx}, but there is no file {MRCfilename} yet")
    extended = ("json", encode_json(meta)) if isinstance(meta, dict) else None
    with Writer(
        MRCfilename,
        codec=replace(codec, pack=packed),
        dtype=None if packed else _stored_dtype(found if dtype is None else dtype, MRCfilename),
        pixel_size=pixel_size(pixelsize, pixelunits),
        extended_header=extended,
        byteorder=order,
        voltage=voltage or 0.0,
        c3=C3 or 0.0,
        counts_per_electron=gain or 1.0,
        n_threads=threads,
        slices=slices,
        whole_cell=not codec.is_compressed,
        overwrite=True,  # as it always did
    ) as writer:
        writer.extend(frames)


def _codec(compressor: str | None, clevel: int, backend: str | None) -> Codec:
    if compressor is None:
        return Codec("none")
    if backend not in (None, "blosc1", "blosc2"):
        raise ValueError(f"backend must be None, 'blosc1' or 'blosc2', got {backend!r}")
    name = str(compressor).lower()
    if name not in REVERSE_COMPRESSOR_ENUM:
        known = ", ".join(sorted(str(known) for known in REVERSE_COMPRESSOR_ENUM if known))
        raise ValueError(f"Unknown compressor {compressor!r}, expected one of {known}")
    if name in PLUGINS:
        if backend == "blosc1":
            raise ValueError(f"{name!r} is no codec of Blosc 1; it needs backend='blosc2'")
        raise RuntimeError(
            f"{name!r} is a plug-in of C-Blosc2 (package blosc2-{name}), which this package does not load"
        )
    if name == "snappy":
        raise ValueError("'snappy' files are no longer written, by any Blosc; use 'zstd' or 'lz4'")
    return Codec.from_blosc(name, clevel, backend="blosc2" if backend == "blosc2" else "blosc")


def _frames(image: Any) -> tuple[Any, int, np.dtype]:
    """What `Writer.extend` takes, slices a frame (0: one array), and the dtype."""
    if isinstance(image, (list, tuple)):
        parts = [np.asarray(part) for part in image]
        if not parts:
            raise ValueError("an empty list has no pixels to write")
        first = parts[0]
        if first.ndim not in (2, 3):
            raise ValueError(f"a list must hold 2-D or 3-D arrays, not {first.ndim}-D ones")
        for k, part in enumerate(parts):
            if part.shape != first.shape:
                raise ValueError(f"frame {k} has shape {part.shape}, expected {first.shape}")
            if _narrowed(part.dtype) != _narrowed(first.dtype):
                raise TypeError(f"frame {k} has dtype {part.dtype}, expected {first.dtype}")
        if first.ndim == 2:
            return parts, 1, first.dtype
        sections = [section for part in parts for section in part]
        return sections, first.shape[0], first.dtype
    if not all(hasattr(image, name) for name in ("shape", "dtype", "__getitem__")):
        image = np.asarray(image)
    if len(image.shape) == 2:
        image = np.asarray(image)[np.newaxis]
    elif len(image.shape) != 3:
        raise ValueError(f"input_image must be 2-D or 3-D, or a list of such arrays, not {len(image.shape)}-D")
    if 0 in image.shape:
        raise ValueError(f"an array of shape {tuple(image.shape)} has no pixels to write")
    return image, 0, np.dtype(image.dtype)


def _narrowed(dtype: np.dtype) -> np.dtype:
    """The dtype in native order, doubles as singles."""
    return {"f8": np.dtype("f4"), "c16": np.dtype("c8")}.get(dtype.str[1:], dtype.newbyteorder("="))


def _stored_dtype(dtype: Any, path: Any) -> np.dtype:
    """The dtype written for one that was given or asked for."""
    given = np.dtype(dtype)
    narrow = _narrowed(given)
    if narrow.itemsize < given.itemsize and given.name not in _cast_told:
        _cast_told.add(given.name)
        logger.warning("%s: %s is cast to %s; this is said once", path, given.name, narrow.name)
    if narrow.name not in REVERSE_CCPEM_ENUM:
        raise TypeError(f"no MRC mode holds {given.name}; supported are {', '.join(sorted(_FULL_NAMES))}")
    return narrow


_FULL_NAMES = {name for name in REVERSE_CCPEM_ENUM if len(name) > 3}


def _counts(frames: Any) -> Iterator[np.ndarray]:
    """Whole numbers of frames that are not integers, for 4-bit storage; the Writer compares them with 0 and 15."""
    for frame in frames:
        frame = np.asarray(frame)
        counts = np.clip(np.nan_to_num(np.real(frame), nan=-1), -1, 16).astype(np.int8)
        if not np.array_equal(counts, frame):
            raise ValueError("dtype='uint4' takes whole numbers from 0 to 15")
        yield counts


def writeMRCHeader(f: BinaryIO, header: dict[str, Any], slices: int, endchar: str = "<") -> int:
    """Write a header, and its JSON metadata if there is some, at the beginning of a file.

    Parameters
    ----------
    f : binary file
        Open for writing; left at the first byte of the pixels.
    header : dict
        Fields as `defaultHeader` names them, and ``meta``: a dict or None. ``dimensions`` is (z, y, x) or (y, x).
    slices : int
        0 for one array, 1 for a list of images, n for a list of arrays of n sections.
    endchar : {'<', '>'}
        Byte order.

    Returns
    -------
    int
        Bytes of metadata after the 1024 of the header.
    """
    fields = {**defaultHeader(), "meta": None, **header}
    dims = [int(n) for n in fields["dimensions"]]
    codec = _codec(fields["compressor"], 1, None)
    name = str(fields["dtype"]).lower().strip("<>|=")
    if name == "uint4":
        pixels = format_for(np.uint8, packed=True, byteorder=endchar)
    else:
        dtype = _stored_dtype(name, getattr(f, "name", "header"))
        pixels = format_for(dtype, byteorder=endchar, mode=0 if dtype.kind in "bu" and dtype.itemsize == 1 else None)
    meta = encode_json(fields["meta"]) if isinstance(fields["meta"], dict) else b""
    low, high, mean = (float(fields[key]) for key in ("minImage", "maxImage", "meanImage"))
    built = Header.build(
        (1, *dims) if len(dims) == 2 else dims,
        pixels,
        pixel_size=pixel_size(fields["pixelsize"], fields["pixelunits"]),
        codec=codec.name,
        stats=(low, high, mean, -1.0),
        exttyp="json" if meta else "",
        nsymbt=len(meta),
        slices=slices,
        whole_cell=not codec.is_compressed,
        voltage=fields["voltage"] or 0.0,
        c3=fields["C3"] or 0.0,
        gain=fields["gain"] or 1.0,
        packed_bytes=int(fields["packedBytes"]),
    )
    f.seek(0)
    f.write(built.tobytes())
    f.write(meta)
    return len(meta)


# ---- in the background -------------------------------------------------------------------------------------------


@same_arguments(readMRC)
def asyncReadMRC(*args: Any, **kwargs: Any) -> Future[tuple[Any, dict[str, Any]]]:
    """`readMRC` on a background thread; its arguments, and a future of its result."""
    return _asyncExecutor.submit(readMRC, *args, **kwargs)


@same_arguments(writeMRC)
def asyncWriteMRC(*args: Any, **kwargs: Any) -> Future[None]:
    """`writeMRC` on a background thread; its arguments, and a future that is done when the file is complete."""
    return _asyncExecutor.submit(writeMRC, *args, **kwargs)


def test(verbosity: int = 2) -> int:
    """Write and read back every dtype with every codec in a temporary folder.

    Returns
    -------
    int
        0 if all came back equal, 1 if not.
    """
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "test.mrcz")
        for codec in (None, "blosclz", "lz4", "lz4hc", "zlib", "zstd"):
            for name in ("int8", "int16", "uint16", "int32", "uint32", "float16", "float32", "complex64"):
                given = (np.arange(3 * 33 * 65) % 61).reshape(3, 33, 65).astype(name)
                try:
                    writeMRC(given, path, compressor=codec)
                    good = np.array_equal(readMRC(path)[0], given)
                except Exception as error:  # this is a report
                    good, name = False, f"{name}: {error}"
                failed += not good
                if verbosity >= 2 or (verbosity and not good):
                    print(f"{'ok' if good else 'FAILED'}  {codec or 'not compressed'} {name}")
    if verbosity:
        print(f"{failed} failed" if failed else "all passed")
    return int(failed > 0)


test.__test__ = False  # type: ignore[attr-defined] # no test of the program that imports it

read_mrc = readMRC
write_mrc = writeMRC
async_read_mrc = asyncReadMRC
async_write_mrc = asyncWriteMRC
read_mrc_header = readMRCHeader
write_mrc_header = writeMRCHeader
default_header = defaultHeader
set_default_threads = setDefaultThreads
