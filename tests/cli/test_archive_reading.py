"""``mrcz archive --check``, ``--status``, ``--export`` and ``mrcz restore``, of archives that the command made."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from made_archive import ODD_NAMES, Made, mixed, movie

import mrcz
from mrcz.archive.journal import Journal
from mrcz.cli import main


@pytest.fixture
def tree(tmp_path, rng):
    """A source with files of any kind, hostile names among them."""
    top = tmp_path / "src"
    (top / "s1/grid").mkdir(parents=True)
    (top / "s2 ä\n/void").mkdir(parents=True)
    mrcz.write(top / "s1/grid/movie.mrc", movie(rng, (8, 64, 64)), codec="none")
    floats = movie(rng, (8, 24, 32)).astype(np.float32)
    mrcz.write(top / "s1/floats.mrc", floats, codec="none")
    for k, name in enumerate(ODD_NAMES):
        (top / "s2 ä\n" / name).write_bytes(b"%d" % k)
    os.link(top / "s1/grid/movie.mrc", top / "s1/grid/second.mrc")
    (top / "s1/latest").symlink_to("grid/movie.mrc")
    (top / "loose.txt").write_bytes(b"loose")
    return top


@pytest.fixture
def archive(tree, tmp_path):
    assert main(["archive", "-q", str(tree), str(tmp_path / "dst")]) == 0
    return tmp_path / "dst"


def said(capsys):
    out, err = capsys.readouterr()
    return out, err


def records(capsys):
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return lines[:-1], lines[-1]


def paths_of(top):
    return {str(path.relative_to(top)) for path in top.rglob("*")}


def test_there_and_back(tree, archive, tmp_path, capsys):
    assert main(["archive", "--check", str(archive)]) == 0
    assert "0 damaged" not in said(capsys)[1]
    assert main(["restore", str(archive), str(tmp_path / "out")]) == 0
    out, err = said(capsys)
    assert paths_of(tmp_path / "out") == paths_of(tree)
    for path in tree.rglob("*"):
        if path.is_file():
            assert (tmp_path / "out" / path.relative_to(tree)).read_bytes() == path.read_bytes(), path
    assert out.count("identical") == len([path for path in tree.rglob("*") if path.is_file() and not path.is_symlink()])
    assert "identical to the original" in err


def test_every_bag_is_valid(archive):
    bagit = pytest.importorskip("bagit", reason="the bagit package is not installed")
    bags = [path.parent for path in archive.rglob("bagit.txt")]
    assert len(bags) == 3
    for bag in bags:
        bagit.Bag(str(bag)).validate()
        if shutil.which("sha256sum"):
            assert subprocess.run(["sha256sum", "--quiet", "-c", "manifest-sha256.txt"], cwd=bag).returncode == 0


def test_a_second_run_writes_no_bag(tree, archive):
    before = {path: path.stat().st_mtime_ns for path in archive.rglob("*.txt")}
    assert main(["archive", "-q", str(tree), str(archive)]) == 0
    assert {path: path.stat().st_mtime_ns for path in archive.rglob("*.txt")} == before


def test_check_says_what_is_wrong(archive, capsys):
    path = archive / "s1/data/grid/movie.mrcz"
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    (archive / "s1/data/more").write_bytes(b"")
    assert main(["archive", "--check", "--fast", str(archive)]) == 3
    out, err = said(capsys)
    assert out == "" and "s1/data/grid/movie.mrcz (of s1/grid/movie.mrc): has other bytes" in err and "1 extra" in err
    assert main(["archive", "--check", "--json", str(archive)]) == 3
    found, summary = records(capsys)
    wrong = {record["path"]: record for record in found if not record["ok"]}
    assert set(wrong) == {"s1/data/grid/movie.mrcz", "s1/data/more"}
    assert wrong["s1/data/more"]["finding"] == "extra" and not wrong["s1/data/more"]["damaged"]
    assert summary["exit_code"] == 3 and summary["damaged"] == 1 and summary["n_changed"] == 1
    path.unlink()
    assert main(["archive", "--check", "--only", "*.txt", "-q", str(archive)]) == 0
    os.unlink(archive / "s1/data/more")


def test_an_archive_that_is_being_written(archive, capsys):
    pytest.importorskip("fcntl", reason="no locks here")
    (archive / "s1/data/more").write_bytes(b"")
    with Journal(archive, write=True):
        assert main(["archive", "--check", str(archive)]) == 0
        assert "another process adds to this archive" in said(capsys)[1]


def test_extra_files_are_no_damage(archive):
    (archive / "s1/data/more").write_bytes(b"")
    assert main(["archive", "--check", "-q", str(archive)]) == 1


def test_a_sample_says_its_seed(archive, capsys):
    assert main(["archive", "--check", "--sample", "10%", "--json", str(archive)]) == 0
    out, err = capsys.readouterr()
    seed = err.split("--seed ")[1].split()[0]
    first = [json.loads(line).get("source") for line in out.splitlines()[:-1]]
    assert first and json.loads(out.splitlines()[-1])["seed"] == int(seed)
    assert main(["archive", "--check", "--sample", "0.1", "--seed", seed, "--json", str(archive)]) == 0
    assert [record["source"] for record in records(capsys)[0]] == first


@pytest.mark.parametrize(
    "words",
    [
        ["--check", "--status", "DST"],
        ["--check", "DST", "DST"],
        ["--check", "--sample", "0%", "DST"],
        ["--check", "--sample", "200%", "DST"],
        ["--check", "--seed", "1", "DST"],
        ["--export", "x.xlsx", "DST"],
    ],
    ids=" ".join,
)
def test_what_makes_no_sense(archive, words, capsys):
    assert main(["archive", *(str(archive) if word == "DST" else word for word in words)]) == 2


def test_status_tells_what_is_there(archive, capsys):
    assert main(["archive", "--status", str(archive)]) == 0
    out, _ = said(capsys)
    assert "24 files" in out and "form " in out and "_loose" in out and "1 link" in out
    assert all(line.isprintable() for line in out.splitlines())
    assert main(["archive", "--status", "--json", str(archive)]) == 0
    found, _ = records(capsys)
    assert found[0]["total"]["files"] == 24 and found[0]["groups"]["session"]["s1"]["files"] == 3


def test_status_tells_what_is_not_there(tmp_path, rng, capsys):
    made = mixed(tmp_path, rng)
    made.close()
    with open(made.lines, "ab") as file:
        file.write(b"{}\n")
    assert main(["archive", "--status", str(made.root)]) == 3
    out, _ = said(capsys)
    assert "failed, permission: 1 file\n  s2/locked.mrc: Permission denied" in out and "line 12" in out


def test_export(archive, tmp_path, capsys):
    assert main(["archive", "--export", str(tmp_path / "t.csv"), str(archive)]) == 0
    with open(tmp_path / "t.csv", newline="", encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == 26
    assert main(["archive", "--export", str(tmp_path / "t.csv"), str(archive)]) == 1
    assert "--overwrite" in said(capsys)[1]
    assert main(["archive", "--export", str(tmp_path / "t.csv"), "--overwrite", str(archive)]) == 0


@pytest.mark.parametrize("words", [["archive", "--check"], ["archive", "--status"], ["restore"]], ids=" ".join)
def test_folders_that_are_no_archive(archive, tree, tmp_path, words, capsys):
    more = [str(tmp_path / "out")] if words == ["restore"] else []
    for place, hint in ((tree, "is no archive"), (archive / "s1", f"lies in the archive {archive}")):
        assert main([*words, str(place), *more]) == 1
        assert hint in said(capsys)[1]
    assert main([*words, str(tmp_path), *more]) == 1 and "dst in it is one" in said(capsys)[1]
    assert main([*words, str(tmp_path / "nothing"), *more]) == 1 and "no folder" in said(capsys)[1]


def test_restore_by_pattern_again_and_over_what_is_there(archive, tmp_path, capsys):
    out = tmp_path / "out"
    line = ["restore", "--json", str(archive), str(out), "s1/grid/movie*"]
    assert main(line) == 0
    made, summary = records(capsys)
    assert [(one["source"], one["status"], one["identical"]) for one in made] == [("s1/grid/movie.mrc", "done", True)]
    assert (summary["done"], summary["identical"], summary["not_identical"]) == (1, 1, 0)
    assert main(line) == 0
    assert records(capsys)[1]["skipped"] == 1
    (out / "s1/grid/movie.mrc").write_bytes(b"mine")
    assert main(line) == 1
    assert records(capsys)[1]["refused"] == 1
    assert main([*line, "--overwrite"]) == 0
    assert main(["restore", str(archive), str(out), "nothing/*"]) == 1
    said(capsys)
    assert main(["restore", str(archive), str(out), "-q", "s1/grid/movie*", "nothing/*"]) == 1
    assert "nothing of the archive matches nothing/*\n" in said(capsys)[1]
    assert main(["restore", "--dry-run", str(archive), str(tmp_path / "no")]) == 0 and not (tmp_path / "no").exists()


def test_restore_of_damage_is_exit_3_and_the_rest_is_there(archive, tmp_path, capsys):
    (archive / "s1/data/grid/movie.mrcz").write_bytes(b"")
    assert main(["restore", str(archive), str(tmp_path / "out")]) == 3
    assert (tmp_path / "out/s1/floats.mrc").exists() and not (tmp_path / "out/s1/grid/movie.mrc").exists()


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("words", [["archive", "--check", "DST"], ["restore", "DST", "OUT"]], ids=lambda one: one[0])
def test_a_signal_ends_it_in_good_order(tmp_path, rng, words):
    made = Made(tmp_path)
    first = made.packed("s/m000.mrc", movie(rng, (40, 128, 128)))
    for k in range(1, 200):
        path = f"s/data/m{k:03d}.mrcz"
        os.link(made.root / first.path, made.root / path)
        made.journal.append(replace(first, source=f"s/m{k:03d}.mrc", path=path))
    made.close()
    places = {"DST": str(made.root), "OUT": str(tmp_path / "out")}
    line = [sys.executable, "-m", "mrcz", *(places.get(word, word) for word in words), "-v"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and b"Traceback" not in err, err
    assert not [path for path in tmp_path.rglob(".*.part")]
    if words[0] == "restore":
        whole = list((tmp_path / "out").rglob("*.mrc"))
        assert 0 < len(whole) < 200
        assert all(path.read_bytes() == (made.source / "s/m000.mrc").read_bytes() for path in whole)


def test_a_terminal_is_told_nothing_it_would_obey(archive, tmp_path, capsys):
    main(["restore", str(archive), str(tmp_path / "out")])
    main(["archive", "--check", "-v", str(archive)])
    out, err = said(capsys)
    assert "\x1b" not in out + err and "escape\\x1b[31m" in out
