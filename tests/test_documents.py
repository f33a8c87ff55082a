"""docs/header.md, modes.md and container.md are enough to read every file: a reader written from them alone agrees.

It is `reference/documented.py`. All real files there are, what released versions wrote, and samples of everything this
one writes: pixels, pixel sizes, byte orders, extended headers, index, statistics and metadata.
"""

import bz2
import datetime
import enum
import gzip
import itertools
import math
import os
import re
from pathlib import Path

import numpy as np
import pytest
from reference import documented
from reference.xxh64_plain import xxh64

import mrcz
from mrcz.container.metadata import pack

ROOT = Path(__file__).parent
COLLECTION = Path(os.environ.get("MRCZ_TEST_DATA", ROOT.parents[1] / "shared" / "data"))
REAL = COLLECTION if COLLECTION.is_dir() else ROOT / "data"
NAMES = (".mrc", ".mrcs", ".mrcz", ".map", ".ccp4", ".st", ".rec", ".ali", ".msk")
# Text, headers without their pixels, and NZ of 32766: refused, as test_corpus.py has it.
REFUSED = (
    "leginoncatcheck.mrc",
    "MRC.mrc",
    "header_only.mrc",
    "test_data_corrupt_header.map",
    ".seq.dark.mrc",
    ".seq.gain.mrc",
)
FILES = sorted(
    str(path.relative_to(REAL))
    for path in REAL.rglob("*")
    if path.name.removesuffix(".gz").removesuffix(".bz2").lower().endswith(NAMES) and not path.name.endswith(REFUSED)
)
GOLDEN = sorted(path.name for path in (ROOT / "golden").iterdir() if path.suffix in (".mrc", ".mrcs", ".mrcz"))
UNPACK = {".gz": gzip.decompress, ".bz2": bz2.decompress}


def same(path):
    """Both readers on one file: they have to find the same."""
    found = documented.read(path)
    with mrcz.open(path, n_threads=1) as reader:
        head = found.header
        assert (head.nx, head.ny, head.nz) == (reader.header.nx, reader.header.ny, reader.header.nz)
        assert head.order == reader.header.byteorder and head.half_width == reader.header.is_half_width
        assert (head.mode, head.codec) == (reader.header.mode, reader.header.codec_number)
        assert head.pixel_size == pytest.approx(reader.pixel_size, rel=1e-7), path
        assert found.extended == reader.extended_bytes
        assert len(found.frames) == len(reader)
        for mine, its in zip(reader, found.frames, strict=True):
            assert mine.dtype == its.dtype.newbyteorder(mine.dtype.byteorder) and mine.shape == its.shape
            assert np.array_equal(mine, its, equal_nan=its.dtype.kind in "fc")
        if reader.is_compressed:
            assert found.sizes == reader.index.sizes.tolist()
            assert (found.footer is None) == (reader.footer is None)
        if found.footer is not None:
            body, mine = found.footer.body, reader.footer
            assert found.footer.offsets == mine.index.offsets.tolist()
            assert found.footer.hashes == (None if mine.index.hashes is None else mine.index.hashes.tolist())
            assert (found.footer.stats is None) == (mine.index.stats is None)
            assert found.footer.stats is None or np.array_equal(found.footer.stats, mine.index.stats, equal_nan=True)
            assert body.get("header_copy") == mine.header_copy and body.get("source_header") == mine.source_header
            assert body["header"] == xxh64(path.read_bytes()[:1024])
            assert alike(found.footer.metadata or reader.metadata, reader.metadata)


def alike(its, mine):
    """Values of metadata; members of classes that are loaded here are members to one and names to the other."""
    if isinstance(mine, enum.Enum):
        plain = mine.value if isinstance(mine.value, (str, int, float)) else None
        return its == ("enum member", type(mine).__module__, type(mine).__qualname__, mine.name, plain)
    if isinstance(mine, np.ndarray):
        equal = np.array_equal(its, mine) if mine.dtype.names else its.tobytes() == mine.tobytes()
        return its.dtype == mine.dtype and its.shape == mine.shape and equal  # records: nobody knows what is between
    if isinstance(mine, np.generic):
        return type(its) is type(mine) and np.asarray(its).tobytes() == np.asarray(mine).tobytes()
    if isinstance(mine, dict):
        return its.keys() == mine.keys() and all(alike(its[key], mine[key]) for key in mine)
    if isinstance(mine, (list, tuple)):
        return type(its) is type(mine) and len(its) == len(mine) and all(map(alike, its, mine))
    if isinstance(mine, float) and math.isnan(mine):
        return math.isnan(its)
    return type(its) is type(mine) and its == mine


# ---- files of others ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_real_files_and_what_they_become(tmp_path, name):
    path = REAL / name
    if path.suffix in UNPACK:
        unpacked = tmp_path / path.stem
        unpacked.write_bytes(UNPACK[path.suffix](path.read_bytes()))
        path = unpacked
    same(path)
    with mrcz.open(path) as reader:
        before = reader.pixel_size
        if reader.is_compressed or any("after the last frame" in oddity for oddity in reader.oddities):
            return
    new = tmp_path / "new.mrcz"
    mrcz.compress(path, new)
    same(new)
    assert documented.read(new).header.pixel_size == pytest.approx(before, rel=1e-6)
    with mrcz.open(new, "a") as writer:  # CELLA z follows NZ
        writer.append(mrcz.open(path)[0])
    same(new)
    assert documented.read(new).header.pixel_size == pytest.approx(before, rel=1e-6)


def test_many_files_were_compared():
    assert len(FILES) >= (64 if COLLECTION.is_dir() else 10)


@pytest.mark.parametrize("name", GOLDEN)
def test_files_of_released_versions(name):
    same(ROOT / "golden" / name)


# ---- files of this version -----------------------------------------------------------------------------------------

STACK = np.random.default_rng(0).poisson(3, (4, 10, 13))
TYPES = ["i1", "u1", "i2", "u2", "i4", "u4", "f2", "f4", "c8"]
SHAPES = {
    "image": {"kind": "image"},
    "stack": {},
    "volume": {"kind": "volume"},
    "volumes": {"kind": "volume stack", "mz": 2},
}


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("kind", SHAPES)
def test_what_is_written(tmp_path, dtype, order, kind):
    frames = STACK[: 1 if kind == "image" else 4].astype(dtype)
    size = (0.83, 0.9, 1.5)
    for codec, name in itertools.product(("none", "zstd", "lz4", "zlib"), ("a.mrc", "a.mrcz")):
        path = tmp_path / name
        mrcz.write(
            path,
            frames,
            codec=codec,
            byteorder=order,
            pixel_size=size,
            overwrite=True,
            sync=False,
            **SHAPES[kind],
            metadata=None if codec == "none" else {"codec": codec},
        )
        same(path)
        assert documented.read(path).header.pixel_size == pytest.approx(size, rel=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {"pack": True},
        {"mrc_mode": 0},
        {"mrc_mode": 3},
        {"mrc_mode": 16},
        {"backend": "blosc2"},
        {"metadata_codec": "lz4"},
        {"metadata_codec": None},
        {"codec": "lz4hc"},
        {"codec": "blosclz"},
        {"slices": 1},
        {"whole_cell": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["a.mrc", "a.mrcz"])
def test_what_is_asked_for(tmp_path, name, options):
    if options.get("mrc_mode") == 16:
        frames = np.random.default_rng(0).integers(0, 255, (3, 10, 13, 3)).astype("u1")
    else:
        frames = STACK.clip(0, 15).astype("c8" if options.get("mrc_mode") == 3 else "u1")
        frames += 100 if "mrc_mode" in options else 0
    path = tmp_path / name
    mrcz.write(path, frames, pixel_size=1.25, sync=False, **options)
    same(path)
    assert documented.read(path).header.pixel_size == pytest.approx((1.25,) * 3)


def test_the_old_calls(tmp_path):
    for name, kind in itertools.product(("a.mrc", "a.mrcz"), ("array", "list", "volumes")):
        path = tmp_path / name
        data = STACK.astype("f4")
        given = {"array": data, "list": list(data), "volumes": [data, data]}[kind]
        mrcz.writeMRC(given, str(path), pixelsize=[0.11, 0.12, 0.13], compressor="zstd" if name == "a.mrcz" else None)
        same(path)


def test_a_file_that_grows_and_one_that_was_recovered(tmp_path):
    from mrcz.check.recover import recover

    path = tmp_path / "a.mrcz"
    with mrcz.open(path, "w", pixel_size=(1.0, 2.0, 3.0)) as writer:
        for k, frame in enumerate(STACK.astype("u2")):
            writer.append(frame, metadata={"k": k})
            writer.flush()
            same(path)
            assert documented.read(path).header.pixel_size == (1.0, 2.0, 3.0)
    data = bytearray(path.read_bytes())
    with mrcz.open(path) as reader:
        data[int(reader.index.offsets[1]) + 40] ^= 255
    path.write_bytes(data)
    saved = tmp_path / "saved.mrcz"
    recover(path, saved)
    assert np.frombuffer(documented.read(saved).footer.body["recovered_frames"], "<i4").tolist() == [0, 2, 3]
    with mrcz.open(saved, "a") as writer:
        writer.append(STACK[0].astype("u2"))
    same(saved)
    # The number of frames that were recovered, whatever was appended since.
    assert np.frombuffer(documented.read(saved).footer.body["recovered_frames"], "<i4").tolist() == [0, 2, 3]


# ---- metadata -----------------------------------------------------------------------------------------------------


class Camera:
    class Mode(enum.Enum):
        COUNTING = "counting"
        ODD = (1, 2)


class Flags(enum.Flag):
    A = 1
    B = 2


UTC = datetime.timezone(datetime.timedelta(hours=-3, minutes=-30))
VALUES = {
    "plain": {"a": [1, -2, 1.5, None, True, "Å", b"\0\xff", {3: 4, None: 5}], "nan": math.nan},
    "arrays": [np.arange(6).reshape(2, 3).astype(code) for code in ("<i2", ">f4", "|u1", "<c16", "|b1", "<f2", ">u8")],
    "text arrays": [np.array(["ab", "cde"]), np.array([b"ab", b"c"]), np.array([b"\0\1"], "V2")],
    "time arrays": [np.array(["2018-03-01"], "M8[D]"), np.array([5, -7], "m8[25ns]")],
    "odd shapes": [np.float32(1.5) * np.ones(()), np.zeros((0, 3), "i4"), np.asfortranarray(np.eye(3, dtype="f4"))],
    "records": [
        np.array([(1, (2, 3), b"x")], [("a", "<i4"), ("b", "<f4", (2,)), ("c", "S4")]),
        np.zeros(2, np.dtype([("a", "u1"), ("b", "f8")], align=True)),
        np.zeros(2, [(("a title", "a"), "u1"), ("b", [("c", "i2"), ("d", "f4", (2, 2))])]),
    ],
    "scalars": [
        np.float32(1.5),
        np.int16(-3),
        np.bool_(True),
        np.complex64(1 - 2j),
        np.str_("Å"),
        np.bytes_(b"ab"),
        np.datetime64("2018-03-01T12:30", "s"),
        np.timedelta64(5, "ms"),
        np.float64("nan"),
    ],
    "tuples": ((), (1, (2, "x")), [(3,)]),
    "times": [
        datetime.datetime(2018, 3, 1, 12, 30),
        datetime.datetime(2018, 3, 1, 12, 30, 5, 250000, UTC),
        datetime.date(2018, 3, 1),
        datetime.time(12, 30),
        datetime.time(1, 2, 3, 4, UTC),
        datetime.timedelta(-1, 5, 7),
        datetime.timedelta(microseconds=1),
    ],
    "enums": [Camera.Mode.COUNTING, Camera.Mode.ODD, Flags.A, Flags.A | Flags.B, Flags(0)],
    "numbers": [1 + 2j, complex(0, -0.0), 2**63, 2**64, -(2**64) - 1, 2**10000],
    "sets": [set(), {1, 2, (3, 4)}, frozenset({"a", b"b"})],
    "nested": {"deep": (np.arange(2), [{"x": {(1, np.int8(2))}}])},
}


@pytest.mark.parametrize("name", VALUES)
def test_metadata(tmp_path, name):
    path = tmp_path / "a.mrcz"
    mrcz.write(path, STACK[:1].astype("u1"), metadata={"value": VALUES[name]}, sync=False)
    same(path)
    assert alike(documented.read(path).footer.metadata["value"], VALUES[name])


# ---- the examples in the pages -------------------------------------------------------------------------------------


def test_the_footer_of_the_example():
    page = (ROOT.parent / "docs" / "container.md").read_text()
    dump = re.search(r"```hexdump\n(.*?)```", page, re.DOTALL)[1]
    raw = b"".join(bytes.fromhex(line[5:].partition("|")[0]) for line in dump.splitlines())
    found = documented.footer(bytes(1114) + raw)
    assert (found.offsets, found.sizes, found.hashes, found.start) == ([1024, 1064], [40, 50], [1, 2], 1114)


def test_the_array_of_the_example():
    page = (ROOT.parent / "docs" / "header.md").read_text()
    first, second = re.search(r"is `(c7 12 01)`, and in that extension\n`([0-9a-f ]+)`", page).groups()
    raw = bytes.fromhex(first + second)
    assert pack(np.array([[1, 2], [3, 4]], "<u2").view("<u2")) == raw
    assert np.array_equal(documented.values(raw), [[1, 2], [3, 4]])


def test_every_extension_type_is_in_the_table():
    from mrcz.container.metadata import _DECODERS

    page = (ROOT.parent / "docs" / "header.md").read_text()
    table = page[page.index("| code | value | payload |") :].split("\n\n")[0]
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)} == set(_DECODERS)
