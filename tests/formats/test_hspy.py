"""HyperSpy's .hspy, made by h5py as its user guide specifies them."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

import mrcz

STACK = np.random.default_rng(4).poisson(3, (3, 8, 6)).astype("<u2")


def make(path, data=STACK, signal=2, names=("movie",), units="nm"):
    with h5py.File(path, "w") as file:
        file.attrs["file_format"], file.attrs["file_format_version"] = "HyperSpy", "3.3"
        for name in names:
            group = file.create_group(f"Experiments/{name}")
            group.create_dataset("data", data=data, chunks=(1, *data.shape[1:]), compression="gzip")
            for k in range(data.ndim):
                axis = group.create_group(f"axis-{k}")
                axis.attrs.update({"size": data.shape[k], "scale": 0.1 * (k + 1), "offset": 0.0, "units": units})
                axis.attrs["navigate"] = k < data.ndim - signal
            tem = group.create_group("metadata/Acquisition_instrument/TEM")
            tem.attrs.update({"beam_energy": 200.0, "magnification": 50000, "microscope": "Titan"})
            tem.create_group("Stage").attrs["tilt_alpha"] = -12.5
    return path


def test_the_signal_is_the_frames(tmp_path):
    with mrcz.open(make(tmp_path / "a.hspy")) as reader:
        assert (reader.format, reader.original.layout, reader.shape) == ("hdf5", "hyperspy", (3, 8, 6))
        np.testing.assert_array_equal(reader.read(), STACK)
        assert reader.pixel_size == pytest.approx((3, 2, 0), rel=1e-15)
        said = {k: v for k, v in reader.metadata.items() if k not in ("original", "pixel_size")}
        assert said == {"voltage": 200, "magnification": 50000, "microscope": "Titan", "tilt": -12.5}


def test_units_that_are_no_length_give_no_pixel_size(tmp_path):
    for units in ("1/nm", "", "<undefined>"):
        with mrcz.open(make(tmp_path / "a.hspy", units=units)) as reader:
            assert reader.pixel_size == (0, 0, 0) and "pixel_size" not in reader.metadata


def test_a_scan_of_patterns_and_a_scan_of_spectra(tmp_path):
    scan = np.arange(2 * 3 * 4 * 5, dtype="u2").reshape(2, 3, 4, 5)
    with mrcz.open(make(tmp_path / "a.hspy", scan)) as reader:
        np.testing.assert_array_equal(reader.read(), scan.reshape(6, 4, 5))
    make(tmp_path / "a.hspy", scan[0], signal=1)
    with pytest.raises(mrcz.FormatError, match=r"1 signal axes.*dataset='/Experiments/movie/data'"):
        mrcz.open(tmp_path / "a.hspy")
    with mrcz.open(tmp_path / "a.hspy", dataset="/Experiments/movie/data") as reader:
        np.testing.assert_array_equal(reader.read(), scan[0])


def test_several_signals(tmp_path):
    make(tmp_path / "a.hspy", names=("one", "two"))
    with pytest.raises(mrcz.FormatError, match="2 signals, say which with dataset=: one, two"):
        mrcz.open(tmp_path / "a.hspy")
    with pytest.raises(mrcz.FormatError, match="no signal 'three'"):
        mrcz.open(tmp_path / "a.hspy", dataset="three")
    with mrcz.open(tmp_path / "a.hspy", dataset="two") as reader:
        np.testing.assert_array_equal(reader.read(), STACK)
