import pytest


@pytest.fixture
def session(tmp_path):
    for name in ["a.mrc", "b.mrcs", "sub/c.map", "sub/d.mrc.gz", "sub/notes.txt", "sub/.hidden.mrc", "old.mrcz"]:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    return tmp_path


@pytest.fixture
def mixed(tmp_path, rng):
    """A small session of everything: counts, floats of counts and of nothing, TIFF, what nobody knows, odd names."""
    import mrcfile
    import numpy as np

    import mrcz

    top = tmp_path / "source"
    for folder in ("s1/movies", "s2", "empty/deep"):
        (top / folder).mkdir(parents=True)
    counts = rng.poisson(1.0, (6, 48, 40))
    gain = (1 + 0.05 * rng.standard_normal((48, 40))).astype(np.float32)
    mrcfile.write(top / "s1/movies/counts.mrc", counts.astype(np.int8))
    mrcfile.write(top / "s1/movies/shorts.mrcs", counts.astype(np.int16) * 100)
    mrcfile.write(top / "s1/movies/floats.mrc", np.repeat(counts, 8, axis=0).astype(np.float32) * gain)
    mrcfile.write(top / "s2/noise.mrc", rng.standard_normal((2, 48, 40)).astype(np.float32))
    mrcz.write(top / "s2/packed.mrcz", counts.astype(np.uint8))
    mrcz.write(top / "s2/packed.mrc", counts.astype(np.uint8) + 1)
    (top / "s2/broken.mrc").write_bytes((top / "s2/noise.mrc").read_bytes()[:5000])
    (top / "s2/none.mrc").write_bytes(b"")
    (top / "s1/100% of é, b c.txt").write_text("notes")
    (top / "s1/.hidden").write_text("too")
    (top / "loose.log").write_text("log\n" * 100)
    (top / "link").symlink_to("s1/movies/counts.mrc")
    (top / "s1/movies/again.mrc").hardlink_to(top / "s1/movies/counts.mrc")
    return top
