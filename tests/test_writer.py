"""Writing: which arrays become which files, choices on request, errors that say what would help."""

import numpy as np
import pytest

import mrcz

mrcfile = pytest.importorskip("mrcfile")


@pytest.mark.parametrize("suffix", (".mrc", ".mrcz"))
def test_volume_stacks_from_four_axes(tmp_path, rng, suffix):
    volumes = rng.normal(size=(2, 3, 4, 5)).astype(np.float32)
    path = tmp_path / f"v{suffix}"
    mrcz.write(path, volumes, pixel_size=(1, 2, 3))
    with mrcz.open(path) as reader:
        assert reader.kind == "volume stack" and reader.is_volume_stack()
        assert reader.shape == (6, 4, 5) and reader.header.mz == 3
        assert reader.pixel_size == (1, 2, 3)
        assert np.array_equal(reader.data, volumes)
        assert np.array_equal(reader[4], volumes[1, 1])
    if suffix == ".mrc":
        assert mrcfile.validate(path)
        with mrcfile.open(path) as theirs:
            assert theirs.is_volume_stack() and np.array_equal(theirs.data, volumes)


def test_volume_stacks_section_by_section(tmp_path, rng):
    volumes = rng.normal(size=(2, 3, 4, 5)).astype(np.float32)
    path = tmp_path / "v.mrcz"
    with mrcz.open(path, "w", kind="volume stack", mz=3) as writer:
        for section in volumes.reshape(6, 4, 5):
            writer.append(section)
            writer.flush()  # sections of an incomplete volume are a stack until the rest has come
            with mrcz.open(path) as reader:
                assert len(reader) == len(writer)
                assert reader.is_volume_stack() == (len(reader) % 3 == 0)
    assert np.array_equal(mrcz.open(path).data, volumes)
    path = tmp_path / "w.mrc"
    with pytest.raises(ValueError, match="whole volumes"), mrcz.open(path, "w", kind="volume stack", mz=3) as writer:
        writer.extend(volumes[0, :2])
    assert not path.exists()
