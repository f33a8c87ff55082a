"""Entropy against what it is on paper."""

import numpy as np
import pytest

import mrcz
from mrcz.check.entropy import entropy, sample_entropy


@pytest.mark.parametrize(
    ("values", "bits"),
    [
        (np.zeros(10, "u1"), 0.0),
        (np.zeros(0, "f4"), 0.0),
        (np.arange(256, dtype="u1"), 8.0),
        (np.array([0, 0, 0, 1], "i2"), 2 - 0.75 * np.log2(3)),
        (np.array([-(1 << 40), 1 << 40], "i8"), 1.0),
        (np.array([np.nan, np.nan, 1.0, -1.0], "f4"), 1.5),
        (np.array([True, False]), 1.0),
    ],
)
def test_on_paper(values, bits):
    assert entropy(values) == pytest.approx(bits, abs=1e-12)
    assert entropy(values.reshape(-1, 1)) == pytest.approx(bits, abs=1e-12)


def test_of_a_file(tmp_path, rng):
    frames = rng.integers(0, 4, (20, 64, 64)).astype("u1")
    mrcz.write(tmp_path / "a.mrc", frames)
    with mrcz.open(tmp_path / "a.mrc") as reader:
        bits, pixels = sample_entropy(reader)
        assert bits == pytest.approx(2.0, abs=0.01) and pixels == 8 * 64 * 64
        bits, pixels = sample_entropy(reader, max_pixels=1024)
        assert bits == pytest.approx(2.0, abs=0.05) and pixels == 1024
    for name, noise in (("noise.mrc", rng.normal(size=(2, 64, 64)).astype("f4")), ("c.mrc", np.ones((1, 8, 8), "c8"))):
        mrcz.write(tmp_path / name, noise)
        with mrcz.open(tmp_path / name) as reader:
            assert sample_entropy(reader) == (None, 2 * 64 * 64 if name == "noise.mrc" else 0)
