"""Float movies of other formats as counts: the floats come out to the bit, and what is refused says why."""

from __future__ import annotations

import json
import os

import h5py
import numpy as np
import pytest
import tifffile
from made_dm import Maker

import mrcz
from mrcz.cli import main

SHAPE = (10, 60, 70)


@pytest.fixture
def movie(rng):
    """Counts × gain, a defect and a NaN; and its gain."""
    gain = (1 + 0.05 * rng.standard_normal(SHAPE[1:])).astype("f4")
    floats = (rng.poisson(1.0, SHAPE).astype("f4") * gain).astype("f4")
    floats[:, 5, 7] = (floats[:, 5, 6] + floats[:, 5, 8]) / 2
    floats[3, 4, 5] = np.nan
    return floats, gain


def bits(array):
    return np.ascontiguousarray(array, "f4").view("u4")


def eman(path, images, ranges, n_bits=8):
    """What EMAN2's e2compress writes: integers, and the range they stand for."""
    with h5py.File(path, "w") as file:
        for k, (image, (low, high)) in enumerate(zip(images, ranges, strict=True)):
            group = file.create_group(f"MDF/images/{k}")
            group.create_dataset("image", data=image)
            said = {"nx": image.shape[-1], "ny": image.shape[-2], "nz": 1, "stored_renderbits": n_bits}
            said |= {"stored_rendermin": np.float64(low), "stored_rendermax": np.float64(high)}
            for name, value in said.items():
                group.attrs[f"EMAN.{name}"] = value
    return path


def dm(path, floats):
    maker = Maker()
    path.write_bytes(maker.file(maker.image(floats)))


WRITERS = {
    "npy": lambda path, floats: np.save(path, floats),
    "big-endian.npy": lambda path, floats: np.save(path, floats.astype(">f4")),
    "tif": lambda path, floats: tifffile.imwrite(path, floats, photometric="minisblack", compression="lzw"),
    "dm4": dm,
}


@pytest.mark.parametrize("store", [False, True])
@pytest.mark.parametrize("suffix", WRITERS)
def test_floats_of_other_formats(tmp_path, movie, suffix, store):
    floats, gain = movie
    source, target = tmp_path / f"a.{suffix}", tmp_path / "a.mrcz"
    WRITERS[suffix](source, floats)
    how = {"gain_store": tmp_path / "gains"} if store else {}
    made = mrcz.compress(source, target, recover_integers=True, gain=None if store else gain, **how)
    assert made.checked and made.integers is not None and made.integers_reason is None
    expected = mrcz.read(source)
    assert np.array_equal(bits(mrcz.read(target)), bits(expected))
    with mrcz.open(target, raw=True) as reader:
        assert reader.dtype == np.uint8
        assert reader.read().max() < 16
    with mrcz.open(source) as there, mrcz.open(target) as here:
        assert {k: v for k, v in here.metadata.items() if k in there.metadata} == there.metadata
        assert np.array_equal(bits(here[2, 3:9, 4:]), bits(expected[2, 3:9, 4:]))
    plain = mrcz.compress(source, tmp_path / "floats.mrcz")
    assert plain.destination_bytes > made.destination_bytes * (4 if store else 1.4)  # ten small frames, with their gain
    mrcz.decompress(target, tmp_path / "a.mrc")
    assert np.array_equal(bits(mrcz.read(tmp_path / "a.mrc")), bits(expected))
    again = mrcz.compress(target, tmp_path / "again.mrcz")
    assert again.integers is not None and np.array_equal(bits(mrcz.read(tmp_path / "again.mrcz")), bits(expected))


RANGES = {
    "one from 0": [(0.0, 37.12345)] * SHAPE[0],
    "one": [(-1.5, 7)] * SHAPE[0],
    "each its own": [(-3.7 * k, 0.1 + 11.3 * k) for k in range(SHAPE[0])],
    "wide and narrow": [(-3e38, 3e38), (1e6, 1e6 + 0.5), (5, -5), (-1e-42, 1e-42), *[(0, 0)] * (SHAPE[0] - 4)],
}


@pytest.mark.parametrize("ranges", RANGES)
@pytest.mark.parametrize("n_bits", [4, 8, 10, 16])
def test_reduced_bits_of_eman_are_recovered_from_their_attributes(tmp_path, rng, n_bits, ranges, capsys):
    """With defects none: every float is what the attributes make of an integer."""
    top = 2**n_bits - 1
    images = rng.integers(0, top + 1, SHAPE).astype("u1" if n_bits <= 8 else "u2")
    source = eman(tmp_path / "a.hdf", images, RANGES[ranges], n_bits)
    with mrcz.open(source) as reader:
        floats = reader.read()
        assert reader.dtype == np.float32
    assert main(["compress", "--recover-integers", "--json", str(source), "-o", str(tmp_path)]) == 0
    said = json.loads(capsys.readouterr().out.splitlines()[0])
    assert said["status"] == "done" and said["integers"] == {"exceptions": 0, "ranges": True}
    assert "stored as the integers and the ranges that it tells" in said["notes"]
    target = said["destination"]
    assert np.array_equal(bits(mrcz.read(target)), bits(floats))
    with mrcz.open(target, raw=True) as reader:
        assert np.array_equal(reader.read(), images)
    with mrcz.open(target) as reader:
        assert np.array_equal(bits(reader[[7, 2, 1], 3:50, 11:]), bits(floats[[7, 2, 1], 3:50, 11:]))
        assert "a range of each frame" in mrcz.describe(target).integers
    assert mrcz.verify(target).ok
    again = mrcz.compress(target, tmp_path / "again.mrcz")
    assert again.integers == said["integers"] and np.array_equal(bits(mrcz.read(tmp_path / "again.mrcz")), bits(floats))
    mrcz.decompress(target, tmp_path / "a.mrc")
    assert np.array_equal(bits(mrcz.read(tmp_path / "a.mrc")), bits(floats))


def test_a_volume_of_reduced_bits(tmp_path, rng):
    """One image of many sections has one range."""
    volume = rng.integers(0, 256, SHAPE).astype("u1")
    source = eman(tmp_path / "a.hdf", [volume], [(-2.5, 9.25)])
    made = mrcz.compress(source, tmp_path / "a.mrcz", recover_integers=True)
    assert made.integers["ranges"]
    with mrcz.open(source) as there, mrcz.open(tmp_path / "a.mrcz") as here:
        assert there.kind == here.kind == "volume"
        assert np.array_equal(bits(here.read()), bits(there.read()))


def test_frames_that_are_left_keep_their_ranges(tmp_path, rng):
    images = rng.integers(0, 256, SHAPE).astype("u1")
    source = eman(tmp_path / "a.hdf", images, RANGES["each its own"])
    mrcz.compress(source, tmp_path / "a.mrcz", recover_integers=True)
    with mrcz.open(tmp_path / "a.mrcz") as reader:
        floats = reader.read()
        place, size = reader.index.offsets[3], reader.index.sizes[3]
    data = bytearray((tmp_path / "a.mrcz").read_bytes())
    data[place : place + size] = b"\xff" * size
    (tmp_path / "a.mrcz").write_bytes(data)
    mrcz.recover(tmp_path / "a.mrcz", tmp_path / "b.mrcz")
    left = [0, 1, 2, *range(4, SHAPE[0])]
    assert np.array_equal(bits(mrcz.read(tmp_path / "b.mrcz")), bits(floats[left]))


REFUSED = {
    "a range beyond float32": (lambda path, images: eman(path, images, [(0, 1e300)] * 10), "no float32"),
    "32 bits": (lambda path, images: eman(path, images.astype("u4"), [(0, 7)] * 10), "32 bits"),
    "20 bits": (lambda path, images: eman(path, images.astype("u4") * 3000, [(0, 7)] * 10, 20), "20 bits"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_eman_files_that_stay_floats(tmp_path, rng, name):
    write, words = REFUSED[name]
    source = write(tmp_path / "a.hdf", rng.integers(0, 256, SHAPE).astype("u1"))
    made = mrcz.compress(source, tmp_path / "a.mrcz", recover_integers=True)
    assert made.integers is None and words in made.integers_reason
    assert np.array_equal(bits(mrcz.read(tmp_path / "a.mrcz")), bits(mrcz.read(source)))
    if name.startswith("a range"):  # and the integers are to be had
        mrcz.compress(source, tmp_path / "b.mrcz", dataset="integers")
        assert mrcz.read(tmp_path / "b.mrcz").dtype == np.uint8


def test_what_is_no_float32(tmp_path, rng):
    whole = rng.poisson(1.0, SHAPE)
    np.save(tmp_path / "i.npy", whole.astype("u1"))
    made = mrcz.compress(tmp_path / "i.npy", tmp_path / "i.mrcz", recover_integers=True)
    assert "integers already" in made.integers_reason
    np.save(tmp_path / "d.npy", whole * 1.0)
    made = mrcz.compress(tmp_path / "d.npy", tmp_path / "d.mrcz", recover_integers=True, dtype="f4")
    assert made.integers is None and "float64, and become float32" in made.integers_reason
    np.save(tmp_path / "f.npy", rng.random(SHAPE, np.float32))
    made = mrcz.compress(tmp_path / "f.npy", tmp_path / "f.mrcz", recover_integers=True)
    assert made.integers is None and "no multiples of one" in made.integers_reason
    assert any("stored as it is" in note for note in made.notes)
    made = mrcz.compress(tmp_path / "f.npy", tmp_path / "g.mrcz")
    assert made.integers is None and made.integers_reason is None


def test_counts_that_do_not_multiply_out_are_not_kept(tmp_path, movie, monkeypatch):
    from mrcz.convert.integers import Counting

    np.save(tmp_path / "a.npy", movie[0])
    monkeypatch.setattr(Counting, "added_to", lambda self, metadata: {**(metadata or {}), **_spoilt(self)})
    with pytest.raises(mrcz.MrczError, match="differs"):
        mrcz.compress(tmp_path / "a.npy", tmp_path / "a.mrcz", recover_integers=True)
    assert os.listdir(tmp_path) == ["a.npy"]


def _spoilt(counting):
    """One exception of another value."""
    from mrcz.container.integers import COLUMNS

    columns = dict(counting.metadata)
    values = bytearray(columns["values"])
    values[0] ^= 1
    return {COLUMNS: columns | {"values": bytes(values)}}
