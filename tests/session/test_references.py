"""Gain references as files have them. Against RELION: tests/formats/test_eer.py."""

import numpy as np
import pytest

import mrcz
from mrcz.session.references import load_gain

SHAPE = (6, 8)


@pytest.fixture
def gain():
    image = np.random.default_rng(3).uniform(0.5, 2, SHAPE).astype(np.float32)
    image[2, 3] = 0  # a defect
    return image


@pytest.mark.parametrize("compression", [None, "lzw"])
def test_the_gain_of_a_falcon_multiplies_as_it_is(tmp_path, gain, compression):
    """A TIFF of float32, packed by LZW, with metadata in field 65001 behind a declaration that is no XML."""
    tifffile = pytest.importorskip("tifffile")
    about = b'<?xml version="1.0" encoding="utf - 8"?><metadata><item name="serialNumber">1</item></metadata>'
    with open(tmp_path / "a.gain", "wb") as file:
        tifffile.imwrite(
            file,
            gain,
            photometric="minisblack",
            compression=compression,
            extratags=[(65001, 7, len(about), about, True)],
        )
    np.testing.assert_array_equal(load_gain(tmp_path / "a.gain"), gain)
    # frames of 8K: each of its pixels four times
    finer = load_gain(tmp_path / "a.gain", shape=(12, 16))
    np.testing.assert_array_equal(finer, gain.repeat(2, 0).repeat(2, 1))


def test_a_gain_that_divides_is_turned_over_when_asked(tmp_path, gain):
    mrcz.write(tmp_path / "a.mrc", gain[None], kind="image")
    np.testing.assert_array_equal(load_gain(tmp_path / "a.mrc"), gain)
    turned = load_gain(tmp_path / "a.mrc", inverse=True)
    good = gain > 0
    np.testing.assert_allclose(turned[good], gain[good].mean(dtype=np.float64) / gain[good], rtol=1e-6)
    assert turned[2, 3] == 0
