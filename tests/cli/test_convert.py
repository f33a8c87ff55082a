"""`mrcz convert`, and files of other formats in every command, as a user meets them, clumsy ones too."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from cli.running import movie, names, records, run  # noqa: F401

import mrcz
from mrcz.formats.registry import formats


@pytest.fixture
def stack(tmp_path, rng):
    frames = rng.poisson(2.0, (4, 40, 50)).astype("u2")
    np.save(tmp_path / "a.npy", frames)
    return tmp_path / "a.npy"


def test_convert(tmp_path, capsys, movie):  # noqa: F811
    code, out, err = run(capsys, "convert", movie, tmp_path / "b.npy")
    assert code == 0 and "7 frames of 61 x 50 uint8" in out and out.endswith("checked\n")
    assert err == f"mrcz: note: {tmp_path / 'b.npy'}: NumPy has no place for pixel_size\n"
    assert np.array_equal(np.load(tmp_path / "b.npy"), mrcz.read(movie))
    code, out, err = run(capsys, "convert", "--json", movie, tmp_path / "b.mrcz")
    (record,) = records(out)
    assert (code, err) == (0, "") and record["checked"] and record["format"] == "mrcz" and record["status"] == "done"
    assert record["path"] == record["source"] == str(movie) and record["shape"] == [7, 50, 61]


def test_to_a_folder(tmp_path, capsys, movie):  # noqa: F811
    assert run(capsys, "convert", "--to", "npy", movie, f"{tmp_path}/")[0] == 0
    (tmp_path / "new").mkdir()
    assert run(capsys, "convert", "--to", "mrcz", movie, tmp_path / "new")[0] == 0
    assert names(tmp_path) == ["movie.mrc", "movie.npy", "new/movie.mrcz"]
    code, _, err = run(capsys, "convert", movie, f"{tmp_path}/new/")
    assert code == 2 and "is a folder: --to says which format" in err


@pytest.mark.parametrize(
    "words, code, said",
    [
        (["{m}", "b.xyz"], 2, "the suffix .xyz is of no format that is written; --to says which: mrc, mrcz"),
        (["{m}", "b"], 2, "a name without a suffix; --to says which"),
        (["--to", "eer", "{m}", "b.eer"], 2, "no format 'eer' that is written"),
        (["--to", "npy", "{m}", "b.mrc"], 2, "its suffix says mrc, and --to npy"),
        (["{m}", "nowhere/b.npy"], 1, "nowhere/b.npy"),
        (["none.mrc", "b.npy"], 1, "none.mrc: "),
        (["{m}", "{m}"], 1, "is the source itself"),
        (["--frames", "1-3", "{m}", "b.png"], 2, "--frames 1-3: expected A:B"),
        (["--frame", "99", "{m}", "b.png"], 1, "99"),
        (["--percentiles", "9", "3", "{m}", "b.png"], 1, "percentiles are 9 and 3"),
        (["--size", "999", "{m}", "b.png"], 1, "size is 999, expected 1 to 61"),
        (["--bin", "2", "{m}", "b.npy"], 1, "bin: for pictures"),
        (["--dtype", "floaty", "{m}", "b.npy"], 2, "--dtype floaty: there is no such type"),
        (["--compression", "rar", "{m}", "b.npy"], 1, "compression is 'rar'"),
        (["--dataset", "x", "{m}", "b.npy"], 1, "dataset is for files of other formats"),
        (["--fraction", "0", "{m}", "b.npy"], 2, "at least 1 frame"),
        (["{m}", "there.npy"], 1, "there.npy exists; --force replaces it"),
        (["{m}", "folder.npy"], 1, "folder.npy is a directory"),
        (["text.txt", "b.npy"], 3, "text"),
        (["short.npy", "b.mrc"], 3, "the header claims"),
        ([".", "b.npy"], 1, "irectory"),
    ],
)
def test_one_clear_line(tmp_path, capsys, movie, monkeypatch, words, code, said):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.npy").write_bytes(b"mine")
    (tmp_path / "folder.npy").mkdir()
    (tmp_path / "text.txt").write_text("a letter\n")
    np.save("short.npy", np.zeros((3, 4, 5), "f4"))
    os.truncate("short.npy", 200)
    before = names(tmp_path)
    found, out, err = run(capsys, "convert", *(word.format(m=movie.name) for word in words))
    assert found == code and said in err and out == "" and err.count("\n") == 1 and "fault of mrcz" not in err
    assert names(tmp_path) == before and (tmp_path / "there.npy").read_bytes() == b"mine"


@pytest.mark.parametrize("name", ["b.tif", "b.png"])
def test_without_the_extra(tmp_path, movie, name):  # noqa: F811
    """In a process of its own, in which the packages cannot be imported."""
    blocked = "import sys; sys.modules.update(tifffile=None, imagecodecs=None, PIL=None); import mrcz.cli; "
    code = blocked + f"sys.exit(mrcz.cli.main(['convert', {str(movie)!r}, {str(tmp_path / name)!r}]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    extra = "picture" if name == "b.png" else "tiff"
    assert done.returncode == 1 and f"pip install 'mrcz[{extra}]'" in done.stderr and done.stderr.count("\n") == 1
    assert names(tmp_path) == ["movie.mrc"]


@pytest.mark.skipif(os.name == "nt", reason="signals of Unix")
def test_killed_in_the_middle(tmp_path, rng):
    """SIGTERM while frames are written: nothing is left."""
    mrcz.write(tmp_path / "a.mrc", rng.integers(0, 9, (400, 128, 128)).astype("u2"), sync=False)
    slow = (
        "import sys, time; import mrcz.cli; import mrcz.convert.export as e; from mrcz.formats import npy; "
        "before = npy.np.ascontiguousarray; "
        "wait = lambda *a: (print('at it', flush=True), time.sleep(0.05), before(*a))[2]; "
        "npy.np = type(sys)('np'); npy.np.__dict__.update(npy.__dict__['np'].__dict__); "
        "import numpy; npy.np.__dict__.update({k: getattr(numpy, k) for k in ('lib', 'dtype')}); "
        "npy.np.ascontiguousarray = wait; "
        f"sys.exit(mrcz.cli.main(['convert', {str(tmp_path / 'a.mrc')!r}, {str(tmp_path / 'b.npy')!r}]))"
    )
    process = subprocess.Popen([sys.executable, "-c", slow], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "at it\n"
    time.sleep(0.2)
    assert any(name.endswith(".part") for name in os.listdir(tmp_path))
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 128 + signal.SIGTERM and "nothing unfinished is left behind" in err
    assert names(tmp_path) == ["a.mrc"]


# ---- the other commands ---------------------------------------------------------------------------------------------


def test_info(capsys, stack):
    code, out, _ = run(capsys, "info", stack)
    assert code == 0 and "format      NumPy" in out and "unsigned 16-bit integer (uint16), little-endian" in out
    assert "entropy" in out and "statistics" not in out and "codec       none" in out
    (record,) = records(run(capsys, "info", "--json", stack)[1])
    assert (
        record["format"] == "npy" and record["shape"] == [4, 40, 50] and record["mode"] == 6 and record["values"] == {}
    )
    code, _, err = run(capsys, "info", "--dataset", "3", stack.with_name("none.npy"))
    assert code == 1 and err.count("\n") == 1


def test_info_of_what_mrc_has_no_mode_for(tmp_path, capsys):
    for dtype, said in (
        ("f8", "64-bit real (float64)"),
        ("i8", "signed 64-bit"),
        ("?", "boolean"),
        ("u1", "unsigned 8-"),
    ):
        np.save(tmp_path / "b.npy", np.zeros((2, 3, 4), dtype))
        assert said in run(capsys, "info", tmp_path / "b.npy")[1]
        (record,) = records(run(capsys, "info", "--json", tmp_path / "b.npy")[1])
        assert record["mode"] == (0 if dtype == "u1" else -1)


def test_formats(capsys):
    code, out, err = run(capsys, "info", "--formats")
    assert (code, err) == (0, "")
    lines = {line.split()[0]: line for line in out.splitlines()}
    assert set(lines) == {"name", "mrc", "mrcz", "picture", *(known.name for known in formats())}
    assert "mrcz[tiff]" in lines["tiff"] and ".tif .tiff" in lines["tiff"]
    *found, last = [json.loads(line) for line in run(capsys, "info", "--formats", "--json")[1].splitlines()]
    assert {record["name"]: record["writes"] for record in found}["tiff"] and last["record"] == "summary"
    assert {record["record"] for record in found} == {"format"}
    assert run(capsys, "info")[0] == run(capsys, "info", "--formats", "a.mrc")[0] == 2


def test_verify(capsys, tmp_path, stack):
    code, out, _ = run(capsys, "verify", stack)
    assert code == 0 and "no checksums in this file, every frame read" in out
    mrcz.compress(stack, tmp_path / "a.mrcz")
    code, out, _ = run(capsys, "verify", stack, tmp_path / "a.mrcz")
    assert code == 0 and out.splitlines()[-1].endswith("that both have were compared, besides pixels")
    with open(stack, "r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x55")
    code, out, _ = run(capsys, "verify", stack, tmp_path / "a.mrcz")
    assert code == 3 and "1 of 8000 pixels differ, first at (z, y, x) = (3, 39, 49)" in out
    os.truncate(stack, 900)
    code, out, err = run(capsys, "verify", stack)
    assert code == 3 and "the header claims 16000 bytes" in out and err.count("\n") == 1


def test_verify_names_frames(capsys, tmp_path, rng):
    tifffile = pytest.importorskip("tifffile")
    pytest.importorskip("imagecodecs")
    frames = rng.poisson(2.0, (4, 40, 50)).astype("u2")
    tifffile.imwrite(tmp_path / "a.tif", frames, compression="zlib", photometric="minisblack")
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        place = file.pages[2].dataoffsets[0]
    with open(tmp_path / "a.tif", "r+b") as file:
        file.seek(place)
        file.write(bytes(40))
    code, out, _ = run(capsys, "verify", tmp_path / "a.tif")
    assert code == 3 and "1 fault" in out and "frame 2" in out
    before = names(tmp_path)
    for words in (["compress"], ["convert", tmp_path / "a.tif", tmp_path / "b.npy"]):
        code, out, err = run(capsys, *words, *([tmp_path / "a.tif"] if len(words) == 1 else []))
        assert code == 3 and "frame 2" in err and err.count("\n") == 1
    assert names(tmp_path) == before


def test_compress(capsys, tmp_path, stack):
    code, out, _ = run(capsys, "compress", stack)
    assert code == 0 and "a.npy.mrcz" in out and out.rstrip().endswith("checked")
    code, out, _ = run(capsys, "compress", "--skip-existing", stack)
    assert code == 0 and "holds it already" in out
    before = stack.read_bytes()
    code, out, _ = run(capsys, "decompress", "--force", tmp_path / "a.npy.mrcz")
    assert code == 0 and names(tmp_path) == ["a.npy", "a.npy.mrcz"] and stack.read_bytes() == before
    assert run(capsys, "decompress", tmp_path / "a.npy.mrcz", "-o", tmp_path / "a.mrc")[0] == 0
    assert np.array_equal(mrcz.read(tmp_path / "a.mrc"), np.load(stack))
    os.remove(tmp_path / "a.mrc")
    np.save(tmp_path / "b.npy", np.zeros((2, 3, 4)))
    code, _, err = run(capsys, "compress", tmp_path / "b.npy")
    assert code == 1 and "--dtype float32" in err and err.count("\n") == 1
    assert run(capsys, "compress", "--dtype", "float32", tmp_path / "b.npy")[0] == 0
    code, _, err = run(capsys, "decompress", "--force", tmp_path / "b.npy")
    assert code == 3 and "mrcz convert makes an MRC file of it" in err


def test_folders_give_foreign_files_only_when_asked(capsys, tmp_path, stack, movie):  # noqa: F811
    (record,) = records(run(capsys, "info", "--json", "-r", tmp_path)[1])
    assert record["path"] == str(movie)
    found = records(run(capsys, "info", "--json", "-r", "--foreign", tmp_path)[1])
    assert {record["format"] for record in found} == {"mrc", "npy"}
    assert run(capsys, "compress", "-r", "--foreign", tmp_path, "-o", tmp_path / "new/")[0] == 0
    assert names(tmp_path / "new") == ["a.npy.mrcz", "movie.mrcz"]


def test_correct_and_koma(capsys, tmp_path, stack):
    code, _, err = run(capsys, "correct", "--sum", stack)
    assert code == 0 and err == "" and len(names(tmp_path)) == 2
    for number in range(5):
        np.save(tmp_path / f"k{number}.npy", np.load(stack))
    code, _, err = run(capsys, "koma", "--radius", "1", "--sum", *(tmp_path / f"k{number}.npy" for number in range(5)))
    assert code == 0, err
    assert len(names(tmp_path)) == 2 + 5 + 5


def test_commands_that_are_about_mrc(capsys, stack):
    for command in ("header", "validate", "recover"):
        code, out, err = run(capsys, command, stack)
        assert code in (1, 3) and ("npy" in (out + err) or "not an MRC file" in (out + err))


def test_electron_events(capsys, tmp_path):
    """Fractions are chosen where the file is named; the archive holds what was chosen."""
    from formats.seeds import seeds_eer

    for path in seeds_eer(tmp_path):
        with mrcz.open(path) as reader:
            count, shape = len(reader), reader.shape[1:]
        if count >= 3:
            break
    assert count >= 3
    code, _, err = run(capsys, "compress", "--fraction", "2", "--upsampling", "2", path, "-o", tmp_path / "a.mrcz")
    assert (code, err) == (0, "")
    wanted = mrcz.read(path, fraction=2, upsampling=2)
    with mrcz.open(tmp_path / "a.mrcz") as reader:
        assert np.array_equal(reader.read(), wanted) and reader.shape == (-(-count // 2), *(2 * n for n in shape))
        assert reader.metadata["original"].keys() == mrcz.open(path).metadata["original"].keys()
    code, out, _ = run(capsys, "verify", "--fraction", "2", "--upsampling", "2", path, tmp_path / "a.mrcz")
    assert code == 0 and "the same;" in out
    assert run(capsys, "verify", path, tmp_path / "a.mrcz")[0] == 3
    assert run(capsys, "info", "--fraction", "2", path)[0] == 0
    assert run(capsys, "convert", "--fraction", "2", path, tmp_path / "sum.png")[0] == 0
    code, _, err = run(capsys, "info", "--fraction", "2", tmp_path / "a.mrcz")
    assert code == 1 and "fraction is for files of other formats; this is an MRC file" in err
