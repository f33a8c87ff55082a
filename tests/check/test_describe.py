"""`describe`: what a person is told about a file, whatever the file is."""

import bz2
import gzip
import os

import numpy as np
import pytest

import mrcz
from mrcz.check.describe import describe


@pytest.fixture
def stack(rng):
    return rng.poisson(1.0, (3, 64, 64)).astype("u2")


def test_ratios_are_of_bytes_on_the_disk(tmp_path, stack):
    plain, packed = tmp_path / "m.mrc", tmp_path / "m.mrcz"
    mrcz.write(plain, stack, codec="none", sync=False)
    mrcz.write(packed, stack, sync=False)
    assert describe(plain).ratio is None and describe(plain).wrapper is None
    assert describe(packed).ratio == os.path.getsize(plain) / os.path.getsize(packed)
    for wrapper, pack in (("gzip", gzip.compress), ("bzip2", bz2.compress)):
        for source in (plain, packed):
            path = tmp_path / f"{source.name}.{wrapper}"
            path.write_bytes(pack(source.read_bytes()))
            found = describe(path)
            assert found.wrapper == wrapper == found.asdict()["wrapper"]
            assert found.file_bytes == os.path.getsize(path)
            assert found.ratio == os.path.getsize(plain) / os.path.getsize(path)
            with mrcz.open(path) as reader:
                assert reader.wrapper == wrapper and reader.file_nbytes == os.path.getsize(source)


def test_a_url(tmp_path, stack):
    mrcz.write(tmp_path / "m.mrcz", stack, sync=False)
    found = describe((tmp_path / "m.mrcz").as_uri())
    assert found.file_bytes == os.path.getsize(tmp_path / "m.mrcz") and found.shape == (3, 64, 64)
    assert mrcz.verify((tmp_path / "m.mrcz").as_uri()).ok


def test_damaged_metadata_are_told_with_the_rest(tmp_path, stack):
    from malformed.footers import join, split, with_metadata

    path = tmp_path / "m.mrcz"
    mrcz.write(path, stack, sync=False)
    path.write_bytes(join(with_metadata(split(path.read_bytes()), b"\x05")))
    found = describe(path)
    assert found.shape == (3, 64, 64) and found.metadata == ()
    assert any("expected a map" in note for note in found.notes)
    with pytest.raises(mrcz.FormatError, match="expected a map"):
        describe(path, strict=True)
    assert not np.isnan(found.entropy_bits)
