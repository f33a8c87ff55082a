"""Directories: what cannot be entered is an error, and what is left out is counted, and listed with -v."""

import json
import os

import numpy as np
import pytest

import mrcz
from mrcz import cli
from mrcz.archive import batch


def run(capsys, *args):
    code = cli.main([str(arg) for arg in args])
    out, err = capsys.readouterr()
    return code, out, err


@pytest.fixture
def tree(tmp_path):
    """One file to take, and one of everything that is left out."""
    top = tmp_path / "top"
    (top / "below").mkdir(parents=True)
    (top / ".snapshot").mkdir()
    mrcz.write(top / "a.mrc", np.zeros((2, 8, 8), "i1"))
    raw = (top / "a.mrc").read_bytes()
    for name in ("below/b.mrc", ".snapshot/c.mrc", ".hidden.mrc", "notes.txt", ".d.mrcz.0123abcd.part"):
        (top / name).write_bytes(raw)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/e.mrc").write_bytes(raw)
    (top / "link").symlink_to(tmp_path / "elsewhere")
    (top / "linked.mrc").symlink_to(tmp_path / "elsewhere/e.mrc")
    os.mkfifo(top / "pipe.mrc")
    return top


LEFT = {
    ".snapshot": "hidden",
    ".hidden.mrc": "hidden",
    "notes.txt": "of another kind",
    "link": "link to a folder",
    "pipe.mrc": "FIFO, device or socket",
    ".d.mrcz.0123abcd.part": "unfinished",
}


def test_what_a_walk_takes_and_leaves(tree):
    left = []
    found = list(batch.expand([tree], recursive=True, left_out=left))
    assert [relative for _, relative, _ in found] == ["a.mrc", "linked.mrc", "below/b.mrc"]
    assert not any(problem for _, _, problem in found)
    assert {os.path.relpath(item.path, tree): item.reason for item in left} == LEFT
    assert batch.plan("compress", [tree], recursive=True).left_out == tuple(left)


@pytest.mark.parametrize("command", ["compress", "decompress", "info", "verify", "header", "correct", "koma"])
@pytest.mark.parametrize("verbose", [False, True])
def test_what_is_left_out_is_counted_and_listed(capsys, tree, tmp_path, command, verbose):
    if command == "decompress":
        for path in (tree / "a.mrc", tree / "below/b.mrc"):
            mrcz.compress(path, path.with_suffix(".mrcz"))
            path.unlink()
        (tree / "linked.mrc").unlink()
    more = {"koma": ["-a", "1"], "correct": ["--report"]}.get(command, [])
    code, out, err = run(capsys, command, "-r", tree, *more, *(["-v"] if verbose else []))
    assert "6 left out (" in err and "2 hidden" in err and "1 link to a folder" in err
    assert ("; -v lists them" in err) is not verbose
    expected = {**LEFT, **({"pipe.mrc": "of another kind"} if command == "decompress" else {})}
    for name, reason in expected.items():
        if reason == "unfinished":
            assert f"mrcz: note: {tree / name}: unfinished" in err and "mrcz clean" in err
        else:
            assert (f"mrcz: left out: {tree / name}: {reason}\n" in err) is verbose
    assert code in (0, 1)  # koma: two stacks of zeros may fail
    code, out, err = run(capsys, command, "-r", tree, *more, "--json", *(["-v"] if verbose else []))
    *records, summary = map(json.loads, out.splitlines())
    assert sum(summary["left_out"].values()) >= 6 and summary["left_out"]["hidden"] == 2
    listed = {os.path.relpath(r["path"], tree): r["reason"] for r in records if r["record"] == "left out"}
    assert (listed.items() >= expected.items()) is verbose


def forbid(monkeypatch, folder):
    """Make a folder one that may not be read, for root too, who may read everything."""
    os.chmod(folder, 0)
    if os.access(folder, os.R_OK):
        real = os.scandir

        def scandir(path="."):
            if os.path.realpath(path) == os.path.realpath(folder):
                raise PermissionError(13, os.strerror(13), os.fspath(path))
            return real(path)

        monkeypatch.setattr(os, "scandir", scandir)


@pytest.mark.parametrize("command", ["compress", "info", "verify", "verify --fast", "correct --report", "clean"])
def test_a_folder_that_may_not_be_entered_is_an_error(capsys, tree, monkeypatch, command):
    forbid(monkeypatch, tree / "below")
    code, _, err = run(capsys, *command.split(), "-r", tree)
    assert code == 1 and f"mrcz: {tree / 'below'}: Permission denied\n" in err
    code, _, err = run(capsys, *command.split(), "-r", tree / "below")
    assert code == 1 and err.startswith(f"mrcz: {tree / 'below'}: Permission denied\n") and "holds no" not in err
    os.chmod(tree / "below", 0o700)


@pytest.mark.parametrize("pattern", ["**/*.mrc", "*/*.mrc", "below/*.mrc"])
def test_so_it_is_for_a_pattern(capsys, tree, monkeypatch, pattern):
    forbid(monkeypatch, tree / "below")
    code, _, err = run(capsys, "info", tree / pattern)
    assert code == 1 and f"mrcz: {tree / 'below'}: Permission denied\n" in err
    os.chmod(tree / "below", 0o700)


@pytest.mark.parametrize("command", ["compress", "decompress", "info", "verify", "correct", "koma"])
def test_special_files_that_are_named(capsys, tree, tmp_path, command):
    """A FIFO would be waited for for ever, a device read without end."""
    for name, kind in ((tree / "pipe.mrc", "a FIFO"), ("/dev/zero", "a device")):
        if not os.path.exists(name):
            continue
        code, _, err = run(capsys, command, name)
        assert code == 1 and f"mrcz: {name}: is {kind}, not a file\n" in err
    code, _, err = run(capsys, "info", tree / "p*.mrc")
    assert code == 1 and "is a FIFO, not a file" in err


def test_links_that_lead_nowhere_and_in_circles(capsys, tree):
    (tree / "gone.mrc").symlink_to("nowhere")
    (tree / "round.mrc").symlink_to("round.mrc")
    (tree / "up").symlink_to("..")
    code, _, err = run(capsys, "verify", "-r", tree)
    assert code == 1 and f"mrcz: {tree / 'gone.mrc'}: No such file" in err
    assert f"mrcz: {tree / 'round.mrc'}: Too many levels of symbolic links" in err
    assert "5 files: 3 whole, 2 not read" in err and "2 link to a folder" in err


def test_a_name_is_looked_at_before_it_is_said_to_be_missing(capsys, tmp_path):
    code, _, err = run(capsys, "info", tmp_path / ("x" * 300))
    assert code == 1 and "File name too long" in err
    (tmp_path / "file").write_bytes(b"")
    code, _, err = run(capsys, "info", tmp_path / "file/x.mrc")
    assert code == 1 and "Not a directory" in err


def test_the_same_file_by_two_names_is_done_once_and_said(capsys, tree):
    (tree / "again.mrc").symlink_to("a.mrc")
    code, out, err = run(capsys, "compress", "-r", tree)
    assert code == 0 and out.count("->") == 6 and "1 named before" in err  # source -> destination, size -> size


def test_deep_trees(tmp_path):
    """Deeper than Python recurses."""
    folders = [str(tmp_path) + "/d" * depth for depth in range(1, 1100)]
    for folder in folders:
        os.mkdir(folder)
    try:
        (tmp_path / "a.mrc").write_bytes(b"")
        found = list(batch.expand([tmp_path], recursive=True))
        assert found == [(str(tmp_path / "a.mrc"), "a.mrc", None)]
    finally:
        for folder in reversed(folders):  # pytest's own way recurses
            os.rmdir(folder)


# --- what correct made itself -------------------------------------------------------------------------------------


@pytest.mark.parametrize("products", [[], ["--stack", "--sum", "--mask"], ["--suffix", ".mrc"]])
@pytest.mark.parametrize("command", [["correct"], ["koma", "-a", "1"]])
def test_correct_run_twice_takes_nothing_of_its_own(capsys, tmp_path, rng, products, command):
    if command[0] == "koma":
        if products == ["--suffix", ".mrc"]:
            return
        products = [option for option in products if option != "--mask"]
    for i in range(3):
        mrcz.write(tmp_path / f"m{i}.mrcz", rng.poisson(4, (4, 32, 32)).astype("i2"), kind="stack")
    assert run(capsys, *command, "-r", tmp_path, *products)[0] == 0
    made = sorted(path for path in tmp_path.iterdir() if "_" in path.name)
    renamed = tmp_path / ("other" + next(p for p in made if "_corrected" in p.name).suffix)
    made[0].rename(renamed)  # the footer tells what it is
    made = sorted(path for path in tmp_path.iterdir() if not path.name.startswith("m") or "_" in path.name)
    before = {path: path.read_bytes() for path in made}
    code, out, err = run(capsys, *command, "-f", "-r", tmp_path, *products)
    assert code == 0 and f"{len(made)} left out ({len(made)} made by mrcz correct, koma or gain session)" in err
    names = {path.name for path in tmp_path.iterdir()}
    assert not any(name.count("_") > 1 or name.startswith("other_") for name in names)
    code, out, err = run(capsys, *command, "-f", *sorted(tmp_path.iterdir()), *products)  # the shell's *
    assert code == 0 and f"{renamed}: skipped, made by mrcz correct, koma or gain session\n" in out
    assert {path.name for path in tmp_path.iterdir()} == names and renamed.read_bytes() == before[renamed]
