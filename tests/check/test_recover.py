"""What the header of a recovered file says is of the frames that are in it."""

import numpy as np
import pytest

import mrcz
from mrcz.check.recover import recover


def hurt(path, number):
    """Damage one frame of a compressed file."""
    with mrcz.open(path) as reader:
        at = int(reader.index.offsets[number]) + 30
    data = bytearray(path.read_bytes())
    data[at] ^= 255
    path.write_bytes(data)


@pytest.mark.parametrize("kind", ["stack", "volume", "volume stack"])
def test_statistics_and_mz_are_those_of_what_was_saved(tmp_path, rng, kind):
    frames = rng.poisson(5.0, (6, 20, 30)).astype("u2")
    frames[3, 4, 5] = 999  # the maximum is lost with its frame
    path, new = tmp_path / "a.mrcz", tmp_path / "b.mrcz"
    mrcz.write(path, frames, kind=kind, pixel_size=1.5, **({"mz": 3} if kind == "volume stack" else {}))
    with mrcz.open(path) as reader:
        assert reader.header["dmax"] == 999
        per_frame = reader.index.stats.copy()
    hurt(path, 3)
    found = recover(path, new)
    left = np.delete(frames, 3, axis=0)
    assert found.numbers == (0, 1, 2, 4, 5)
    with mrcz.open(new) as reader:
        header = reader.header
        assert np.array_equal(reader.read(), left)
        assert reader.kind == kind and reader.pixel_size == pytest.approx((1.5, 1.5, 1.5), rel=1e-6)
        assert header["nz"] == 5 and header.mz == {"stack": 1, "volume": 5, "volume stack": 3}[kind]
        assert (header["dmin"], header["dmax"]) == (left.min(), left.max())
        assert header["dmean"] == pytest.approx(left.mean(), rel=1e-6)
        assert header["rms"] == pytest.approx(left.std(), rel=1e-6)
        assert np.array_equal(reader.index.stats, np.delete(per_frame, 3, axis=0))
    assert mrcz.verify(new).ok


def test_nothing_lost_keeps_the_header_as_it_was(tmp_path, rng):
    frames = rng.poisson(5.0, (6, 20, 30)).astype("u2")
    path, new = tmp_path / "a.mrcz", tmp_path / "b.mrcz"
    mrcz.write(path, frames, kind="volume", pixel_size=1.5)
    assert recover(path, new).ok
    assert new.read_bytes()[:1024] == path.read_bytes()[:1024]


def test_a_url(tmp_path, rng):
    frames = rng.poisson(5.0, (6, 20, 30)).astype("u2")
    mrcz.write(tmp_path / "a.mrcz", frames)
    hurt(tmp_path / "a.mrcz", 1)
    found = recover((tmp_path / "a.mrcz").as_uri(), tmp_path / "b.mrcz")
    assert found.numbers == (0, 2, 3, 4, 5) and found.source == (tmp_path / "a.mrcz").as_uri()
    assert np.array_equal(mrcz.read(tmp_path / "b.mrcz"), np.delete(frames, 1, axis=0))
