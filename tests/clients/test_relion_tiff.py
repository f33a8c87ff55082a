"""RELION and mrcz see the same pixels in a TIFF, in the same rows, whoever wrote it."""

import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tifffile

import mrcz
from mrcz.formats.tiff import write_frames

pytestmark = pytest.mark.skipif(
    shutil.which("relion_image_handler") is None, reason="RELION is not installed (Debian: relion)"
)


def run(program, *args, cwd=None):
    return subprocess.run([program, *map(str, args)], capture_output=True, text=True, check=True, timeout=60, cwd=cwd)


def as_mrc(path):
    """The pixels (nz, ny, nx) of the MRC file that relion_image_handler makes of a TIFF, and their size."""
    made = path.with_suffix(".mrcs")
    run("relion_image_handler", "--i", path, "--o", made)
    with mrcz.open(made) as reader:
        return reader.read(), reader.pixel_size


@pytest.fixture
def movie(tmp_path, rng):
    """Frames of which each corner is another, in an MRC file."""
    stack = rng.poisson(1, (3, 41, 60)).astype("u2")
    stack[:, 0, 0], stack[:, 0, -1], stack[:, -1, 0], stack[:, -1, -1] = 100, 101, 102, 103
    mrcz.write(tmp_path / "movie.mrc", stack, pixel_size=1.25)
    return stack


@pytest.mark.parametrize("compression", ["none", "lzw", "deflate", "zstd"])
@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "f4"])
def test_relion_reads_what_is_written(tmp_path, movie, dtype, compression):
    mrcz.write(tmp_path / "a.mrc", movie.astype(dtype), dtype=dtype, pixel_size=1.25)
    with mrcz.open(tmp_path / "a.mrc") as reader:
        write_frames(tmp_path / "a.tif", reader, compression=compression)
    pixels, size = as_mrc(tmp_path / "a.tif")
    np.testing.assert_array_equal(pixels, movie)
    assert size[:2] == (1.25, 1.25)


ORIENTED = {"extratags": [(274, 3, 1, 4, True)]}  # rows are stored bottom-up, it says; RELION does not look


@pytest.mark.parametrize(
    "how", [{}, {"compression": "lzw", "predictor": 2}, {"byteorder": ">", "bigtiff": True}, ORIENTED]
)
def test_rows_are_those_that_relion_reads(tmp_path, movie, how):
    tifffile.imwrite(tmp_path / "a.tif", movie, photometric="minisblack", rowsperstrip=7, metadata=None, **how)
    pixels, _ = as_mrc(tmp_path / "a.tif")
    assert (pixels[0, 0, 0], pixels[0, 0, -1], pixels[0, -1, 0], pixels[0, -1, -1]) == (102, 103, 100, 101)
    with mrcz.open(tmp_path / "a.tif") as reader:
        np.testing.assert_array_equal(reader.read(), pixels)


@pytest.mark.parametrize("compression", ["none", "lzw", "deflate"])
def test_a_tiff_of_relion_is_the_movie(tmp_path, movie, compression):
    run("relion_convert_to_tiff", "--i", "movie.mrc", "--o", "out", "--compression", compression, cwd=tmp_path)
    with mrcz.open(tmp_path / "out" / "movie.tif") as reader:
        np.testing.assert_array_equal(reader.read(), movie)
        assert reader.pixel_size[:2] == (1.25, 1.25)
        assert reader.codec == compression


def test_packed_pixels_of_serialem_are_those_of_relion(tmp_path):
    stored = np.zeros((1, 8184, 5760), "u1")
    stored[0, 0, :2], stored[0, -1, -2:] = (0x21, 0x43), (0xA9, 0xCB)
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="minisblack", compression="deflate", metadata=None)
    run("relion_image_handler", "--i", tmp_path / "a.tif", "--o", tmp_path / "a.mrcs")
    with mrcz.open(tmp_path / "a.tif") as ours, mrcz.open(tmp_path / "a.mrcs") as relion:
        assert ours.shape == relion.shape
        for rows in (slice(0, 3), slice(-3, None)):
            pixels = ours[0, rows]
            assert pixels.any()
            np.testing.assert_array_equal(pixels, relion[0, rows])


def test_motion_correction_is_that_of_the_mrc_file(tmp_path, rng):
    stack = rng.poisson(1, (4, 128, 160)).astype("u2")
    mrcz.write(tmp_path / "movie.mrc", stack, pixel_size=1.25)
    names = ["movie.mrc"]
    with mrcz.open(tmp_path / "movie.mrc") as reader:
        for compression in ("none", "lzw", "deflate", "zstd"):
            names.append(f"{compression}.tif")
            write_frames(tmp_path / names[-1], reader, compression=compression)
    optics = "_rlnOpticsGroupName #1\n_rlnOpticsGroup #2\n_rlnMicrographOriginalPixelSize #3\n_rlnVoltage #4\n"
    optics += "_rlnSphericalAberration #5\n_rlnAmplitudeContrast #6\na 1 1.25 300 2.7 0.1\n"
    movies = "_rlnMicrographMovieName #1\n_rlnOpticsGroup #2\n" + "".join(f"{name} 1\n" for name in names)
    (tmp_path / "movies.star").write_text(f"data_optics\n\nloop_\n{optics}\ndata_movies\n\nloop_\n{movies}")
    words = "--i movies.star --o out/ --use_own --j 1 --patch_x 1 --patch_y 1 --dose_per_frame 1".split()
    run("relion_run_motioncorr", *words, cwd=tmp_path)
    first, *others = (mrcz.read(tmp_path / "out" / re.sub(r"\.\w+$", ".mrc", name)) for name in names)
    assert first.std() > 0.1
    for other in others:
        np.testing.assert_array_equal(other, first)


@pytest.mark.parametrize("source", ["movie.mrc", "movie.mrcz", "movie.npy"])
@pytest.mark.parametrize(
    "how", [[], ["--compression", "deflate"], ["--compression", "zstd"], ["--compression", "none"]]
)
def test_relion_reads_what_the_command_converts(tmp_path, movie, source, how):
    """`mrcz convert movie movie.tif`, and a picture's rows and pixel size as RELION takes them."""
    mrcz.compress(tmp_path / "movie.mrc", tmp_path / "movie.mrcz")
    np.save(tmp_path / "movie.npy", movie)
    command = [sys.executable, "-m", "mrcz", "convert", *how, tmp_path / source, tmp_path / "made.tif"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    pixels, size = as_mrc(tmp_path / "made.tif")
    np.testing.assert_array_equal(pixels, movie)
    if source != "movie.npy":
        assert size[:2] == (1.25, 1.25)


def test_relion_reads_an_mrc_file_of_the_command(tmp_path, movie):
    tifffile.imwrite(tmp_path / "a.tif", movie, photometric="minisblack", compression="lzw", metadata=None)
    command = [sys.executable, "-m", "mrcz", "convert", tmp_path / "a.tif", tmp_path / "made.mrcs"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    run("relion_image_handler", "--i", tmp_path / "made.mrcs", "--o", tmp_path / "again.mrcs")
    direct, _ = as_mrc(tmp_path / "a.tif")
    np.testing.assert_array_equal(mrcz.read(tmp_path / "again.mrcs"), direct)
    np.testing.assert_array_equal(mrcz.read(tmp_path / "made.mrcs"), direct)
