"""Headers and extended headers under documented names: each unit on paper, the real file, records of garbage."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from made_headers import plain

import mrcz
from mrcz.container.extended import FEI1_DTYPE, FEI2_DTYPE, ExtendedHeader
from mrcz.file.stated import of_extended, of_header

ALL = 0xFFFFFFFF


def fei(count=1, dtype=FEI1_DTYPE, **fields):
    records = np.zeros(count, dtype)
    records["Metadata size"] = dtype.itemsize
    for mask in range(1, 5):
        records[f"Bitmask {mask}"] = ALL
    for name, value in fields.items():
        records[name.replace("_", " ")] = value
    return records


def said(records, count=None):
    name = "FEI1" if records.dtype.itemsize == 768 else "FEI2"
    return of_extended(ExtendedHeader(records.tobytes(), name), len(records) if count is None else count)


def test_a_real_file(data_dir):
    path = data_dir / "fei" / "fei-extended.mrc"
    if not path.is_file():
        pytest.skip(f"no {path}")
    with mrcz.open(path) as reader:
        values, frames, told = of_extended(reader.extended_header, len(reader))
    assert values == {
        "pixel_size": [0.8537755225024313] * 2,  # 8.537755225024313e-11 m
        "voltage": 300.0,  # 300000 V
        "dose": 47.62483899112247,  # 4.762483899112247e+21 / m²
        "exposure_time": 10.0,
        "tilt": 0.004274353952111746,
        "defocus": -0.8,  # Applied defocus -8e-07 m
        "magnification": 165000.0,
        "spot_size": 6,
        "stage": [817.2905743999999, -843.339056, 90.63311739200005],  # 0.0008172905743999999 m …
        "timestamp": "2017-10-10T08:37:36",  # 43018.35944028935 days
        "camera": "EF-CCD",
        "microscope": "TITAN52336320",
        "binning": 1.0,
    }
    assert frames == [values]
    # The mask says that the tilt axis was not filled in, and the 0 there is none.
    assert told[0]["Tilt axis angle"] == 0 and "tilt_axis" not in values
    assert (told[0]["Application"], told[0]["HT"]) == ("Fei EPU", 300000.0)


def test_43018_days_are_10_october_2017():
    """118 years from the end of 1899, 29 of them leap years (1900 was none): 43,099 days to the end of 2017, less the
    22 + 30 + 31 that are left of it."""
    assert 118 * 365 + 29 + 1 - (21 + 30 + 31) == 43018  # day 1 is 31 December 1899
    assert said(fei(Timestamp=43018.0))[0]["timestamp"] == "2017-10-10T00:00:00"
    assert said(fei(Timestamp=43018.5))[0]["timestamp"] == "2017-10-10T12:00:00"


@pytest.mark.parametrize("dtype", [FEI1_DTYPE, FEI2_DTYPE])
@pytest.mark.parametrize(
    ("field", "mask", "bit", "value", "name", "meant"),
    [
        ("HT", 1, 5, 200000, "voltage", 200.0),
        ("Dose", 1, 6, 5e21, "dose", 50.0),
        ("Alpha tilt", 1, 7, -60.5, "tilt", -60.5),
        ("Tilt axis angle", 1, 12, 85.3, "tilt_axis", 85.3),
        ("Applied defocus", 1, 24, -1.5e-6, "defocus", -1.5),
        ("Magnification", 1, 31, 1e5, "magnification", 1e5),
        ("Spot index", 2, 1, 4, "spot_size", 4),
        ("Integration time", 2, 16, 0.25, "exposure_time", 0.25),
        ("Camera name", 2, 19, b"BM-Falcon", "camera", "BM-Falcon"),
        ("Frame time", 3, 16, 0.025, "frame_time", 0.025),
    ],
)
def test_only_what_its_bit_says_was_filled_in(dtype, field, mask, bit, value, name, meant):
    records = fei(dtype=dtype, **{field.replace(" ", "_"): value})
    assert said(records)[0][name] == meant
    records[f"Bitmask {mask}"] = ALL ^ (1 << bit)
    assert name not in said(records)[0]
    for other in range(1, 5):
        records[f"Bitmask {other}"] = (1 << bit) if other == mask else 0
    assert said(records)[0] == {name: meant}


def test_values_of_each_frame():
    records = fei(1024, HT=300000, Alpha_tilt=np.arange(1024) / 2)
    values, frames, told = said(records, 3)
    assert "tilt" not in values and values["voltage"] == 300.0
    assert [one["tilt"] for one in frames] == [0.0, 0.5, 1.0] and len(told) == 3
    # Of frames that have no record nothing is known.
    values, frames, _ = said(records[:2], 3)
    assert values == {} and len(frames) == 2


def test_numbers_that_are_none():
    found = said(fei(HT=np.nan, Dose=-1, Timestamp=1e300, Magnification=np.inf, Binning_Width=2))[0]
    assert not {"voltage", "dose", "timestamp", "magnification", "binning", "pixel_size", "spot_size"} & set(found)


@pytest.mark.parametrize("order", ["<", ">"])
def test_seri(order):
    head = plain(shape=(2, 2, 2), byteorder=order).replace(nint=12, nreal=1 | 4 | 8 | 32)
    # tilt × 100, stage × 25, magnification / 100; a dose of 1.25 is 81920 (320 × 256) times 2 ** -16.
    raw = b"".join(struct.pack(order + "6h", tilt, 25, -50, 330, 320, -16 * 256) for tilt in (-6001, 7))
    values, frames, told = of_extended(ExtendedHeader(raw, "SERI", head), 2)
    assert values == {"stage": [1.0, -2.0], "magnification": 33000.0, "dose": 1.25}
    assert [one["tilt"] for one in frames] == [-60.01, 0.07]
    assert told[0]["stage"] == [1.0, -2.0]


@pytest.mark.parametrize("nint", [12, 8])
def test_seri_without_a_record(nint):
    head = plain(shape=(2, 2, 2)).replace(nint=nint, nreal=1 | 4 | 8 | 32)
    assert of_extended(ExtendedHeader(b"", "SERI", head), 2) == ({}, [], None)
    assert of_extended(ExtendedHeader(bytes(24), "SERI", head), 0) == ({}, [], None)


@pytest.mark.parametrize("kind", ["FEI1", "FEI2", "SERI", "AGAR", "CCP4", "MRCO", ""])
def test_bytes_of_anything(kind, rng):
    for n in (0, 1, 767, 768, 888, 4000):
        head = plain().replace(nint=int(rng.integers(0, 40)), nreal=int(rng.integers(0, 64)))
        of_extended(ExtendedHeader(rng.bytes(n), kind, head), 4)


def test_the_header():
    assert of_header(plain(pixel_size=1.3)) == {"pixel_size": [1.3, 1.3]}
    assert of_header(plain(pixel_size=(1.0, 1.1, 2.0))) == {"pixel_size": [1.0, 1.1]}


@pytest.mark.parametrize("size", [None, 1.0])
def test_a_header_that_does_not_know(size):
    assert of_header(plain(pixel_size=size)) == {}


def test_an_mrcz_label(tmp_path):
    mrcz.write(
        tmp_path / "a.mrcz", np.ones((1, 2, 3), "i1"), pixel_size=0.83, voltage=300, c3=2.7, counts_per_electron=1.5
    )
    mrcz.write(tmp_path / "b.mrcz", np.ones((1, 2, 3), "i1"))
    with mrcz.open(tmp_path / "a.mrcz") as one, mrcz.open(tmp_path / "b.mrcz") as other:
        assert of_header(one.header) == {
            "pixel_size": [0.83, 0.83],
            "voltage": 300.0,
            "cs": 2.7,
            "counts_per_electron": 1.5,
        }
        assert of_header(other.header) == {}
