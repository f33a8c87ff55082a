"""Extended headers decoded and kept: FEI1, FEI2, SERI, AGAR, CCP4, json."""

import json
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mrcz import FormatError
from mrcz.container.extended import FEI1_DTYPE, FEI2_DTYPE, ExtendedHeader, decode_extended
from mrcz.container.header.header import Header
from mrcz.container.modes import format_of_mode


def header(nz=3, order="<", **fields):
    return Header.build((nz, 4, 4), format_of_mode(1, byteorder=order)).replace(**fields)


def real(path):
    raw = path.read_bytes()
    head = Header.parse(raw[:1024])
    return ExtendedHeader(raw[1024 : head.data_offset], head.exttyp, head)


# ---- extended headers --------------------------------------------------------------------------------------------


def test_fei1_of_a_real_micrograph(data_dir):
    extended = real(data_dir / "fei" / "fei-extended.mrc")
    assert (extended.type, len(extended), extended.decoded.shape) == ("FEI1", 786432, (1024,))
    assert extended.decoded is extended.decoded
    first = extended.decoded[0]
    assert (first["Metadata size"], first["Metadata version"]) == (768, 0)
    assert (first["Microscope type"], first["Application"], first["Camera name"]) == (
        b"TITAN52336320",
        b"Fei EPU",
        b"EF-CCD",
    )
    assert (first["HT"], first["Magnification"], first["Applied defocus"]) == (300000, 165000, -8e-7)
    assert first["Pixel size X"] == pytest.approx(0.8537755e-10)
    assert (first["Readout area right"], first["Readout area bottom"]) == (3710, 3838)
    assert (first["EFTEM On"], first["Slit width"], first["Integration time"]) == (True, 20, 10)
    assert extended.decoded.tobytes() == extended.raw == bytes(extended)


def test_fei2_of_a_real_scan(data_dir):
    extended = real(data_dir / "rsciio-mrc" / "HAADFscan.mrc")
    first = extended.decoded[0]
    assert (extended.type, len(extended.decoded), first["Metadata size"]) == ("FEI2", 1024, 888)
    assert (first["Application"], first["STEM Detector name"], first["Dwell time"]) == (b"Velox", b"HAADF", 0.01)
    assert first["Pixel size X"] == pytest.approx(5.679131e-9)
    assert (first["Scan size right"], first["Objective aperture name"]) == (256, b"")
    assert FEI2_DTYPE.names[: len(FEI1_DTYPE.names)] == FEI1_DTYPE.names


def test_fei_agrees_with_mrcfile(data_dir):
    import mrcfile

    for name in ("fei/fei-extended.mrc", "rsciio-mrc/HAADFscan.mrc"):
        with mrcfile.open(data_dir / name, header_only=True) as file:
            theirs = file.indexed_extended_header
        ours = real(data_dir / name).decoded
        assert ours.dtype.names == theirs.dtype.names
        assert ours[: len(theirs)].tobytes() == theirs.tobytes()


@pytest.mark.parametrize(("exttyp", "dtype"), [("FEI1", FEI1_DTYPE), ("FEI2", FEI2_DTYPE)])
def test_fei_in_either_byte_order(exttyp, dtype):
    little = np.zeros(3, dtype)
    little["Metadata size"], little["HT"], little["Bitmask 1"], little["Alpha tilt"] = dtype.itemsize, 2e5, 3, [1, 2, 3]
    big = little.astype(dtype.newbyteorder(">"))
    raw = bytearray(big.tobytes())
    for i in range(3):  # masks are little-endian in any file
        struct.pack_into("<I", raw, i * dtype.itemsize + 8, 3)
    for data in (little.tobytes(), bytes(raw)):
        found = decode_extended(exttyp, data, header())
        assert found["Alpha tilt"].tolist() == [1, 2, 3]
        assert (found["HT"][0], found["Bitmask 1"][2]) == (2e5, 3)
    # Records that grew keep their stride; half a record more is no record; a size that is none leaves the type's own.
    longer = b"".join(record.tobytes() + b"more" * 4 for record in little)
    struct.pack_into("<i", longer := bytearray(longer), 0, dtype.itemsize + 16)
    assert decode_extended(exttyp, bytes(longer), header())["Alpha tilt"].tolist() == [1, 2, 3]
    assert len(decode_extended(exttyp, little.tobytes() + bytes(100), header())) == 3
    assert len(decode_extended(exttyp, bytes(2 * dtype.itemsize), header())) == 2
    assert decode_extended(exttyp, little.tobytes()[:700], header()) == little.tobytes()[:700]


def sem_float(value: float) -> tuple[int, int]:
    """SerialEM's two shorts, from IMOD's mrc_format.txt: s1 * 256 + |s2| % 256 times 2 ** (sign(s2) * |s2| // 256)."""
    if value == 0:
        return 0, 0
    exponent = int(np.floor(np.log2(abs(value)))) - 22
    mantissa = round(abs(value) / 2.0**exponent)
    sign = -1 if exponent < 0 else 1
    return int(np.copysign(mantissa // 256, value)), sign * (256 * abs(exponent) + mantissa % 256)


@pytest.mark.parametrize("order", ["<", ">"])
def test_seri(order):
    sections = b"".join(
        struct.pack(order + "10h", int(tilt * 100), 10, -20, 3, 25, -50, 330, 12500, *sem_float(dose))
        for tilt, dose in ((-60.01, 1.25), (0, 0), (60.01, 1234.5))
    )
    head = header(3, order, exttyp="SERI", nint=20, nreal=1 | 2 | 4 | 8 | 16 | 32)
    table = decode_extended("SERI", sections + bytes(1024 - len(sections)), head)
    assert table.dtype.names == ("tilt_angle", "piece", "stage", "magnification", "intensity", "dose")
    assert table["tilt_angle"] == pytest.approx([-60.01, 0, 60.01])
    assert table["piece"].tolist() == [[10, -20, 3]] * 3
    assert table["stage"].tolist() == [[1, -2]] * 3
    assert table["magnification"].tolist() == [33000] * 3
    assert table["intensity"].tolist() == [0.5] * 3
    assert table["dose"] == pytest.approx([1.25, 0, 1234.5], rel=1e-6)
    # Reserved items are stepped over; sections that are missing are not made up.
    head = header(3, order, nint=8, nreal=1 | 64 | 128)
    reserved = struct.pack(order + "4h", 4500, 1, 2, 3)
    assert decode_extended("SERI", reserved * 2, head)["tilt_angle"].tolist() == [45, 45]
    assert decode_extended("SERI", reserved) == reserved


@pytest.mark.parametrize("order", ["<", ">"])
def test_agar(order):
    """And SERI whose flags do not add up to its size, which IMOD takes for integers and reals."""
    head = header(2, order, nint=1, nreal=2)
    data = struct.pack(order + "iffiff", 7, 1.5, 2.5, 8, 3.5, 4.5) + bytes(500)
    for exttyp in ("AGAR", "SERI"):
        table = decode_extended(exttyp, data, head)
        assert table["integers"].tolist() == [[7], [8]]
        assert table["reals"].tolist() == [[1.5, 2.5], [3.5, 4.5]]
    for nint, nreal in ((0, 0), (-1, 5), (3, -2), (32767, 32767)):
        assert decode_extended("AGAR", data, header(2, order, nint=nint, nreal=nreal)) == data


def test_symmetry(data_dir):
    extended = real(data_dir / "mrcfile" / "EMD-3001.map")
    assert extended.type == ""
    assert extended.decoded == ["X,  Y,  Z", "-X,  Y+1/2,  -Z"]
    lines = real(data_dir / "griddata" / "1jzv.ccp4").decoded
    assert len(lines) == 8
    assert decode_extended("CCP4", b"X,Y,Z".ljust(80) + bytes(80)) == ["X,Y,Z"]


@pytest.mark.parametrize("exttyp", ["MRCO", "HDF5", "CCP4", "", "????"])
def test_the_rest_is_bytes(exttyp):
    for data in (b"", b"\x89HDF\r\n\x1a\n\0\1\2", b"\xff" * 80, bytes(160)):
        assert decode_extended(exttyp, data, header()) == data


def test_json_in_real_files(data_dir):
    path = data_dir / "mrcz-generated" / "rsciio_desim_u16_zstd.mrcz"
    extended = real(path)
    assert isinstance(extended.decoded, dict)
    assert extended.decoded == json.loads(extended.raw)


def test_extended_header_is_a_value():
    extended = ExtendedHeader(b"X,Y,Z".ljust(80), "CCP4")
    assert extended == ExtendedHeader(bytearray(b"X,Y,Z".ljust(80)), "CCP4", header())
    assert extended != ExtendedHeader(extended.raw, "MRCO")
    assert extended != extended.raw
    assert hash(extended) == hash(ExtendedHeader(extended.raw, "CCP4"))
    assert repr(extended) == "<ExtendedHeader CCP4, 80 bytes>"
    assert not ExtendedHeader()


@given(
    data=st.binary(max_size=3000),
    exttyp=st.sampled_from(["FEI1", "FEI2", "SERI", "AGAR", "CCP4", "", "MRCO", "json"]),
    nint=st.integers(-40, 40),
    nreal=st.integers(-(2**15), 2**15 - 1),
    order=st.sampled_from("<>"),
)
def test_any_bytes_decode(data, exttyp, nint, nreal, order):
    try:
        value = decode_extended(exttyp, data, header(5, order, nint=nint, nreal=nreal))
    except FormatError:
        assert exttyp == "json"
    else:
        assert exttyp == "json" or isinstance(value, (bytes, list, np.ndarray))
