"""Defect lists of other programs, and references from every kind of file."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import mrcz
from mrcz.correct import Orientation, orient
from mrcz.correct.defects import (
    format_relion,
    format_serialem,
    is_serialem,
    parse_defects,
    parse_relion,
    parse_serialem,
)
from mrcz.errors import FormatError
from mrcz.session.references import load_gain, load_image, load_mask, match_shape, save_image, save_mask

MASKS = arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.booleans())


@settings(max_examples=150, deadline=None)
@given(MASKS)
def test_masks_go_through_text_and_back(mask):
    assert np.array_equal(parse_relion(format_relion(mask), mask.shape), mask)
    for flip in (True, False):
        text = format_serialem(mask, flip_y=flip)
        assert is_serialem(text) and max(map(len, text.splitlines())) < 512
        assert np.array_equal(parse_serialem(text, mask.shape, flip_y=flip), mask)
    assert np.array_equal(parse_defects(format_relion(mask), mask.shape), mask)
    assert np.array_equal(parse_defects(format_serialem(mask), mask.shape), mask)


def test_relion_rectangles_are_columns_rows_width_height():
    mask = parse_relion("# defects\n\n1 2 3 1\n-1 -1 2 2\n9 9 5 5\n4 4 0 3\n", (10, 12))
    expected = np.zeros((10, 12), bool)
    expected[2, 1:4] = expected[0, 0] = expected[9, 9:] = True
    assert np.array_equal(mask, expected)
    block = np.zeros((6, 6), bool)
    block[1:5, 2:4] = True
    assert format_relion(block) == "2 1 2 4\n"
    assert np.array_equal(parse_relion("2 1 2 4\n", (6, 6), flip_y=True), block[::-1])


SERIALEM = """\
CameraSizeX 12
CameraSizeY 10
RotationAndFlip 3
WasScaled 0
K2Type 1
SomethingNew 1 2 3
PartialBadColumn 3 2 1 4
PartialBadRow 8 1 6 9
BadPixels 0 0 11 9
BadColumns 5
BadRows 7
"""


def serialem_map():
    out = np.zeros((10, 12), bool)
    out[1:5, 3:5] = out[8, 6:10] = out[0, 0] = out[9, 11] = out[:, 5] = out[7] = True
    return out


def test_serialem_list_counts_rows_from_the_top():
    assert np.array_equal(parse_serialem(SERIALEM, (10, 12), flip_y=False), serialem_map())
    assert np.array_equal(parse_serialem(SERIALEM, (10, 12)), serialem_map()[::-1])


def test_serialem_list_scales_to_super_resolution_and_binning():
    double = np.kron(serialem_map(), np.ones((2, 2), bool)).astype(bool)
    assert np.array_equal(parse_serialem(SERIALEM, (20, 24), flip_y=False), double)
    half = serialem_map().reshape(5, 2, 6, 2).any((1, 3))
    assert np.array_equal(parse_serialem(SERIALEM, (5, 6), flip_y=False), half)
    scaled = "CameraSizeX 8\nCameraSizeY 8\nWasScaled 1\nBadPixels 2 4\n"
    assert np.argwhere(parse_serialem(scaled, (8, 8), flip_y=False)).tolist() == [[4, 2], [4, 3], [5, 2], [5, 3]]


def test_serialem_usable_area_marks_the_rest():
    mask = parse_serialem("CameraSizeX 6\nCameraSizeY 5\nUsableArea 1 1 3 4\n", (5, 6), flip_y=False)
    assert not mask[1:4, 1:5].any() and mask.sum() == 30 - 12
    assert not parse_serialem("UsableArea 0 0 0 0\n", (5, 6)).any()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1 2 3\n", "x y w h"),
        ("hello world\n", "SerialEM"),
        ("1 2 3 4.5\n", "line 1"),
        ("CameraSizeX 4\nCameraSizeY 4\nBadPixels 1\n", "line 3: BadPixels"),
        ("CameraSizeX 4\nCameraSizeY 4\nBadPixels 1 2 3\n", "line 3"),
        ("CameraSizeX 4\nCameraSizeY 4\nBadPixels 4 0\n", "camera of 4"),
        ("CameraSizeX 4\nCameraSizeY 4\nBadColumns -1\n", "camera of 4"),
        ("CameraSizeX 5\nCameraSizeY 4\n", "frames of 4"),
        ("CameraSizeX 0\nCameraSizeY 4\n", "camera of 0"),
        ("CameraSizeX 99999999\nCameraSizeY 99999999\n", "camera of"),
        ("BadColumns x\n", "BadColumns"),
        ("PartialBadRow 1 1 1\n", "PartialBadRow"),
    ],
)
def test_broken_lists_say_where(text, words):
    with pytest.raises(FormatError, match=words):
        parse_defects(text, (4, 4))


@pytest.mark.parametrize("name", ["m.mrc", "m.mrcz", "m.npy", "m.txt", "defects.txt", "m.tif"])
def test_masks_go_through_files(tmp_path, rng, name):
    mask = rng.random((13, 17)) < 0.2
    for flip in (None, True):
        save_mask(tmp_path / name, mask, flip_y=flip, overwrite=True)
        assert np.array_equal(load_mask(tmp_path / name, mask.shape, flip_y=flip), mask)
    assert sorted(p.name for p in tmp_path.iterdir()) == [name]
    if name == "m.mrc":
        assert mrcz.read(tmp_path / name).dtype.itemsize == 1
    if name != "m.txt":
        # A list of x y w h does not say how large its frames are; everything else does.
        with pytest.raises(FormatError, match=name):
            load_mask(tmp_path / name, (14, 18))


def test_style_of_text(tmp_path):
    mask = np.eye(5, dtype=bool)
    save_mask(tmp_path / "a.txt", mask, style="serialem")
    assert "CameraSizeX 5" in (tmp_path / "a.txt").read_text()
    with pytest.raises(ValueError, match="style"):
        save_mask(tmp_path / "a.txt", mask, style="frealign")


@pytest.mark.parametrize("name", ["g.mrc", "g.mrcz", "g.npy", "g.tif", "g.gain"])
def test_gain_from_every_kind_of_file(tmp_path, rng, name):
    gain = rng.uniform(0.5, 2, (8, 12)).astype(np.float32)
    gain[3, 4] = 0
    path = tmp_path / name
    if name.endswith("gain"):
        import tifffile

        tifffile.imwrite(path, gain)  # of a Falcon 4: it multiplies, as RELION takes it
    else:
        save_image(path, gain)
    expected = gain
    np.testing.assert_allclose(load_gain(path), expected, rtol=1e-6)
    assert load_gain(path)[3, 4] == 0
    np.testing.assert_allclose(load_gain(path, flip_y=True), expected[::-1], rtol=1e-6)
    turned = load_gain(path, orientation=Orientation(1, 0))
    np.testing.assert_allclose(turned, orient(expected, Orientation(1, 0)), rtol=1e-6)
    np.testing.assert_allclose(load_gain(path, shape=(16, 24)), np.kron(expected, np.ones((2, 2))), rtol=1e-6)
    small = load_gain(path, shape=(4, 6))
    assert small.shape == (4, 6) and small[1, 2] == 0


def test_a_gain_stack_is_averaged_and_one_that_does_not_fit_is_refused(tmp_path):
    np.save(tmp_path / "g.npy", np.stack([np.ones((4, 4)), np.full((4, 4), 3.0)]))
    assert (load_image(tmp_path / "g.npy") == 2).all()
    with pytest.raises(ValueError, match=r"g\.npy.*frames of"):
        load_gain(tmp_path / "g.npy", shape=(5, 4))
    assert match_shape(np.ones((4, 4)), (16, 16)).shape == (16, 16)
    np.save(tmp_path / "c.npy", np.ones((4, 4), complex))
    with pytest.raises(FormatError, match="real numbers"):
        load_image(tmp_path / "c.npy")
    np.save(tmp_path / "one.npy", np.ones(4))
    with pytest.raises(FormatError, match="image"):
        load_image(tmp_path / "one.npy")
    (tmp_path / "junk.npy").write_bytes(b"no")
    with pytest.raises(FormatError, match=r"junk\.npy"):
        load_image(tmp_path / "junk.npy")


def test_a_packed_tiff_comes_with_its_rows_as_stored(tmp_path, rng):
    tifffile = pytest.importorskip("tifffile")
    gain = rng.uniform(0.5, 2, (8, 12)).astype(np.float32)
    tifffile.imwrite(tmp_path / "g.tif", gain, compression="zstd", predictor=3, tile=(16, 16))
    assert np.array_equal(load_image(tmp_path / "g.tif"), gain)
    assert np.array_equal(load_gain(tmp_path / "g.tif", flip_y=True), mrcz.read(tmp_path / "g.tif")[0])
    tifffile.imwrite(tmp_path / "c.tif", np.zeros((8, 12, 3), np.uint8), photometric="rgb")
    with pytest.raises(FormatError, match=r"c\.tif: an image in colours"):
        load_image(tmp_path / "c.tif")


def test_junk_tiff(tmp_path):
    (tmp_path / "junk.gain").write_bytes(b"no TIFF at all")
    with pytest.raises(FormatError, match=r"junk\.gain"):
        load_gain(tmp_path / "junk.gain")


def test_gain_from_digital_micrograph(data_dir):
    image = load_image(data_dir / "rsciio-dm" / "test-10.dm4")
    assert image.ndim == 2 and image.size > 1


@pytest.mark.parametrize("name", ["g.png", "g.dm4", "g"])
def test_no_image_under_a_name_of_something_else(tmp_path, name):
    with pytest.raises(ValueError, match=r"\.npy"):
        save_image(tmp_path / name, np.ones((4, 4), np.float32))
    assert not list(tmp_path.iterdir())
