"""Both kinds of .emd: a real file of Velox, others made by h5py with its groups; Berkeley's as its page says."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest

import mrcz

MOVIE = np.random.default_rng(5).poisson(3, (4, 8, 6)).astype("<i2")
REAL = "openncem/Camera Ceta Imaging Micro.emd"


@pytest.fixture
def real(data_dir):
    path = data_dir.parent / "movies" / REAL
    if not path.is_file():
        pytest.skip(f"no {path}")
    return path


def velox(path, images, said=None, lookup=True, **words):
    """Images by name, each (n, ny, nx): the groups and data sets of the real file, frames along the last axis."""
    with h5py.File(path, "w") as file:
        file["Version"] = np.array([b'{\n "version": "8",\n "format": "Velox"\n}\n'], object)
        for k, (name, movie) in enumerate(images.items()):
            group = file.create_group(f"Data/Image/{k:032x}")
            data = np.moveaxis(movie, 0, -1)
            group.create_dataset("Data", data=data, **words or {"chunks": (*data.shape[:2], 1)})
            texts = np.zeros((4000, len(movie)), "u1")
            for frame in range(len(movie)):
                about = {
                    "Optics": {"AccelerationVoltage": "200000", "Defocus": "-1.5e-06"},
                    "Stage": {
                        "AlphaTilt": str(np.radians(10 + frame)),
                        "Position": {"x": "1e-6", "y": "0", "z": "2e-6"},
                    },
                    "Detectors": {"Detector-0": {"DetectorName": name, "ExposureTime": "0.25"}},
                    "BinaryResult": {
                        "Detector": name,
                        "PixelSize": {"width": "2.5e-10", "height": "5e-10"},
                        "PixelUnitX": "m",
                        "PixelUnitY": "m",
                    },
                } | (said or {})
                raw = json.dumps(about).encode() + b"\0rest of what was there before"
                texts[: len(raw), frame] = np.frombuffer(raw, "u1")
            group.create_dataset("Metadata", data=texts, chunks=(4000, 1))
            if lookup:
                group["FrameLookupTable"] = np.arange(len(movie), dtype="u4")
    return path


def test_a_real_file(real):
    with h5py.File(real) as file:
        (group,) = file["Data/Image"].values()
        expected = group["Data"][..., 0]
    with mrcz.open(real) as reader:
        assert (reader.format, reader.original.layout, reader.kind) == ("hdf5", "velox", "image")
        assert (reader.shape, reader.dtype, reader.oddities) == ((1, 512, 512), np.dtype("<i2"), ())
        np.testing.assert_array_equal(reader[0], expected)
        assert (expected.min(), expected.max()) == (-10, 7)  # as the inventory says
        assert reader.pixel_size == pytest.approx((31.388370544495519, 31.388370544495519, 0), rel=1e-14)
        said = dict(reader.metadata)
        assert said.pop("original")["velox"]["Optics"]["ProbeMode"] == "2"
        assert said == {
            "pixel_size": list(reader.pixel_size[:2]),
            "voltage": 300.0,
            "magnification": 26996.349,
            "spot_size": 3,
            "defocus": 0.0,
            "tilt": pytest.approx(np.degrees(-3.136e-6)),
            "stage": pytest.approx([0.57681, 0.01377, -0.06879]),
            "timestamp": "2020-07-29T16:48:19+00:00",
            "camera": "BM-Ceta",
            "microscope": "Titan 3580",
            "binning": 8,
            "exposure_time": 0.4,
        }


def test_a_real_file_against_ncempy(real):
    emd = pytest.importorskip("ncempy.io.emdVelox")  # a package of GPL: to compare with, nothing else
    with emd.fileEMDVelox(str(real)) as file, mrcz.open(real) as reader:
        data, about = file.get_dataset(0)
        np.testing.assert_array_equal(np.squeeze(data), reader[0])
        assert about["pixelSize"][0] * 10 == pytest.approx(reader.pixel_size[0])


@pytest.mark.parametrize("words", [{}, {"chunks": (4, 3, 2), "compression": "gzip"}, {"chunks": None}])
def test_frames_are_along_the_last_axis(tmp_path, words):
    with mrcz.open(velox(tmp_path / "a.emd", {"Ceta": MOVIE}, **words)) as reader:
        assert (reader.shape, reader.kind) == ((4, 8, 6), "stack")
        np.testing.assert_array_equal(reader.read(n_threads=2), MOVIE)
        np.testing.assert_array_equal(reader[2, 3:5, 1:4], MOVIE[2, 3:5, 1:4])
        assert reader.pixel_size == (2.5, 5, 0)
        assert "exposure_time" not in reader.metadata  # of each frame, not of the movie
        assert [one["tilt"] for one in reader.frame_metadata] == pytest.approx([10, 11, 12, 13])
        assert reader.frame_metadata[0]["exposure_time"] == 0.25
        assert reader.metadata["stage"] == pytest.approx([1, 0, 2]) and reader.metadata["defocus"] == -1.5


def test_the_detector_chooses(tmp_path):
    path = velox(tmp_path / "a.emd", {"HAADF": MOVIE[:2], "BF": MOVIE[2:]})
    with pytest.raises(mrcz.FormatError, match=r"2 images .* equally large: HAADF \(8, 6, 2\) .*, BF .*dataset="):
        mrcz.open(path)
    with pytest.raises(mrcz.FormatError, match=r"no image of 'DF4'.*HAADF"):
        mrcz.open(path, dataset="DF4")
    for name in ("BF", f"{1:032x}", f"/Data/Image/{1:032x}", f"/Data/Image/{1:032x}/Data"):
        with mrcz.open(path, dataset=name) as reader:
            np.testing.assert_array_equal(reader.read(), MOVIE[2:])
            assert reader.metadata["camera"] == "BF"
    velox(tmp_path / "a.emd", {"HAADF": MOVIE[:1], "BF": MOVIE[1:]})
    with mrcz.open(tmp_path / "a.emd") as reader:
        np.testing.assert_array_equal(reader.read(), MOVIE[1:])
        assert "BF has the largest images; dataset= opens others: HAADF" in reader.oddities[0]


def test_what_velox_says_may_be_missing_or_wrong(tmp_path):
    odd = {"BinaryResult": {"Detector": 3, "PixelSize": {"width": "x"}}, "Optics": [], "Stage": None, "Detectors": 1}
    with mrcz.open(velox(tmp_path / "a.emd", {"Ceta": MOVIE}, odd, lookup=False)) as reader:
        assert {name for name in reader.metadata if name != "original"} == {"camera"}
        assert reader.oddities == ("there is no FrameLookupTable",)
    diffraction = {"BinaryResult": {"PixelSize": {"width": "1e8", "height": "1e8"}, "PixelUnitX": "1/m"}}
    with mrcz.open(velox(tmp_path / "a.emd", {"Ceta": MOVIE}, diffraction)) as reader:
        assert reader.pixel_size == (0, 0, 0)
    with h5py.File(tmp_path / "a.emd", "a") as file:
        group = file[f"Data/Image/{0:032x}"]
        group["Metadata"][:] = 255
        group["FrameLookupTable"][:] = 1
    with mrcz.open(tmp_path / "a.emd") as reader:
        np.testing.assert_array_equal(reader.read(), MOVIE)
        assert reader.metadata == {} and "another order" in reader.oddities[0]
    with h5py.File(tmp_path / "a.emd", "a") as file:
        del file["Data/Image"][f"{0:032x}"]["Data"]
    with pytest.raises(mrcz.FormatError, match="no images"):
        mrcz.open(tmp_path / "a.emd")


# ---- Berkeley ------------------------------------------------------------------------------------------------


def berkeley(path, groups, first=1, kind=1, units=b"[n_m]", steps=(0.5, 0.25)):
    with h5py.File(path, "w") as file:
        file.attrs["version_major"], file.attrs["version_minor"] = 0, 2
        file.create_group("microscope").attrs["voltage"] = "300"
        for name, data in groups.items():
            group = file.create_group(f"data/{name}")
            group.attrs["emd_group_type"] = kind
            group["data"] = data
            for k in range(data.ndim):
                step = 1.0 if k < data.ndim - 2 else steps[k - data.ndim + 2]
                group[f"dim{k + first}"] = np.arange(data.shape[k]) * step
                group[f"dim{k + first}"].attrs.update({"name": b"x", "units": units})
    return path


def test_berkeley(tmp_path):
    with mrcz.open(berkeley(tmp_path / "a.emd", {"movie": MOVIE})) as reader:
        assert (reader.original.layout, reader.shape, reader.pixel_size) == ("emd", (4, 8, 6), (2.5, 5, 0))
        np.testing.assert_array_equal(reader.read(), MOVIE)
        assert reader.metadata["original"]["emd"]["microscope"] == {"voltage": "300"}
    with mrcz.open(berkeley(tmp_path / "a.emd", {"movie": MOVIE}, first=0, kind="array", units="Å")) as reader:
        assert reader.pixel_size == (0.25, 0.5, 0)
    for units, size in ((b"1/nm", 0), (b"", 0), ("pm", 0.0025), ("\N{MICRO SIGN}m", 2500)):
        with mrcz.open(berkeley(tmp_path / "a.emd", {"movie": MOVIE}, units=units)) as reader:
            assert reader.pixel_size[0] == size
    scan = np.arange(2 * 3 * 4 * 5, dtype="u2").reshape(2, 3, 4, 5)
    with mrcz.open(berkeley(tmp_path / "a.emd", {"scan": scan})) as reader:
        np.testing.assert_array_equal(reader.read(), scan.reshape(6, 4, 5))


def test_several_groups(tmp_path):
    path = berkeley(tmp_path / "a.emd", {"one": MOVIE, "two": MOVIE + 1})
    with pytest.raises(mrcz.FormatError, match=r"2 EMD groups .*/data/one \(4, 8, 6\)"):
        mrcz.open(path)
    for name in ("two", "/data/two", "/data/two/data"):
        with mrcz.open(path, dataset=name) as reader:
            np.testing.assert_array_equal(reader.read(), MOVIE + 1)
            assert reader.pixel_size == (2.5, 5, 0)
    with mrcz.open(berkeley(tmp_path / "a.emd", {"one": MOVIE, "two": MOVIE[:2]})) as reader:
        assert "/data/two (2, 8, 6)" in reader.oddities[0]


def test_ncempy_writes_what_we_read(tmp_path):
    emd = pytest.importorskip("ncempy.io.emd")  # a package of GPL: to compare with, nothing else
    with emd.fileEMD(str(tmp_path / "a.emd"), readonly=False) as file:
        dims = [(np.arange(4), "n", "[]"), (np.arange(8) * 0.2, "y", "[n_m]"), (np.arange(6) * 0.1, "x", "[n_m]")]
        file.put_emdgroup("movie", MOVIE, dims)
    with mrcz.open(tmp_path / "a.emd") as reader:
        np.testing.assert_array_equal(reader.read(), MOVIE)
        assert reader.pixel_size == pytest.approx((1, 2, 0))
