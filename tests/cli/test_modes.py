"""Every pixel type and odd layout there and back through the command line: the restored file is the file."""

import struct

import numpy as np
import pytest

import mrcz
from mrcz import cli

SHAPE = (5, 6, 7)


def raw_file(path, mode, pixels, *, order="<", shape=SHAPE, nsymbt=0, ispg=0, stamp=None, flags=None, **fields):
    """An MRC file written field by field, independently of the package."""
    nz, ny, nx = shape
    header = bytearray(1024)

    def put(offset, code, *values):
        struct.pack_into(order + code, header, offset, *values)

    put(0, "4i", fields.get("stored_nx", nx), ny, fields.get("nz", nz), mode)
    put(28, "3i", nx, ny, fields.get("mz", 1 if ispg == 0 else nz))
    put(40, "6f", 1.5 * nx, 1.5 * ny, 1.5, 90, 90, 90)
    put(64, "3i", 1, 2, 3)
    put(76, "3f", *fields.get("range", (0, -1, -2)))
    put(88, "2i", ispg, nsymbt)
    if flags is not None:
        put(152, "2i", 1146047817, flags)
    header[208:212] = b"MAP "
    header[212:216] = stamp if stamp is not None else (b"DD\0\0" if order == "<" else b"\x11\x11\0\0")
    path.write_bytes(bytes(header) + bytes(range(256)) * (nsymbt // 256) + bytes(pixels))


def there_and_back(tmp_path, *options):
    source, packed, restored = tmp_path / "a.mrc", tmp_path / "a.mrcz", tmp_path / "b.mrc"
    assert cli.main(["compress", "--check", str(source), "-o", str(packed), *options]) == 0
    assert cli.main(["verify", str(packed)]) == 0
    assert cli.main(["verify", str(source), str(packed)]) == 0
    assert cli.main(["decompress", "--check", str(packed), "-o", str(restored)]) == 0
    assert restored.read_bytes() == source.read_bytes()
    return packed


# mode -> stored elements a pixel and their type
STORED = {
    0: ("i1", 1),
    1: ("i2", 1),
    2: ("f4", 1),
    3: ("i2", 2),
    4: ("f4", 2),
    6: ("u2", 1),
    7: ("i4", 1),
    8: ("u4", 1),
    12: ("f2", 1),
    16: ("u1", 3),
}


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("mode", STORED)
def test_every_mode(tmp_path, rng, capsys, mode, order):
    """Random bits: every value there is, NaN and infinity included."""
    dtype, per_pixel = STORED[mode]
    n = int(np.prod(SHAPE)) * per_pixel * np.dtype(dtype).itemsize
    raw_file(tmp_path / "a.mrc", mode, rng.bytes(n), order=order)
    there_and_back(tmp_path)


def _nibbles(rng, shape, *, padding=0):
    """Packed rows; the last high nibble of a row of odd length is `padding`."""
    nz, ny, nx = shape
    rows = rng.integers(0, 256, (nz, ny, (nx + 1) // 2), dtype=np.uint8)
    if nx % 2:
        rows[..., -1] = (rows[..., -1] & 15) | (padding << 4)
    return rows.tobytes()


@pytest.mark.parametrize("options", [[], ["--pack"]], ids=["8 bits", "packed"])
@pytest.mark.parametrize("nx", [7, 8, 1])
def test_four_bits(tmp_path, rng, capsys, nx, options):
    shape = (5, 6, nx)
    raw_file(tmp_path / "a.mrc", 101, _nibbles(rng, shape), shape=shape)
    there_and_back(tmp_path, *options)


def test_padding_that_is_not_zero_is_noticed(tmp_path, rng, capsys):
    """No pixel is in it, but the file would not come back as it was."""
    raw_file(tmp_path / "a.mrc", 101, _nibbles(rng, SHAPE, padding=9))
    for option in ("-q", "--check", "--remove"):
        assert cli.main(["compress", option, str(tmp_path / "a.mrc")]) == 3
        assert "half bytes that are not 0" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["a.mrc"]


def test_half_width_four_bits(tmp_path, rng, capsys):
    """SerialEM's form: bytes with the columns halved, IMOD's flag 16."""
    shape = (3, 6, 8)
    raw_file(tmp_path / "a.mrc", 0, _nibbles(rng, shape), shape=shape, stored_nx=4, flags=16)
    packed = there_and_back(tmp_path)
    assert mrcz.read(packed).shape == shape


@pytest.mark.parametrize("option", [None, "--signed", "--unsigned"])
@pytest.mark.parametrize(
    ("flags", "limits"), [(None, (0, -1, -2)), (0, (0, -1, -2)), (1, (0, -1, -2)), (None, (0, 255, 9))]
)
def test_signs_of_bytes(tmp_path, capsys, flags, limits, option):
    pixels = np.arange(np.prod(SHAPE)).astype("u1").tobytes()
    raw_file(tmp_path / "a.mrc", 0, pixels + b"", flags=flags, range=limits)
    source, packed = tmp_path / "a.mrc", tmp_path / "a.mrcz"
    options = [] if option is None else [option]
    assert cli.main(["compress", "--check", str(source), *options]) == 0
    assert cli.main(["decompress", str(packed), "-o", str(tmp_path / "b.mrc")]) == 0
    assert (tmp_path / "b.mrc").read_bytes() == source.read_bytes()
    signed = {None: None, "--signed": True, "--unsigned": False}[option]
    assert np.array_equal(mrcz.read(packed), mrcz.read(source, signed_bytes=signed))


@pytest.mark.parametrize(("ispg", "mz"), [(0, 1), (0, 6), (1, 6), (401, 3), (401, 2)])
def test_kinds(tmp_path, rng, capsys, ispg, mz):
    shape = (6, 4, 5)
    raw_file(tmp_path / "a.mrc", 1, rng.bytes(240), shape=shape, ispg=ispg, mz=mz)
    packed = there_and_back(tmp_path)
    with mrcz.open(tmp_path / "a.mrc") as a, mrcz.open(packed) as b:
        assert a.kind == b.kind and a.header.mz == b.header.mz


def test_extended_header_of_any_kind(tmp_path, rng, capsys):
    raw_file(tmp_path / "a.mrc", 6, rng.bytes(420), nsymbt=512)
    packed = there_and_back(tmp_path)
    with mrcz.open(packed) as reader:
        assert reader.extended_header.raw == bytes(range(256)) * 2


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 300), (300, 1, 1), (2, 257, 1)])
def test_small_shapes(tmp_path, rng, capsys, shape):
    raw_file(tmp_path / "a.mrc", 2, rng.bytes(4 * int(np.prod(shape))), shape=shape)
    there_and_back(tmp_path)


def test_more_frames_than_one_block(tmp_path, rng, capsys, monkeypatch):
    monkeypatch.setattr("mrcz.file.original._BLOCK", 3 * 84)
    monkeypatch.setattr("mrcz.check.verify._PART", 3 * 84)
    monkeypatch.setattr("mrcz.file.original._LARGE_BLOCK", 84)
    raw_file(tmp_path / "a.mrc", 1, rng.bytes(84 * 11), shape=(11, 6, 7))
    there_and_back(tmp_path)


def test_appended_frames_are_not_cut_off(tmp_path, rng, capsys):
    """A file that grew after it was compressed no longer has the header it came with."""
    raw_file(tmp_path / "a.mrc", 1, rng.bytes(84 * 5))
    there_and_back(tmp_path)
    with mrcz.open(tmp_path / "a.mrcz") as reader:
        grown, header, source = reader.read(), reader.header, reader.footer.source_header
    grown = np.concatenate([grown, grown[:2]])
    mrcz.write(tmp_path / "c.mrcz", grown, header=header, source_header=source)
    assert cli.main(["decompress", "--check", str(tmp_path / "c.mrcz")]) == 0
    assert np.array_equal(mrcz.read(tmp_path / "c.mrc"), grown)
