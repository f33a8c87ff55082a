"""Digital Micrograph files as values: where the pixels are, which tags there are, and what is believed of neither."""

import struct
import tracemalloc

import numpy as np
import pytest
from made_dm import Maker

from mrcz.errors import FormatError
from mrcz.formats.dm import Image, StoredArray, read_images, text

VERSIONS = [(3, "<"), (4, "<"), (3, ">"), (4, ">")]


def written(tmp_path, raw):
    path = tmp_path / "made.dm4"
    path.write_bytes(raw)
    return path


@pytest.mark.parametrize(("version", "order"), VERSIONS)
def test_where_the_pixels_are(tmp_path, rng, version, order):
    make = Maker(version, order)
    pixels = rng.integers(0, 1000, (2, 3, 5)).astype("i2")
    path = written(tmp_path, make.file(make.image(pixels, data_type=1)))
    (image,) = read_images(path)
    raw = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    assert image.dimensions == [5, 3, 2] and image.shape == (2, 3, 5) and image.data_type == 1
    assert image.data == StoredArray(str(path), np.dtype(order + "i2"), 30, path.read_bytes().index(raw))
    assert image.data.nbytes == 60
    found = image.pixels()
    assert found.dtype == np.dtype(order + "i2")
    np.testing.assert_array_equal(found, pixels)  # the first row first, not turned
    np.testing.assert_array_equal(image.data.read(), pixels.ravel())


@pytest.mark.parametrize(("version", "order"), VERSIONS)
def test_tags_by_their_path(tmp_path, version, order):
    make = Maker(version, order)
    tags = make.group(
        "ImageTags",
        make.scalar("Voltage", 6, "f", 300.0),
        make.string("Mode", "Ω on"),
        make.group("", make.scalar("", 3, "i", -1), make.scalar("", 3, "i", -2)),
        make.value("Point", [15, 0, 2, 0, 3, 0, 6], struct.pack(order + "if", 7, 0.5)),
        make.value("Old", [18, 4], "Å2".encode("utf-16-le" if order == "<" else "utf-16-be")),
        make.value("Nothing", [], b""),
    )
    path = written(tmp_path, make.file(make.image(np.zeros((1, 1), "u1"), tags)))
    (image,) = read_images(path)
    found = {where[1:]: value for where, value in image.tags if where[0] == "ImageTags"}
    assert list(found) == [("Voltage",), ("Mode",), ("0", "0"), ("0", "1"), ("Point",), ("Old",), ("Nothing",)]
    assert found["Voltage",] == np.float32(300) and text(found["Mode",]) == "Ω on"
    assert (found["0", "0"], found["0", "1"]) == (-1, -2)
    assert found["Point",] == [7, 0.5] and found["Old",] == "Å2" and found["Nothing",] is None


def test_only_the_tags_asked_for(tmp_path):
    make = Maker()
    tags = make.group("ImageTags", make.scalar("a", 3, "i", 1), make.scalar("b", 3, "i", 2))
    path = written(tmp_path, make.file(make.image(np.zeros((1, 1), "u1"), tags)))
    asked = []
    (image,) = read_images(path, keep=lambda where: asked.append(where) or where[-1] == "b")
    assert image.tags == [(("ImageTags", "b"), 2)]
    assert asked == [("ImageTags", "a"), ("ImageTags", "b")]  # of the pixels and their shape nobody is asked


def test_images_in_the_order_of_the_file(tmp_path):
    make = Maker()
    first, second = np.ones((2, 2), "u1"), np.full((3, 1), 2, "i2")
    path = written(tmp_path, make.file(make.image(first), make.image(second), root=[make.scalar("x", 3, "i", 1)]))
    assert [image.pixels().tolist() for image in read_images(path)] == [first.tolist(), second.tolist()]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("data_type", "kind"), [(3, "c8"), (13, "c16")])
def test_complex_pixels(tmp_path, order, data_type, kind):
    """As structures of two floats, or as twice as many floats."""
    make, values = Maker(4, order), np.array([[1 + 2j, 3 - 4j]], kind)
    code, half = (6, "f4") if kind == "c8" else (7, "f8")
    raw = values.view(half).astype(order + half).tobytes()
    pairs = make.value("Data", [20, 15, 0, 2, 0, code, 0, code, 2], raw)
    floats = make.value("Data", [20, code, 4], raw)
    for data in (pairs, floats):
        path = written(tmp_path, make.file(make.image(values, data=data, data_type=data_type)))
        (image,) = read_images(path)
        found = image.pixels()
        assert found.dtype == np.dtype(kind).newbyteorder(order)
        np.testing.assert_array_equal(found, values)


def test_a_packed_transform_is_the_half_that_is_there(tmp_path):
    make, half = Maker(), np.arange(6, dtype="f4").view("c8").reshape(1, 3)
    data = make.value("Data", [20, 6, 6], half.tobytes())
    path = written(tmp_path, make.file(make.image(half, data=data, data_type=5, dims=[4, 1])))
    np.testing.assert_array_equal(read_images(path)[0].pixels(), half)


def test_large_arrays_are_mapped(tmp_path):
    make, n = Maker(), (16 << 20) + 1
    path = written(tmp_path, make.file(make.image(np.zeros((1, n), "u1"))))
    tracemalloc.start()
    try:
        pixels = read_images(path)[0].pixels()
        assert isinstance(pixels, np.memmap) and pixels.shape == (1, n)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    pixels[0, 0] = 7  # of this process alone
    assert read_images(path)[0].pixels()[0, 0] == 0


def test_text_of_what_is_no_text():
    assert text(3) == text(None) == text([1, 2]) == "" and text("Å") == "Å"


def test_text_is_read_as_codes_of_two_bytes_or_one(tmp_path):
    path = tmp_path / "text"
    path.write_bytes("Åb\0".encode("utf-16-be") + "Åb\0".encode("latin-1"))
    assert text(StoredArray(str(path), np.dtype(">u2"), 3, 0)) == "Åb"
    assert text(StoredArray(str(path), np.dtype("u1"), 3, 6)) == "Åb"
    assert text(StoredArray(str(path), np.dtype(">f4"), 1, 0)) == ""


def made(*more, **changes):
    make = Maker()
    return make.file(make.image(np.zeros((3, 4), "f4"), *more, **changes))


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "too short"),
        (struct.pack(">iqi", 5, 10, 1) + bytes(20), "its version is 5, expected 3 or 4"),
        (struct.pack(">iqi", 4, 10, 2) + bytes(20), "byte order 2, expected 0 or 1"),
        (made(dims=[1] * 17), "image 0 has more than 16 dimensions"),
        (made(data=Maker().scalar("Data", 6, "f", 1)), "image 0: Data is not an array"),
        (made(data=Maker().value("Data", [20, 6, 13], bytes(48))), r"an array of 13 x 4 bytes|longer than it says"),
        (made(Maker().group("ImageData", Maker().scalar("DataType", 3, "i", -1))), "DataType is .*-1.*whole number"),
        (made(Maker().group("ImageData", Maker().scalar("DataType", 6, "f", 1))), "DataType is .*whole number"),
    ],
)
def test_what_is_wrong_is_told_when_the_tags_are_read(tmp_path, raw, message):
    path = written(tmp_path, raw)
    with pytest.raises(FormatError, match=message) as caught:
        read_images(path)
    assert caught.value.path == str(path)


@pytest.mark.parametrize("dims", [[4, 4], [12], [4, 3, 0], [1 << 30] * 3])
def test_dimensions_must_account_for_the_values(tmp_path, dims):
    """They are told at once; that they contradict the array is an error of whoever wants the pixels."""
    (image,) = read_images(written(tmp_path, made(dims=dims)))
    assert image.shape == tuple(reversed(dims))
    if dims == [12]:
        assert image.pixels().shape == (12,)
        return
    with pytest.raises(FormatError, match="cannot have 12 values of float32"):
        image.pixels()


def test_an_image_without_pixels():
    with pytest.raises(FormatError, match="the image has no data"):
        Image([2, 2]).pixels()


def test_a_type_unknown_to_us(tmp_path):
    """DM4 says how long it is, so that it is passed over; in DM3 nobody knows where it ends."""
    for version in (3, 4):
        make = Maker(version)
        odd = make.value("Odd", [99], b"1234")
        path = written(tmp_path, make.file(make.image(np.ones((1, 1), "u1"), odd)))
        if version == 4:
            (image,) = read_images(path)
            assert dict(image.tags)["Odd",] is None and image.pixels().tolist() == [[1]]
        else:
            with pytest.raises(FormatError, match=r"value of unknown type \(99,\)"):
                read_images(path)
