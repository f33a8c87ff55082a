"""readDM4 against real files, hand-made ones and damaged ones."""

import logging
import struct
import tracemalloc

import numpy as np
import pytest
from made_dm import Maker

import mrcz
from mrcz import ioDM

# File, image -> (shape, dtype, sum, min, max, first pixels of the first stored row), as ncempy and RosettaSciIO 0.15
# read them. Thumbnails (int32) are those of the file itself.
FACTS = {
    ("openncem/08_carbon.dm3", 1): ((1, 2048), "float32", 35798239.0, 8674.0, 33036.0, [21281, 21206, 21333, 21365]),
    ("openncem/dmTest_3D_int16_64,65,66.dm4", 0): ((192, 189), "int32", 247124824128, 0, 14079702, [0, 0, 0, 0]),
    ("openncem/dmTest_3D_int16_64,65,66.dm4", 1): ((66, 65, 64), "int16", 8648640, 0, 63, [0, 1, 2, 3]),
    ("openncem/dmTest_float32_nonSquare_diffPixelSize.dm4", 1): (
        (64, 128),
        "float32",
        520192.0,
        0,
        127,
        [0, 1, 2, 3],
    ),
    ("rsciio-dm/3D_test-1.dm3", 1): ((2, 2, 2), "int16", 36, 1, 8, [1, 2]),
    ("rsciio-dm/3D_test-1.dm4", 1): ((2, 2, 2), "int16", 36, 1, 8, [1, 2]),
    ("rsciio-dm/3D_test-10.dm4", 1): ((2, 2, 2), "uint16", 36, 1, 8, [1, 2]),
    ("rsciio-dm/EELS_SI.dm4", 1): ((2048, 2, 2), "float32", 7169069.071, -27.721436, 8634.402, [8473.006, 7891.006]),
    ("rsciio-dm/test-1.dm4", 1): ((2, 2), "int16", 10, 1, 4, [1, 2]),
    ("rsciio-dm/test-10.dm4", 1): ((2, 2), "uint16", 10, 1, 4, [1, 2]),
    # RGB, as the packed integers of the file: 0x00RRGGBB.
    ("rsciio-dm/test-23.dm4", 1): ((2, 2), "int32", 657930, 65793, 263172, [65793, 131586]),
    ("rsciio-dm/test_STEM_image.dm3", 1): ((68, 68), "uint32", 150998555, 29407, 36106, [33121, 33489, 33638, 32719]),
    ("rsciio-dm/test_diffraction_pattern.dm3", 1): ((87, 87), "int32", 9459771, 625, 2974, [834, 823, 834, 718]),
}


def stored_order(pixels: np.ndarray) -> np.ndarray:
    """Undo the reversal of the second axis."""
    return pixels[:, ::-1, ...]


@pytest.mark.parametrize(("name", "image"), FACTS, ids=lambda value: str(value).rpartition("/")[2])
def test_real_pixels(data_dir, name, image):
    shape, dtype, total, low, high, first = FACTS[name, image]
    found = mrcz.readDM4(data_dir / name).im[image]
    pixels = found.imageData
    assert pixels.shape == shape
    assert tuple(found.shape) == shape
    assert pixels.dtype == dtype
    np.testing.assert_allclose(pixels.sum(dtype="f8"), total, rtol=1e-6)
    np.testing.assert_allclose([pixels.min(), pixels.max()], [low, high], rtol=1e-6)
    np.testing.assert_allclose(stored_order(pixels).reshape(-1, shape[-1])[0, :4], first, rtol=1e-6)


def test_every_real_file_is_in_the_table_above(data_dir):
    files = {str(path.relative_to(data_dir)) for path in data_dir.glob("*/*.dm[34]")}
    assert files == {name for name, _ in FACTS} | {"rsciio-dm/test_fft_packed_complex8.dm4"}


def test_packed_fourier_transform_gives_the_stored_half(data_dir):
    pixels = mrcz.readDM4(data_dir / "rsciio-dm/test_fft_packed_complex8.dm4").im[1].imageData
    assert pixels.shape == (5, 3)
    assert pixels.dtype == np.complex64
    np.testing.assert_allclose(pixels.max(), 50, rtol=1e-6)


def test_real_metadata(data_dir):
    info = mrcz.readDM4(data_dir / "rsciio-dm/EELS_SI.dm4").im[1].imageInfo
    assert info["DimXUnits"] == info["DimYUnits"] == "µm"
    assert info["DimZUnits"] == "eV"
    assert info["DimXScale"] == pytest.approx(0.0019920736)
    assert info["DimZOrigin"] == -300
    assert info["IntensityUnits"] == "e-"
    assert info["DetectorPixelSize"] == [14, 14]
    assert info["Voltage"] == 200000
    assert info["NominalMag"] == 225000
    assert info["C3"] == 0
    assert info["EELSApertureLabel"] == "5 mm"
    assert (info["HorzBin"], info["VertBin"]) == (1, 26)
    assert not info["EELSSlitIn"]
    assert not (info["DiagFlip"] or info["HorzFlip"] or info["VertFlip"])


def test_an_empty_unit_is_an_empty_string(data_dir):
    info = mrcz.readDM4(data_dir / "rsciio-dm/test-1.dm4").im[1].imageInfo
    assert info["DimXUnits"] == info["IntensityUnits"] == ""


# ---- files made here --------------------------------------------------------------------------------------------


def read(tmp_path, raw):
    path = tmp_path / "made.dm4"
    path.write_bytes(raw)
    return mrcz.readDM4(path)


@pytest.mark.parametrize("dtype", ["f4", "i2", "u1", "i1", "i8", "u8"])
@pytest.mark.parametrize("shape", [(7,), (3, 5), (2, 3, 5), (2, 1, 3, 4)])
@pytest.mark.parametrize(("version", "order"), [(3, "<"), (4, "<"), (3, ">"), (4, ">")])
def test_versions_orders_and_types(tmp_path, rng, version, order, shape, dtype):
    pixels = rng.integers(0, 100, size=shape).astype(dtype)
    found = read(tmp_path, Maker(version, order).file(Maker(version, order).image(pixels))).im[0].imageData
    np.testing.assert_array_equal(stored_order(found) if len(shape) > 1 else found, pixels)


@pytest.mark.parametrize("order", "<>")
def test_complex_pixels_are_structures_of_two(tmp_path, rng, order):
    make = Maker(4, order)
    pixels = (rng.normal(size=(3, 4)) + 1j * rng.normal(size=(3, 4))).astype(order + "c8")
    data = make.value("Data", [20, 15, 0, 2, 0, 6, 0, 6, pixels.size], pixels.tobytes())
    found = read(tmp_path, make.file(make.image(pixels, data=data, data_type=3))).im[0].imageData
    np.testing.assert_array_equal(stored_order(found), pixels)


def test_several_images_and_tags_around_them(tmp_path, rng):
    make = Maker()
    images = [rng.normal(size=(3, 4)).astype("f4"), rng.normal(size=(2, 5, 6)).astype("f4")]
    tags = make.group(
        "ImageTags",
        make.group("Calibration", make.group("Dose Rate", *[make.scalar("Calibration", 6, "f", v) for v in (1, 2)])),
        make.group("Microscope Info", make.string("Mode", "Ångström")),
        make.group("Acquisition", make.group("Detector", make.scalar("Exposure", 7, "d", 0.25))),
    )
    unknown = make.value("Odd", [99], b"1234567")
    raw = make.file(*[make.image(pixels, tags) for pixels in images], root=[unknown, make.group("Empty")])
    dm4 = read(tmp_path, raw)
    assert dm4.f is None
    for image, pixels in zip(dm4.im, images, strict=True):
        np.testing.assert_array_equal(stored_order(image.imageData), pixels)
        assert image.imageInfo == {"DoseRateCalibration": [1, 2], "MicroscopeMode": "Ångström", "Exposure": 0.25}


def test_big_data_is_mapped_and_may_be_changed(tmp_path):
    pixels = np.zeros((5, 1024, 1024), "f4")
    pixels[:, 0, 0] = np.arange(5)
    path = tmp_path / "big.dm4"
    path.write_bytes(Maker().file(Maker().image(pixels)))
    tracemalloc.start()
    found = mrcz.readDM4(path).im[0].imageData
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 << 20
    assert isinstance(found, np.memmap)
    np.testing.assert_array_equal(stored_order(found)[:, 0, 0], np.arange(5))
    found[0, 0, 0] = 9  # copy on write: the file stays as it is
    assert mrcz.readDM4(path).im[0].imageData[0, 0, 0] == 0


def test_verbose_talks_to_the_logger(tmp_path, caplog):
    path = tmp_path / "small.dm4"
    path.write_bytes(Maker().file(Maker().image(np.zeros((2, 3), "f4"))))
    with caplog.at_level(logging.DEBUG, logger="MRCZ"):
        mrcz.readDM4(path, verbose=True)
    assert "(2, 3)" in caplog.text


def test_async(tmp_path):
    path = tmp_path / "small.dm4"
    pixels = np.arange(6, dtype="f4").reshape(2, 3)
    path.write_bytes(Maker().file(Maker().image(pixels)))
    np.testing.assert_array_equal(mrcz.asyncReadDM4(path).result().im[0].imageData, pixels[:, ::-1])
    assert ioDM.read_dm4 is ioDM.readDM4
    assert ioDM.async_read_dm4 is ioDM.asyncReadDM4


# ---- damage -----------------------------------------------------------------------------------------------------


def made(**changes):
    make = Maker()
    return make.file(make.image(np.zeros((3, 4), "f4"), **changes))


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "too short"),
        (b"\0" * 100, "version is 0"),
        (struct.pack(">iqi", 4, 10, 7) + b"\0" * 20, "byte order 7"),
        (made(dims=[4, 4]), "4 x 4 cannot have 12"),
        (made(dims=[1 << 30, 1 << 30, 1 << 30]), "cannot have 12"),
        (made(dims=[1] * 17), "more than 16 dimensions"),
        (made(data=Maker().scalar("Data", 6, "f", 1)), "not an array"),
        (made(data=Maker().value("Data", [20, 6, 1 << 40], b"")), "remain"),
        (made(data=Maker().value("Data", [20, 6, -1], b"")), "remain"),
        (made(data=Maker().value("Data", [20, 15, 0, 1 << 40, 0, 6, 12], b"")), "malformed"),
        (made(data=Maker().entry(21, "Data", b"%%%%" + struct.pack(">q", 1 << 60))), "integers"),
        (made(data=Maker().entry(21, "Data", b"####" + struct.pack(">qq", 1, 6))), "%%%%"),
        (made(data=Maker().entry(77, "Data", b"")), "kind 77"),
        (made(data_type=3), "cannot have 6"),
    ],
)
def test_damage_is_named(tmp_path, raw, message):
    with pytest.raises(mrcz.FormatError, match=message) as caught:
        read(tmp_path, raw)
    assert "made.dm4" in str(caught.value)


def test_deep_nesting_is_refused(tmp_path):
    make, tag = Maker(), b""
    for _ in range(1000):
        tag = make.group("x", tag)
    with pytest.raises(mrcz.FormatError, match="deep"):
        read(tmp_path, make.file(tag))


def test_a_group_cannot_end_outside_its_parent(tmp_path):
    make = Maker()
    child = struct.pack(">BHq", 20, 0, 1000)
    raw = make.file(child) + b"\0" * 2000
    with pytest.raises(mrcz.FormatError, match="outside"):
        read(tmp_path, raw)


@pytest.mark.parametrize("version", [3, 4])
def test_every_truncation_is_an_error(tmp_path, version):
    make = Maker(version)
    raw = make.file(make.image(np.arange(6, dtype="f4").reshape(2, 3)))
    for size in range(len(raw)):
        with pytest.raises(mrcz.FormatError):
            read(tmp_path, raw[:size])


def test_changed_bytes_give_an_error_or_arrays(tmp_path, data_dir, rng):
    raw = (data_dir / "rsciio-dm/test-1.dm4").read_bytes()
    failed = 0
    for position in rng.integers(0, len(raw), size=400):
        changed = bytearray(raw)
        changed[position] ^= int(rng.integers(1, 256))
        try:
            for image in read(tmp_path, changed).im:
                image.imageData.sum()
        except mrcz.FormatError:
            failed += 1
    assert 0 < failed < 400
