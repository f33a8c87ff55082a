"""TIA's .ser and .emi: real files, hand-made ones of FEI's published layout, damage."""

from __future__ import annotations

import io
import shutil
import struct

import numpy as np
import pytest
from formats.damage import flipped, survives
from formats.seeds import SER_TYPES, seeds_ser, ser_bytes
from rewriting import rewrite

import mrcz


@pytest.fixture(scope="module")
def real(data_dir):
    found = data_dir.parent / "movies" / "openncem" / "16_STOimage_1.ser"
    if not found.is_file():
        pytest.skip(f"no real file at {found}")
    return found


def write(path, frames, **more):
    path.write_bytes(ser_bytes(frames, **more))
    return path


INFO = """<ObjectInfo><ExperimentalConditions><MicroscopeConditions><AcceleratingVoltage>{volts}</AcceleratingVoltage>
</MicroscopeConditions></ExperimentalConditions><ExperimentalDescription><Root>
<Data><Label>Mode</Label><Value>{mode}</Value><Unit></Unit></Data>
<Data><Label>Stage X</Label><Value>12.5</Value><Unit>um</Unit></Data>
<Data><Label>Stage Y</Label><Value>-3</Value><Unit>um</Unit></Data>
<Data><Label>Stage Z</Label><Value>100</Value><Unit>nm</Unit></Data>
<Data><Label>Stage A</Label><Value>-7.5</Value><Unit>deg</Unit></Data>
<Data><Label>Defocus</Label><Value>1</Value><Unit>furlong</Unit></Data>
</Root></ExperimentalDescription><AcquireDate>{date}</AcquireDate><AcquireInfo>{acquire}</AcquireInfo></ObjectInfo>"""


def info(volts="200000", mode="TEM uP SA Zoom Image", date="", acquire=""):
    return INFO.format(volts=volts, mode=mode, date=date, acquire=acquire)


def emi(path, *infos):
    path.write_bytes(b"JK\0\2" + bytes(60) + b"pixels" * 9 + b"".join(one.encode() + b"\n\0" for one in infos))
    return path


# ---- real files ------------------------------------------------------------------------------------------------------


def test_real_image(real):
    raw = real.read_bytes()
    with mrcz.open(real) as reader:
        assert (reader.format, reader.shape, reader.dtype, reader.kind) == ("ser", (1, 1024, 1024), "u2", "image")
        pixels = reader[0]
        assert (pixels.min(), pixels.max()) == (16121, 24376)
        np.testing.assert_array_equal(pixels[::-1], np.frombuffer(raw, "<u2", 1 << 20, 126).reshape(1024, 1024))
        np.testing.assert_array_equal(reader[0, 3:10, 20:33], pixels[3:10, 20:33])
        assert reader.pixel_size == pytest.approx((0.100127, 0.100127, 0), abs=1e-6)


def test_real_metadata(real):
    with mrcz.open(real) as reader, mrcz.open(real.with_name("16_STOimage.emi")) as other:
        found = reader.metadata
        assert other.metadata == found
        assert (other.format, other.shape) == ("ser", reader.shape)
        np.testing.assert_array_equal(other.read(), reader.read())
        original = found.pop("original")
        assert original["ser"]["total"] == 1 and original["ser"]["dimensions"][0]["description"] == "Number"
        assert original["emi"].startswith("<ObjectInfo>") and "<Label>C2 lens</Label>" in original["emi"]
        assert found == {
            "pixel_size": [pytest.approx(0.100127, abs=1e-6)] * 2,
            "voltage": 80.0,
            "magnification": 13500000.0,
            "defocus": -0.002,
            "stage": [0.0, 0.0, 0.0],
            "tilt": 0.0,
            "spot_size": 10,
            "frame_time": 36.4904,
            "exposure_time": 36.4904,
            "microscope": "TitanCubed D3147 S-Twin",
            "timestamp": "2011-10-19T01:18:46Z",  # 18:18:46 of the day before, in Berkeley
        }


def test_pixels_are_those_of_ncempy(real):
    theirs = pytest.importorskip("ncempy.io.ser").serReader(str(real))
    with mrcz.open(real) as reader:
        np.testing.assert_array_equal(reader[0], theirs["data"])
        assert reader.pixel_size[:2] == pytest.approx(np.array(theirs["pixelSize"]) * 1e10)


def test_pixels_are_those_of_rosettasciio(real):
    theirs = pytest.importorskip("rsciio.tia").file_reader(str(real))[0]["data"]
    np.testing.assert_array_equal(mrcz.read(real)[0], theirs)


def test_the_ser_alone(real, tmp_path):
    shutil.copy(real, tmp_path / "16_STOimage_1.ser")
    with mrcz.open(tmp_path / "16_STOimage_1.ser") as reader:
        assert set(reader.metadata) == {"pixel_size", "timestamp", "original"}
        assert set(reader.metadata["original"]) == {"ser"}


def test_the_emi_alone(real, tmp_path):
    shutil.copy(real.with_name("16_STOimage.emi"), tmp_path / "a.emi")
    with pytest.raises(mrcz.FormatError, match=r"a\.emi: its series a_1\.ser is not beside it$"):
        mrcz.open(tmp_path / "a.emi")


# ---- made here -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [0x210, 0x220])
@pytest.mark.parametrize("dtype", SER_TYPES)
@pytest.mark.parametrize("shape", [(3, 5, 7), (1, 1, 1), (40, 2, 3)])
def test_versions_and_types(tmp_path, rng, version, dtype, shape):
    frames = rng.integers(0, 100, shape).astype(dtype)
    with mrcz.open(write(tmp_path / "a.ser", frames, version=version)) as reader:
        assert (reader.shape, reader.dtype) == (shape, dtype)
        np.testing.assert_array_equal(reader.read(), frames)
        np.testing.assert_array_equal(reader[::-1, 1:, -2:], frames[::-1, 1:, -2:])
        np.testing.assert_array_equal(reader[:, :1], frames[:, :1])
        assert reader.pixel_size == pytest.approx((2, 3, 0))
        seconds = [np.datetime64(one["timestamp"][:-1]).astype(int) for one in reader.frame_metadata]
        assert seconds == list(range(1318987126, 1318987126 + shape[0]))


@pytest.mark.parametrize("version", [0x210, 0x220])
def test_a_series_that_was_ended_early(tmp_path, version):
    frames = np.arange(24, dtype="i2").reshape(2, 3, 4)
    with mrcz.open(write(tmp_path / "a.ser", frames, version=version, total=9, dimensions=[3, 3])) as reader:
        np.testing.assert_array_equal(reader.read(), frames)
        assert reader.oddities == (
            "9 images were planned, 2 are there",
            "a series of 3 x 3: frames are in their order, the first quickest",
        )
        assert [bool(one) for one in reader.frame_metadata] == [True, True]


def test_each_image_has_its_pixel_size(tmp_path):
    frames = np.ones((2, 3, 4), "u1")
    raw = bytearray(ser_bytes(frames))
    second = raw.rindex(struct.pack("<d", 2e-10))
    struct.pack_into("<d", raw, second, 5e-10)
    (tmp_path / "a.ser").write_bytes(raw)
    with mrcz.open(tmp_path / "a.ser") as reader:
        assert [one["pixel_size"] for one in reader.frame_metadata] == [pytest.approx([2, 3]), pytest.approx([5, 3])]


def test_of_a_file_object():
    frames = np.arange(24, dtype="i2").reshape(2, 3, 4)
    np.testing.assert_array_equal(mrcz.read(io.BytesIO(ser_bytes(frames))), frames)


CAMERA = "<CameraNamePath>BM-Ceta</CameraNamePath>"


@pytest.mark.parametrize(
    ("mode", "acquire", "is_image"),
    [
        ("TEM uP SA Zoom Image", CAMERA, True),
        ("TEM uP SA Zoom Diffraction", CAMERA, False),
        ("TEM uP SA Zoom Diffraction", "", False),
        ("STEM nP SA Zoom Diffraction", "", True),
        ("STEM nP SA Zoom Diffraction", CAMERA, False),
        ("", "", True),
    ],
)
def test_a_diffraction_pattern_has_no_pixel_size(tmp_path, mode, acquire, is_image):
    emi(tmp_path / "a.emi", info(mode=mode, acquire=acquire))
    with mrcz.open(write(tmp_path / "a_1.ser", np.ones((1, 3, 4), "u1"))) as reader:
        assert any(reader.pixel_size) == ("pixel_size" in reader.metadata) == is_image


@pytest.mark.parametrize("steps", [(1e8, 1e8), (0.0, 1e-10), (-1e-10, 1e-10), (float("nan"), 1e-10)])
def test_steps_that_are_none_on_a_specimen(tmp_path, steps):
    with mrcz.open(write(tmp_path / "a.ser", np.ones((1, 3, 4), "u1"), steps=steps)) as reader:
        assert not any(reader.pixel_size) and "pixel_size" not in reader.metadata


def test_series_of_an_emi(tmp_path):
    camera = CAMERA + "<IntegrationTime>0.5</IntegrationTime><Binning>2</Binning>"
    path = emi(tmp_path / "a.emi", info("80000"), info("300000", acquire=camera, date="Mon Feb  3 04:05:06 2020"))
    for number in (1, 2):
        write(tmp_path / f"a_{number}.ser", np.full((2, 3, 4), number, "u1"), seconds=-2 * (number - 1) % (1 << 32))
    with mrcz.open(path) as reader:
        assert reader[0, 0, 0] == 1 and reader.metadata["voltage"] == 80
    for name, keywords in (("a.emi", {"dataset": "2"}), ("a_2.ser", {})):
        with mrcz.open(tmp_path / name, **keywords) as reader:
            assert reader[0, 0, 0] == 2
            found = reader.metadata
            assert (found["voltage"], found["camera"], found["binning"], found["frame_time"]) == (
                300,
                "BM-Ceta",
                2,
                0.5,
            )
            assert found["stage"] == [12.5, -3, 0.1] and found["tilt"] == -7.5
            assert "defocus" not in found and "exposure_time" not in found  # in furlongs; two images
    with pytest.raises(mrcz.FormatError, match=r"its series a_3\.ser is not beside it; there are a_1\.ser, a_2\.ser"):
        mrcz.open(path, dataset="3")
    for word in ("x", "-1", "../a", ""):
        with pytest.raises(mrcz.FormatError, match="no series"):
            mrcz.open(path, dataset=word)
    with pytest.raises(mrcz.FormatError, match="one series"):
        mrcz.open(tmp_path / "a_1.ser", dataset="1")
    with pytest.raises(mrcz.FormatError, match="local file"):
        mrcz.open(io.BytesIO(path.read_bytes()))


def test_the_date_of_the_emi_where_no_tag_has_a_time(tmp_path):
    emi(tmp_path / "a.emi", info(date="Mon Feb  3 04:05:06 2020"))
    with mrcz.open(write(tmp_path / "a_1.ser", np.ones((1, 3, 4), "u1"), seconds=0)) as reader:
        assert reader.metadata["timestamp"] == "2020-02-03T04:05:06"
        assert "timestamp" not in reader.frame_metadata[0]


@pytest.mark.parametrize(
    "text", ["Mon Feb  3 2020", "Mo 3 Feb 04:05:06 2020", "Mon Feb 31 04:05:06 2020", "Mon Feb 3 04:05:06Z 20"]
)
def test_odd_dates_are_none(tmp_path, text):
    emi(tmp_path / "a.emi", info(date=text))
    with mrcz.open(write(tmp_path / "a_1.ser", np.ones((1, 3, 4), "u1"), seconds=0)) as reader:
        assert "timestamp" not in reader.metadata


@pytest.mark.parametrize("text", ["<ObjectInfo>", "<ObjectInfo><a></ObjectInfo>", "", "<ObjectInfo>&x;</ObjectInfo>"])
def test_unsound_words_of_an_emi(tmp_path, text):
    write(tmp_path / "a_1.ser", np.ones((1, 3, 4), "u1"))
    emi(tmp_path / "a.emi", text)
    for name in ("a.emi", "a_1.ser"):
        with mrcz.open(tmp_path / name) as reader:
            assert set(reader.metadata) == {"pixel_size", "timestamp", "original"}


# ---- damage ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "at", "value", "words"),
    [
        ("<H", 4, 0x230, "version 0x0230"),
        ("<I", 6, 0x4120, "a series of spectra"),
        ("<I", 6, 0x4121, "kind 0x4121"),
        ("<i", 14, 2, "3 images are said to be there of 2"),
        ("<i", 18, 0, "0 images are said to be there of 3"),
        ("<i", 18, -1, "-1 images"),
        ("<q", 22, -8, "offsets at -8"),
        ("<q", 22, 1 << 40, "header of an image"),
        ("<i", 30, 17, "17 dimensions"),
        ("<i", 30, -1, "-1 dimensions"),
        ("<i", 34, -5, "dimension 0 of the series has -5"),
        ("<i", 58, 1 << 30, "a text of 1073741824 bytes"),
    ],
)
def test_what_is_refused(tmp_path, form, at, value, words):
    raw = bytearray(ser_bytes(np.ones((3, 4, 5), "u2")))
    struct.pack_into(form, raw, at, value)
    (tmp_path / "a.ser").write_bytes(raw)
    with pytest.raises(mrcz.FormatError, match=rf"a\.ser: .*{words}"):
        mrcz.open(tmp_path / "a.ser")


def test_claims_take_no_memory(tmp_path):
    raw = bytearray(ser_bytes(np.ones((3, 4, 5), "u2")))
    struct.pack_into("<ii", raw, 14, 1 << 30, 1 << 30)
    (tmp_path / "a.ser").write_bytes(raw)
    with pytest.raises(mrcz.ChunkError, match="1073741824 images of 90 bytes"):
        mrcz.open(tmp_path / "a.ser")
    survives(tmp_path / "a.ser", permissive=True)
    raw = bytearray(ser_bytes(np.ones((1, 4, 5), "u2")))
    struct.pack_into("<ii", raw, len(raw) - 8 - 40 - 8, 2_000_000_000, 2_000_000_000)
    (tmp_path / "b.ser").write_bytes(raw)
    with pytest.raises(mrcz.ChunkError, match="1 images of 8000000000000000050 bytes"):
        mrcz.open(tmp_path / "b.ser")


def test_an_image_of_another_size_is_named(tmp_path):
    frames = [np.ones((4, 5), "u1"), np.ones((5, 4), "u1"), np.ones((4, 5), "u1")]
    path = write(tmp_path / "a.ser", frames)
    with mrcz.open(path) as reader:
        assert reader[2].shape == (4, 5)
        for key in (1, np.s_[1, 1:2, 1:2]):
            with pytest.raises(mrcz.ChunkError, match=r"a\.ser: frame 1, offset \d+: an image of 4 x 5 uint8"):
                reader[key]
        with pytest.raises(mrcz.ChunkError, match="frame 1"):
            reader.frame_metadata  # noqa: B018
    with pytest.raises(mrcz.ChunkError, match="frame 1"):
        mrcz.open(write(tmp_path / "b.ser", frames[:2]))


@pytest.mark.parametrize(("cut", "whole"), [(9, 3), (30, 3), (300, 2), (305, 1)])
def test_images_cut_short(tmp_path, rng, cut, whole):
    frames = rng.integers(0, 99, (4, 9, 10)).astype("u1")
    raw = ser_bytes(frames)
    (tmp_path / "a.ser").write_bytes(raw[:-cut])
    with pytest.raises(mrcz.ChunkError, match=rf"a\.ser: frame {whole}, "):
        mrcz.open(tmp_path / "a.ser")
    with pytest.warns(mrcz.FormatWarning, match="of 4 images . are whole"):
        reader = mrcz.open(tmp_path / "a.ser", permissive=True)
    with reader:
        assert len(reader) == whole
        np.testing.assert_array_equal(reader.read(), frames[: len(reader)])


def test_a_missing_tag_costs_the_time_alone(tmp_path):
    frames = np.ones((2, 3, 4), "u1")
    (tmp_path / "a.ser").write_bytes(ser_bytes(frames)[:-3])
    with mrcz.open(tmp_path / "a.ser") as reader:
        assert ["timestamp" in one for one in reader.frame_metadata] == [True, False]


def test_every_byte_changed_and_every_truncation(tmp_path, still):
    for path in seeds_ser(tmp_path):
        raw = path.read_bytes()
        other = path.with_name("z.ser")
        for at in range(4, len(raw), 1 if path.stem == "a_1" else 3):
            rewrite(other, flipped(raw, at, 0xFF if at % 2 else 0x02))
            survives(other)
        for size in range(4, len(raw), 3):
            rewrite(other, raw[:size])
            assert survives(other) is None or len(raw) - size <= 8
            if size % 2:
                survives(other, permissive=True)
