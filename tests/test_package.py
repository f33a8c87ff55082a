"""The installed package as a whole: what importing it does, who it shares a process with, on which processors."""

import importlib.metadata
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import mrcz
from _cmrcz import pixels


def python(code: str, **environment: str) -> str:
    """Run code in a fresh interpreter, warnings as errors; its output."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, env={**os.environ, **environment}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def is_editable() -> bool:
    """Of an editable install the files are not all named, and its own import hook costs more than the package."""
    url = json.loads(importlib.metadata.distribution("mrcz").read_text("direct_url.json") or "{}")
    return url.get("dir_info", {}).get("editable", False)


def test_version_is_the_one_in_pyproject():
    project = tomllib.loads((Path(__file__).resolve().parent.parent / "pyproject.toml").read_text())["project"]
    assert mrcz.__version__ == project["version"]


def test_every_public_name_is_there():
    python("import mrcz; [getattr(mrcz, name) for name in mrcz.__all__]; assert set(mrcz.__all__) <= set(dir(mrcz))")
    python("from mrcz import *; Reader, Writer, open, read, write, FormatError, readMRC")
    python("from mrcz import Header, Codec, MrczError, verify; import mrcz; assert mrcz.Header is Header")


def test_import_loads_numpy_alone():
    """Everything else, the core too, is loaded where it is used."""
    loaded = json.loads(python("import sys, json, mrcz; print(json.dumps(list(sys.modules)))"))
    heavy = {"scipy", "msgpack", "zstandard", "lz4", "dask", "fsspec", "tifffile", "matplotlib", "h5py", "zarr"}
    packages = {name.split(".")[0] for name in loaded}
    assert "mrcz" in packages and "numpy" not in packages  # the command line is there before NumPy is
    assert not packages & heavy
    loaded = json.loads(python("import sys, json, mrcz; mrcz.Reader, mrcz.write; print(json.dumps(list(sys.modules)))"))
    packages = {name.split(".")[0] for name in loaded}
    assert "numpy" in packages and not packages & heavy
    assert "mrcz.legacy.surface" not in loaded and "mrcz.cli" not in loaded


@pytest.mark.skipif(is_editable(), reason="times the import hook of the editable install")
def test_import_costs_less_than_numpy():
    code = """
import time
a = time.perf_counter(); import numpy
b = time.perf_counter(); import mrcz; mrcz.open, mrcz.Reader, mrcz.Writer
print((time.perf_counter() - a) / (b - a))
"""
    assert min(float(python(code)) for _ in range(3)) < 2


def test_import_is_quiet():
    code = """
import threading, logging
import mrcz
assert threading.active_count() == 1
assert not logging.getLogger().handlers and not logging.getLogger("MRCZ").handlers
"""
    assert python(code) == ""


ROUND_TRIP = """
import tempfile, os
import numpy as np
{first}
def check():
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as d:
        for dtype in ("u1", "i2", "f4"):
            a = rng.poisson(1, (3, 333, 334)).astype(dtype)
            for codec in ("zstd", "lz4", "zlib", "lz4hc"):
                name = os.path.join(d, f"{{dtype}}-{{codec}}.mrcz")
                mrcz.write(name, a, codec=codec, pack=dtype == "u1" and codec == "zstd", sync=False)
                assert (mrcz.read(name) == a).all()
                with mrcz.open(name) as r:
                    assert (r.sum() == a.sum(0)).all()
                    assert (r.read(dtype="f4") == a.astype("f4")).all()
        name = os.path.join(d, "y.mrcz")
        mrcz.write(name, a, backend="blosc2", sync=False)
        assert (mrcz.read(name) == a).all()
check()
{then}
"""

OTHERS = """
def others():
    import io, warnings
    warnings.simplefilter("ignore")
    data = np.arange(100000, dtype="i4")
    assert np.array_equal(np.frombuffer(blosc.decompress(blosc.compress(data.tobytes(), 4, cname="zstd")), "i4"), data)
    assert np.array_equal(blosc2.unpack_array2(blosc2.pack_array2(data)), data)
    with h5py.File(io.BytesIO(), "w") as f:
        f.create_dataset("x", data=data, compression="gzip")
        assert np.array_equal(f["x"][:], data)
others()
"""
IMPORTS = """
import warnings
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import blosc, blosc2, h5py
"""


@pytest.mark.parametrize("order", ("we first", "they first"))
def test_other_bloscs_and_zstds_in_the_process(order):
    """The codec library is linked with hidden symbols: neither side may see the other's."""
    ours = "import mrcz"
    first = f"{ours}\n{IMPORTS}" if order == "we first" else f"{IMPORTS}\n{ours}"
    python(ROUND_TRIP.format(first=first, then=OTHERS + "check()\nothers()"))


@pytest.mark.parametrize("name", ("bogus", "AVX2", " ", "c ", "avx512\xe9", "x" * 5000))
def test_unknown_kernels_are_an_import_error_that_says_what_there_is(name):
    """Each module takes its kernels by itself: one that forgets to look dies at its first pixel."""
    code = """
import os
for module in ("chunk", "correcting", "frames", "pixels", "outlier"):
    try:
        __import__("_cmrcz." + module)
    except ImportError as error:
        assert "MRCZ_SIMD" in str(error) and repr(os.environ["MRCZ_SIMD"]) in str(error), error
        assert f"there are {there}; set it to one of them, or unset it" in str(error), error
    else:
        raise AssertionError(module)
import _cmrcz.status  # has no kernels
import mrcz, numpy, tempfile
with tempfile.TemporaryDirectory() as folder:
    try:
        mrcz.write(os.path.join(folder, "a.mrcz"), numpy.zeros((1, 8, 8), "u1"))
    except ImportError as error:
        assert "MRCZ_SIMD" in str(error), error
    else:
        raise AssertionError("mrcz")
"""
    python(f"there = {', '.join(pixels.variants())!r}\n{code}", MRCZ_SIMD=name)


@pytest.mark.skipif(sys.platform != "linux", reason="reads an ELF symbol table")
def test_no_codec_symbol_is_exported():
    import ctypes

    from _cmrcz import chunk

    library = ctypes.CDLL(chunk.__file__)
    assert library.PyInit_chunk
    for name in ("ZSTD_compress2", "LZ4_decompress_safe", "zng_uncompress", "blosc2_init", "blosclz_decompress"):
        with pytest.raises(AttributeError):
            getattr(library, name)


@pytest.mark.parametrize("variant", pixels.variants())
def test_every_simd_variant_end_to_end(variant):
    code = ROUND_TRIP.format(first="import mrcz\nimport _cmrcz.pixels", then="print(_cmrcz.pixels.simd())")
    assert python(code, MRCZ_SIMD=variant).strip() == variant


def test_the_licences_of_what_is_linked_in_come_along():
    distribution = importlib.metadata.distribution("mrcz")
    names = {f.name for f in distribution.files or () if "licenses" in f.parts}
    assert {"LICENSE", "zstd.txt", "lz4.txt", "xxhash.txt", "zlib-ng.txt", "bitshuffle.txt"} <= names
    if is_editable():
        pytest.skip("an editable install names the files of its metadata only")
    assert "LICENSE.txt" in names  # C-Blosc2's own, from the build requirement
