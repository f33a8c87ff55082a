"""Judging files against MRC2014: each way to be wrong is found and named, and nothing that mrcfile finds is missed."""

import gzip
import io
import json
import struct
import warnings

import mrcfile
import numpy as np
import pytest
from rewriting import rewrite

import mrcz
from mrcz import cli
from mrcz.container.header.header import HEADER_DTYPE

SUFFIXES = (".mrc", ".mrcs", ".map", ".ccp4", ".st", ".rec", ".gz", ".bz2")


def changed(path, **fields):
    """Some fields of a plain file, whatever they then say; bytes by their place."""
    raw = bytearray(path.read_bytes())
    record = np.frombuffer(raw, HEADER_DTYPE, 1)
    for name, value in fields.items():
        record[name] = value
    path.write_bytes(raw)


@pytest.fixture
def sound(tmp_path, rng):
    path = tmp_path / "a.mrc"
    mrcz.write(
        path,
        rng.normal(size=(4, 6, 8)).astype(np.float32),
        kind="volume",
        pixel_size=1.5,
        extended_header=("CCP4", b"X,Y,Z".ljust(80)),
    )
    assert mrcz.validate(path) == mrcz.check.validate.Validation(str(path), ())
    assert mrcfile.validate(path, io.StringIO())
    return path


WRONG = [
    ({"map": b"PAM "}, "MAP (byte 208)", True),
    ({"machst": (0, 0, 0, 0)}, "MACHST (byte 212)", True),
    ({"machst": (0x11, 0x11, 0, 0)}, "MACHST (byte 212)", False),
    ({"nversion": 0}, "NVERSION (byte 108)", True),
    ({"mx": -1}, "MX (byte 28)", True),
    ({"my": 0}, "MY (byte 32)", False),
    ({"mz": -3}, "MZ (byte 36)", True),
    ({"ispg": -1}, "ISPG (byte 88)", True),
    ({"ispg": 300}, "ISPG (byte 88)", False),
    ({"ispg": 0}, "MZ (byte 36)", False),
    ({"ispg": 401, "mz": 3}, "MZ (byte 36)", True),
    ({"cella": (1, -1, 1)}, "CELLA y (byte 44)", True),
    ({"cella": (1, 1, np.nan)}, "CELLA z (byte 48)", False),
    ({"cellb": (90, 90, 200)}, "CELLB gamma (byte 60)", False),
    ({"origin": (0, np.inf, 0)}, "ORIGIN y", False),
    ({"mapc": 2}, "MAPC, MAPR, MAPS (byte 64)", True),
    ({"maps": 0}, "MAPC, MAPR, MAPS (byte 64)", True),
    ({"nlabl": 3}, "NLABL (byte 220)", True),
    ({"nlabl": -1}, "NLABL (byte 220)", True),
    ({"exttyp": b"WHAT"}, "EXTTYP (byte 104)", True),
    ({"exttyp": b"FEI1"}, "NSYMBT (byte 92)", False),
    ({"dmin": -99}, "DMIN (byte 76)", True),
    ({"dmax": 99}, "DMAX (byte 80)", True),
    ({"dmean": 0.5}, "DMEAN (byte 84)", True),
    ({"rms": 2}, "RMS (byte 216)", True),
    ({"rms": np.nan}, "RMS (byte 216)", False),
]


@pytest.mark.parametrize(("fields", "problem", "theirs"), WRONG, ids=[str(wrong[0]) for wrong in WRONG])
def test_each_way_to_be_wrong_is_named(sound, fields, problem, theirs):
    changed(sound, **fields)
    found = mrcz.validate(sound)
    assert not found.ok and any(text.startswith(problem) for text in found.problems), found
    for text in found.problems:
        assert " is " in text and "expected" in text and ": " in text
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert mrcfile.validate(sound, io.StringIO()) != theirs
    # Told to do something, one can do it: the way that is named mends it, or says why not.
    code = {"exttyp": b"CCP4"} if "exttyp" in fields else {}
    mends = {
        "map": {"map": "MAP"},
        "machst": {"machst": b"DD\0\0"},
        "nversion": {"nversion": 20141},
        "ispg": {"kind": "volume"},
        "cella": {"pixel_size": 1},
        "cellb": {"cellb": (90, 90, 90)},
        "origin": {"origin": (0, 0, 0)},
        "mapc": {"mapc": 1},
        "maps": {"maps": 3},
        "nlabl": {"nlabl": 1},
        "mx": {"pixel_size": 1.5},
        "my": {"pixel_size": 1.5},
        "mz": {"pixel_size": 1.5},
    }
    mrcz.edit_header(sound, **mends.get(next(iter(fields)), {"statistics": "compute"}), **code)
    if fields.get("mz") == -3:
        mrcz.edit_header(sound, kind="volume")
    assert mrcz.validate(sound).ok


def test_labels_with_gaps(sound):
    raw = bytearray(sound.read_bytes())
    raw[224 + 160 : 224 + 164] = b"text"
    raw[220] = 2
    sound.write_bytes(raw)
    assert [text.split(" (")[0] for text in mrcz.validate(sound).problems] == ["LABEL"]
    mrcz.edit_header(sound, nlabl=2)
    assert mrcz.validate(sound).ok and mrcfile.validate(sound, io.StringIO())


def test_sizes(sound):
    with open(sound, "ab") as file:
        file.write(b"more")
    assert "4 bytes after the last frame" in mrcz.validate(sound).problems[0]
    sound.write_bytes(sound.read_bytes()[:-20])
    assert "header field nz is 4, expected at most 3" in mrcz.validate(sound).problems[0]
    sound.write_bytes(sound.read_bytes()[:1000])
    assert "ends inside the header" in mrcz.validate(sound).problems[0]
    sound.write_text("text " * 300)
    assert "not an MRC file" in mrcz.validate(sound).problems[0]
    with pytest.raises(FileNotFoundError):
        mrcz.validate(sound.with_name("absent.mrc"))


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2", "f2", "f4", "c8"])
@pytest.mark.parametrize("suffix", [".mrc", ".mrcz"])
@pytest.mark.parametrize("kind", ["stack", "volume"])
def test_what_we_write_is_as_the_standard_wants_it(tmp_path, rng, dtype, suffix, kind):
    path = tmp_path / f"a{suffix}"
    mrcz.write(path, (rng.normal(size=(3, 5, 6)) * 10 + 50).astype(dtype), kind=kind, pixel_size=1, metadata={"a": 1})
    found = mrcz.validate(path)
    assert found.ok, found
    for byteorder in "<>":
        mrcz.write(path, np.ones((2, 3, 4), np.int16), byteorder=byteorder, overwrite=True)
        assert mrcz.validate(path).ok


@pytest.mark.parametrize("dtype", ["i4", "u4"])
def test_modes_beyond_the_standard(tmp_path, dtype):
    mrcz.write(tmp_path / "a.mrc", np.ones((2, 3, 4), dtype))
    assert mrcz.validate(tmp_path / "a.mrc").problems[0].startswith("MODE (byte 12) is ")


def test_bytes_above_127(tmp_path):
    path = tmp_path / "a.mrc"
    mrcz.write(path, np.full((2, 3, 4), 200, np.uint8), mrc_mode=0)
    assert "6 for bytes above 127" in mrcz.validate(path).problems[0]
    mrcz.write(path, np.full((2, 3, 4), 100, np.uint8), mrc_mode=0, overwrite=True)
    assert mrcz.validate(path).ok


def test_pixels_that_are_nan(tmp_path):
    path = tmp_path / "a.mrc"
    array = np.ones((2, 3, 4), np.float32)
    array[1, 2] = np.nan
    mrcz.write(path, array)
    found = mrcz.validate(path)
    assert found.ok and "4 pixels are NaN, which the statistics leave out" in found.notes
    mrcz.write(path, array * np.float32(np.nan), overwrite=True)
    assert mrcz.validate(path).ok


def test_statistics_of_pixels_far_from_zero(tmp_path, rng):
    """A standard deviation that is a difference of large numbers would lose all its digits."""
    array = (2.0**20 + rng.normal(size=(3, 40, 50))).astype(np.float32)
    with mrcfile.new(tmp_path / "a.mrc", array) as mrc:
        mrc.set_image_stack()
    assert mrcz.validate(tmp_path / "a.mrc").ok
    changed(tmp_path / "a.mrc", rms=1.05 * array.std(dtype=np.float64))
    assert not mrcz.validate(tmp_path / "a.mrc").ok
    assert mrcz.validate(tmp_path / "a.mrc", pixels=False).ok


def test_compressed_files_are_judged_as_what_they_stand_for(sound, tmp_path):
    packed = tmp_path / "a.mrcz"
    mrcz.compress(sound, packed)
    assert mrcz.validate(packed).ok
    changed(sound, nversion=0, dmax=99, maps=7)
    mrcz.compress(sound, packed, overwrite="any")
    assert {text.split(" (")[0] for text in mrcz.validate(packed).problems} == {"NVERSION", "DMAX", "MAPC, MAPR, MAPS"}
    wrapped = tmp_path / "a.mrc.gz"
    wrapped.write_bytes(gzip.compress(sound.read_bytes()))
    assert mrcz.validate(wrapped).problems == mrcz.validate(packed).problems


@pytest.mark.parametrize("place", ["chunk", "footer", "header", "packed"])
def test_a_compressed_file_that_contradicts_itself(sound, tmp_path, place):
    packed = tmp_path / "a.mrcz"
    mrcz.compress(sound, packed)
    with mrcz.open(packed) as reader:
        chunk, footer = int(reader.index.offsets[1]), reader.footer.trailer.start
    raw = bytearray(packed.read_bytes())
    raw[{"chunk": chunk + 40, "footer": footer + 20, "header": 196, "packed": 144}[place]] ^= 1
    packed.write_bytes(raw)
    found = mrcz.validate(packed)
    assert not found.ok and "mrcz recover" in found.problems[0], found


@pytest.mark.filterwarnings("ignore")
def test_at_least_as_strict_as_mrcfile_on_every_real_file(some_data_dir):
    judged, strict = 0, 0
    for path in sorted(some_data_dir.rglob("*")):
        if path.suffix not in SUFFIXES or path.stat().st_size > 4e5:
            continue
        try:
            with mrcfile.open(path, permissive=True) as mrc:
                if mrc.data is None or mrc.data.size == 0:
                    continue
            theirs = mrcfile.validate(path, io.StringIO())
        except Exception:
            continue
        judged += 1
        ours = mrcz.validate(path)
        assert theirs or not ours.ok, path
        strict += theirs and not ours.ok
    assert judged > 15 and strict < judged / 4  # more would be cried for nothing


def test_hostile_headers(sound):
    """Whatever stands in the header, there is an answer."""
    rng = np.random.default_rng(5)
    raw = sound.read_bytes()
    for _ in range(60):
        changed_bytes = bytearray(raw)
        for at in rng.integers(0, 256, 4):
            changed_bytes[at] = rng.integers(256)
        struct.pack_into("<I", changed_bytes, 8, int(rng.integers(0, 9)))
        rewrite(sound, changed_bytes)
        found = mrcz.validate(sound)
        json.dumps(found.asdict(), allow_nan=False)


def test_the_command(sound, tmp_path, capsys):
    assert cli.main(["validate", str(sound)]) == 0
    assert capsys.readouterr().out == f"{sound}: ok\n"
    changed(sound, nversion=0)
    assert cli.main(["validate", str(sound), str(sound)]) == 3
    assert "1 problem\n  NVERSION (byte 108) is 0, expected 20140 or 20141" in capsys.readouterr().out
    assert cli.main(["validate", "--json", "--no-pixels", str(sound), str(tmp_path / "absent.mrc")]) == 3
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(record["record"], record["ok"]) for record in records[:2]] == [("file", False)] * 2
    assert (records[2]["record"], records[2]["exit_code"]) == ("summary", 3)
    assert len(records[0]["problems"]) == 1 and records[1]["error"]
    assert cli.main(["validate", str(tmp_path / "absent.mrc")]) == 1


def test_importing_the_module_hides_no_function():
    import mrcz.check.validate

    assert callable(mrcz.validate) and mrcz.check.validate.validate is mrcz.validate
