"""Where a new file may go: names that say something else, names of open files, names that are too long; and Ctrl-C
before the command line is there."""

import io
import os
import signal
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout

import numpy as np
import pytest

import mrcz
from mrcz import cli
from mrcz.filetypes import MRC_SUFFIXES

MOVIE = np.random.default_rng(0).poisson(1.0, (3, 20, 30)).astype(np.uint8)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mrcz.write("a.mrc", MOVIE)
    mrcz.compress("a.mrc", "a.mrcz")
    return tmp_path


def run(*words):
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = cli.main(list(words))
    return code, out.getvalue(), err.getvalue()


# ---- names that say something else -----------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [*MRC_SUFFIXES, ".MRC"])
def test_compressed_data_get_no_plain_name(folder, suffix):
    code, out, err = run("compress", "a.mrc", "-o", f"b{suffix}")
    better = "b.mrcz" if suffix == ".mrc" else f"b{suffix}.mrcz"
    assert code == 2 and f"-o {better}" in err and "mrcz decompress" in err and not out
    assert sorted(os.listdir()) == ["a.mrc", "a.mrcz"]


@pytest.mark.parametrize("name, better", [("b.mrcz", "b.mrc"), ("b.st.mrcz", "b.st"), ("b.MRCZ", "b.mrc")])
def test_plain_data_get_no_compressed_name(folder, name, better):
    code, out, err = run("decompress", "a.mrcz", "-o", name)
    assert code == 2 and f"-o {better} " in err and not out
    assert sorted(os.listdir()) == ["a.mrc", "a.mrcz"]


def test_folders_may_be_called_anything_and_other_names_too(folder):
    os.mkdir("there.mrc")
    for output, made in (("there.mrc", "there.mrc/a.mrcz"), ("new.mrc/", "new.mrc/a.mrcz"), ("b.dat", "b.dat")):
        assert run("compress", "a.mrc", "-o", output)[0] == 0
        with mrcz.open(made) as reader:
            assert reader.is_compressed and np.array_equal(reader.read(), MOVIE)
    # The form of c-mrcz says in so many words what becomes of it, and so does Python.
    assert run("-i", "a.mrc", "-o", "c.mrc", "-c", "zstd")[0] == 0 and mrcz.open("c.mrc").is_compressed
    mrcz.write("d.mrc", MOVIE, codec="zstd")
    assert mrcz.open("d.mrc").is_compressed


# ---- names of open files ---------------------------------------------------------------------------------------------

OPEN = [
    "/dev/stdout",
    "/dev/stderr",
    "/dev/fd/1",
    "/proc/self/fd/1",
    "/proc/thread-self/fd/1",
    "/dev/../dev/fd/1",
    "link",
]


def shell(command):
    return subprocess.run(["sh", "-c", command, "sh", sys.executable], capture_output=True, text=True, timeout=60)


@pytest.mark.skipif(not os.path.exists("/dev/fd/0"), reason="no names of open files")
@pytest.mark.parametrize("name", OPEN)
def test_what_output_is_redirected_to_is_not_replaced(folder, name):
    if name.startswith("/proc") and not os.path.isdir("/proc/self/fd"):
        pytest.skip("no /proc")
    if name == "link":
        os.symlink("/dev/stdout", "link")
    to = "2>" if name == "/dev/stderr" else ">"
    commands = [
        f"compress --force a.mrc -o {name}",
        f"compress --replace-any a.mrc -o {name}",
        f"compress a.mrc -o {name}",
        f"decompress -f a.mrcz -o {name}",
        f"recover --force a.mrcz -o {name}",
        f"compress - --force -o {name} < a.mrc",
    ]
    for command in commands if name == "/dev/stdout" else commands[:1]:
        with open("taken", "w") as file:
            file.write("what was there\n")
        before = os.stat("taken").st_ino
        done = shell(f'"$1" -m mrcz {command} {to}> taken')
        with open("taken") as file:
            said = file.read() + done.stderr + done.stdout
        assert done.returncode == 1 and said.startswith("what was there\n"), (command, said)
        assert os.stat("taken").st_ino == before, command
        assert "is what a program has open" in said, (command, said)
    with open("file", "wb") as file, pytest.raises(mrcz.MrczError, match="has open"):
        mrcz.write(f"/dev/fd/{file.fileno()}", MOVIE, overwrite=True)


@pytest.mark.skipif(not os.path.exists("/dev/fd/0"), reason="no names of open files")
def test_reading_from_an_open_file_goes_on(folder):
    done = shell('"$1" -m mrcz info --no-pixels /dev/stdin < a.mrcz; "$1" -m mrcz compress a.mrc -o - > b.mrcz')
    assert done.returncode == 0 and "30 x 20" in done.stdout.replace("20 x 30", "30 x 20")
    assert np.array_equal(mrcz.read("b.mrcz"), MOVIE)


# ---- names that are too long -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "way", ["compress a.mrc -o {}.mrcz", "decompress a.mrcz -o {}/", "compress {}.mrc", "recover {}"]
)
def test_what_the_system_says_comes_behind_a_colon(folder, way):
    long = "n" * 300
    code, _, err = run(*way.format(long).split())
    assert code == 1 and ": File name too long" in err and " File name" not in err.replace(": File name", "")


# ---- Ctrl-C ----------------------------------------------------------------------------------------------------------

# SIGINT comes while a module is imported: at its beginning, as far as Python runs code then.
INTERRUPTED = """
import os, runpy, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
wanted = sys.argv.pop(1)
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == wanted:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
runpy.run_module("mrcz", run_name="__main__", alter_sys=True)
"""
MODULES = [
    "mrcz.cli",
    "argparse",
    "mrcz.errors",
    "mrcz.cli._shared",
    "mrcz.cli.koma",
    "numpy",
    "numpy.linalg",
    "mrcz.file.reader",
    "mrcz.container.modes",
]


@pytest.mark.skipif(os.name == "nt", reason="signals of Unix")
@pytest.mark.parametrize("module", MODULES)
def test_ctrl_c_while_the_command_line_is_loaded(folder, module):
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, module, "info", "a.mrcz"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 128 + signal.SIGINT and "Traceback" not in done.stderr, done.stderr
    assert done.stderr.startswith("interrupted") and done.stdout == ""


def test_the_command_begins_where_that_is_caught():
    import tomllib
    from pathlib import Path

    project = tomllib.loads((Path(__file__).resolve().parents[2] / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"mrcz": "mrcz.__main__:main"}
