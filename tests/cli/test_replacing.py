"""No command that makes a file from a file replaces an archive of another one, unless told so in as many words."""

import numpy as np
import pytest

import mrcz
from mrcz.check.recover import recover
from mrcz.cli import main
from mrcz.errors import OtherSourceError
from mrcz.session.correct import correct_file


@pytest.fixture
def folder(tmp_path, rng):
    stack = rng.poisson(3, (6, 64, 64)).astype("u1")
    mrcz.write(tmp_path / "movie.mrc", stack)
    mrcz.write(tmp_path / "other.mrc", stack[:4] + 1)
    mrcz.compress(tmp_path / "other.mrc", tmp_path / "other.mrcz")
    (tmp_path / "other.mrc").unlink()  # the archive is the only copy
    mrcz.compress(tmp_path / "movie.mrc", tmp_path / "movie.mrcz")
    whole = bytearray((tmp_path / "movie.mrcz").read_bytes())
    with mrcz.open(tmp_path / "movie.mrcz") as reader:
        whole[int(reader.index.offsets[3]) + 40] ^= 255
    (tmp_path / "broken.mrcz").write_bytes(whole)
    mrcz.write(tmp_path / "gain.mrc", np.ones((1, 64, 64), "f4"), kind="image")
    return tmp_path


COMMANDS = {
    "compress": ["compress", "movie.mrc", "-o", "other.mrcz"],
    "decompress": ["decompress", "movie.mrcz", "-o", "other.mrc"],  # an archive may have any name
    "recover": ["recover", "broken.mrcz", "-o", "other.mrcz"],
    "recover plain": ["recover", "movie.mrc", "-o", "other.mrcz"],
    "correct": ["correct", "movie.mrc"],
    "correct sum": ["correct", "--sum", "movie.mrc"],
    "gain convert": ["gain", "convert", "gain.mrc", "-o", "other.mrcz"],
    "gain make": ["gain", "make", "movie.mrc", "-o", "other.mrcz"],
    "gain orient": ["gain", "orient", "movie.mrc", "gain.mrc", "-o", "other.mrcz"],
}


# Two are named by the command itself, and what is decompressed has a plain name.
MADE = {"correct": "movie_corrected.mrcz", "correct sum": "movie_sum.mrc", "decompress": "other.mrc"}


@pytest.mark.parametrize("command", COMMANDS)
def test_force_leaves_archives_of_other_files(folder, monkeypatch, capsys, command):
    monkeypatch.chdir(folder)
    archive = (folder / "other.mrcz").rename(folder / MADE.get(command, "other.mrcz"))
    before = archive.read_bytes()
    words = COMMANDS[command]
    for more, advice in (([], "--force"), (["-f"], "--replace-any")):
        assert main([*words, *more]) == 1
        assert advice in capsys.readouterr().err
        assert archive.read_bytes() == before
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]
    assert main([*words, "--replace-any"]) in (0, 3)  # 3: what was recovered is not all
    capsys.readouterr()
    assert archive.read_bytes() != before


@pytest.mark.parametrize("command", ["recover", "correct", "gain convert"])
def test_force_replaces_what_a_former_run_made(folder, monkeypatch, capsys, command):
    monkeypatch.chdir(folder)
    words = [word.replace("other", "made") for word in COMMANDS[command]]
    for more in ([], ["-f"], ["-f"]):
        assert main([*words, *more]) in (0, 3), capsys.readouterr().err
    frames = {"recover": 5, "correct": 6, "gain convert": 1}
    assert len(mrcz.open(folder / MADE.get(command, "made.mrcz"))) == frames[command]


def test_a_recovery_does_not_replace_a_better_archive_of_the_same_file(folder):
    with pytest.raises(OtherSourceError, match=r"is an archive of movie\.mrc"):
        recover(folder / "broken.mrcz", folder / "movie.mrcz", overwrite=True)
    assert mrcz.verify(folder / "movie.mrcz").ok and len(mrcz.open(folder / "movie.mrcz")) == 6
    recover(folder / "broken.mrcz", folder / "movie.mrcz", overwrite="any")
    assert len(mrcz.open(folder / "movie.mrcz")) == 5
    assert sorted(p.name for p in folder.glob(".*")) == []


def test_a_damaged_archive_is_nobodys_to_replace(folder):
    (folder / "other.mrcz").write_bytes((folder / "other.mrcz").read_bytes()[:1500])
    with pytest.raises(OtherSourceError, match="damaged archive"):
        correct_file(folder / "movie.mrc", {"stack": str(folder / "other.mrcz")}, overwrite=True)
    made = correct_file(folder / "movie.mrc", {"stack": str(folder / "other.mrcz")}, overwrite="any")
    assert made.ok and len(mrcz.open(folder / "other.mrcz")) == 6


def test_an_archive_that_comes_while_the_work_is_done_stays(folder, monkeypatch):
    """What counts is what stands there when the new file takes its name."""
    archive = (folder / "other.mrcz").read_bytes()
    target = folder / "made.mrcz"
    real = mrcz.storage.whole.NewFile.publish

    def late(new):
        if not target.exists():
            target.write_bytes(archive)
        real(new)

    target.write_bytes(b"")
    target.unlink()
    monkeypatch.setattr("mrcz.storage.whole.NewFile.publish", late)
    for work in (
        lambda: recover(folder / "broken.mrcz", target, overwrite=True),
        lambda: correct_file(folder / "movie.mrc", {"sum": str(target)}, overwrite=True),
    ):
        target.unlink(missing_ok=True)
        with pytest.raises(OtherSourceError, match=r"is an archive of other\.mrc"):
            work()
        assert target.read_bytes() == archive
