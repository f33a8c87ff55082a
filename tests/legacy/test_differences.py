"""Where mrcz 0.6.0 was wrong and this is right: docs/differences.md, one test or more for each line of it."""

import os
import pickle
import re
import struct
import subprocess
import sys
from pathlib import Path

import mrcfile
import numpy as np
import pytest
from legacy.lazy import Lazy
from rewriting import rewrite

import mrcz
from mrcz.file.decoding import Decoder

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "differences.md"


def test_every_test_the_document_names_is_here():
    named = set(re.findall(r"`(test_\w+)`", DOCUMENT.read_text(encoding="utf-8")))
    assert named
    here = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py"))
    assert named <= set(re.findall(r"^def (test_\w+)", here, re.MULTILINE))


@pytest.fixture
def counts(rng):
    return rng.poisson(2.0, size=(5, 33, 47)).astype("int16")


def foreign(path, array, **fields):
    """An image or stack of another program, MRC2014, with some header fields set."""
    with mrcfile.new(path, overwrite=True) as mrc:
        mrc.set_data(array)
        if array.ndim == 3:
            mrc.set_image_stack()
        for name, value in fields.items():
            mrc.header[name] = value
    return path


# ---- silently wrong data ---------------------------------------------------------------------------------------------


def test_flipped_bits_are_noticed(tmp_path, counts, rng):
    path = tmp_path / "a.mrcz"
    mrcz.writeMRC(counts, path, compressor="zstd")
    raw = path.read_bytes()
    with mrcz.open(path) as reader:
        start, end = int(reader.index.offsets[0]), int(reader.index.offsets[-1] + reader.index.sizes[-1])
    noticed = 0
    for position in rng.integers(start, end, size=200):
        changed = bytearray(raw)
        changed[position] ^= 1 << int(rng.integers(8))
        rewrite(path, changed)
        try:
            image, _ = mrcz.readMRC(path)
        except mrcz.MrczError:
            noticed += 1
        else:
            np.testing.assert_array_equal(image, counts)
    assert noticed > 150


@pytest.mark.parametrize("mz", [1, 5, 9])
def test_mz_of_other_programs_is_no_slicing(tmp_path, counts, mz):
    path = foreign(tmp_path / "a.mrc", counts, mz=mz)
    image, header = mrcz.readMRC(path)
    assert isinstance(image, np.ndarray)
    np.testing.assert_array_equal(image, counts)
    np.testing.assert_array_equal(mrcz.readMRC(path, idx=2)[0], counts[2])
    np.testing.assert_array_equal(mrcz.readMRC(path, idx=(1, 3))[0], counts[1:4])
    assert mrcz.readMRCHeader(path)[1] == 0
    np.testing.assert_array_equal(header["dimensions"], counts.shape)


def test_a_volume_is_one_array(tmp_path, rng):
    volume = rng.normal(size=(6, 7, 8)).astype("f4")
    path = tmp_path / "a.mrc"
    with mrcfile.new(path) as mrc:
        mrc.set_data(volume)
        mrc.set_volume()
    np.testing.assert_array_equal(mrcz.readMRC(path)[0], volume)
    whole, _ = mrcz.readMRC(path, slices=6)  # what 0.6.0 gave without being asked
    assert len(whole) == 1
    np.testing.assert_array_equal(whole[0], volume)


def test_sections_left_over_are_kept(tmp_path, counts):
    path = tmp_path / "a.mrcz"
    mrcz.writeMRC(counts, path, compressor="zstd")
    parts, _ = mrcz.readMRC(path, slices=2)
    assert [part.shape[0] for part in parts] == [2, 2, 1]
    np.testing.assert_array_equal(np.concatenate(parts), counts)


@pytest.mark.parametrize("suffix", [".mrc", ".mrcs"])
def test_append_keeps_metadata(tmp_path, counts, suffix):
    path = tmp_path / f"a{suffix}"
    meta = {"angles": [1.5, 2.5], "text": "x" * 100}
    mrcz.writeMRC(counts[:2], path, meta=meta, pixelsize=[3.0, 2.0, 1.0], voltage=300.0)
    mrcz.writeMRC(counts[2:], path, idx=2)
    image, header = mrcz.readMRC(path)
    np.testing.assert_array_equal(image, counts)
    assert header["angles"] == meta["angles"]
    assert header["text"] == meta["text"]
    assert header["voltage"] == 300
    np.testing.assert_allclose(header["pixelsize"], [3, 2, 1], rtol=1e-6)


def test_append_keeps_what_it_would_have_to_change(tmp_path, counts):
    path = tmp_path / "a.mrc"
    mrcz.writeMRC(counts, path)
    with pytest.raises(TypeError, match="dtype='int16'"):
        mrcz.writeMRC(counts.astype("f4") + 0.5, path, idx=5)
    with pytest.raises(TypeError, match="int32 frames do not fit a file of int16"):
        mrcz.writeMRC(counts.astype("i4"), path, idx=5)
    with pytest.raises(ValueError, match=r"32, 47.*33, 47"):
        mrcz.writeMRC(counts[:, :-1], path, idx=5)
    np.testing.assert_array_equal(mrcz.readMRC(path)[0], counts)
    mrcz.writeMRC(counts.astype("f4"), path, idx=5, dtype="int16")  # asked for
    mrcz.writeMRC(counts.astype("i1"), path, idx=10)  # nothing is lost
    np.testing.assert_array_equal(mrcz.readMRC(path)[0], np.concatenate([counts] * 3))


@pytest.mark.parametrize("dtype", ["int8", "uint16", "float32", ">f4"])
def test_append_keeps_statistics_true(tmp_path, rng, dtype):
    path = tmp_path / "a.mrcs"
    frames = rng.integers(0, 100, size=(12, 9, 11)).astype(dtype)
    for k, frame in enumerate(frames):
        mrcz.writeMRC(frame, path, idx=k, endian="be" if dtype[0] == ">" else "le")
    assert_statistics(path, frames)
    frames[3] = 7
    mrcz.writeMRC(frames[3], path, idx=3)
    mrcz.writeMRC(frames[11], path, idx=-1)
    np.testing.assert_array_equal(mrcz.readMRC(path)[0], frames)
    assert_statistics(path, frames)


def assert_statistics(path, frames):
    with mrcfile.open(path) as mrc:
        found = [float(mrc.header[name]) for name in ("dmin", "dmax", "dmean", "rms")]
    np.testing.assert_allclose(found, [frames.min(), frames.max(), frames.mean(), frames.std()], rtol=1e-5)


def test_append_to_a_file_of_another_program(tmp_path, counts):
    stack = foreign(tmp_path / "stack.mrcs", counts)
    mrcz.writeMRC(counts[:2], stack, idx=5)
    volume = tmp_path / "volume.mrc"
    with mrcfile.new(volume) as mrc:
        mrc.set_data(counts.astype("f4"))
        mrc.set_volume()
        mrc.voxel_size = 1.5
    mrcz.writeMRC(counts[0].astype("f4"), volume, idx=5)
    for path, mz in ((stack, 1), (volume, 6)):
        assert mrcfile.validate(path)
        with mrcfile.open(path) as mrc:
            assert mrc.header.mz == mz
    with mrcfile.open(volume) as mrc:
        assert mrc.voxel_size.z == pytest.approx(1.5)


def test_4_bit_values_must_fit(tmp_path):
    image = np.zeros((2, 4, 6), "int8")
    image[1, 2, 3] = 17
    path = tmp_path / "a.mrc"
    with pytest.raises(ValueError, match="4 bits"):
        mrcz.writeMRC(image, path, dtype="uint4")
    with pytest.raises(ValueError, match="0 to 15"):
        mrcz.writeMRC(image / 4, path, dtype="uint4")
    assert not path.exists()


def test_unsigned_bytes_of_imod(tmp_path):
    image = np.arange(200, 206, dtype="u1").reshape(2, 3)
    path = foreign(tmp_path / "a.mrc", image.view("i1"))
    with open(path, "r+b") as file:
        file.seek(152)
        file.write(struct.pack("<2i", 1146047817, 0))  # IMOD's stamp, and no flag that bytes are signed
    found, header = mrcz.readMRC(path)
    np.testing.assert_array_equal(found, image)
    assert header["dtype"] == "<u1"


@pytest.mark.parametrize(
    ("unit", "angstrom"),
    [("\\AA", 1), ("Å", 1), ("pm", 0.01), ("nm", 10), ("\\mum", 1e4), ("um", 1e4), ("µm", 1e4), ("μm", 1e4)],
)
def test_pixel_units_go_both_ways(tmp_path, unit, angstrom):
    path = tmp_path / "a.mrc"
    mrcz.writeMRC(np.zeros((2, 3, 4), "f4"), path, pixelsize=[3.0, 2.0, 1.5], pixelunits=unit)
    np.testing.assert_allclose(mrcz.readMRC(path, pixelunits=unit)[1]["pixelsize"], [3, 2, 1.5], rtol=1e-6)
    found = mrcz.readMRC(path)[1]["pixelsize"]
    np.testing.assert_allclose(found, np.array([3, 2, 1.5]) * angstrom, rtol=1e-6)
    with mrcfile.open(path) as mrc:
        assert mrc.voxel_size.x == pytest.approx(1.5 * angstrom)


def test_an_unknown_unit_is_said_to_be_taken_as_nm(tmp_path, caplog):
    path = tmp_path / "a.mrc"
    mrcz.writeMRC(np.zeros((3, 4), "f4"), path, pixelsize=1.0, pixelunits="furlong")
    assert "furlong" in caplog.text
    np.testing.assert_allclose(mrcz.readMRC(path)[1]["pixelsize"], 10)


# ---- failures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nx", [1, 5, 6])
def test_4_bit_pixels_of_any_width_lists_and_ranges(tmp_path, rng, nx):
    image = rng.integers(0, 16, size=(4, 3, nx)).astype("u1")
    path = tmp_path / "a.mrc"
    mrcz.writeMRC(image, path, dtype="uint4")
    np.testing.assert_array_equal(mrcz.readMRC(path)[0].reshape(image.shape), image)
    np.testing.assert_array_equal(mrcz.readMRC(path, idx=(1, 2))[0].reshape(2, 3, nx), image[1:3])
    np.testing.assert_array_equal(np.asarray(mrcz.readMRC(path, useMemmap=True)[0]), image)
    np.testing.assert_array_equal(np.asarray(mrcz.readMRC(path, useMemmap=True, idx=(1, 2))[0]), image[1:3])
    mrcz.writeMRC(list(image), path, dtype="uint4")  # MZ is 1, and the label says list
    np.testing.assert_array_equal(mrcz.readMRC(path)[0], list(image))
    mrcz.writeMRC(image[0], path, dtype="uint4", idx=4)
    assert len(mrcz.readMRC(path)[0]) == 5


@pytest.mark.parametrize("compressor", [None, "zstd"])
def test_big_endian_bytes(tmp_path, compressor):
    image = np.arange(-6, 6, dtype="i1").reshape(3, 4)
    path = tmp_path / "a.mrcz"
    mrcz.writeMRC(image, path, endian="be", compressor=compressor)
    for endian in ("le", "be"):  # either finds the order in the file
        np.testing.assert_array_equal(mrcz.readMRC(path, endian=endian)[0], image)


def test_labels_of_any_bytes(tmp_path, counts):
    path = foreign(tmp_path / "a.mrc", counts)
    with open(path, "r+b") as file:
        file.seek(224)
        file.write(b"\xff\xfe\xc5ngstr\xf6m")
    np.testing.assert_array_equal(mrcz.readMRC(path)[0], counts)


def test_complex_integers_half_floats_and_rgb(tmp_path, rng):
    half = rng.normal(size=(2, 3, 4)).astype("f2")
    np.testing.assert_array_equal(mrcz.readMRC(foreign(tmp_path / "half.mrc", half))[0], half)

    pairs = rng.integers(-300, 300, size=(2, 3, 4, 2)).astype("<i2")
    path = tmp_path / "complex.mrc"
    mrcz.write(path, (pairs[..., 0] + 1j * pairs[..., 1]).astype("c8"), mrc_mode=3)
    found, header = mrcz.readMRC(path)
    np.testing.assert_array_equal(found, pairs[..., 0] + 1j * pairs[..., 1])
    assert (header["MRCtype"], header["dtype"]) == (3, "<c8")
    np.testing.assert_array_equal(np.asarray(mrcz.readMRC(path, useMemmap=True)[0]), found)

    rgb = rng.integers(0, 256, size=(2, 3, 4, 3)).astype("u1")
    mrcz.write(tmp_path / "rgb.mrc", rgb, mrc_mode=16)
    np.testing.assert_array_equal(mrcz.readMRC(tmp_path / "rgb.mrc")[0], rgb)


@pytest.mark.parametrize("compressor", [None, "lz4", "zstd"])
@pytest.mark.parametrize("dtype", ["uint8", "bool", "float16"])
def test_bytes_bools_and_half_floats_are_written(tmp_path, rng, dtype, compressor):
    image = rng.integers(0, 2 if dtype == "bool" else 100, size=(3, 5, 6)).astype(dtype)
    path = tmp_path / "a.mrcz"
    mrcz.writeMRC(image, path, compressor=compressor)
    found = mrcz.readMRC(path)[0]
    np.testing.assert_array_equal(found, image)
    assert found.dtype == ("uint8" if dtype == "bool" else dtype)
    if dtype == "uint8":
        mrcz.writeMRC(image + 150, path, compressor=compressor)
        found = mrcz.readMRC(path)[0]
        np.testing.assert_array_equal(found, image + 150)
        assert found.dtype == "uint16"


def test_wrong_arguments_are_named(tmp_path):
    path = tmp_path / "a.mrc"
    for shape in ((5,), (2, 2, 2, 2)):
        with pytest.raises(ValueError, match=f"not {len(shape)}-D"):
            mrcz.writeMRC(np.zeros(shape, "f4"), path)
    with pytest.raises(ValueError, match="not 1-D"):
        mrcz.writeMRC([np.zeros(3, "f4")], path)
    with pytest.raises(ValueError, match="empty list"):
        mrcz.writeMRC([], path)
    with pytest.raises(ValueError, match="no pixels"):
        mrcz.writeMRC(np.zeros((0, 3, 4), "f4"), path)
    with pytest.raises(ValueError, match="frame 1 has shape"):
        mrcz.writeMRC([np.zeros((3, 4), "f4"), np.zeros((3, 5), "f4")], path)
    with pytest.raises(TypeError, match="frame 1 has dtype"):
        mrcz.writeMRC([np.zeros((3, 4), "f4"), np.zeros((3, 4), "i2")], path)
    for dtype in ("int64", "U3", "object"):
        with pytest.raises(TypeError, match="no MRC mode"):
            mrcz.writeMRC(np.zeros((3, 4)).astype(dtype), path)
    assert not path.exists()
    mrcz.writeMRC(np.zeros((2, 3, 4), "f4"), path)
    for call in (
        lambda: mrcz.readMRC(path, n_threads=0),
        lambda: mrcz.writeMRC(np.zeros((3, 4), "f4"), path, n_threads=0),
        lambda: mrcz.setDefaultThreads(0),
    ):
        with pytest.raises(ValueError, match="n_threads must be at least 1, got 0"):
            call()
    for idx in (2, -3, (0, 2), (-3, 0)):
        with pytest.raises(ValueError, match="out of range"):
            mrcz.readMRC(path, idx=idx)
    with pytest.raises(ValueError, match="before the first"):
        mrcz.readMRC(path, idx=(1, 0))
    with pytest.raises(ValueError, match="convention"):
        mrcz.readMRC(path, fileConvention="spider")


def test_damage_is_a_format_error(tmp_path, counts):
    path = tmp_path / "a.mrc"
    mrcz.writeMRC(counts, path)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(mrcz.FormatError, match="nz"):
        mrcz.readMRC(path)
    path.write_bytes(b"no microscope wrote this" * 100)
    with pytest.raises(mrcz.FormatError):
        mrcz.readMRC(path)


# ---- header ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["int8", "int16", "uint16", "float32", "complex64", "float16"])
@pytest.mark.parametrize("kind", ["image", "stack", "list", "volumes"])
def test_uncompressed_files_are_valid_mrc2014(tmp_path, rng, kind, dtype):
    stack = rng.integers(0, 5, size=(6, 9, 12)).astype(dtype)
    image = {"image": stack[0], "stack": stack, "list": list(stack), "volumes": [stack[:3], stack[3:]]}[kind]
    path = tmp_path / "a.mrc"
    mrcz.writeMRC(image, path, pixelsize=[3.0, 2.0, 1.5], quickStats=True)
    assert mrcfile.validate(path)
    with mrcfile.open(path) as mrc:
        header = mrc.header
        assert (header.mx, header.my, header.mz) == (12, 9, 1)
        assert header.ispg == 0
        assert header.nversion == 20141
        assert (mrc.voxel_size.x, mrc.voxel_size.y) == (1.5, 2.0)
        values = stack[0] if kind == "image" else stack
        np.testing.assert_array_equal(mrc.data, values)
        if dtype != "complex64":
            found = [float(header[name]) for name in ("dmin", "dmax", "dmean", "rms")]
            values = values.astype("f8")
            np.testing.assert_allclose(found, [values.min(), values.max(), values.mean(), values.std()], rtol=1e-5)
    found, header = mrcz.readMRC(path)
    np.testing.assert_allclose(header["pixelsize"], [3, 2, 1.5], rtol=1e-6)
    assert isinstance(found, list) == isinstance(image, list)
    assert np.shape(found) == np.shape(image)
    np.testing.assert_array_equal(found, image)


def test_pixel_size_is_the_cell_over_its_sampling(tmp_path, counts):
    path = foreign(tmp_path / "a.mrc", counts, mx=94, my=66, mz=10, cella=(94.0, 132.0, 30.0))
    np.testing.assert_allclose(mrcz.readMRC(path)[1]["pixelsize"], [3, 2, 1])


def test_bytes_of_other_programs_are_no_voltage(tmp_path, counts):
    path = foreign(tmp_path / "a.mrc", counts)
    with open(path, "r+b") as file:
        file.seek(132)
        file.write(struct.pack("<3fq", 1e30, -7.0, 9.0, 1 << 50))
    _, header = mrcz.readMRC(path)
    assert [header[key] for key in ("voltage", "C3", "gain", "packedBytes")] == [0, 0, 1, 0]


def test_other_extended_headers_can_be_had(tmp_path, data_dir):
    _, header = mrcz.readMRC(data_dir / "rsciio-mrc" / "HAADFscan.mrc")
    assert header["metaId"] == b"FEI2"
    assert header["extendedHeader"].dtype.names[0] == "Metadata size"
    assert "extendedHeader" not in header
    with pytest.raises(KeyError, match="nothing"):
        mrcz.readMRC(data_dir / "mrcfile" / "EMD-3001.map")[1]["nothing"]


def test_json_is_padded(tmp_path, counts):
    for compressor in (None, "zstd"):
        mrcz.writeMRC(counts, tmp_path / "a.mrcz", meta={"a": 1}, compressor=compressor)
        _, header = mrcz.readMRC(tmp_path / "a.mrcz")
        assert header["extendedBytes"] % 16 == 0
        assert header["a"] == 1
        assert header["metaId"] == b"json"


def test_two_element_pixel_size_says_nothing_about_z(tmp_path):
    path = tmp_path / "a.mrc"
    mrcz.writeMRC(np.zeros((2, 3, 4), "f4"), path, pixelsize=[2.0, 1.5])
    np.testing.assert_allclose(mrcz.readMRC(path)[1]["pixelsize"], [1.5, 2.0, 1.5])


def test_voltage_and_friends_may_be_none(tmp_path):
    path = tmp_path / "a.mrc"
    mrcz.writeMRC(np.zeros((2, 3, 4), "f4"), path, voltage=None, C3=None, gain=None)
    _, header = mrcz.readMRC(path)
    assert [header[key] for key in ("voltage", "C3", "gain")] == [0, 0, 1]


def test_keys_of_the_container_are_indexed_not_listed(tmp_path, counts):
    path = tmp_path / "a.mrcz"
    for backend, number in (("blosc1", 1), ("blosc2", 2)):
        mrcz.writeMRC(counts, path, compressor="zstd", backend=backend)
        _, header = mrcz.readMRC(path)
        assert (header["bloscFormat"], header["backend"]) == (number, backend)
        assert header.get("backend") == backend
        assert header.get("nothing", 5) == 5
        for listed in (header, header.copy(), dict(header), {**header}):
            assert not {"bloscFormat", "backend"} & set(listed)


def test_meta_id_is_always_there(tmp_path, counts):
    path = tmp_path / "a.mrcz"
    mrcz.writeMRC(counts, path, compressor="zstd")
    assert mrcz.readMRC(path)[1]["metaId"] == b"\0\0\0\0"


# ---- more than 0.6.0 could -------------------------------------------------------------------------------------------


def test_ranges_of_compressed_files(tmp_path, counts):
    path = tmp_path / "a.mrcz"
    mrcz.writeMRC(counts, path, compressor="zstd")
    np.testing.assert_array_equal(mrcz.readMRC(path, idx=-1)[0], counts[-1])
    image, header = mrcz.readMRC(path, idx=(-3, -1))
    np.testing.assert_array_equal(image, counts[2:])
    np.testing.assert_array_equal(header["dimensions"], [3, 33, 47])
    mrcz.writeMRC(list(counts), path, compressor="zstd")
    image, _ = mrcz.readMRC(path, idx=(1, 2))
    assert isinstance(image, list)
    np.testing.assert_array_equal(image, counts[1:3])


def test_memory_maps_of_compressed_files_are_lazy(tmp_path, counts):
    path = tmp_path / "a.mrcz"
    mrcz.writeMRC(counts, path, compressor="zstd")
    lazy, header = mrcz.readMRC(path, useMemmap=True)
    assert (lazy.shape, lazy.dtype, lazy.ndim) == (counts.shape, counts.dtype, 3)
    np.testing.assert_array_equal(lazy[1, 2:5], counts[1, 2:5])
    np.testing.assert_array_equal(np.asarray(lazy), counts)
    assert header["compressor"] == "zstd"


def test_lazy_arrays_stay_lazy_in_hyperspy(tmp_path, counts, monkeypatch):
    """What HyperSpy does with the data a reader gives it (signal.data, LazySignal._lazy_data); clients/lazy.py asks
    HyperSpy itself."""
    from dask import array

    path = tmp_path / "a.mrcz"
    mrcz.writeMRC(counts, path, compressor="zstd")
    decoded = []
    original = Decoder.decode

    def decode(self, numbers, *rest, **keys):
        decoded.extend(numbers.tolist())
        return original(self, numbers, *rest, **keys)

    monkeypatch.setattr(Decoder, "decode", decode)
    lazy, _ = mrcz.readMRC(path, useMemmap=True)
    assert hasattr(lazy, "__array_function__") and np.atleast_1d(lazy) is lazy
    assert np.zeros_like(lazy).shape == counts.shape and np.result_type(lazy) == counts.dtype and decoded == []
    chunked = array.from_array(lazy, chunks=(len(counts), -1, -1))
    assert decoded == []
    np.testing.assert_array_equal(chunked[1].compute(scheduler="sync"), counts[1])
    assert decoded == [1]
    # Every other function of NumPy gets the pixels, wherever they stand among its arguments.
    np.testing.assert_array_equal(np.concatenate([lazy, counts]), np.concatenate([counts, counts]))
    np.testing.assert_array_equal(np.mean(a=lazy, axis=0), counts.mean(axis=0))
    assert isinstance(pickle.loads(pickle.dumps(lazy)), type(lazy))


def test_memory_maps_do_not_change_the_file(tmp_path, counts):
    path = tmp_path / "a.mrc"
    mrcz.writeMRC(counts, path)
    mapped, _ = mrcz.readMRC(path, useMemmap=True, idx=(1, 2))
    assert isinstance(mapped, np.memmap)
    mapped[...] = 0
    np.testing.assert_array_equal(mrcz.readMRC(path)[0], counts)


def test_an_interrupted_write_leaves_the_old_file(tmp_path, counts):
    path = tmp_path / "a.mrcz"
    mrcz.writeMRC(counts, path, compressor="zstd")
    before = path.read_bytes()

    class Broken(Lazy):
        def __getitem__(self, key):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mrcz.writeMRC(Broken(counts.shape, "i2"), path, compressor="zstd")
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.mrcz"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_background_calls_after_a_fork(tmp_path, counts):
    path = tmp_path / "a.mrcz"
    mrcz.writeMRC(counts, path, compressor="zstd")
    script = """
import os, sys, warnings, numpy as np, mrcz
warnings.simplefilter("ignore")  # Python 3.12 warns of forks of programs with threads
expected = mrcz.asyncReadMRC(sys.argv[1]).result()[0]
child = os.fork()
if child == 0:
    code = 1
    try:
        code = 0 if np.array_equal(mrcz.asyncReadMRC(sys.argv[1]).result(timeout=10)[0], expected) else 2
    finally:
        os._exit(code)
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
sys.exit(code if np.array_equal(mrcz.asyncReadMRC(sys.argv[1]).result()[0], expected) else 3)
"""
    done = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_idx_waits_for_its_turn(tmp_path, counts):
    """Calls on many threads that write at a position: every section is there, and the header true of all of them."""
    path = tmp_path / "a.mrc"
    mrcz.writeMRC(np.zeros_like(counts), path)
    mrcz._setAsyncWorkers(4)
    try:
        written = [mrcz.asyncWriteMRC(counts[k], path, idx=k) for k in range(len(counts)) for _ in range(3)]
        for one in written:
            one.result(timeout=60)
    finally:
        mrcz._setAsyncWorkers(1)
    image, header = mrcz.readMRC(path)
    np.testing.assert_array_equal(image, counts)
    assert header["maxImage"] == counts.max() and header["meanImage"] == pytest.approx(counts.mean(), rel=1e-5)


@pytest.mark.parametrize("name", ["a.mrc.gz", "a.tif", "a.h5"])
def test_names_of_other_formats_are_refused(tmp_path, counts, name):
    with pytest.raises(ValueError, match=f"{name}: "):
        mrcz.writeMRC(counts, tmp_path / name)
    assert not list(tmp_path.iterdir())
