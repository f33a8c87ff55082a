"""NeXus and Dectris masters: a real master whose data are missing, others made by h5py as Dectris and NeXus say."""

from __future__ import annotations

import h5py
import hdf5plugin
import numpy as np
import pytest

import mrcz

MOVIE = np.random.default_rng(6).poisson(1, (7, 16, 12)).astype("<u4")
REAL = "openncem/au_145mm_68kx_microprobe_01_master.h5"


@pytest.fixture
def real(data_dir):
    path = data_dir.parent / "movies" / REAL
    if not path.is_file():
        pytest.skip(f"no {path}")
    return path


def master(folder, parts, numbers=True, nimages=None):
    """A master and its data files, as "EIGER2 HDF5 data format" describes them."""
    with h5py.File(folder / "a_master.h5", "w") as file:
        entry = file.create_group("entry")
        entry.attrs["NX_class"], entry.attrs["default"] = np.bytes_("NXentry"), np.bytes_("data")
        data = entry.create_group("data")
        data.attrs["NX_class"] = np.bytes_("NXdata")
        detector = entry.create_group("instrument/detector")
        detector.attrs["NX_class"] = np.bytes_("NXdetector")
        for name, value, units in (
            ("count_time", 0.0019, "s"),
            ("frame_time", 0.002, "s"),
            ("threshold_energy", 17500.0, "eV"),
            ("bit_depth_readout", np.uint16(16), None),
            ("description", np.bytes_("Dectris QUADRO"), None),
            ("x_pixel_size", 7.5e-5, "m"),
        ):
            detector[name] = value
            if units:
                detector[name].attrs["units"] = np.bytes_(units)
        special = detector.create_group("detectorSpecific")
        special["nimages"] = np.uint64(len(MOVIE) if nimages is None else nimages)
        special["ntrigger"] = np.uint64(1)
        special["pixel_mask"] = np.zeros(MOVIE.shape[1:], "u4")
        special["flatfield"] = np.ones(MOVIE.shape[1:], "f4")
        special["data_collection_date"] = np.bytes_("2025-08-06T02:52:43.741+02:00")
        first = 1
        for k, part in enumerate(parts, 1):
            name = f"a_data_{k:06d}.h5"
            data[f"data_{k:06d}"] = h5py.ExternalLink(name, "/entry/data/data")
            with h5py.File(folder / name, "w") as other:
                made = other.create_dataset(
                    "entry/data/data", data=part, chunks=(1, *part.shape[1:]), **hdf5plugin.Bitshuffle(cname="lz4")
                )
                if numbers:
                    made.attrs["image_nr_low"], made.attrs["image_nr_high"] = first, first + len(part) - 1
            first += len(part)
    return folder / "a_master.h5"


def test_a_real_master_names_the_file_that_is_missing(real):
    name = real.name.replace("master", "data_000001")
    words = f"the link /entry/data/data_000001 leads to {name}, which is not there: looked for .*{name}"
    for permissive in (False, True):
        with pytest.raises(mrcz.FormatError, match=words):
            mrcz.open(real, permissive=permissive)
    with mrcz.open(real, dataset="/entry/instrument/detector/detectorSpecific/flatfield") as reader:
        assert (reader.shape, reader.dtype) == ((1, 192, 192), np.dtype("<f4"))
        said = dict(reader.metadata)
        original = said.pop("original")["nexus"]
        base = f"{real.name}:/entry/instrument/detector/detectorSpecific"
        assert said == {
            "timestamp": "2025-08-06T02:52:43.741+02:00",
            "frame_time": 0.00019960000569224358,
            "threshold": [17.5],
            "counter_depth": 8,
            "camera": "Dectris ARINA CZT",
            "frames": 4096,
            "gain_file": f"{base}/flatfield",
            "defect_file": f"{base}/pixel_mask",
        }
        assert original["/instrument/detector/count_time"] == 0.00019950000569224358
        assert original["/instrument/detector/count_time@units"] == "s"


@pytest.mark.parametrize("numbers", [True, False])
def test_the_files_of_a_master_are_one_movie(tmp_path, numbers):
    path = master(tmp_path, [MOVIE[:3], MOVIE[3:6], MOVIE[6:]], numbers)
    with mrcz.open(path) as reader:
        assert (reader.shape, reader.dtype, reader.original.layout) == ((7, 16, 12), MOVIE.dtype, "nexus")
        assert (reader.codec, reader.oddities) == ("bitshuffle", ())
        np.testing.assert_array_equal(reader.read(), MOVIE)
        np.testing.assert_array_equal(reader[2:7:2, 3:5], MOVIE[2:7:2, 3:5])
        np.testing.assert_array_equal(reader.sum(), MOVIE.sum(0))
        assert (reader.metadata["frame_time"], reader.metadata["counter_depth"]) == (0.002, 16)
    with mrcz.open(path, dataset="/entry/data/data_000002") as reader:
        np.testing.assert_array_equal(reader.read(), MOVIE[3:6])
    with mrcz.open(tmp_path / "a_data_000003.h5") as reader:
        np.testing.assert_array_equal(reader.read(), MOVIE[6:])


def test_a_file_in_the_middle_is_missing(tmp_path):
    path = master(tmp_path, [MOVIE[:3], MOVIE[3:6], MOVIE[6:]])
    (tmp_path / "a_data_000002.h5").unlink()
    with pytest.raises(mrcz.FormatError, match=r"data_000002 leads to a_data_000002\.h5, which is not there"):
        mrcz.open(path)
    with pytest.warns(mrcz.FormatWarning) as told, mrcz.open(path, permissive=True) as reader:
        np.testing.assert_array_equal(reader.read(), MOVIE[[0, 1, 2, 6]])
    assert any("1 of the movie's files are missing, their frames are left out" in str(one.message) for one in told)
    with h5py.File(path, "a") as file:
        del file["entry/data/data_000002"]
    with pytest.raises(mrcz.FormatError, match="there is no data_000002 in /entry/data"):
        mrcz.open(path)


def test_numbers_of_images_have_to_run_on(tmp_path):
    path = master(tmp_path, [MOVIE[:3], MOVIE[3:]])
    with h5py.File(tmp_path / "a_data_000002.h5", "a") as file:
        file["entry/data/data"].attrs["image_nr_high"] = 8
    with pytest.raises(mrcz.FormatError, match="data_000002 has the images 4 to 8 by its attributes, and 4 of them"):
        mrcz.open(path)
    with h5py.File(tmp_path / "a_data_000002.h5", "a") as file:
        file["entry/data/data"].attrs["image_nr_low"] = 5
    with pytest.raises(mrcz.FormatError, match="begins with image 5, the one before it ended with image 3"):
        mrcz.open(path)
    with pytest.warns(mrcz.FormatWarning, match="begins with image 5"), mrcz.open(path, permissive=True) as reader:
        np.testing.assert_array_equal(reader.read(), MOVIE)


def test_files_of_other_frames_are_no_movie(tmp_path):
    with pytest.raises(mrcz.FormatError, match=r"data_000002 has frames of 15 x 12 uint32, .*data_000001 of 16 x 12"):
        mrcz.open(master(tmp_path, [MOVIE[:3], MOVIE[3:, :15]]))
    with pytest.raises(mrcz.FormatError, match="uint16"):
        mrcz.open(master(tmp_path, [MOVIE[:3], MOVIE[3:].astype("u2")]))


def test_fewer_images_than_were_to_be_taken(tmp_path):
    with mrcz.open(master(tmp_path, [MOVIE], nimages=10)) as reader:
        assert reader.oddities == ("10 images were to be taken, 7 are there",)
        assert reader.metadata["frames"] == 10


@pytest.mark.parametrize("how", ["signal", "no signal", "detector"])
def test_the_signal_of_a_nexus_file(tmp_path, how):
    with h5py.File(tmp_path / "a.nxs", "w") as file:
        file.attrs["default"] = "scan"
        for name, add in (("other", 0), ("scan", 1)):
            entry = file.create_group(name)
            entry.attrs["NX_class"] = "NXentry"
            entry["start_time"] = "2024-01-02T03:04:05"
            group = entry.create_group("instrument/detector" if how == "detector" else "movie")
            group.attrs["NX_class"] = "NXdetector" if how == "detector" else "NXdata"
            if how == "signal":
                group.attrs["signal"] = "counts"
            group["counts" if how == "signal" else "data"] = MOVIE + add
            group["larger"] = np.zeros((20, 16, 12))
            if how == "detector":
                group["frame_time"] = 2.0
                group["frame_time"].attrs["units"] = "ms"
    with mrcz.open(tmp_path / "a.nxs") as reader:
        np.testing.assert_array_equal(reader.read(), MOVIE + 1)
        assert reader.metadata["timestamp"] == "2024-01-02T03:04:05"
        assert reader.metadata.get("frame_time") == (0.002 if how == "detector" else None)


def test_an_entry_without_data_is_a_plain_file(tmp_path):
    with h5py.File(tmp_path / "a.nxs", "w") as file:
        file.create_group("entry").attrs["NX_class"] = "NXentry"
        file["elsewhere"] = MOVIE
    with mrcz.open(tmp_path / "a.nxs") as reader:
        assert reader.original.layout == "hdf5"
        np.testing.assert_array_equal(reader.read(), MOVIE)
