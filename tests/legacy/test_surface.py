"""Names, signatures and side effects of the old surface, and the calls its users make."""

import concurrent.futures
import enum
import inspect
import io
import json
import logging
import pickle
import struct
import subprocess
import sys

import numpy as np
import pytest

import mrcz
from mrcz import ioDM, ioMRC

ANGSTROM = "\\AA"

# As inspect gives them for mrcz 0.6.0: names, order and defaults.
SIGNATURES = {
    "readMRC": [
        ("MRCfilename",),
        ("idx", None),
        ("endian", "le"),
        ("pixelunits", ANGSTROM),
        ("fileConvention", "ccpem"),
        ("useMemmap", False),
        ("n_threads", None),
        ("slices", None),
    ],
    "writeMRC": [
        ("input_image",),
        ("MRCfilename",),
        ("meta", None),
        ("endian", "le"),
        ("dtype", None),
        ("pixelsize", [0.1, 0.1, 0.1]),
        ("pixelunits", ANGSTROM),
        ("shape", None),
        ("voltage", 0.0),
        ("C3", 0.0),
        ("gain", 1.0),
        ("compressor", None),
        ("clevel", 1),
        ("n_threads", None),
        ("quickStats", True),
        ("idx", None),
        ("backend", None),
    ],
    "readMRCHeader": [
        ("MRCfilename",),
        ("slices", None),
        ("endian", "le"),
        ("fileConvention", "ccpem"),
        ("pixelunits", ANGSTROM),
    ],
    "writeMRCHeader": [("f",), ("header",), ("slices",), ("endchar", "<")],
    "setDefaultThreads": [("n_threads",)],
    "defaultHeader": [],
    "test": [("verbosity", 2)],
    "readDM4": [("filename",), ("verbose", False)],
}
HEADER_KEYS = (
    "dimensions MRCtype compressor dtype pixelsize pixelunits minImage maxImage meanImage extendedBytes "
    "voltage C3 gain packedBytes metaId"
).split()


@pytest.mark.parametrize("name", SIGNATURES)
def test_signatures(name):
    found = [
        (p.name,) if p.default is p.empty else (p.name, p.default)
        for p in inspect.signature(getattr(mrcz, name)).parameters.values()
    ]
    assert found == SIGNATURES[name]


def test_aliases_are_the_same_objects():
    for old, new in {
        "readMRC": "read_mrc",
        "writeMRC": "write_mrc",
        "asyncReadMRC": "async_read_mrc",
        "asyncWriteMRC": "async_write_mrc",
        "readMRCHeader": "read_mrc_header",
        "writeMRCHeader": "write_mrc_header",
        "defaultHeader": "default_header",
        "setDefaultThreads": "set_default_threads",
    }.items():
        assert getattr(mrcz, old) is getattr(mrcz, new) is getattr(ioMRC, old) is getattr(ioMRC, new)
        assert old in mrcz.__all__
        assert new in dir(mrcz)
    assert mrcz.readDM4 is mrcz.read_dm4 is ioDM.readDM4
    assert mrcz.asyncReadDM4 is mrcz.async_read_dm4 is ioDM.async_read_dm4
    assert ioMRC.readBloscHeader is ioMRC.read_blosc_header
    assert mrcz._asyncExecutor is ioMRC._asyncExecutor
    assert mrcz.ioMRC is ioMRC
    assert mrcz.BLOSC_PRESENT and mrcz.BLOSC2_PRESENT and mrcz.CAN_COMPRESS
    with pytest.raises(AttributeError, match="nothing"):
        _ = mrcz.nothing


def test_enums():
    assert ioMRC.COMPRESSOR_ENUM[0] is None
    assert [ioMRC.COMPRESSOR_ENUM[k] for k in range(1, 7)] == ["blosclz", "lz4", "lz4hc", "snappy", "zlib", "zstd"]
    assert ioMRC.COMPRESSOR_ENUM[15] == "htj2k"
    assert ioMRC.REVERSE_COMPRESSOR_ENUM[None] == 0
    assert ioMRC.REVERSE_COMPRESSOR_ENUM["zstd"] == 6
    assert {k: ioMRC.CCPEM_ENUM[k] for k in (0, 1, 2, 4, 6, 7, 8, 101)} == {
        **{0: "i1", 1: "i2", 2: "f4", 4: "c8"},
        **{6: "u2", 7: "i4", 8: "u4", 101: "u1"},
    }
    for name, mode in {"int8": 0, "i2": 1, "float64": 2, "complex128": 4, "uint16": 6, "i4": 7, "uint4": 101}.items():
        assert ioMRC.REVERSE_CCPEM_ENUM[name] == mode
    assert ioMRC.EMAN2_ENUM == {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4"}


def test_import_is_quiet():
    code = (
        "import logging, sys, threading, mrcz\n"
        "assert 'mrcz.legacy.surface' not in sys.modules\n"
        "mrcz.readMRC, mrcz.readDM4\n"
        "assert threading.active_count() == 1\n"
        "assert not logging.root.handlers and not logging.getLogger('MRCZ').handlers\n"
        "assert logging.getLogger('MRCZ').level == logging.NOTSET\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


@pytest.mark.parametrize("compressor", [None, "zstd"])
def test_header_keys_and_their_types(tmp_path, compressor):
    path = str(tmp_path / "a.mrcz")
    image = np.arange(24, dtype="i2").reshape(2, 3, 4)
    mrcz.writeMRC(
        image, path, compressor=compressor, pixelsize=[3, 2, 1], voltage=300, C3=2.5, gain=1.5, meta={"k": [1]}
    )
    header, slices = mrcz.readMRCHeader(path)
    assert slices == 0
    assert set(header) == {*HEADER_KEYS, "k"}
    assert header["dimensions"].tolist() == [2, 3, 4]
    assert header["pixelsize"].tolist() == [3, 2, 1]
    assert (header["MRCtype"], header["compressor"], header["dtype"]) == (1, compressor, "<i2")
    assert [type(header[key]) for key in ("minImage", "maxImage", "meanImage")] == [np.float32] * 3
    assert [header[key] for key in ("minImage", "maxImage", "meanImage")] == [0, 23, 11.5]
    assert [type(header[key]) for key in ("MRCtype", "extendedBytes", "packedBytes")] == [int] * 3
    assert [type(header[key]) for key in ("voltage", "C3", "gain")] == [float] * 3
    assert (header["voltage"], header["C3"], header["gain"]) == (300, 2.5, 1.5)
    assert (header["metaId"], header["pixelunits"], header["k"]) == (b"json", ANGSTROM, [1])


def test_header_survives_pickling(tmp_path):
    path = tmp_path / "a.mrcz"
    mrcz.writeMRC(np.zeros((2, 3, 4), "f4"), path, compressor="zstd", meta={"k": 1})
    header = pickle.loads(pickle.dumps(mrcz.readMRC(path)[1]))
    assert header["backend"] == "blosc1"
    assert header["extendedHeader"] == {"k": 1}
    assert "backend" not in header


def test_default_header():
    header = mrcz.defaultHeader()
    assert header["dimensions"].tolist() == [0, 0, 0]
    assert header["pixelunits"] == "nm"
    assert header["compressor"] is None
    header["dimensions"][0] = 5
    assert mrcz.defaultHeader()["dimensions"][0] == 0


@pytest.mark.parametrize("endchar", "<>")
@pytest.mark.parametrize(
    ("dtype", "stored"), [("f4", "f4"), ("float64", "f4"), (">i2", "i2"), ("u1", "u1"), ("int8", "i1")]
)
def test_headers_written_for_pixels_one_writes_oneself(tmp_path, dtype, stored, endchar):
    pixels = np.arange(24).reshape(2, 3, 4).astype(endchar + stored)
    path = tmp_path / "a.mrc"
    header = mrcz.defaultHeader()
    header.update(
        dimensions=pixels.shape, dtype=dtype, meta={"a": 1}, pixelsize=[3, 2, 1], maxImage=23.0, voltage=200.0
    )
    with open(path, "wb") as file:
        extended = mrcz.writeMRCHeader(file, header, 0, endchar=endchar)
        assert file.tell() == 1024 + extended
        file.write(pixels.tobytes())
    image, found = mrcz.readMRC(path)
    np.testing.assert_array_equal(image, pixels)
    assert image.dtype == pixels.dtype
    assert found["a"] == 1
    assert found["voltage"] == 200
    np.testing.assert_allclose(found["pixelsize"], [30, 20, 10])
    assert found["maxImage"] == 23


def test_headers_of_images_4_bit_and_compressed_files():
    file = io.BytesIO()
    header = {**mrcz.defaultHeader(), "meta": None, "dimensions": (3, 5), "dtype": "uint4"}
    assert mrcz.writeMRCHeader(file, header, 0) == 0
    assert struct.unpack("<4i", file.getvalue()[:16]) == (5, 3, 1, 101)
    file = io.BytesIO()
    header.update(dtype="i2", compressor="zstd", packedBytes=99, dimensions=(2, 3, 5))
    mrcz.writeMRCHeader(file, header, 2)
    assert struct.unpack("<4i", file.getvalue()[:16]) == (5, 3, 2, 6001)
    assert struct.unpack_from("<i", file.getvalue(), 36) == (2,)
    assert struct.unpack_from("<q", file.getvalue(), 144) == (99,)


def test_blosc_header_of_a_chunk(tmp_path):
    path = tmp_path / "a.mrcz"
    mrcz.writeMRC(np.zeros((2, 30, 40), "f4"), path, compressor="zstd", meta={"a": 1})
    header, _ = mrcz.readMRCHeader(path)
    with open(path, "rb") as file:
        file.seek(1024 + header["extendedBytes"])
        (nbytes, blocksize, cbytes), (version, _, _, typesize) = ioMRC.readBloscHeader(file)
        assert file.tell() == 1040 + header["extendedBytes"]
    assert (nbytes, version, typesize) == (4800, 2, 4)
    assert 0 < blocksize <= 4800
    assert cbytes > 16
    with pytest.raises(mrcz.FormatError):
        ioMRC.readBloscHeader(io.BytesIO(b"123"))


def test_files_of_eman2(tmp_path):
    for number, dtype in ioMRC.EMAN2_ENUM.items():
        for order in "<>":
            pixels = np.arange(120, 144).reshape(2, 3, 4).astype("u1" if dtype == "u1" else "i1").astype(order + dtype)
            path = tmp_path / "a.mrc"
            mrcz.write(path, pixels.astype("f4"), byteorder=order, overwrite=True)
            head = bytearray(path.read_bytes()[:1024])
            head[12:16] = struct.pack(order + "i", number)
            path.write_bytes(head + pixels.tobytes())
            image, header = mrcz.readMRC(path, fileConvention="EMAN2")
            np.testing.assert_array_equal(image, pixels)
            assert header["dtype"] == order + dtype
    head[12:16] = struct.pack(">i", 77)
    path.write_bytes(head)
    with pytest.raises(ValueError, match="EMAN2"):
        mrcz.readMRC(path, fileConvention="eman2")


def test_metadata_as_json(tmp_path):
    class Axis(enum.Enum):
        X = 0

    class Own:
        def serialize(self):
            return {"own": 1}

    class Box(dict):
        pass

    path = tmp_path / "a.mrc"
    meta = Box(axis=Axis.X, array=np.arange(3), own=Own(), number=np.float32(1.5), nested=Box(text="µ"), voltage="kept")
    mrcz.writeMRC(np.zeros((3, 4), "f4"), path, meta=meta)
    _, header = mrcz.readMRC(path)
    assert header["axis"] == "Enum.Axis.X"
    assert header["array"] == [0, 1, 2]
    assert header["own"] == {"own": 1}
    assert header["number"] == 1.5
    assert header["nested"] == {"text": "µ"}
    assert header["voltage"] == 0  # keys of the header win
    raw = path.read_bytes()
    assert json.loads(raw[1024 : 1024 + header["extendedBytes"]])["voltage"] == "kept"
    with pytest.raises(TypeError, match="object"):
        mrcz.writeMRC(np.zeros((3, 4), "f4"), tmp_path / "b.mrc", meta={"a": object()})
    assert not (tmp_path / "b.mrc").exists()


def test_lists_and_arrays_come_back_as_they_were(tmp_path):
    stack = np.arange(6 * 4 * 5, dtype="i2").reshape(6, 4, 5)
    for compressor in (None, "zstd"):
        for image in (stack, stack[0], list(stack), [stack[:2], stack[2:4], stack[4:]], [stack], (stack[0],)):
            path = tmp_path / "a.mrcz"
            mrcz.writeMRC(image, path, compressor=compressor)
            found, header = mrcz.readMRC(path)
            assert isinstance(found, list) == isinstance(image, (list, tuple))
            assert np.shape(found) == np.shape(image)
            np.testing.assert_array_equal(found, image)
            assert header["dimensions"].tolist()[1:] == [4, 5]
            assert mrcz.readMRCHeader(path)[1] == (
                0
                if found is not None and isinstance(found, np.ndarray)
                else 1
                if found[0].ndim == 2
                else found[0].shape[0]
            )


def test_casts(tmp_path, caplog):
    path = tmp_path / "a.mrc"
    wide = np.linspace(-1, 1, 24).reshape(2, 3, 4)
    for dtype in (None, "float32", "float64", "<f4", ">f8", np.float32, np.dtype("f8")):
        mrcz.writeMRC(wide, path, dtype=dtype)
        np.testing.assert_array_equal(mrcz.readMRC(path)[0], wide.astype("f4"))
    assert caplog.text.count("float64 is cast to float32") <= 1
    mrcz.writeMRC(wide * 100, path, dtype="int8")
    np.testing.assert_array_equal(mrcz.readMRC(path)[0], (wide * 100).astype("i1"))
    mrcz.writeMRC(wide + 1j, path)
    assert mrcz.readMRC(path)[0].dtype == np.complex64


def test_4_bit_from_any_numbers(tmp_path):
    path = tmp_path / "a.mrc"
    counts = np.arange(12).reshape(3, 4)
    for image in (counts, counts.astype("f8"), counts.astype(">u2"), counts < 5):
        mrcz.writeMRC(image, path, dtype="uint4")
        np.testing.assert_array_equal(mrcz.readMRC(path)[0], image)
        mrcz.writeMRC(image, path, dtype="uint4", idx=1)
        np.testing.assert_array_equal(mrcz.readMRC(path)[0], [image, image])


def test_compressors_that_cannot_be(tmp_path):
    image, path = np.zeros((3, 4), "f4"), tmp_path / "a.mrcz"
    for name in ("ndlz", "zfp_acc", "grok", "htj2k"):
        with pytest.raises(RuntimeError, match=f"blosc2-{name}"):
            mrcz.writeMRC(image, path, compressor=name)
    with pytest.raises(ValueError, match="snappy"):
        mrcz.writeMRC(image, path, compressor="snappy")
    with pytest.raises(TypeError, match="uint4"):
        mrcz.writeMRC(image, path, compressor="zstd", dtype="uint4")
    with pytest.raises(RuntimeError, match="position"):
        mrcz.writeMRC(image, path, compressor="zstd", idx=0)
    assert not path.exists()
    mrcz.writeMRC(image, path, compressor="ZSTD")
    with pytest.raises(RuntimeError, match="position"):
        mrcz.writeMRC(image, path, idx=1)


@pytest.mark.parametrize("clevel", range(10))
@pytest.mark.parametrize("compressor", ["blosclz", "lz4", "lz4hc", "zlib", "zstd"])
def test_every_level(tmp_path, rng, compressor, clevel):
    image = rng.poisson(2, size=(2, 40, 50)).astype("u2")
    path = tmp_path / "a.mrcz"
    for backend in (None, "blosc2"):
        mrcz.writeMRC(image, path, compressor=compressor, clevel=clevel, backend=backend)
        found, header = mrcz.readMRC(path)
        np.testing.assert_array_equal(found, image)
        assert header["compressor"] == compressor


def test_frame_by_frame_as_focus_does(tmp_path, rng):
    path = str(tmp_path / "out.mrcs")
    stack = rng.normal(size=(8, 16, 17)).astype("f4")
    for k, frame in enumerate(stack):
        mrcz.ioMRC.writeMRC(frame, path, dtype="float32", idx=k)
        assert mrcz.ioMRC.readMRC(path)[0].reshape(-1, 16, 17).shape[0] == k + 1
    for k in range(8):
        np.testing.assert_array_equal(mrcz.ioMRC.readMRC(path, idx=k)[0], stack[k])
    np.testing.assert_array_equal(mrcz.ioMRC.readMRC(path, useMemmap=True)[0], stack)
    mrcz.writeMRC(stack[:3], path, idx=6)  # two replaced, one added... and one more
    assert mrcz.readMRC(path)[0].shape[0] == 9
    np.testing.assert_array_equal(mrcz.readMRC(path, idx=(6, 8))[0], stack[:3])
    with pytest.raises(ValueError, match="out of range"):
        mrcz.writeMRC(stack[0], path, idx=10)
    with pytest.raises(ValueError, match="no file"):
        mrcz.writeMRC(stack[0], str(tmp_path / "new.mrcs"), idx=3)


def test_first_of_first_as_focus_does(tmp_path, rng):
    """``readMRC(f)[0][0]`` is the whole volume of a file under an MRCZ label whose MZ is its NZ."""
    volume = rng.normal(size=(4, 5, 6)).astype("f4")
    path = tmp_path / "a.mrcz"
    mrcz.writeMRC([volume], path, compressor="zstd")
    np.testing.assert_array_equal(mrcz.readMRC(path)[0][0], volume)


def test_header_of_tomviz_like_readers(tmp_path):
    path = tmp_path / "a.mrc"
    mrcz.writeMRC(np.zeros((3, 4, 5), "f4"), path, meta={"angles": np.array([-1.5, 0, 1.5])}, pixelsize=[2, 2, 2])
    _, metadata = mrcz.readMRC(path)
    assert metadata["angles"] == [-1.5, 0, 1.5]
    assert metadata["pixelsize"][0] == 2


def test_async(tmp_path, rng):
    images = [rng.normal(size=(2, 30, 40)).astype("f4") for _ in range(4)]
    jobs = [
        mrcz.asyncWriteMRC(image, tmp_path / f"{k}.mrcz", compressor="zstd", n_threads=1)
        for k, image in enumerate(images)
    ]
    assert all(isinstance(job, concurrent.futures.Future) for job in jobs)
    assert [job.result() for job in jobs] == [None] * 4
    for k, image in enumerate(images):
        np.testing.assert_array_equal(mrcz.asyncReadMRC(tmp_path / f"{k}.mrcz").result()[0], image)
    with pytest.raises(FileNotFoundError):
        mrcz.asyncReadMRC(tmp_path / "nothing.mrc").result()
    mrcz._setAsyncWorkers(3)
    try:
        assert mrcz._asyncExecutor._max_workers == 3
        assert mrcz.asyncReadMRC(tmp_path / "0.mrcz").result()[0].shape == (2, 30, 40)
    finally:
        mrcz._setAsyncWorkers(1)
    with pytest.raises(ValueError, match="greater than 0"):
        mrcz._setAsyncWorkers(0)


def test_default_threads(tmp_path):
    from mrcz.legacy import surface as legacy

    before = legacy.DEFAULT_N_THREADS
    try:
        mrcz.setDefaultThreads(1)
        assert mrcz.defaultHeader()["n_threads"] == 1
        mrcz.writeMRC(np.zeros((3, 4), "f4"), tmp_path / "a.mrc")
    finally:
        mrcz.setDefaultThreads(before)


def test_self_test(capsys):
    assert mrcz.test(0) == 0
    assert capsys.readouterr().out == ""
    assert mrcz.test() == 0
    assert "all passed" in capsys.readouterr().out


def test_logger_is_named_mrcz():
    assert ioMRC.logger is logging.getLogger("MRCZ")
    assert ioDM.logger is ioMRC.logger


def test_a_pixel_size_below_nothing_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"pixel_size is \(1.0, -1.0, 1.0\), expected .* 0 or more"):
        mrcz.writeMRC(np.zeros((2, 4, 4), "f4"), tmp_path / "a.mrc", pixelsize=[1, -1, 1], pixelunits="\\AA")
    assert list(tmp_path.iterdir()) == []
