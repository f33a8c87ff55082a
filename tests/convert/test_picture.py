"""Pictures: the right way up, scaled by percentiles, averaged and cut; the same bytes every time."""

import io

import numpy as np
import pytest

import mrcz
from mrcz.convert.export import export
from mrcz.convert.picture import grey, shrink

Image = pytest.importorskip("PIL.Image")


def shown(path):
    with Image.open(path) as picture:
        return np.array(picture)


def test_the_lowest_row_is_row_0(tmp_path):
    frames = np.zeros((2, 20, 30), "u2")
    frames[:, :5, 20:] = 9  # below, on the right
    mrcz.write(tmp_path / "a.mrcz", frames)
    made = export(tmp_path / "a.mrcz", tmp_path / "a.png")
    picture = shown(tmp_path / "a.png")
    assert made.shape == picture.shape == (20, 30) and picture.dtype == np.uint8 and not made.checked
    assert (picture[15:, 20:] == 255).all() and picture.sum() == 255 * 50


def test_what_is_shown(tmp_path, rng):
    frames = rng.poisson(3, (6, 16, 16)).astype("u2")
    mrcz.write(tmp_path / "a.mrc", frames)
    for words, image in (
        ({}, frames.sum(0)),
        ({"frame": 2}, frames[2]),
        ({"frame": -1}, frames[5]),
        ({"frames": slice(1, 4)}, frames[1:4].sum(0)),
        ({"frames": [5, 0]}, frames[0].astype(int) + frames[5]),
    ):
        export(tmp_path / "a.mrc", tmp_path / "a.png", overwrite=True, percentiles=(0, 100), **words)
        low, high = image.min(), image.max()
        assert np.array_equal(shown(tmp_path / "a.png"), np.rint(255 * (image - low) / (high - low))[::-1]), words
    for words, said in (({"frame": 6}, "6"), ({"frame": 1, "frames": [2]}, "one of them"), ({"frames": [9]}, "9")):
        with pytest.raises(ValueError, match=said):
            export(tmp_path / "a.mrc", tmp_path / "a.png", overwrite=True, **words)


def test_percentiles(rng):
    image = rng.permutation(np.arange(10000.0)).reshape(100, 100)
    made = grey(image, (1, 99))
    assert 95 < (made == 0).sum() < 125 and 95 < (made == 255).sum() < 125
    image[0, 0] = 1e30  # a hot pixel changes next to nothing
    assert np.abs(grey(image, (1, 99)).astype(int) - made).mean() < 0.2
    for wrong in ((50, 50), (99, 1), (-1, 50), (0, 101), (float("nan"), 99)):
        with pytest.raises(ValueError, match="percentiles are"):
            grey(image, wrong)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3.0, 1.7e308, -1.7e308])
def test_pixels_of_any_value(value):
    image = np.array([[0.0, 1.0, 2.0, value]] * 4)
    made = grey(image, (0, 100))
    assert made.shape == (4, 4) and np.array_equal(made, made[:1].repeat(4, 0))
    assert made[0, 3] == (255 if value in (np.inf, 3.0, 1.7e308) else 0)
    assert (grey(np.full((3, 3), value)) == (255 if value == np.inf else 0)).all()


def test_bin_and_size():
    y, x = np.mgrid[:48, :64]
    image = 5 + np.cos(2 * np.pi * 3 * x / 64) + np.sin(2 * np.pi * 2 * y / 48)
    binned = shrink(image, 2)
    assert binned.shape == (24, 32) and np.allclose(binned, image.reshape(24, 2, 32, 2).mean((1, 3)))
    assert shrink(image[:, :63], 2).shape == (24, 31)
    cut = shrink(image, 1, 32)
    assert cut.shape == (24, 32) and np.allclose(cut, image[::2, ::2])  # waves below the new limit are as they were
    assert np.allclose(shrink(image, 1, 9).mean(), 5) and shrink(image, 1, 1).shape == (1, 1)
    assert shrink(image, 1, 64) is image
    fine = image + np.where((x + y) % 2, 4.0, -4.0)  # a wave that the smaller image cannot hold is gone
    assert np.allclose(shrink(fine, 1, 32), image[::2, ::2])
    for words in (
        {"bin": 0},
        {"bin": 49},
        {"size": 0},
        {"size": 65},
        {"bin": 2, "size": 33},
        {"size": 3.0},
        {"bin": True},
    ):
        with pytest.raises(ValueError, match=r"is .*, expected 1 to"):
            shrink(image, **words)


def test_nan_and_fourier(rng):
    image = rng.normal(size=(20, 20))
    image[3, 4] = np.nan
    assert np.isfinite(shrink(image, 1, 10)).all()
    assert np.isnan(shrink(np.full((20, 10), np.nan), 1, 10)).all()
    assert shrink(np.full((20, 10), np.nan), 1, 10).shape == (10, 5)


@pytest.mark.parametrize("suffix, kind", [(".png", "PNG"), (".jpg", "JPEG"), (".jpeg", "JPEG")])
def test_the_same_bytes_every_time(tmp_path, rng, suffix, kind):
    mrcz.write(tmp_path / "a.mrc", rng.normal(size=(3, 40, 50)).astype("f4"))
    made = []
    for name in ("one", "two"):
        export(tmp_path / "a.mrc", tmp_path / f"{name}{suffix}", size=25)
        made.append((tmp_path / f"{name}{suffix}").read_bytes())
    assert made[0] == made[1] and Image.open(io.BytesIO(made[0])).format == kind
    assert Image.open(io.BytesIO(made[0])).size == (25, 20)


def test_colours_and_complex(tmp_path, rng):
    colours = rng.integers(0, 255, (2, 6, 7, 3)).astype("u1")
    mrcz.write(tmp_path / "rgb.mrc", colours, mrc_mode=16)
    export(tmp_path / "rgb.mrc", tmp_path / "a.png", frame=1)
    assert np.array_equal(shown(tmp_path / "a.png"), colours[1, ::-1])
    with pytest.raises(ValueError, match="frames in colours are not added up"):
        export(tmp_path / "rgb.mrc", tmp_path / "b.png", frames=slice(0, 2))
    with pytest.raises(ValueError, match="colours are shown as they are"):
        export(tmp_path / "rgb.mrc", tmp_path / "b.png", size=3)
    assert np.array_equal(grey(np.array([[3 + 4j, 0]]), (0, 100)), [[255, 0]])


def test_overwriting(tmp_path, rng):
    mrcz.write(tmp_path / "a.mrc", rng.normal(size=(3, 8, 9)).astype("f4"))
    (tmp_path / "a.png").write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        export(tmp_path / "a.mrc", tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == b"mine"
