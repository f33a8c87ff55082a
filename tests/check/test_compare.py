"""Two files: the same, or what differs and where."""

import numpy as np
import pytest

import mrcz
from mrcz.check.compare import compare


@pytest.fixture
def movie(tmp_path, rng):
    frames = rng.poisson(2.0, (5, 16, 24)).astype("u1")
    mrcz.write(tmp_path / "a.mrc", frames, pixel_size=1.5)
    return frames


def test_the_same_in_another_form(tmp_path, movie):
    mrcz.compress(tmp_path / "a.mrc", tmp_path / "a.mrcz")
    told = []
    found = compare(tmp_path / "a.mrc", tmp_path / "a.mrcz", progress=lambda done, total: told.append((done, total)))
    assert found.ok and found.n_pixels == 0 and found.first is None and told[-1] == (movie.nbytes, movie.nbytes)
    assert compare((tmp_path / "a.mrc").as_uri(), (tmp_path / "a.mrcz").as_uri()).ok


def test_pixels_that_differ_are_counted_and_placed(tmp_path, movie):
    other = movie.copy()
    other[3, 4, 5] += 1
    other[4] += 1
    mrcz.write(tmp_path / "b.mrc", other, pixel_size=1.5)
    found = compare(tmp_path / "a.mrc", tmp_path / "b.mrc")
    assert not found.ok and found.n_pixels == 1 + 16 * 24 and found.first == (3, 4, 5)
    assert found.differences == (f"{found.n_pixels} of {movie.size} pixels differ, first at (z, y, x) = (3, 4, 5)",)


def test_bits_are_compared(tmp_path):
    a, b = np.zeros((1, 4, 4), "f4"), np.zeros((1, 4, 4), "f4")
    a[0, 0, 0] = b[0, 0, 0] = np.nan
    b[0, 1, 2] = -0.0
    mrcz.write(tmp_path / "a.mrc", a)
    mrcz.write(tmp_path / "b.mrc", b)
    found = compare(tmp_path / "a.mrc", tmp_path / "b.mrc")
    assert found.n_pixels == 1 and found.first == (0, 1, 2)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"pixel_size": 1.25}, "pixel size is"),
        ({"kind": "volume"}, "kind is"),
        ({"extended_header": ("CCP4", b"X,Y,Z".ljust(80))}, "extended header type is"),
    ],
)
def test_what_the_headers_say_differently(tmp_path, movie, change, text):
    mrcz.write(tmp_path / "b.mrc", movie, **{"pixel_size": 1.5, **change})
    found = compare(tmp_path / "a.mrc", tmp_path / "b.mrc")
    assert not found.ok and found.n_pixels == 0 and any(line.startswith(text) for line in found.differences)


def test_another_shape_or_type(tmp_path, movie):
    for other in (movie[:4], movie.astype("i2")):
        mrcz.write(tmp_path / "b.mrc", other, pixel_size=1.5, overwrite=True)
        found = compare(tmp_path / "a.mrc", tmp_path / "b.mrc")
        assert not found.ok and found.n_pixels == -1 and found.first is None


def test_bytes_are_read_as_asked(tmp_path, movie):
    mrcz.write(tmp_path / "s.mrc", movie.astype("i1"), pixel_size=1.5)
    assert compare(tmp_path / "a.mrc", tmp_path / "s.mrc").differences == ("pixels are uint8 and int8",)
    assert compare(tmp_path / "a.mrc", tmp_path / "s.mrc", signed_bytes=True).ok
