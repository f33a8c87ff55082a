"""The programs compared: each writes a stack to a path and reads it back. `worker` imports it in either environment."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass
class Method:
    """One way to store a stack.

    Attributes
    ----------
    write : (stack, path) -> None
    read : path -> stack
    operations : other things it can do with a file, by name: (path, out, gain) -> result
    suffix : of the file
    environment : "new", or "old" for mrcz 0.6.0, whose import name is the same
    packed, signed : takes uint8 0..15; takes them as int8
    slow : worth a few frames only
    main : measured on every data set
    flushes : ``write`` takes ``sync=True``, and then returns when the disk has it
    command : the program it needs, where that is not a package
    """

    write: Callable[..., None]
    read: Callable[[str], np.ndarray]
    operations: dict[str, Callable[[str, Any, Any], Any]] = field(default_factory=dict)
    suffix: str = ".mrcz"
    environment: str = "new"
    packed: bool = False
    signed: bool = False
    slow: bool = False
    main: bool = False
    flushes: bool = False
    command: str | None = None

    def write_through(self, stack: np.ndarray, path: str) -> None:
        """Write, and return when the disk has both the file and its name."""
        if self.flushes:
            self.write(stack, path, sync=True)
            return
        self.write(stack, path)
        for name in (path, os.path.dirname(path)):
            fd = os.open(name, os.O_RDONLY)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)


def size_of(path: str) -> int:
    """Bytes of a file, or of all files of a folder."""
    if os.path.isdir(path):
        return sum(os.path.getsize(os.path.join(d, f)) for d, _, files in os.walk(path) for f in files)
    return os.path.getsize(path)


def remove(path: str) -> None:
    if os.path.isdir(path):
        shutil.rmtree(path)
    elif os.path.exists(path):
        os.unlink(path)


# ---- this package ------------------------------------------------------------------------------------------------

_corrections: dict[int, Any] = {}


def correction(gain: np.ndarray) -> Any:
    """A gain and .2 % of outliers, the share a detector has; made once for each gain."""
    from mrcz.correct import Correction, OutlierModel

    if id(gain) not in _corrections:
        rng = np.random.default_rng(3)
        index = np.flatnonzero(rng.random(gain.size) < 0.002)
        weight = rng.choice([0, 0, 0, 0.5], index.size)
        state = dict.fromkeys(OutlierModel.__dataclass_fields__, 0) | {"scale": "none", "curve": {}}
        state |= {"method": "defects", "shape": gain.shape, "dark_found": "none", "hot_found": "none"}
        state |= {"index": index, "weight": weight, "fill": np.ones(index.size)}
        model = OutlierModel.from_dict({"type": "mrcz.OutlierModel", "version": 1, **state})
        _corrections[id(gain)] = Correction(gain=gain, outliers=model)
    return _corrections[id(gain)]


def ours(packed: bool = False, main: bool = False, signed: bool = False, **options: Any) -> Method:
    # Nobody else flushes to the disk before saying done; in a page cache that would be all there is to see.
    def write(stack: np.ndarray, path: str, sync: bool = False) -> None:
        import mrcz

        mrcz.write(path, stack, sync=sync, pack=packed, overwrite=True, **options)

    def read(path: str) -> np.ndarray:
        import mrcz

        return mrcz.read(path)

    def read_out(path: str, out: np.ndarray, gain: Any) -> np.ndarray:
        import mrcz

        return mrcz.read(path, out=out)

    def times_gain(path: str, out: Any, gain: np.ndarray) -> np.ndarray:
        import mrcz

        with mrcz.open(path) as reader:
            return reader.read(dtype=np.float32, gain=gain, out=out)

    def corrected(path: str, out: Any, gain: np.ndarray) -> np.ndarray:
        import mrcz

        with mrcz.open(path) as reader:
            return reader.read(correction=correction(gain), out=out)

    def total(path: str, out: Any, gain: Any) -> np.ndarray:
        import mrcz

        with mrcz.open(path) as reader:
            return reader.sum()

    operations = {"read out": read_out, "× gain": times_gain, "corrected": corrected, "sum": total}
    suffix = ".mrc" if options.get("codec") == "none" else ".mrcz"
    return Method(write, read, operations, suffix=suffix, packed=packed, signed=signed, main=main, flushes=True)


# ---- mrcz 0.6.0 --------------------------------------------------------------------------------------------------


def old(compressor: str | None, clevel: int, *, dtype: str | None = None, main: bool = False, **extra: Any) -> Method:
    def write(stack: np.ndarray, path: str) -> None:
        import mrcz

        mrcz.writeMRC(stack, path, compressor=compressor, clevel=clevel, dtype=dtype, **extra)

    def read(path: str) -> np.ndarray:
        import mrcz

        return mrcz.readMRC(path)[0]

    def times_gain(path: str, out: Any, gain: np.ndarray) -> np.ndarray:
        return np.multiply(read(path), gain, out=out)  # NumPy's quickest: one pass, converting as it goes

    def total(path: str, out: Any, gain: Any) -> np.ndarray:
        return read(path).sum(axis=0)

    operations = {"× gain": times_gain, "sum": total}
    packed = dtype == "uint4"
    suffix = ".mrcz" if compressor else ".mrc"
    return Method(write, read, operations, suffix=suffix, environment="old", main=main, packed=packed)


# ---- packages ----------------------------------------------------------------------------------------------------


def plain_file() -> Method:
    def write(stack: np.ndarray, path: str) -> None:
        stack.tofile(path)

    def read(path: str) -> np.ndarray:
        return np.fromfile(path, np.uint8)

    def read_out(path: str, out: np.ndarray, gain: Any) -> np.ndarray:
        with open(path, "rb") as file:
            file.readinto(memoryview(out).cast("B"))
        return out

    return Method(write, read, {"read out": read_out}, suffix=".raw")


def blosc2_array(codec: str, level: int, main: bool = False) -> Method:
    def write(stack: np.ndarray, path: str) -> None:
        import blosc2

        settings = {
            "codec": blosc2.Codec[codec],
            "clevel": level,
            "filters": [blosc2.Filter.BITSHUFFLE],
            "filters_meta": [0],
            "typesize": stack.itemsize,
            "nthreads": CORES,
        }
        blosc2.asarray(stack, chunks=(1, *stack.shape[1:]), cparams=settings, urlpath=path, mode="w")

    def read(path: str) -> np.ndarray:
        import blosc2

        return blosc2.open(path, dparams={"nthreads": CORES})[:]

    return Method(write, read, suffix=".b2nd", main=main)


def hdf5(codec: str, level: int = 0, main: bool = False) -> Method:
    def write(stack: np.ndarray, path: str) -> None:
        import h5py
        import hdf5plugin

        how = hdf5plugin.Bitshuffle(cname=codec, clevel=level) if level else hdf5plugin.Bitshuffle(cname=codec)
        with h5py.File(path, "w") as file:
            file.create_dataset("stack", data=stack, chunks=(1, *stack.shape[1:]), compression=how)

    def read(path: str) -> np.ndarray:
        import h5py
        import hdf5plugin

        assert hdf5plugin.get_filters(), "importing it registers the filters"
        with h5py.File(path, "r") as file:
            return file["stack"][:]

    return Method(write, read, suffix=".h5", main=main)


def tiff(compression: str, level: int | None = None, main: bool = False) -> Method:
    def write(stack: np.ndarray, path: str) -> None:
        import tifffile

        arguments = {"level": level} if level is not None else None
        tifffile.imwrite(
            path,
            stack,
            compression=compression,
            compressionargs=arguments,
            maxworkers=CORES,
            bigtiff=True,
            photometric="minisblack",
        )

    def read(path: str) -> np.ndarray:
        import tifffile

        return tifffile.imread(path, maxworkers=CORES)

    return Method(write, read, suffix=".tif", main=main)


def mrcfile_package(compression: str | None, slow: bool = False) -> Method:
    def write(stack: np.ndarray, path: str) -> None:
        import mrcfile

        mrcfile.new(path, stack, compression=compression, overwrite=True).close()

    def read(path: str) -> np.ndarray:
        import mrcfile

        return mrcfile.read(path)

    return Method(write, read, suffix=".mrc", slow=slow)


def zarr_array(codec: str, level: int, main: bool = False) -> Method:
    def write(stack: np.ndarray, path: str) -> None:
        import zarr

        blosc = zarr.codecs.BloscCodec(cname=codec, clevel=level, shuffle="bitshuffle", typesize=stack.itemsize)
        array = zarr.create_array(
            path, shape=stack.shape, chunks=(1, *stack.shape[1:]), dtype=stack.dtype, compressors=blosc
        )
        array[:] = stack

    def read(path: str) -> np.ndarray:
        import zarr

        return zarr.open_array(path, mode="r")[:]

    return Method(write, read, suffix=".zarr", main=main)


# ---- programs ----------------------------------------------------------------------------------------------------


def program(name: str, encode: str, decode: str, slow: bool = False) -> Method:
    """A compressor of the command line, from a raw file to a file and back; times include starting it."""

    def write(stack: np.ndarray, path: str) -> None:
        source = path + ".source"  # made by `prepare`, outside the clock
        with open(source, "rb") as file, open(path, "wb") as target:
            subprocess.run([name, *encode.split()], stdin=file, stdout=target, check=True)

    def read(path: str) -> np.ndarray:
        with open(path, "rb") as file, open(path + ".decoded", "wb") as target:
            subprocess.run([name, *decode.split()], stdin=file, stdout=target, check=True)
        return np.memmap(path + ".decoded", np.uint8, "r")

    return Method(write, read, suffix="." + name, slow=slow, command=name)


def methods() -> dict[str, Method]:
    """All of them, by the name in the tables."""
    n = CORES
    return {
        "balanced": ours(main=True, codec="zstd", profile="balanced"),
        "fast": ours(main=True, codec="zstd", profile="fast"),
        "small": ours(main=True, codec="zstd", profile="small"),
        "4-bit": ours(packed=True, main=True, codec="zstd"),
        "4-bit int8": ours(packed=True, signed=True, main=True, codec="zstd"),
        "no checksum": ours(codec="zstd", checksum=False),
        "lz4 9": ours(codec="lz4", level=9),
        "zlib 1": ours(codec="zlib", level=1),
        "lz4hc 4": ours(codec="lz4hc", level=4),
        "plain MRC": ours(codec="none"),
        "mrcz 0.6.0 zstd 1": old("zstd", 1, main=True),
        "mrcz 0.6.0 lz4 9": old("lz4", 9, main=True),
        "mrcz 0.6.0 lz4hc 4": old("lz4hc", 4),
        "mrcz 0.6.0 zlib 1": old("zlib", 1),
        "mrcz 0.6.0 plain": old(None, 1),
        "raw file": plain_file(),
        "blosc2 zstd 1": blosc2_array("ZSTD", 1, main=True),
        "blosc2 lz4 9": blosc2_array("LZ4", 9),
        "h5py bitshuffle zstd 1": hdf5("zstd", 1, main=True),
        "h5py bitshuffle lz4": hdf5("lz4"),
        "tifffile zstd 1": tiff("zstd", 1),
        "tifffile deflate 1": tiff("zlib", 1, main=True),
        "tifffile LZW": tiff("lzw"),
        "zarr blosc zstd 1": zarr_array("zstd", 1),
        "mrcfile": mrcfile_package(None),
        "mrcfile gzip": mrcfile_package("gzip", slow=True),
        "mrcfile bzip2": mrcfile_package("bzip2", slow=True),
        f"zstd -1 -T{n}": program("zstd", f"-1 -T{n} -c -q", "-d -c -q"),
        "zstd -19": program("zstd", f"-19 -T{n} -c -q", "-d -c -q", slow=True),
        "lz4 -1": program("lz4", "-1 -c -q", "-d -c -q"),
        f"pigz -6 -p {n}": program("pigz", f"-6 -p {n} -c", "-d -c", slow=True),
        "gzip -6": program("gzip", "-6 -c", "-d -c", slow=True),
        f"lbzip2 -n {n}": program("lbzip2", f"-n {n} -c", f"-d -n {n} -c", slow=True),
        f"pbzip2 -p{n}": program("pbzip2", f"-p{n} -c", f"-d -p{n} -c", slow=True),
        "bzip2": program("bzip2", "-c", "-d -c", slow=True),
        f"xz -1 -T{n}": program("xz", f"-1 -T{n} -c", "-d -c", slow=True),
    }
