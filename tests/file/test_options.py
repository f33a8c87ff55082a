"""Frozen values of what a caller may say."""

import copy
import dataclasses
import pickle

import numpy as np
import pytest

import mrcz


@pytest.fixture
def path(tmp_path):
    mrcz.write(tmp_path / "a.mrcz", np.arange(24, dtype="u1").reshape(2, 3, 4))
    return tmp_path / "a.mrcz"


def test_options_are_a_value(path):
    options = mrcz.ReadOptions(permissive=True, n_threads=2, signed_bytes=True)
    assert options == mrcz.ReadOptions(permissive=True, n_threads=2, signed_bytes=True)
    assert options == pickle.loads(pickle.dumps(options)) == copy.deepcopy(options)
    assert dataclasses.replace(options, n_threads=3).permissive
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.n_threads = 3
    with mrcz.open(path, options=options) as reader:
        assert reader.options is options and reader.n_threads == 2
        again = pickle.loads(pickle.dumps(reader))
    with again:
        assert again.options == options and np.array_equal(again.read(), mrcz.read(path))


def test_options_are_the_keywords(path):
    words = {"permissive": True, "signed_bytes": False, "n_threads": 1, "verify": False, "storage_options": {"a": 1}}
    foreign = {"dataset": None, "fraction": None, "upsampling": 1}  # of other formats: refused by an MRC file
    assert mrcz.ReadOptions(**words).asdict() == words | foreign | {"raw": False}
    with mrcz.open(path, **words) as reader:
        assert reader.options == mrcz.ReadOptions(**words)


def test_options_or_keywords(path):
    with pytest.raises(TypeError, match="permissive, verify: say it in options= or as a keyword"):
        mrcz.open(path, permissive=True, verify=False, options=mrcz.ReadOptions())
    with pytest.raises(TypeError, match="options is dict, expected mrcz"):
        mrcz.read(path, options={"permissive": True})


def test_verify_is_obeyed(tmp_path):
    """A checksum that does not match: an error, unless the caller does not want to know."""
    path = tmp_path / "a.mrcz"
    frames = np.random.default_rng(0).integers(0, 60000, (2, 32, 32)).astype("u2")
    mrcz.write(path, frames, codec="lz4", checksum=False)
    with mrcz.open(path) as reader:
        data = bytearray(path.read_bytes())
        # Incompressible pixels are stored as they are: another value decodes as well.
        data[int(reader.index.offsets[0] + reader.index.sizes[0]) - 40] ^= 1
    path.write_bytes(data)
    with pytest.raises(mrcz.ChunkError, match="checksum"):
        mrcz.read(path, frames=0)
    assert (mrcz.read(path, frames=0, verify=False) != frames[0]).sum() == 1
