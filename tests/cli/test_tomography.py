"""A tomography folder in ordinary hands: files of one name and several suffixes, at once, one after the other,
again, by force; files that change meanwhile. Whatever is said, no source may be without its pixels."""

import gzip
import os
import subprocess
import sys

import numpy as np
import pytest
from malformed.footers import join, split

import mrcz
from mrcz import cli
from mrcz.archive import batch
from mrcz.convert import copy as convert_mrc

SUFFIXES = ("st", "ali", "rec", "mrc")


@pytest.fixture
def folder(tmp_path, rng):
    for suffix in SUFFIXES:
        mrcz.write(tmp_path / f"TS_01.{suffix}", rng.poisson(1, (4, 32, 32)).astype("u1"), pixel_size=1.5)
    return tmp_path


def run(capsys, *args):
    code = cli.main([str(arg) for arg in args])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".mrcz"}


def restored(archive, tmp_path_factory):
    target = tmp_path_factory.mktemp("restored") / "r.mrc"
    mrcz.decompress(archive, target)
    return target.read_bytes()


def test_files_of_one_name_at_once(folder, tmp_path_factory):
    before = contents(folder)
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "mrcz", "compress", "-q", "--remove", f"TS_01.{suffix}"],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for suffix in SUFFIXES
    ]
    assert [(p.wait(), p.communicate()[1]) for p in running] == [(0, b"")] * 4
    assert sorted(os.listdir(folder)) == ["TS_01.ali.mrcz", "TS_01.mrcz", "TS_01.rec.mrcz", "TS_01.st.mrcz"]
    for name, content in before.items():
        archive = folder / ("TS_01.mrcz" if name == "TS_01.mrc" else f"{name}.mrcz")
        assert restored(archive, tmp_path_factory) == content


def test_one_name_for_two_sources_is_never_a_loss(capsys, folder, tmp_path_factory):
    target = folder / "same.mrcz"
    first = (folder / "TS_01.st").read_bytes()
    assert run(capsys, "compress", folder / "TS_01.st", "-o", target)[0] == 0
    for option in ([], ["--force"], ["--skip-existing"], ["--force", "--remove"], ["--force", "--skip-existing"]):
        code, out, err = run(capsys, "compress", *option, folder / "TS_01.rec", "-o", target)
        assert code == 1 and out == "", option
        assert ("exists" if not option else "is an archive of TS_01.st, not of TS_01.rec") in err
        assert restored(target, tmp_path_factory) == first
        assert sorted(contents(folder)) == sorted(f"TS_01.{suffix}" for suffix in SUFFIXES)
    code, _, _ = run(capsys, "compress", "--replace-any", folder / "TS_01.rec", "-o", target)
    assert code == 0 and restored(target, tmp_path_factory) == (folder / "TS_01.rec").read_bytes()


def test_a_source_that_was_recorded_anew_is_another_one(capsys, folder, tmp_path_factory, rng):
    source, target = folder / "TS_01.mrc", folder / "TS_01.mrcz"
    assert run(capsys, "compress", source)[0] == 0
    assert run(capsys, "compress", "--force", source)[0] == 0  # the same: nothing can be lost
    code, out, _ = run(capsys, "compress", "--skip-existing", source)
    assert code == 0 and "skipped" in out
    old, times = source.read_bytes(), source.stat()
    changed = bytearray(old)
    changed[-1] ^= 1
    source.write_bytes(changed)
    os.utime(source, ns=(times.st_atime_ns, times.st_mtime_ns))  # neither time nor size tell
    for option in ("--force", "--skip-existing"):
        code, out, err = run(capsys, "compress", option, source)
        assert code == 1 and "of other content" in err and out == ""
    assert restored(target, tmp_path_factory) == old


def test_archives_under_the_old_names_are_found(capsys, folder):
    assert run(capsys, "compress", folder / "TS_01.rec", "-o", folder / "TS_01.mrcz")[0] == 0  # as versions before did
    code, out, _ = run(capsys, "compress", "--skip-existing", folder / "TS_01.rec")
    assert code == 0 and "TS_01.mrcz holds it already" in out and not (folder / "TS_01.rec.mrcz").exists()
    code, out, _ = run(capsys, "compress", "--skip-existing", folder / "TS_01.st")  # that one is nowhere
    assert code == 0 and "skipped" not in out and (folder / "TS_01.st.mrcz").exists()
    out = folder / "out"
    code, _, _ = run(capsys, "decompress", folder / "TS_01.mrcz", folder / "TS_01.st.mrcz", "-o", f"{out}/")
    assert code == 0 and sorted(os.listdir(out)) == ["TS_01.rec", "TS_01.st"]
    for name in os.listdir(out):
        assert (out / name).read_bytes() == (folder / name).read_bytes()


def test_an_archive_that_does_not_say_what_it_is_of(capsys, tmp_path, rng):
    """Of an older version or another program: what is in it decides."""
    movie = rng.poisson(1, (3, 16, 16)).astype("i2")
    mrcz.write(tmp_path / "a.mrc", movie)
    mrcz.write(tmp_path / "b.mrc", movie + 1)
    mrcz.write(tmp_path / "a.mrcz", movie)
    code, out, err = run(capsys, "compress", "--skip-existing", tmp_path / "a.mrc")
    assert code == 0 and "skipped" in out, err
    assert run(capsys, "compress", "--force", tmp_path / "a.mrc")[0] == 0
    mrcz.write(tmp_path / "b.mrcz", movie)
    for option in ("--force", "--skip-existing"):
        code, _, err = run(capsys, "compress", option, tmp_path / "b.mrc")
        assert code == 1 and "holds something else" in err


@pytest.mark.parametrize("option", ["--check", "--remove", "-q"])
def test_what_stood_there_stays_when_the_source_changes_meanwhile(capsys, folder, monkeypatch, option):
    source, target = folder / "TS_01.mrc", folder / "TS_01.mrcz"
    assert run(capsys, "compress", source)[0] == 0
    before, blocks = target.read_bytes(), convert_mrc.blocks

    def meanwhile(reader):
        yield from blocks(reader)
        if reader.path == str(source):
            with open(source, "r+b") as file:
                file.seek(1024 + 5)
                file.write(b"\7")

    monkeypatch.setattr(convert_mrc, "blocks", meanwhile)
    code, out, err = run(capsys, "compress", "-f", option, source)
    assert code == 1 and "nothing was written" in err and out == ""
    assert target.read_bytes() == before and source.exists()
    assert sorted(os.listdir(folder)) == sorted(["TS_01.mrcz", *(f"TS_01.{suffix}" for suffix in SUFFIXES)])


def test_an_original_that_is_replaced_after_it_was_read_stays(capsys, folder, monkeypatch):
    """By a file of the same size, in the last instant: after the check, before the removal."""
    source = folder / "TS_01.mrc"
    newer = folder / "newer"
    newer.write_bytes((folder / "TS_01.st").read_bytes())
    content, real = newer.read_bytes(), convert_mrc.NewFile.publish

    def replace_then_publish(self):
        real(self)
        os.replace(newer, source)

    monkeypatch.setattr(convert_mrc.NewFile, "publish", replace_then_publish)
    code, _, err = run(capsys, "compress", "--remove", source)
    assert code == 1 and "changed since it was read" in err
    assert source.read_bytes() == content and (folder / "TS_01.mrcz").exists()


def test_an_original_stays_if_its_copy_lost_the_name(capsys, folder, monkeypatch):
    source, target = folder / "TS_01.mrc", folder / "TS_01.mrcz"
    real = convert_mrc.NewFile.publish

    def publish_and_lose(self):
        real(self)
        target.unlink()
        target.write_bytes(b"somebody else's")

    monkeypatch.setattr(convert_mrc.NewFile, "publish", publish_and_lose)
    code, _, err = run(capsys, "compress", "--remove", source)
    assert code == 1 and "no longer the file" in err and source.exists()


def test_the_original_of_a_link_stays(capsys, folder):
    link = folder / "link.mrc"
    link.symlink_to(folder / "TS_01.mrc")
    code, _, err = run(capsys, "compress", "--remove", link)
    assert code == 1 and "symbolic link" in err and link.exists() and (folder / "TS_01.mrc").exists()


def test_an_original_that_somebody_else_removed(capsys, folder, monkeypatch):
    source = folder / "TS_01.mrc"
    real = convert_mrc.NewFile.publish

    def publish(self, may_replace=None):
        real(self)
        source.unlink()

    monkeypatch.setattr(convert_mrc.NewFile, "publish", publish)
    code, out, _ = run(capsys, "compress", "--remove", source)
    assert code == 0 and "original removed" not in out and "gone already" in out


def test_another_process_was_quicker(folder, monkeypatch):
    """The name is taken while we compress: by the same source that is success for --skip-existing, else not."""
    source = str(folder / "TS_01.mrc")
    real = convert_mrc.NewFile.publish

    def somebody_first(self, other):  # on another machine, whose lock is not seen here
        monkeypatch.setattr(convert_mrc.NewFile, "publish", real)
        mrcz.compress(other, folder / "elsewhere.mrcz")
        os.rename(folder / "elsewhere.mrcz", self.path)
        real(self)

    for other, expected in ((source, "skipped"), (str(folder / "TS_01.st"), "refused")):
        for remove in (False, True):
            (job,) = batch.plan("compress", [source], skip_existing=True, remove=remove).jobs
            monkeypatch.setattr(convert_mrc.NewFile, "publish", lambda self, o=other: somebody_first(self, o))
            result = batch.run_job(job)
            assert result.status == expected and os.path.exists(source), result
            os.unlink(job.destination)


@pytest.mark.parametrize("action", ["compress", "decompress"])
def test_source_and_destination_the_same(folder, action):
    source = folder / "TS_01.mrc"
    before = source.read_bytes()
    (folder / "link.mrc").symlink_to(source)
    os.link(source, folder / "hard.mrc")
    for name in ("TS_01.mrc", "link.mrc", "hard.mrc", "../" + folder.name + "/TS_01.mrc"):
        for overwrite in (False, True, "any"):
            with pytest.raises(ValueError, match="is the source itself"):
                getattr(mrcz, action)(source, folder / name, overwrite=overwrite)
    assert source.read_bytes() == before


def test_python_replaces_nothing_unasked(folder):
    source, target = folder / "TS_01.mrc", folder / "x.mrcz"
    mrcz.compress(source, target)
    with pytest.raises(FileExistsError, match="overwrite=True"):
        mrcz.compress(source, target)
    with pytest.raises(convert_mrc.OtherSourceError, match="is an archive of"):
        mrcz.compress(folder / "TS_01.st", target, overwrite=True)
    with pytest.raises(FileExistsError, match="overwrite=True"):
        mrcz.decompress(target, folder / "TS_01.st")
    mrcz.compress(folder / "TS_01.st", folder / "y.mrcz")
    with pytest.raises(convert_mrc.OtherSourceError, match="only copy"):
        mrcz.decompress(target, folder / "y.mrcz", overwrite=True)


def test_a_damaged_archive_may_be_the_only_one(capsys, folder):
    target = folder / "x.mrcz"
    assert run(capsys, "compress", folder / "TS_01.st", "-o", target)[0] == 0
    whole = target.read_bytes()
    for damaged in (whole[:2000], whole[:40] + bytes(1000) + whole[1040:]):
        target.write_bytes(damaged)
        code, _, err = run(capsys, "compress", "--force", folder / "TS_01.rec", "-o", target)
        assert code == 1 and target.read_bytes() == damaged, err


def test_ratios_are_of_bytes_on_disk(capsys, tmp_path):
    """What was well compressed by gzip can come out larger, and is said to."""
    mrcz.write(tmp_path / "a.mrc", np.zeros((2, 8, 8), "i1"))
    packed = gzip.compress((tmp_path / "a.mrc").read_bytes(), 9)
    (tmp_path / "a.mrc.gz").write_bytes(packed)
    code, out, _ = run(capsys, "compress", tmp_path / "a.mrc.gz")
    size = (tmp_path / "a.mrc.gz.mrcz").stat().st_size
    assert code == 0 and f"{len(packed)} B -> {size} B" in out
    assert size > len(packed) and f"{len(packed) / size:.2f}x (larger)" in out


# --- pipes ---------------------------------------------------------------------------------------------------------


def piped(*args, data=b"", **more):
    return subprocess.run([sys.executable, "-m", "mrcz", *map(str, args)], input=data, capture_output=True, **more)


def test_standard_input_and_output(folder):
    source = folder / "TS_01.st"
    whole = source.read_bytes()
    packed = piped("compress", "-", data=whole)
    assert packed.returncode == 0 and packed.stderr == b"" and len(packed.stdout) < len(whole)
    assert piped("decompress", "-", data=packed.stdout).stdout == whole
    assert piped("compress", source, "-o", "-").stdout[:1024] == packed.stdout[:1024]
    assert piped("compress", "-", "-o", folder / "x.mrcz", data=gzip.compress(whole)).returncode == 0
    assert piped("decompress", folder / "x.mrcz", "-o", "-").stdout == whole
    assert "-" not in os.listdir(folder)


def test_pipes_say_what_is_wrong(folder):
    whole = (folder / "TS_01.st").read_bytes()
    bad = piped("compress", "-", data=whole[:3000])
    assert bad.returncode == 3 and bad.stdout == b"" and bad.stderr.startswith(b"mrcz: standard input: ")
    (folder / "taken.mrcz").write_bytes(b"?")
    exists = piped("compress", "-", "-o", folder / "taken.mrcz", data=whole)
    assert exists.returncode == 1 and b"exists" in exists.stderr
    for words in (["-", folder / "TS_01.st"], ["-", "--remove"], [folder, "-r", "-o", "-"], ["-", "--json"]):
        wrong = piped("compress", *words, data=whole)
        assert wrong.returncode == 2 and wrong.stdout == b""
    early = subprocess.run(
        f"{sys.executable} -m mrcz compress {folder / 'TS_01.st'} -o - | head -c 10", shell=True, capture_output=True
    )
    assert early.returncode == 0 and len(early.stdout) == 10 and early.stderr == b""


def test_a_signal_that_python_drops_is_not_forgotten(folder, tmp_path):
    """What is raised in a destructor is printed and lost; the signal was meant all the same."""
    script = f"""
import os, signal, sys
import mrcz.archive.run as batch
from mrcz.cli import main
run = batch.run_job
class Dropped:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
def job(*args):
    thing = Dropped()
    del thing
    return run(*args)
batch.run_job = job
sys.exit(main(["compress", *{[str(folder / f"TS_01.{s}") for s in SUFFIXES]!r}]))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 143, done.stderr
    assert sorted(os.listdir(folder)) == sorted(f"TS_01.{suffix}" for suffix in SUFFIXES)


# --- what else a copy may lose -------------------------------------------------------------------------------------


def test_metadata_that_were_added_to_an_archive_are_not_replaced(capsys, folder):
    """By an archive made anew from the source, which knows nothing of them."""
    source, target = folder / "TS_01.mrc", folder / "TS_01.mrcz"
    assert run(capsys, "compress", source)[0] == 0
    with mrcz.open(target, "a") as writer:
        writer.metadata["only"] = "here"
    code, _, err = run(capsys, "compress", "--force", source)
    assert code == 1 and "metadata that were added to it: only" in err
    with mrcz.open(target) as reader:
        assert reader.metadata["only"] == "here"
    code, out, _ = run(capsys, "compress", "--skip-existing", source)
    assert code == 0 and "skipped" in out
    assert run(capsys, "compress", "--replace-any", source)[0] == 0


def test_metadata_of_frames_are_no_less(capsys, tmp_path, rng):
    camera = tmp_path / "cam.mrcz"
    with mrcz.open(camera, "w") as writer:
        for k, frame in enumerate(rng.poisson(1, (3, 16, 16)).astype("u1")):
            writer.append(frame, metadata={"t": k})
    code, out, _ = run(capsys, "decompress", camera)
    assert code == 0 and "no place for the metadata frame_metadata" in out
    code, _, err = run(capsys, "compress", "--force", tmp_path / "cam.mrc")
    assert code == 1 and "frame_metadata" in err
    with mrcz.open(camera) as reader:
        assert reader.frame_metadata[2] == {"t": 2}


def test_half_bytes_that_are_no_pixels(capsys, tmp_path, rng):
    """Rows of an odd number of 4-bit pixels end in half a byte. Where it is not 0, the file would not come back."""
    path = tmp_path / "odd.mrc"
    mrcz.write(path, rng.integers(0, 16, (2, 4, 13)).astype("u1"), pack=True)
    assert run(capsys, "compress", "--check", path, "-o", tmp_path / "sound.mrcz")[0] == 0
    data = bytearray(path.read_bytes())
    data[1024 + 6] |= 0x50
    path.write_bytes(data)
    code, _, err = run(capsys, "compress", path)
    assert code == 3 and "half bytes that are not 0" in err and "--permissive" in err
    assert not (tmp_path / "odd.mrcz").exists()
    assert run(capsys, "compress", "--permissive", path)[0] == 0
    assert np.array_equal(mrcz.read(tmp_path / "odd.mrcz"), mrcz.read(path))


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs users")
def test_an_original_that_may_not_be_removed_is_said_to_be(capsys, folder, monkeypatch):
    def refuse(self, source, target):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("mrcz.storage.disk.Disk.replace", refuse)
    code, _, err = run(capsys, "compress", "--remove", folder / "TS_01.mrc")
    assert code == 1 and "could not be removed (Permission denied)" in err and "stays beside TS_01.mrcz" in err
    assert (folder / "TS_01.mrc").exists() and (folder / "TS_01.mrcz").exists()


@pytest.mark.parametrize("options", [[], ["--check"], ["--remove"], ["-r"]])
def test_a_damaged_archive_is_not_taken_for_done(capsys, folder, options):
    source, target = folder / "TS_01.mrc", folder / "TS_01.mrcz"
    assert run(capsys, "compress", source)[0] == 0
    with mrcz.open(target) as reader:
        at = int(reader.index.offsets[1]) + 40
    data = bytearray(target.read_bytes())
    data[at] ^= 1
    target.write_bytes(data)
    code, out, err = run(capsys, "compress", "--skip-existing", *options, folder if options == ["-r"] else source)
    assert code in (1, 3) and f"{source}: skipped" not in out and "TS_01.mrcz" in err and source.exists()


@pytest.mark.parametrize("action", ["compress", "decompress"])
@pytest.mark.parametrize("options", [[], ["--remove"], ["--permissive", "--remove"]])
@pytest.mark.parametrize("what", ["NZ", "a label", "extended header", "trailer", "body", "checksum of the source"])
def test_a_damaged_archive_is_never_the_only_copy(capsys, tmp_path, rng, action, options, what):
    """Whatever bit of it: an archive that does not give back what it was made from stays."""
    source, archive = tmp_path / "a.mrc", tmp_path / "a.mrcz"
    mrcz.write(source, rng.poisson(1, (3, 16, 16)).astype("u1"), extended_header=("CCP4", b"symmetry".ljust(80)))
    assert run(capsys, "compress", source)[0] == 0
    data = bytearray(archive.read_bytes())
    if what == "checksum of the source":
        parts = split(bytes(data))
        parts.body["source_xxh64"] ^= 1
        data = bytearray(join(parts))
    else:
        data[{"NZ": 8, "a label": 230, "extended header": 1030, "trailer": -60, "body": -70}[what]] ^= 1
    archive.write_bytes(data)
    source.unlink()
    target = tmp_path / ("b.mrc" if action == "decompress" else "b.mrcz")
    code, out, err = run(capsys, action, *options, archive, "-o", target)
    assert archive.exists() and "removed" not in out and code != 0 and err
    if "--permissive" not in options:
        assert code == 3 and "recover" in err and not target.exists()


def test_a_link_does_not_stand_for_its_file(capsys, folder):
    (folder / "A_first.mrc").symlink_to(folder / "TS_01.mrc")
    code, out, _ = run(capsys, "compress", "-r", "--remove", folder)
    assert code == 0 and out.count("original removed") == 4
    assert (folder / "TS_01.mrcz").exists() and not (folder / "TS_01.mrc").exists()
