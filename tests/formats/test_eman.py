"""EMAN2's stacks in HDF5, made by h5py as its wiki and its page on e2compress describe them: no real one is free."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

import mrcz

FLOATS = np.random.default_rng(3).normal(0, 1, (4, 8, 6)).astype("<f4")


def make(path, images, attributes=None, **words):
    """What EMAN2 2.99 writes: groups by number, with the data set image and attributes EMAN.…"""
    with h5py.File(path, "w") as file:
        top = file.create_group("MDF/images")
        top.attrs["imageid_max"] = np.int32(len(images) - 1)
        for k, image in enumerate(images):
            if image is None:
                continue
            group = top.create_group(str(k))
            group.create_dataset("image", data=image, **words)
            said = {
                "nx": image.shape[-1],
                "ny": image.shape[-2],
                "nz": 1,
                "apix_x": 1.25,
                "apix_y": 1.25,
                "apix_z": 1.25,
            }
            for name, value in (said | (attributes[k] if attributes else {})).items():
                group.attrs[f"EMAN.{name}"] = np.float32(value) if isinstance(value, float) else value
    return path


def reduced(image, bits):
    """An image of so many bits, and its attributes, by the formula of the page on e2compress."""
    low, high = np.float32(image.min()), np.float32(image.max())
    whole = np.rint((image - low) / (high - low) * (2**bits - 1)).astype("u1" if bits <= 8 else "<u2")
    said = {"stored_renderbits": bits, "stored_rendermin": float(low), "stored_rendermax": float(high)}
    return whole, said | {"stored_truncated": 0}


def test_floats_are_as_they_are_stored(tmp_path):
    for words in ({}, {"chunks": (8, 6), "compression": "gzip"}):
        with mrcz.open(make(tmp_path / "a.hdf", FLOATS, **words)) as reader:
            assert (reader.format, reader.original.layout, reader.shape, reader.dtype) == (
                "hdf5",
                "eman",
                (4, 8, 6),
                np.dtype("<f4"),
            )
            np.testing.assert_array_equal(reader.read(), FLOATS)
            assert reader.pixel_size == (1.25, 1.25, 0)
            assert reader.metadata["pixel_size"] == [1.25, 1.25]
            assert reader.metadata["original"]["eman"]["image"]["nx"] == 6
            assert reader.frame_metadata[3]["original"]["eman"]["ny"] == 8


@pytest.mark.parametrize("bits", [2, 3, 5, 8, 9, 12, 16])
def test_reduced_bits_become_floats_again(tmp_path, bits):
    images, said = zip(*(reduced(image, bits) for image in FLOATS), strict=True)
    make(tmp_path / "a.hdf", images, said, chunks=(8, 6), compression="gzip", shuffle=True)
    with mrcz.open(tmp_path / "a.hdf") as reader:
        assert reader.dtype == np.dtype("<f4")
        got = reader.read()
        for k in range(4):
            low, high = np.float32(said[k]["stored_rendermin"]), np.float32(said[k]["stored_rendermax"])
            # In float32 and in this order, as EMAN2 computes it.
            expected = images[k].astype("f4") / np.float32(2**bits - 1) * (high - low) + low
            np.testing.assert_array_equal(got[k], expected)
            assert abs(got[k] - FLOATS[k]).max() <= (high - low) / (2**bits - 1) * 0.51
        np.testing.assert_array_equal(reader[2, 3:6, 1:5], got[2, 3:6, 1:5])
        scales = [[bits, one["stored_rendermin"], one["stored_rendermax"]] for one in said]
        assert reader.metadata["original"]["eman"]["scales"] == scales
        assert [list(scale) for scale in reader.original.scales] == scales
    with mrcz.open(tmp_path / "a.hdf", dataset="integers") as reader:
        assert reader.dtype == images[0].dtype
        np.testing.assert_array_equal(reader.read(), np.array(images))


def test_images_of_both_kinds_are_floats(tmp_path):
    whole, said = reduced(FLOATS[1], 8)
    make(tmp_path / "a.hdf", [FLOATS[0], whole], [{}, said])
    with mrcz.open(tmp_path / "a.hdf") as reader:
        np.testing.assert_array_equal(reader[0], FLOATS[0])
        assert abs(reader[1] - FLOATS[1]).max() < 0.02
    with pytest.raises(mrcz.FormatError, match="images are of several types"):
        mrcz.open(tmp_path / "a.hdf", dataset="integers")


def test_a_volume_and_images_of_three_axes(tmp_path):
    with mrcz.open(make(tmp_path / "a.hdf", [FLOATS])) as reader:
        assert (reader.kind, reader.shape, reader.pixel_size) == ("volume", (4, 8, 6), (1.25, 1.25, 1.25))
        np.testing.assert_array_equal(reader.read(), FLOATS)
    with mrcz.open(make(tmp_path / "a.hdf", FLOATS[:, None])) as reader:
        assert (reader.kind, reader.shape) == ("stack", (4, 8, 6))
        np.testing.assert_array_equal(reader.read(), FLOATS)
    with pytest.raises(mrcz.FormatError, match="2 volumes"):
        mrcz.open(make(tmp_path / "a.hdf", [FLOATS, FLOATS]))


def test_voltage_and_cs(tmp_path):
    make(tmp_path / "a.hdf", FLOATS[:1], [{"microscope_voltage": 300.0, "microscope_cs": 2.5, "ptcl_repr": 1}])
    with mrcz.open(tmp_path / "a.hdf") as reader:
        assert (reader.metadata["voltage"], reader.metadata["cs"], reader.kind) == (300, 2.5, "image")


@pytest.mark.parametrize(
    ("images", "said", "words"),
    [
        ([FLOATS[0], FLOATS[1, :-1]], None, "image 0 has the shape .8, 6., image 1 has .7, 6."),
        ([FLOATS[0].astype("u1")], [{"stored_renderbits": 8}], "does not say of which values"),
        ([FLOATS[0]], [reduced(FLOATS[0], 8)[1]], "reduced bits and is of float32"),
        ([FLOATS[0].astype("u2")], [reduced(FLOATS[0], 8)[1] | {"stored_renderbits": 99}], "99 bits"),
        ([FLOATS[0].astype("u2")], [reduced(FLOATS[0], 8)[1] | {"stored_rendermax": float("nan")}], "cannot be"),
        ([FLOATS[0], None, FLOATS[2]], None, "1 of 3 images are not there, the first of them /MDF/images/1"),
        ([], None, "no images"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path, images, said, words):
    with pytest.raises(mrcz.FormatError, match=words):
        mrcz.open(make(tmp_path / "a.hdf", images, said))


def test_a_lost_image_is_left_out_where_that_is_asked_for(tmp_path):
    make(tmp_path / "a.hdf", [FLOATS[0], None, FLOATS[2]])
    with (
        pytest.warns(mrcz.FormatWarning, match="1 of 3 images"),
        mrcz.open(tmp_path / "a.hdf", permissive=True) as reader,
    ):
        np.testing.assert_array_equal(reader.read(), FLOATS[[0, 2]])


def test_a_path_opens_one_image_as_it_is_stored(tmp_path):
    whole, said = reduced(FLOATS[0], 5)
    make(tmp_path / "a.hdf", [whole], [said])
    with mrcz.open(tmp_path / "a.hdf", dataset="/MDF/images/0/image") as reader:
        np.testing.assert_array_equal(reader[0], whole)


def test_more_images_than_are_kept_open(tmp_path, monkeypatch):
    monkeypatch.setattr("mrcz.formats._eman._OPEN", 7)
    images = np.arange(100 * 6, dtype="<u2").reshape(100, 3, 2)
    with mrcz.open(make(tmp_path / "a.hdf", images)) as reader:
        np.testing.assert_array_equal(reader.read(), images)
        np.testing.assert_array_equal(reader.sum(), images.sum(0))
