"""EPU's XML: the real file, and what is no such thing."""

from __future__ import annotations

import math

import pytest

from mrcz.errors import FormatError
from mrcz.formats import epu

NAME = "FoilHole_9015883_Data_9017354_6_20250108_154918.xml"


@pytest.fixture
def real(data_dir) -> bytes:
    path = data_dir.parent / "movies" / "epu" / NAME
    if not path.is_file():
        pytest.skip(f"no {path}")
    return path.read_bytes()


def test_every_value(real):
    values, notes = epu.of_movie(epu.parse(real), (50, 2046, 2880))
    tilt = values.pop("tilt")
    assert tilt == pytest.approx(-0.00043148193122001131 * 180 / math.pi, rel=1e-12)  # rad
    assert (values, notes) == (
        {
            "voltage": 300.0,  # 300000 V
            "dose": 14.557753315079335,  # 1.4557753315079335E+21 / m²
            "exposure_time": 0.89,
            "defocus": -2.7,  # AppliedDefocus, -2.7E-06 m; the lens's, 4.8E-07 m, has another zero
            "magnification": 165000.0,
            "spot_size": 5,
            "stage": [-97.15300130000006, -152.72289599999985, 85.71084403520003],  # m
            "timestamp": "2025-01-08T15:49:21.1049704+00:00",
            "camera": "BioQuantum K3",
            "microscope": "TITAN52336320",
            "pixel_size": [1.0558814239614023, 1.0558814239614023],  # 1.0558814239614023E-10 m
            "dose_per_pixel": 16.230229269531858,
            "binning": 2.0,
        },
        [],
    )
    # What shows the units of the doses: per Å², times the area of a pixel, is per pixel.
    assert values["dose"] * values["pixel_size"][0] ** 2 == pytest.approx(values["dose_per_pixel"], rel=1e-9)


def test_pixels_of_another_size_than_those_of_the_frames(real):
    values, (note,) = epu.of_movie(epu.parse(real), (50, 4092, 5760))
    assert not {"pixel_size", "binning", "dose_per_pixel"} & set(values)
    assert (values["dose"], values["voltage"]) == (14.557753315079335, 300.0)
    assert note.startswith("its image is 2880 × 2046, the frames are 5760 × 4092")


@pytest.mark.parametrize(
    ("old", "new", "missing"),
    [
        (b"_BackingField>m</a", b"_BackingField>nm</a", "pixel_size"),
        (b"<AccelerationVoltage>300000", b"<AccelerationVoltage>0", "voltage"),
        (b"<AccelerationVoltage>300000", b"<AccelerationVoltage>" + b"9" * 100, "voltage"),
        (b"<AccelerationVoltage>300000", b"<AccelerationVoltage>3e400", "voltage"),
        (b"1.4557753315079335E+21", b"NaN", "dose"),
        (b"<SpotIndex>5", b"<SpotIndex>-5", "spot_size"),
        (b"<Z>8.57", b"<Z>x", "stage"),
        (b"-2.7E-06", b"", "defocus"),
        (b"a:Key>DoseRate<", b"a:Key>AppliedDefocus<", "defocus"),  # twice, with different values
        (b"<a:x>2</a:x>", b"<a:x>4</a:x>", "binning"),
    ],
)
def test_what_is_no_number_is_absent(real, old, new, missing):
    whole, _ = epu.of_movie(epu.parse(real))
    assert old in real
    values, _ = epu.of_movie(epu.parse(real.replace(old, new)))
    assert set(whole) - set(values) == {missing}


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "no XML"),
        (b"<MicroscopeImage>", "no XML"),
        (b"<a/>", "of a a, not of EPU's"),
        (b"\xff\xfe<\0a\0", "UTF-16"),
        (b"\xff", "no XML"),
        (b'<!DOCTYPE x [<!ENTITY a "b">]><MicroscopeImage>&a;</MicroscopeImage>', "document type"),
        (b"<MicroscopeImage>&a;</MicroscopeImage>", "no XML"),
        (b'<?xml version="1.0" encoding="utf-7"?><MicroscopeImage', "no XML"),
        (b" " * (epu.MOST + 1), "are read at most"),
    ],
)
def test_what_is_not_read(raw, words):
    with pytest.raises(FormatError, match=words):
        epu.parse(raw)


def test_other_xml_of_epu_is_not_of_an_image(data_dir):
    path = data_dir.parent / "movies" / "epu" / "GridSquare_20250108_151151.xml"
    if not path.is_file():
        pytest.skip(f"no {path}")
    assert epu.of_movie(epu.parse(path.read_bytes()))[0]["microscope"] == "TITAN52336320"


def test_deep_and_empty_elements():
    deep = b"<MicroscopeImage>" + b"<a>" * 100_000 + b"</a>" * 100_000 + b"</MicroscopeImage>"
    empty = b"<MicroscopeImage><CustomData><a/></CustomData><SpatialScale/></MicroscopeImage>"
    for raw in (deep, empty, b"<MicroscopeImage/>"):
        assert epu.of_movie(epu.parse(raw)) == ({}, [])


def test_truncations_and_flipped_bytes(real):
    for n in range(0, len(real), 7):
        for raw in (real[:n], real[:n] + bytes([real[n] ^ (1 << n % 8)]) + real[n + 1 :]):
            try:
                root = epu.parse(raw)
            except FormatError:
                continue
            epu.of_movie(root, (50, 2046, 2880))
