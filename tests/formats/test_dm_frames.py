"""DM3 and DM4 opened as a Reader: real files, hand-made ones, damaged ones. Of the tags themselves: `test_ioDM`."""

from __future__ import annotations

import io
import tracemalloc

import numpy as np
import pytest
from formats.damage import flipped, survives
from formats.seeds import dm_tags, seeds_dm
from made_dm import Maker
from rewriting import rewrite

import mrcz
from mrcz.formats import _dm_tags, dm, registry

# File -> (shape, dtype, sum, first pixels of the first row), as ncempy and RosettaSciIO 0.15 read them.
FACTS = {
    "data/openncem/08_carbon.dm3": ((1, 1, 2048), "f4", 35798239.0, [21281, 21206, 21333, 21365]),
    "data/openncem/dmTest_3D_int16_64,65,66.dm4": ((66, 65, 64), "i2", 8648640, [0, 1, 2, 3]),
    "data/openncem/dmTest_float32_nonSquare_diffPixelSize.dm4": ((1, 64, 128), "f4", 520192.0, [0, 1, 2, 3]),
    "data/rsciio-dm/3D_test-1.dm3": ((2, 2, 2), "i2", 36, [1, 2]),
    "data/rsciio-dm/3D_test-1.dm4": ((2, 2, 2), "i2", 36, [1, 2]),
    "data/rsciio-dm/3D_test-10.dm4": ((2, 2, 2), "u2", 36, [1, 2]),
    "data/rsciio-dm/EELS_SI.dm4": ((2048, 2, 2), "f4", 7169069.071, [8473.006, 7891.006]),
    "data/rsciio-dm/test-1.dm4": ((1, 2, 2), "i2", 10, [1, 2]),
    "data/rsciio-dm/test-10.dm4": ((1, 2, 2), "u2", 10, [1, 2]),
    "data/rsciio-dm/test_STEM_image.dm3": ((1, 68, 68), "u4", 150998555, [33121, 33489, 33638, 32719]),
    "data/rsciio-dm/test_diffraction_pattern.dm3": ((1, 87, 87), "i4", 9459771, [834, 823, 834, 718]),
    "movies/openncem/dmTest_3D_int16_64,65,66.dm3": ((66, 65, 64), "i2", 8648640, [0, 1, 2, 3]),
    "movies/openncem/dmTest_float32_nonSquare_diffPixelSize.dm3": ((1, 64, 128), "f4", 520192.0, [0, 1, 2, 3]),
}


def real(data_dir, name):
    path = data_dir.parent / name if name.startswith("movies/") else data_dir / name.removeprefix("data/")
    if not path.is_file():
        pytest.skip(f"no real file at {path}")
    return path


def written(tmp_path, raw, name="a.dm4"):
    (tmp_path / name).write_bytes(raw)
    return tmp_path / name


# ---- real files ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FACTS, ids=lambda name: name.rpartition("/")[2])
def test_real_pixels(data_dir, name):
    shape, dtype, total, first = FACTS[name]
    with mrcz.open(real(data_dir, name)) as reader:
        assert (reader.format, reader.shape, reader.dtype) == ("dm", shape, dtype)
        assert reader.kind == ("image" if shape[0] == 1 else "stack")
        pixels = reader.read()
        np.testing.assert_allclose(pixels.sum(dtype="f8"), total, rtol=1e-6)
        np.testing.assert_allclose(pixels[0, 0, :4], first, rtol=1e-6)
        np.testing.assert_array_equal(reader[-1, :1, -2:], pixels[-1, :1, -2:])


@pytest.mark.parametrize("name", FACTS, ids=lambda name: name.rpartition("/")[2])
def test_pixels_are_those_of_ncempy(data_dir, name):
    reader = pytest.importorskip("ncempy.io.dm").dmReader
    path = real(data_dir, name)
    pixels = mrcz.read(path)
    np.testing.assert_array_equal(pixels, np.asarray(reader(str(path))["data"]).reshape(pixels.shape))


def test_real_colours(data_dir):
    with mrcz.open(real(data_dir, "data/rsciio-dm/test-23.dm4")) as reader:
        assert (reader.shape, reader.dtype) == ((1, 2, 2, 3), "u1")
        # As RosettaSciIO has them: grey of 1 to 4.
        np.testing.assert_array_equal(reader[0], np.repeat([[[1], [2]], [[3], [4]]], 3, axis=2))


def test_real_half_of_a_transform_is_refused(data_dir):
    with pytest.raises(mrcz.FormatError, match=r"image 1 is half of a Fourier transform \(type 27\)"):
        mrcz.open(real(data_dir, "data/rsciio-dm/test_fft_packed_complex8.dm4"))


@pytest.mark.parametrize("stem", ["dmTest_3D_int16_64,65,66", "dmTest_float32_nonSquare_diffPixelSize"])
def test_twins_are_equal(data_dir, stem):
    one, other = real(data_dir, f"movies/openncem/{stem}.dm3"), real(data_dir, f"data/openncem/{stem}.dm4")
    np.testing.assert_array_equal(mrcz.read(one), mrcz.read(other))


def test_real_metadata(data_dir):
    with mrcz.open(real(data_dir, "data/rsciio-dm/EELS_SI.dm4")) as reader:
        found = reader.metadata
        original = found.pop("original")["dm"]
        assert found["pixel_size"] == pytest.approx([19.920736, 19.920736])
        assert reader.pixel_size[2] == 0  # its unit is eV
        assert (found["voltage"], found["magnification"], found["exposure_time"]) == (200, 225000, 0.020010000676847994)
        assert found["stage"] == pytest.approx([-308.049, -318.151, -13.4304])
        assert found["tilt"] == pytest.approx(0.00244)
        assert (found["camera"], found["microscope"]) == ("US1000FTXP 1", "FEI Titan")
        assert found["counts_per_electron"] == pytest.approx(1 / 0.1285347)
        assert "binning" not in found  # 1 x 26
        assert original["ImageList:1:ImageTags:Microscope Info:Formatted Voltage"] == "200kV"
        assert original["Thumbnails:0:ImageIndex"] == 0
    with mrcz.open(real(data_dir, "data/rsciio-dm/test_STEM_image.dm3")) as reader:
        assert reader.pixel_size[:2] == pytest.approx([2.4853802, 2.4853802])
        assert reader.metadata["timestamp"] == "2016-08-08T15:26:37.000Z"  # 4:26:37 PM of British summer
    with mrcz.open(real(data_dir, "data/rsciio-dm/test_diffraction_pattern.dm3")) as reader:
        assert not any(reader.pixel_size) and "pixel_size" not in reader.metadata  # 1/nm
        assert (reader.metadata["cs"], reader.metadata["timestamp"]) == (1.31, "2014-07-09T16:56:34.906Z")
    with mrcz.open(real(data_dir, "data/openncem/dmTest_3D_int16_64,65,66.dm4")) as reader:
        assert reader.pixel_size == pytest.approx((0.02, 30, 40000))  # 2 pm, 3 nm, 4 um


# ---- made here -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["f4", "i2", "u1", "i1", "i8", "u8"])
@pytest.mark.parametrize("shape", [(3, 5), (2, 3, 5), (1, 1), (2, 2, 3, 4), (40, 1, 3)])
@pytest.mark.parametrize(("version", "order"), [(3, "<"), (4, "<"), (3, ">"), (4, ">")])
def test_versions_orders_and_types(tmp_path, rng, version, order, shape, dtype):
    make = Maker(version, order)
    pixels = rng.integers(0, 100, size=shape).astype(dtype)
    frames = pixels.reshape(-1, *shape[-2:])
    with mrcz.open(written(tmp_path, make.file(make.image(pixels)))) as reader:
        assert (reader.shape, reader.dtype) == (frames.shape, np.dtype(order + dtype))
        np.testing.assert_array_equal(reader.read(), frames)
        np.testing.assert_array_equal(reader[::-1, :1, -1:], frames[::-1, :1, -1:])
        assert bool(reader.oddities) == (len(shape) == 4)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("code", "kind"), [(3, "c8"), (13, "c16")])
def test_complex_pixels(tmp_path, rng, order, code, kind):
    make = Maker(4, order)
    pixels = (rng.normal(size=(2, 3, 4)) + 1j * rng.normal(size=(2, 3, 4))).astype(order + kind)
    float_code = 6 if kind == "c8" else 7
    for info in ([20, 15, 0, 2, 0, float_code, 0, float_code, 24], [20, float_code, 48]):
        data = make.value("Data", info, pixels.tobytes())
        with mrcz.open(written(tmp_path, make.file(make.image(pixels, data=data, data_type=code)))) as reader:
            assert reader.dtype == np.dtype(order + kind)
            np.testing.assert_array_equal(reader.read(), pixels)


@pytest.mark.parametrize("order", ["<", ">"])
def test_colours(tmp_path, rng, order):
    make = Maker(4, order)
    colours = rng.integers(0, 256, (2, 3, 4, 3))
    packed = (colours @ [1 << 16, 1 << 8, 1]).astype(order + "u4")
    data = make.value("Data", [20, 5, 24], packed.tobytes())
    with mrcz.open(written(tmp_path, make.file(make.image(packed, data=data, data_type=23)))) as reader:
        assert (reader.shape, reader.dtype) == ((2, 3, 4, 3), "u1")
        np.testing.assert_array_equal(reader.read(), colours)
        np.testing.assert_array_equal(reader[1, 1:, 2:], colours[1, 1:, 2:])


def test_of_a_file_object(rng):
    make, pixels = Maker(), rng.normal(size=(3, 4, 5)).astype("f4")
    raw = make.file(make.image(pixels, dm_tags(make, {("Microscope Info", "Microscope"): "Ångström"})))
    with mrcz.open(io.BytesIO(raw)) as reader:
        np.testing.assert_array_equal(reader.read(), pixels)
        assert reader.metadata["microscope"] == "Ångström"


UNITS = [
    ("nm", 10),
    ("µm", 1e4),
    ("um", 1e4),
    ("Å", 1),
    ("A", 1),
    ("pm", 0.01),
    ("1/nm", 0),
    ("", 0),
    ("eV", 0),
    ("s", 0),
]


@pytest.mark.parametrize(("unit", "factor"), UNITS)
def test_units_of_pixels(tmp_path, unit, factor):
    make = Maker()
    axes = [make.group("", make.scalar("Scale", 6, "f", 0.5), make.string("Units", unit)) for _ in range(2)]
    calibrations = make.group("ImageData", make.group("Calibrations", make.group("Dimension", *axes)))
    with mrcz.open(written(tmp_path, make.file(make.image(np.zeros((2, 3), "f4"), calibrations)))) as reader:
        assert reader.pixel_size == (0.5 * factor, 0.5 * factor, 0)
        assert reader.metadata.get("pixel_size") == ([0.5 * factor] * 2 if factor else None)


def test_values_that_say_nothing_are_absent(tmp_path):
    make = Maker()
    said = {
        ("Microscope Info", "Voltage"): 0.0,
        ("Microscope Info", "Indicated Magnification"): float("nan"),
        ("Microscope Info", "Stage Position", "Stage X"): 1.0,
        ("DataBar", "Acquisition Time (OS)"): 1e300,
        ("DataBar", "Acquisition Date"): "3/4/2020",
        ("DataBar", "Device Name"): "",
    }
    with mrcz.open(written(tmp_path, make.file(make.image(np.zeros((2, 3), "f4"), dm_tags(make, said))))) as reader:
        assert set(reader.metadata) == {"original"}
        assert reader.metadata["original"]["dm"]["ImageList:0:ImageTags:DataBar:Acquisition Date"] == "3/4/2020"


def test_repeated_and_odd_tags_are_kept(tmp_path):
    make = Maker()
    tags = make.group(
        "ImageTags",
        make.scalar("a", 6, "f", 1),
        make.scalar("a", 6, "f", 2),
        make.value("Point", [15, 0, 2, 0, 6, 0, 6], b"\0" * 8),
        make.value("Few", [20, 3, 2], b"\1\0\0\0\2\0\0\0"),
        make.value("Many", [20, 3, 1000], bytes(4000)),
        make.value("Odd", [99], b"1234"),
        make.scalar("Yes", 8, "B", 1),
    )
    with mrcz.open(written(tmp_path, make.file(make.image(np.zeros((2, 3), "f4"), tags)))) as reader:
        found = {
            key.removeprefix("ImageList:0:ImageTags:"): value
            for key, value in reader.metadata["original"]["dm"].items()
        }
        assert found == {"a": 1, "a (2)": 2, "Point": [0, 0], "Few": [1, 2], "Yes": True}


def test_what_is_kept_of_the_tags_has_a_bound(tmp_path, monkeypatch):
    make = Maker()
    tags = dm_tags(make, {(f"t{k}",): "x" * 100 for k in range(50)})
    path = written(tmp_path, make.file(make.image(np.zeros((2, 3), "f4"), tags)))
    monkeypatch.setattr(dm, "_MAX_KEPT", 20)
    with mrcz.open(path) as reader:
        assert len(reader.metadata["original"]["dm"]) == 20
        assert reader.oddities == ("of 50 tags the first 20 are kept",)
    monkeypatch.setattr(dm, "_MAX_TEXTS", 1000)
    with mrcz.open(path) as reader:
        assert len(reader.metadata["original"]["dm"]) == 10
    monkeypatch.setattr(_dm_tags, "_MAX_TAGS", 30)
    with pytest.raises(mrcz.FormatError, match="more than 30 tags"):
        mrcz.open(path)


# ---- which image -----------------------------------------------------------------------------------------------------


def test_the_data_and_not_the_thumbnail(tmp_path):
    make = Maker()
    thumbnail, small, large = np.zeros((9, 9), "f4"), np.ones((2, 3), "f4"), np.full((2, 2, 3), 2, "f4")
    named = make.group("Thumbnails", make.group("", make.scalar("ImageIndex", 5, "I", 0)))
    images = [make.image(image) for image in (thumbnail, small, large)]
    path = written(tmp_path, make.file(*images, root=[named]))
    with mrcz.open(path) as reader:
        np.testing.assert_array_equal(reader.read(), large)  # not the largest of all
        assert reader.oddities == ("image 2 of several: dataset='1' gives another",)
    for number, image in enumerate((thumbnail, small, large)):
        with mrcz.open(path, dataset=str(number)) as reader:
            np.testing.assert_array_equal(reader.read().squeeze(), image)
    with pytest.raises(mrcz.FormatError, match=r"no image '3'; there are 0, 1, 2"):
        mrcz.open(path, dataset="3")
    with mrcz.open(written(tmp_path, make.file(images[0], root=[named]))) as reader:
        assert reader.shape == (1, 9, 9)  # nothing else is there


def test_no_image(tmp_path):
    with pytest.raises(mrcz.FormatError, match=r"a\.dm4: no image in it"):
        mrcz.open(written(tmp_path, Maker().file()))


# ---- damage ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dims": [12]}, "a line of 12 values"),
        ({"dims": [4, 4]}, "4 x 4 pixels cannot have 12"),
        ({"dims": [4, 3, 0]}, "cannot have 12"),
        ({"dims": [1 << 31, 1 << 31, 1 << 31]}, "cannot have 12"),
        ({"data_type": 5}, "half of a Fourier"),
        ({"data_type": 28}, "half of a Fourier"),
        ({"data_type": 8}, "type 8, stored as float32, are not known"),
        ({"data_type": 23}, "type 23, stored as float32, are not known"),
        ({"data_type": 1}, r"type 1 \(i2\) and holds float32"),
        ({"data_type": 3}, "pixels cannot have 6"),
        ({"data_type": 13}, r"complex \(type 13\) and stored as float32"),
        ({"data": Maker().value("Data", [20, 15, 0, 2, 0, 3, 0, 6, 12], bytes(96))}, "not known"),
        ({"data": Maker().value("Data", [20, 6, 1 << 40], b"")}, "remain"),
        ({"data": Maker().value("Old", [18, 1 << 40], b"")}, "a text of 1099511627776 bytes"),
    ],
)
def test_what_is_refused(tmp_path, change, words):
    make = Maker()
    path = written(tmp_path, make.file(make.image(np.zeros((3, 4), "f4"), **change)))
    with pytest.raises(mrcz.FormatError, match=rf"a\.dm4: .*{words}"):
        mrcz.open(path)


def test_a_large_stack_takes_no_memory(tmp_path):
    make, n = Maker(3), 1200  # DM3 says no lengths of entries: what lies between the two halves may be a hole
    data = make.value("Data", [20, 10, n << 20], b"@here@")
    before, after = make.file(make.image(np.zeros((1, 1), "u1"), data=data, data_type=6, dims=[1024, 1024, n])).split(
        b"@here@"
    )
    path = tmp_path / "a.dm3"
    with open(path, "wb") as file:
        file.write(before)
        file.seek(len(before) + (700 << 20) + 5)
        file.write(b"\7")
        file.seek(len(before) + (n << 20))
        file.write(after)
    tracemalloc.start()
    try:
        with mrcz.open(path) as reader:
            assert reader.shape == (n, 1024, 1024)
            assert np.flatnonzero(reader[700]).tolist() == [5]
            assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_an_mrc_file_that_begins_alike_is_none(tmp_path):
    for nx in (3, 4):
        mrcz.write(tmp_path / "a.mrc", np.zeros((1, 1, nx), "i2"), byteorder=">", overwrite=True)
        with mrcz.open(tmp_path / "a.mrc") as reader:
            assert (reader.format, reader.shape) == ("mrc", (1, 1, nx))
            assert registry.find_format(reader.source) is None


def test_every_truncation_is_an_error(tmp_path, still):
    for path in seeds_dm(tmp_path):
        raw = path.read_bytes()
        whole = mrcz.read(path)
        other = path.with_name("b.dm4")
        for size in range(0 if path.name == "complex.dm4" else len(raw) - 150, len(raw)):
            rewrite(other, raw[:size])
            with pytest.raises(mrcz.MrczError, match=r"b\.dm4"):
                mrcz.open(other)
        assert whole.size


def test_every_byte_changed(tmp_path, still):
    for path in seeds_dm(tmp_path):
        raw = path.read_bytes()
        other = path.with_name("b.dm4")
        for at in range(0, len(raw), 1 if path.name == "v4le.dm4" else 5):
            rewrite(other, flipped(raw, at, 0xFF if at % 2 else 0x01))
            survives(other)
