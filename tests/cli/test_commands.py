"""The commands as a user calls them: what they print, what they leave on disk, what they return."""

import gzip
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from cli.running import movie, names, records, run

import mrcz
from mrcz import cli
from mrcz.convert import copy as convert_mrc

__all__ = ["movie"]  # a fixture


# --- compress and decompress --------------------------------------------------------------------------------------


def test_there_and_back(capsys, movie, tmp_path):
    whole = movie.read_bytes()
    code, out, err = run(capsys, "compress", movie)
    assert code == 0 and err == ""
    assert out.count("\n") == 1 and out.startswith(f"{movie} -> {tmp_path / 'movie.mrcz'}  ")
    assert names(tmp_path) == ["movie.mrc", "movie.mrcz"]
    assert np.array_equal(mrcz.read(tmp_path / "movie.mrcz"), mrcz.read(movie))
    movie.unlink()
    assert run(capsys, "decompress", tmp_path / "movie.mrcz")[0] == 0
    assert movie.read_bytes() == whole


@pytest.mark.parametrize(
    "options",
    [
        ["--profile", "fast"],
        ["--profile", "small"],
        ["--codec", "lz4"],
        ["--codec", "lz4hc", "--level", "3"],
        ["--codec", "zlib"],
        ["--level", "7", "--filter", "bitshuffle", "-B", "4096", "-n", "1"],
        ["--filter", "none"],
        ["--pack"],
        ["--pack=auto"],
    ],
    ids=" ".join,
)
def test_every_way_of_compressing_comes_back(capsys, movie, tmp_path, options):
    assert run(capsys, "compress", movie, *options)[0] == 0
    assert run(capsys, "decompress", tmp_path / "movie.mrcz", "-o", tmp_path / "back.mrc")[0] == 0
    assert (tmp_path / "back.mrc").read_bytes() == movie.read_bytes()


def test_pack_refuses_what_does_not_fit(capsys, tmp_path):
    path = tmp_path / "bright.mrc"
    mrcz.write(path, np.full((2, 8, 8), 16, "u1"))
    code, _, err = run(capsys, "compress", path, "--pack")
    assert code == 1 and "15" in err
    assert names(tmp_path) == ["bright.mrc"]
    assert run(capsys, "compress", path, "--pack=auto")[0] == 0
    assert mrcz.read(tmp_path / "bright.mrcz").max() == 16


def test_suffix_comes_back(capsys, movie, tmp_path):
    stack = movie.rename(tmp_path / "particles.mrcs")
    whole = stack.read_bytes()
    run(capsys, "compress", "--remove", stack)
    assert names(tmp_path) == ["particles.mrcs.mrcz"]
    run(capsys, "decompress", tmp_path / "particles.mrcs.mrcz")
    assert stack.read_bytes() == whole


def test_tree(capsys, movie, tmp_path):
    session = tmp_path / "session"
    (session / "a/b").mkdir(parents=True)
    for name in ["one.mrc", "a/two.mrcs", "a/b/three.map"]:
        (session / name).write_bytes(movie.read_bytes())
    (session / "a/three.mrc.gz").write_bytes(gzip.compress(movie.read_bytes()))
    code, out, err = run(capsys, "compress", "-r", session, "-o", tmp_path / "archive")
    assert code == 0 and out.count("\n") == 4 and "4 files" in err
    assert names(tmp_path / "archive") == ["a/b/three.map.mrcz", "a/three.mrc.gz.mrcz", "a/two.mrcs.mrcz", "one.mrcz"]
    assert run(capsys, "decompress", "-q", "-r", tmp_path / "archive", "-o", tmp_path / "back")[0] == 0
    assert names(tmp_path / "back") == ["a/b/three.map", "a/three.mrc", "a/two.mrcs", "one.mrc"]
    for name in names(tmp_path / "back"):
        assert (tmp_path / "back" / name).read_bytes() == movie.read_bytes()


def test_wrapped_input(capsys, movie, tmp_path):
    wrapped = tmp_path / "w.mrc.gz"
    wrapped.write_bytes(gzip.compress(movie.read_bytes()))
    assert run(capsys, "compress", "--check", wrapped)[0] == 0
    assert run(capsys, "decompress", tmp_path / "w.mrc.gz.mrcz")[0] == 0
    assert (tmp_path / "w.mrc").read_bytes() == movie.read_bytes()
    code, out, _ = run(capsys, "info", wrapped)
    assert code == 0 and "7 frames of 61 x 50" in out


def test_compressed_anew(capsys, movie, tmp_path):
    run(capsys, "compress", movie)
    assert run(capsys, "compress", "--check", tmp_path / "movie.mrcz", "-c", "lz4", "-o", tmp_path / "x.mrcz")[0] == 0
    assert run(capsys, "decompress", tmp_path / "x.mrcz", "-o", tmp_path / "back.mrc")[0] == 0
    assert (tmp_path / "back.mrc").read_bytes() == movie.read_bytes()


@pytest.mark.parametrize("kind", ("array", "list", "volumes", "rgb"))
def test_compressed_anew_without_an_original(capsys, tmp_path, kind, rng):
    """A compressed file that was made from none has no header to be given back; what it holds comes through."""
    stack = rng.poisson(2, (6, 20, 31)).astype(np.uint8)
    given = {"array": stack, "list": list(stack), "volumes": list(stack.reshape(3, 2, 20, 31))}.get(kind)
    first, again, plain, direct = (tmp_path / name for name in ("first.mrcz", "again.mrcz", "plain.mrc", "direct.mrc"))
    if given is None:
        mrcz.write(first, np.stack([stack] * 3, axis=-1), mrc_mode=16, pixel_size=(1, 2, 3))
    else:
        mrcz.writeMRC(given, first, compressor="zstd", pixelsize=[3, 2, 1])
    assert run(capsys, "compress", "--check", first, "-c", "lz4", "-o", again)[0] == 0
    assert run(capsys, "decompress", "--check", again, "-o", plain)[0] == 0
    assert run(capsys, "decompress", "--check", first, "-o", direct)[0] == 0
    assert plain.read_bytes() == direct.read_bytes()
    assert np.array_equal(mrcz.read(plain), mrcz.read(first))
    for path in (again, plain):
        found, header = mrcz.readMRC(path)
        if given is not None:
            assert isinstance(found, type(given)) and np.array_equal(found, given)
            assert np.allclose(header["pixelsize"], [3, 2, 1])
    assert run(capsys, "verify", first, again)[0] == 0


def test_nothing_is_overwritten(capsys, movie, tmp_path):
    target = tmp_path / "movie.mrcz"
    target.write_bytes(b"mine")
    code, out, err = run(capsys, "compress", movie)
    assert code == 1 and out == "" and "--force" in err and target.read_bytes() == b"mine"
    code, out, err = run(capsys, "compress", movie, "--skip-existing")
    assert code == 1 and "no MRC file" in err and target.read_bytes() == b"mine"
    assert run(capsys, "compress", movie, "--force")[0] == 0 and target.read_bytes() != b"mine"
    code, out, _ = run(capsys, "compress", movie, "--skip-existing")
    assert code == 0 and "skipped" in out


def test_dry_run_does_nothing(capsys, movie, tmp_path):
    code, out, _ = run(capsys, "compress", "--dry-run", "--remove", movie, "-o", f"{tmp_path / 'new'}/")
    assert code == 0 and out == f"{movie} -> {tmp_path / 'new/movie.mrcz'}\n"
    assert names(tmp_path) == ["movie.mrc"] and not (tmp_path / "new").exists()


def test_times_and_permissions_are_kept(capsys, movie, tmp_path):
    os.chmod(movie, 0o640)
    os.utime(movie, (1_000_000_000, 1_000_000_000))
    run(capsys, "compress", movie)
    after = (tmp_path / "movie.mrcz").stat()
    assert after.st_mtime == 1_000_000_000 and after.st_mode & 0o777 == 0o640


# --- --remove -----------------------------------------------------------------------------------------------------


def test_remove(capsys, movie, tmp_path):
    whole = movie.read_bytes()
    code, out, _ = run(capsys, "compress", "--remove", movie)
    assert code == 0 and "original removed" in out and names(tmp_path) == ["movie.mrcz"]
    code, out, _ = run(capsys, "decompress", "--remove", tmp_path / "movie.mrcz")
    assert code == 0 and names(tmp_path) == ["movie.mrc"] and movie.read_bytes() == whole


@pytest.mark.parametrize("place", [5, 1023, 1024 + 7 * 50 * 61 - 1], ids=["header", "label", "last pixel"])
def test_an_original_is_kept_when_the_copy_differs(capsys, movie, tmp_path, monkeypatch, place):
    """The original changes while it is compressed, in one byte: the read-back sees it, whatever byte it is."""
    real = convert_mrc.check_copy

    def change_first(reader, source, destination, tell):
        whole = bytearray(movie.read_bytes())
        whole[place] ^= 1
        movie.write_bytes(whole)
        real(reader, source, destination, tell)

    monkeypatch.setattr(convert_mrc, "check_copy", change_first)
    code, _, err = run(capsys, "compress", "--remove", movie)
    assert code == 1 and "not the same" in err and f"byte {place} differs" in err
    assert names(tmp_path) == ["movie.mrc"]


def test_an_original_is_kept_when_the_copy_is_damaged_on_disk(capsys, movie, tmp_path, monkeypatch):
    real = convert_mrc.check_copy

    def damage(reader, source, new, tell):
        os.pwrite(new.fd, bytes([os.pread(new.fd, 1, 1024 + 300)[0] ^ 64]), 1024 + 300)
        real(reader, source, new, tell)

    monkeypatch.setattr(convert_mrc, "check_copy", damage)
    code, _, err = run(capsys, "compress", "--remove", movie)
    assert code == 1 and "not the same" in err and names(tmp_path) == ["movie.mrc"]


def test_bytes_after_the_last_frame_are_not_dropped_silently(capsys, movie, tmp_path):
    with open(movie, "ab") as file:
        file.write(b"notes of the operator")
    code, _, err = run(capsys, "compress", "--remove", movie)
    assert code == 3 and "21 bytes after the last frame" in err and names(tmp_path) == ["movie.mrc"]
    assert run(capsys, "compress", "--permissive", movie)[0] == 0
    (tmp_path / "movie.mrcz").unlink()
    code, _, err = run(capsys, "compress", "--permissive", "--remove", movie)
    assert code == 1 and names(tmp_path) == ["movie.mrc"]


def test_an_original_with_more_in_it_than_the_copy_stays(capsys, tmp_path, rng):
    """A plain MRC file has one extended header and no footer: metadata beside an FEI header would be lost."""
    path = tmp_path / "a.mrcz"
    mrcz.write(
        path, rng.poisson(1, (2, 8, 8)).astype("u1"), metadata={"grid": "B3"}, extended_header=("CCP4", b" " * 80)
    )
    code, _, err = run(capsys, "decompress", "--remove", path)
    assert code == 1 and "grid" in err and names(tmp_path) == ["a.mrc", "a.mrcz"]
    kept = tmp_path / "b.mrcz"
    mrcz.write(kept, rng.poisson(1, (2, 8, 8)).astype("u1"), metadata={"grid": "B3"})  # as JSON in the extended header
    assert run(capsys, "decompress", "--remove", kept)[0] == 0
    with mrcz.open(tmp_path / "b.mrc") as plain:
        assert not kept.exists() and plain.metadata == {"grid": "B3"}


# --- interruption -------------------------------------------------------------------------------------------------


_SLOW = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests in the background has it ignored
import mrcz.convert.copy as m, mrcz.file.original as original
blocks = m.blocks
original._BLOCK = 1
def slow(reader, *seen):
    for i, block in enumerate(blocks(reader, *seen)):
        yield block
        if i == 2:
            print("going", flush=True)
            time.sleep(60)
m.blocks = original.blocks = slow
from mrcz.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("action", ["compress", "decompress"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_nothing_behind(capsys, movie, tmp_path, action, number):
    if action == "decompress":
        run(capsys, "compress", "--remove", movie)
    before = {name: (tmp_path / name).read_bytes() for name in names(tmp_path)}
    (source,) = before
    process = subprocess.Popen(
        [sys.executable, "-c", _SLOW, action, "--remove", str(tmp_path / source)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "going\n"
    assert len(names(tmp_path)) == 2  # the unfinished file is there
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 128 + number and "interrupted" in err
    assert {name: (tmp_path / name).read_bytes() for name in names(tmp_path)} == before


# --- errors and exit codes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ["explode"],
        ["compress"],
        ["compress", "a", "--level", "x"],
        ["compress", "a", "-n", "0"],
        ["compress", "a", "--explode"],
        ["gain", "make"],
        ["gain", "make", "a", "-o", "b", "--explode"],
        ["-i", "a"],
        ["--json", "info", "a"],
    ],
)
def test_usage(capsys, arguments):
    code, out, err = run(capsys, *arguments)
    assert code == 2 and out == "" and err.count("\n") == 1
    command = " ".join(["mrcz", *[name for name in arguments if name in ("compress", "gain", "make")]])
    assert err.startswith(f"{command}: ") and ("--help" in err or "mrcz info --json" in err)


def test_options_between_names(capsys, movie, tmp_path):
    other = tmp_path / "b.mrc"
    other.write_bytes(movie.read_bytes())
    code, out, _ = run(capsys, "compress", movie, "-o", tmp_path / "out", other)
    assert code == 0 and out.count("\n") == 2 and len(names(tmp_path / "out")) == 2


def test_no_command(capsys):
    code, out, err = run(capsys)
    assert code == 2 and out == "" and "compress MRC files" in err


def test_names_that_look_like_options(capsys, movie, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    movie.rename("-m.mrc")
    code, _, err = run(capsys, "info", "-m.mrc")
    assert code == 2 and err.count("\n") == 1 and "./-m.mrc" in err
    assert run(capsys, "info", "./-m.mrc")[0] == 0
    assert run(capsys, "compress", "--", "-m.mrc")[0] == 0


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """What a user may name by mistake, and files that are broken: name -> exit code."""
    folder = tmp_path_factory.mktemp("odd")
    counts = np.random.default_rng(5).poisson(0.8, (6, 32, 32)).astype("u1")
    mrcz.write(folder / "whole.mrc", counts)
    mrcz.write(folder / "whole.mrcz", counts)
    plain, packed = (folder / "whole.mrc").read_bytes(), (folder / "whole.mrcz").read_bytes()
    with mrcz.open(folder / "whole.mrcz") as reader:
        hit = int(reader.index.offsets[2]) + 60
    (folder / "folder").mkdir()
    (folder / "dangling.mrc").symlink_to("nowhere.mrc")
    (folder / "empty.mrc").write_bytes(b"")
    (folder / "text.mrc").write_text("Dear operator, " * 300)
    (folder / "cut.mrc").write_bytes(plain[:4000])
    (folder / "nothing.mrc").write_bytes(plain[:1100])
    (folder / "cut.mrcz").write_bytes(packed[:hit])
    (folder / "bad.mrcz").write_bytes(packed[:hit] + bytes([packed[hit] ^ 1]) + packed[hit + 1 :])
    return folder


@pytest.mark.parametrize("json_too", (False, True), ids=("text", "json"))
@pytest.mark.parametrize(
    "command", ("info --strict", "verify", "verify --fast", "compress", "decompress", "recover", "correct", "koma")
)
@pytest.mark.parametrize(
    "name, expected",
    [
        ("missing.mrc", 1),
        ("folder", 1),
        ("dangling.mrc", 1),
        ("empty.mrc", 3),
        ("text.mrc", 3),
        ("cut.mrc", 3),
        ("nothing.mrc", 3),
        ("cut.mrcz", 3),
        ("bad.mrcz", 3),
    ],
)
def test_what_goes_wrong_is_one_line(capsys, odd, tmp_path, command, name, expected, json_too):
    path = odd / name
    command, *options = command.split()
    if command not in ("info", "verify"):
        new = "out.mrcz" if command == "compress" else "out.mrc"
        options += ["-o", tmp_path if command in ("correct", "koma") else tmp_path / new]
    if command == "koma":
        options += [odd / "whole.mrc", odd / "whole.mrcz"]
    code, out, err = run(capsys, command, path, *options, *(["--json"] if json_too else []))
    assert code == expected
    saved = command == "recover" and name in ("cut.mrc", "cut.mrcz", "bad.mrcz")
    if saved:
        assert err == "" and "lost" in out
    else:
        line = next(line for line in err.splitlines() if not line.startswith("mrcz: note: "))
        assert line.startswith(f"mrcz: {path}: ") and err.count(str(path)) == 1 and "[Errno" not in err
    if json_too:
        record = next(record for record in records(out) if record["path"] == str(path))
        text = record["error"] or record.get("faults") or record.get("lost")
        assert text and str(path) not in str(text if command != "recover" else "")
    if not saved and command != "koma":
        assert names(tmp_path) == []


@pytest.mark.parametrize("name, frames, said", [("bad.mrcz", 6, "frame 2"), ("cut.mrcz", 2, "of 6 frames")])
def test_info_of_damaged_chunks(capsys, odd, name, frames, said):
    code, out, err = run(capsys, "info", odd / name)
    assert code == 0 and err == "" and f"{frames} frames of 32 x 32" in out and said in out
    found = records(run(capsys, "info", "--json", odd / name)[1])[0]
    assert found["shape"] == [frames, 32, 32] and any(said in text for text in found["oddities"])


def test_a_folder_without_r(capsys, movie, tmp_path):
    code, _, err = run(capsys, "compress", tmp_path, "-o", tmp_path / "x.mrcz")
    assert code == 1 and err == f"mrcz: {tmp_path}: is a directory; -r takes the files in it\n"


def test_recover_replaces_nothing(capsys, odd, tmp_path):
    (tmp_path / "x.mrcz").write_bytes(b"mine")
    code, _, err = run(capsys, "recover", odd / "bad.mrcz", "-o", tmp_path / "x.mrcz")
    assert code == 1 and err == f"mrcz: {tmp_path / 'x.mrcz'} exists; --force replaces it\n"
    assert (tmp_path / "x.mrcz").read_bytes() == b"mine"
    assert run(capsys, "recover", odd / "bad.mrcz", "-f", "-o", tmp_path / "x.mrcz")[0] == 3
    assert len(mrcz.read(tmp_path / "x.mrcz")) == 5


@pytest.mark.skipif(os.name != "posix", reason="closes file descriptors as a POSIX shell does")
@pytest.mark.parametrize("closed", ((0,), (1,), (2,), (0, 1, 2)), ids=str)
def test_closed_standard_streams(movie, tmp_path, closed):
    """``mrcz compress movie.mrc 2>&-``"""
    code = f"import os, sys; [os.close(n) for n in {closed}]; os.execv(sys.executable, sys.argv[1:])"
    command = [sys.executable, "-m", "mrcz", "compress", "--check", str(movie)]
    done = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == ""
    assert np.array_equal(mrcz.read(tmp_path / "movie.mrcz"), mrcz.read(movie))


def test_a_reader_that_has_seen_enough(movie, tmp_path):
    """``mrcz info * | head -1``: no complaint, and no error: it was asked to show things, and has."""
    process = subprocess.Popen(
        [sys.executable, "-m", "mrcz", "info", *[str(movie)] * 40], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b"" and process.wait(30) == 0
    process.stderr.close()


def test_one_output_for_many_inputs(capsys, movie, tmp_path):
    code, _, err = run(capsys, "compress", movie, movie.parent / "b.mrc", "-o", tmp_path / "x.mrcz")
    assert code == 2 and "several inputs" in err


@pytest.mark.parametrize("command", ["compress", "decompress", "info", "verify"])
def test_missing_file(capsys, tmp_path, command):
    code, out, err = run(capsys, command, tmp_path / "none.mrc")
    assert code == 1 and out == "" and err == f"mrcz: {tmp_path / 'none.mrc'}: no such file\n"


@pytest.mark.parametrize("command", ["compress", "info", "verify"])
def test_not_an_mrc_file(capsys, tmp_path, command):
    path = tmp_path / "letter.mrc"
    path.write_text("Dear operator, " * 100)
    code, _, err = run(capsys, command, path)
    assert code == 3 and err.count("\n") == 1 and "letter.mrc" in err and "Traceback" not in err


def test_one_bad_file_does_not_stop_the_others(capsys, movie, tmp_path):
    (tmp_path / "a.mrc").write_bytes(b"short")
    code, out, err = run(capsys, "compress", tmp_path / "a.mrc", tmp_path / "none.mrc", movie)
    assert code == 3 and out.count("\n") == 1 and "1 refused" in err and "1 failed" in err
    assert names(tmp_path) == ["a.mrc", "movie.mrc", "movie.mrcz"]


def test_unwritable_place(capsys, movie, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    code, _, err = run(capsys, "compress", movie, "-o", tmp_path / "file/x.mrcz")
    assert code == 1 and err.startswith(f"mrcz: {movie}: ") and str(tmp_path / "file") in err


def test_json(capsys, movie, tmp_path):
    (tmp_path / "a.mrc").write_bytes(b"short")
    code, out, _ = run(capsys, "compress", "--json", movie, tmp_path / "a.mrc")
    good, bad = records(out)
    assert code == 3
    assert good["status"] == "done" and good["plain_bytes"] == movie.stat().st_size and good["error"] is None
    assert good["stored_bytes"] == (tmp_path / "movie.mrcz").stat().st_size
    assert bad["status"] == "failed" and bad["damaged"] and "header" in bad["error"]


def test_version_and_help(capsys):
    assert run(capsys, "--version")[:2] == (0, f"mrcz {mrcz.__version__}\n")
    code, out, _ = run(capsys, "--help")
    assert code == 0 and all(command in out for command in cli.COMMANDS)
    for command in cli.COMMANDS:
        assert run(capsys, command, "--help")[0] == 0


def test_help_loads_nothing_heavy():
    code = (
        "import sys, mrcz.cli\n"
        "mrcz.cli.main(['compress', '--help'])\n"
        "heavy = {'scipy', 'msgpack', 'zstandard', 'lz4', 'dask', 'gzip'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_as_a_program(movie, tmp_path):
    done = subprocess.run([sys.executable, "-m", "mrcz", "compress", movie], capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == "" and done.stdout.startswith(str(movie))
