"""The collections of real files archived, checked by others' programs and by ours, and given back, all of them."""

import filecmp
import json
import shutil
import subprocess

import pytest

from mrcz.cli import main


def trees(top):
    """Every path below a folder, and how it looks."""
    found = {}
    for path in sorted(top.rglob("*")):
        status = path.lstat()
        kind = "link" if path.is_symlink() else "folder" if path.is_dir() else "file"
        found[str(path.relative_to(top))] = (kind, status.st_mode if kind == "file" else 0, status.st_mtime_ns)
        if kind == "folder":
            found[str(path.relative_to(top))] = (kind,)
    return found


@pytest.fixture(params=["data", "movies"])
def collection(request, some_data_dir):
    if request.param == "data":
        return some_data_dir
    movies = some_data_dir.parent / "movies"
    if not movies.is_dir():
        pytest.skip(f"no real movies at {movies}")
    return movies


def test_there_and_back(collection, tmp_path, capsys):
    archive, out = tmp_path / "dst", tmp_path / "out"
    assert main(["archive", "-q", str(collection), str(archive)]) == 0
    assert main(["archive", "--check", "--json", str(archive)]) == 0
    capsys.readouterr()
    bags = [path.parent for path in archive.glob("*/bagit.txt")]
    assert len(bags) > 3
    for bag in bags:
        if shutil.which("sha256sum"):
            for sums in ("manifest-sha256.txt", "tagmanifest-sha256.txt"):
                assert subprocess.run(["sha256sum", "--quiet", "--strict", "-c", sums], cwd=bag).returncode == 0
            sums = bag / "originals-sha256.txt"
            assert subprocess.run(["sha256sum", "--quiet", "--strict", "-c", sums], cwd=collection).returncode == 0
    assert main(["restore", "--json", str(archive), str(out)]) == 0
    made = [json.loads(line) for line in capsys.readouterr().out.splitlines()][:-1]
    assert all(one["identical"] for one in made if one["kind"] == "file")
    assert trees(out) == trees(collection)
    for path in collection.rglob("*"):
        if path.is_file():
            assert filecmp.cmp(path, out / path.relative_to(collection), shallow=False), path
    before = (archive / "mrcz-archive/journal.jsonl").read_bytes()
    assert main(["archive", "-q", str(collection), str(archive)]) == 0
    assert (archive / "mrcz-archive/journal.jsonl").read_bytes() == before  # nothing is done again


def test_bagit_takes_each_session_for_valid(collection, tmp_path):
    bagit = pytest.importorskip("bagit", reason="the bagit package is not installed")
    archive = tmp_path / "dst"
    assert main(["archive", "-q", "--to", "copy", str(collection), str(archive)]) == 0
    for path in archive.glob("*/bagit.txt"):
        bagit.Bag(str(path.parent)).validate()
