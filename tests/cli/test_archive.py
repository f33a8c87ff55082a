"""mrcz archive and mrcz restore, as a user calls them."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from cli.running import names, records, run

import mrcz


@pytest.fixture
def tree(tmp_path, rng):
    top = tmp_path / "source"
    for folder in ("s1/deep", "s2"):
        (top / folder).mkdir(parents=True)
    counts = rng.poisson(1, (5, 40, 40))
    mrcz.write(top / "s1/deep/a.mrc", counts.astype("i1"), kind="stack")
    mrcz.write(top / "s2/b.mrc", counts.astype("f4"), kind="stack")
    (top / "s2/b.mdoc").write_text("[ZValue = 0]\n")
    return top


def same(a, b):
    assert names(a) == names(b)
    return all((a / name).read_bytes() == (b / name).read_bytes() for name in names(a))


def test_there_and_back(tree, tmp_path, capsys):
    dst = tmp_path / "dst"
    code, out, err = run(capsys, "archive", tree, dst)
    assert code == 0 and out == "" and "3 files stored" in err
    code, _, err = run(capsys, "archive", tree, dst)
    assert code == 0 and err == "mrcz: 3 in the archive already\n"
    assert run(capsys, "archive", "--check", dst)[0] == 0
    code, out, _ = run(capsys, "archive", "--status", dst)
    assert code == 0 and "integers" in out and "3 files" in out
    assert run(capsys, "restore", dst, tmp_path / "out")[0] == 0
    assert same(tree, tmp_path / "out")
    page = (dst / "mrcz-archive/report.html").read_text()
    assert page.startswith("<!") and "s2" in page and "http" not in page.lower().replace("http-equiv", "")


def test_json(tree, tmp_path, capsys):
    code, out, _ = run(capsys, "archive", "--json", tree, tmp_path / "dst")
    found = {os.path.basename(one["path"]): one for one in records(out)}
    assert code == 0 and found["a.mrc"]["form"] == "mrcz" and found["b.mrc"]["form"] == "integers"
    assert all(one["status"] == "done" and one["ok"] for one in found.values())
    last = json.loads(out.splitlines()[-1])
    assert (last["stored"], last["already"], last["files"]) == (3, 0, 3) and last["stored_bytes"] < last["source_bytes"]


def test_dry_run_makes_nothing(tree, tmp_path, capsys):
    code, out, err = run(capsys, "archive", "--dry-run", tree, tmp_path / "dst")
    assert code == 0 and not (tmp_path / "dst").exists()
    assert [line.split()[0] for line in out.splitlines()] == ["suffix", ".mrc", ".mdoc"]
    assert "3 files to do" in err
    run(capsys, "archive", tree, tmp_path / "dst")
    before = {name: (tmp_path / "dst" / name).read_bytes() for name in names(tmp_path / "dst")}
    code, out, err = run(capsys, "archive", "--dry-run", "--json", tree, tmp_path / "dst")
    assert code == 0 and "0 files to do" in err and "3 done already" in err
    assert {name: (tmp_path / "dst" / name).read_bytes() for name in names(tmp_path / "dst")} == before


def test_wrong_calls(tree, tmp_path, capsys):
    dst = tmp_path / "dst"
    for words, said in (
        ([tree], "takes two folders"),
        ([tree, dst, dst], "takes two folders"),
        ([tmp_path / "missing", dst], "No such file"),
        ([tree, tree / "in"], "may not lie in the folder"),
        (["--hours", "25:00", tree, dst], "25:00"),
        (["--read-rate", "fast", tree, dst], "fast"),
        (["--settle", "3", tree, dst], "--watch"),
        (["--sessions", "-1", tree, dst], "no depth"),
        (["--check", tree], "no archive"),
        (["--status", dst], "no archive"),
        (["--journal", "x", tree, dst], "URL"),
        (["s3://bucket/tree", dst], "SRC is a folder of this machine"),
    ):
        code, _, err = run(capsys, "archive", *words)
        assert code in (1, 2) and said in err and "Traceback" not in err and err.count("\n") <= 3, (words, err)
    assert not dst.exists()


def test_what_fails_is_told(tree, tmp_path, capsys):
    os.mkfifo(tree / "s2/fifo")
    code, out, _ = run(capsys, "archive", "-q", tree, tmp_path / "dst")
    assert code == 1 and out == ""
    _, out, _ = run(capsys, "archive", "--status", tmp_path / "dst")
    assert "FIFO" in out or "special" in out


def test_remove(tree, tmp_path, capsys):
    before = {name: (tree / name).read_bytes() for name in names(tree)}
    assert run(capsys, "archive", "--remove", tree, tmp_path / "dst")[0] == 0
    assert names(tree) == []
    assert run(capsys, "restore", "-q", tmp_path / "dst", tmp_path / "out")[0] == 0
    assert {name: (tmp_path / "out" / name).read_bytes() for name in names(tmp_path / "out")} == before


def test_limits_hold(tree, tmp_path, capsys):
    (tree / "s2/large").write_bytes(os.urandom(3_000_000))
    begun = time.monotonic()
    assert run(capsys, "archive", "--read-rate", "2MB/s", "--cores", "1", "--nice", "1", tree, tmp_path / "dst")[0] == 0
    assert time.monotonic() - begun > 1.0


def test_outside_hours_nothing_begins(tree, tmp_path):
    now = time.localtime()
    hours = f"{(now.tm_hour + 2) % 24:02d}:00-{(now.tm_hour + 3) % 24:02d}:00"
    process = subprocess.Popen(
        [sys.executable, "-m", "mrcz", "archive", "--hours", hours, str(tree), str(tmp_path / "dst")],
        stderr=subprocess.PIPE,
    )
    time.sleep(2.5)
    assert process.poll() is None and not [name for name in names(tmp_path / "dst") if "/data/" in name]
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 128 + signal.SIGTERM
    process.stderr.close()


@pytest.mark.skipif(os.name == "nt", reason="a shell")
def test_a_hook_hears(tree, tmp_path, capsys):
    hook = f"cat > {tmp_path}/said.json; echo $MRCZ_EVENT > {tmp_path}/event"
    run(capsys, "archive", "--hook", hook, tree, tmp_path / "dst")
    assert (tmp_path / "event").read_text() == "finished\n"
    assert json.loads((tmp_path / "said.json").read_text())["stored"] == 3
    run(capsys, "archive", "--hook", hook, tmp_path / "missing", tmp_path / "dst")
    assert (tmp_path / "event").read_text() == "failed\n"
    said = json.loads((tmp_path / "said.json").read_text())
    assert said["error"] == f"{tmp_path / 'missing'}: No such file or directory"  # not only that it failed
    os.mkfifo(tree / "fifo")
    run(capsys, "archive", "--hook", hook, tree, tmp_path / "dst")
    assert (tmp_path / "event").read_text() == "incomplete\n"
    code, _, err = run(capsys, "archive", "--hook", "exit 3", tree, tmp_path / "dst")
    assert code == 1 and "hook" in err


def test_watching(tree, tmp_path, capsys):
    """Files that come while it watches are taken when they are finished, and those that were there."""
    counts = np.random.default_rng(1).poisson(1, (5, 40, 40)).astype("i1")

    def write():
        time.sleep(0.5)
        mrcz.write(tree / "s2/late.mrc", counts, kind="stack")
        with open(tree / "s2/slow.log", "wb") as file:
            for _ in range(10):
                file.write(b"x" * 100)
                file.flush()
                time.sleep(0.1)

    writer = threading.Thread(target=write)
    writer.start()
    words = ("--watch", "--settle", "0.4", "--poll", "0.1", "--idle", "2")
    code, out, _ = run(capsys, "archive", *words, "--json", tree, tmp_path / "dst")
    writer.join()
    found = [one["source"] for one in records(out)]
    assert code == 0 and sorted(found) == ["s1/deep/a.mrc", "s2/b.mdoc", "s2/b.mrc", "s2/late.mrc", "s2/slow.log"]
    assert (tmp_path / "dst/s2/data/slow.log").stat().st_size == 1000
    assert run(capsys, "archive", "--check", tmp_path / "dst")[0] == 0


def test_into_an_object_store(tree, tmp_path, capsys, monkeypatch):
    """`file://` stands for any; servers of S3 are asked in tests of the stores themselves."""
    pytest.importorskip("fsspec")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    url = f"file://{tmp_path}/store"
    assert run(capsys, "archive", tree, url)[0] == 0
    code, _, err = run(capsys, "archive", tree, url)
    assert code == 0 and "3 in the archive already" in err
    assert (tmp_path / "store/s2/manifest-sha256.txt").exists() and (
        tmp_path / "store/mrcz-archive/journal.jsonl"
    ).exists()
    assert run(capsys, "archive", "--check", url)[0] == 0
    assert run(capsys, "restore", "-q", url, tmp_path / "out")[0] == 0
    assert same(tree, tmp_path / "out")


@pytest.mark.skipif(os.name == "nt", reason="no such signal")
def test_interrupted_in_good_order(tree, tmp_path):
    """Ctrl-C ends a watch, and what is there are whole bags."""
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "mrcz",
            "archive",
            "--watch",
            "--settle",
            "0",
            "--poll",
            "0.1",
            str(tree),
            str(tmp_path / "dst"),
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    journal = tmp_path / "dst/mrcz-archive/journal.jsonl"
    until = time.monotonic() + 30
    while time.monotonic() < until and not (journal.exists() and journal.read_bytes().count(b"\n") == 3):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130 and "interrupted" in err and "Traceback" not in err
    assert "3 files stored" in err and "the same command goes on from here" in err
    assert (tmp_path / "dst/s1/manifest-sha256.txt").exists() and (tmp_path / "dst/s2/manifest-sha256.txt").exists()


def test_a_restore_from_a_journal_that_was_cut_says_so(tree, tmp_path, capsys):
    dst = tmp_path / "dst"
    assert run(capsys, "archive", tree, dst)[0] == 0
    journal = dst / "mrcz-archive/journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(line for line in lines if b'"s2"' not in line))
    code, _, err = run(capsys, "restore", dst, tmp_path / "out")
    assert code == 3 and "s2/mrcz-records.jsonl: the journal has lost 2 of the files" in err
    journal.unlink()
    code, _, err = run(capsys, "restore", dst, tmp_path / "out")
    assert code == 3 and "the lines of all mrcz-records.jsonl are its journal again" in err
    code, _, err = run(capsys, "archive", tree, dst)
    assert code == 0 and "3 in the archive already" in err and "3 records that the journal had lost" in err


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (["--fast"], "--fast is for --check"),
        (["--sample", "1%"], "--sample is for --check"),
        (["--only", "*.mrc"], "--only is for --check"),
        (["--overwrite"], "--overwrite is for --export"),
        (["--check", "--remove"], "--remove is for archiving SRC"),
        (["--status", "--dry-run"], "--dry-run is for archiving SRC"),
        (["--check", "--hook", "true"], "--hook is for archiving SRC"),
        (["--check", "--read-rate", "1MB/s"], "--read-rate is for archiving SRC"),
        (["--status", "--cores", "2"], "--cores is for archiving SRC and for --check"),
        (["--check", "--idle", "2"], "--settle, --poll, --until and --idle are for --watch"),
        (["--to", "copy", "--pack"], "--to copy compresses none"),
        (["--watch", "--idle", "-1"], "'-1' are no seconds"),
        (["--watch", "--settle", "nan"], "'nan' are no seconds"),
    ],
)
def test_options_to_no_purpose(tree, tmp_path, capsys, given, why):
    code, _, err = run(capsys, "archive", *given, tree, tmp_path / "dst")
    assert code == 2 and why in err
    assert not (tmp_path / "dst").exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs here")
def test_a_dry_run_ends_with_what_the_run_will_end_with(tree, tmp_path, capsys):
    os.mkfifo(tree / "s1/pipe")
    code, _, err = run(capsys, "archive", "--dry-run", tree, tmp_path / "dst")
    assert code == 1 and "pipe" in err
    code, out, err = run(capsys, "archive", "--json", tree, tmp_path / "dst")
    assert code == 1 and "s1/pipe: is a FIFO, a device or a socket" in err and "1 refused" in err
    assert [one["status"] for one in records(out) if one["path"].endswith("pipe")] == ["refused"]
    assert json.loads(out.splitlines()[-1])["refused"] == 1


def test_the_depth_of_an_archive_is_kept(tree, tmp_path, capsys):
    dst = tmp_path / "dst"
    assert run(capsys, "archive", "--sessions", "2", tree, dst)[0] == 0
    for dry in ([], ["--dry-run"]):
        code, _, err = run(capsys, "archive", *dry, "--sessions", "1", tree, dst)
        assert code == 2 and "was begun with --sessions 2, and keeps it" in err
        assert run(capsys, "archive", *dry, tree, dst)[0] == 0


def _free_hours():
    """Hours that do not begin before an hour has passed."""
    now = time.localtime()
    return f"{(now.tm_hour + 2) % 24:02d}:00-{(now.tm_hour + 3) % 24:02d}:00"


@pytest.mark.parametrize("watch", [[], ["--watch", "--idle", "0.2", "--settle", "0", "--poll", "0.1"]])
def test_nothing_to_do_is_not_waited_for(tree, tmp_path, capsys, watch):
    assert run(capsys, "archive", tree, tmp_path / "dst")[0] == 0
    begun = time.monotonic()
    code, _, err = run(capsys, "archive", *watch, "--hours", _free_hours(), tree, tmp_path / "dst")
    assert code == 0 and "3 in the archive already" in err and time.monotonic() - begun < 20


def test_a_watch_ends_while_files_wait_for_their_hours(tree, tmp_path, capsys):
    until = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(time.time() + 3))
    watch = ["--watch", "--settle", "0", "--poll", "0.1", "--until", until, "--hours", _free_hours()]
    begun = time.monotonic()
    code, _, err = run(capsys, "archive", *watch, tree, tmp_path / "dst")
    assert code == 1 and "files wait for their hours" in err and time.monotonic() - begun < 30
    assert run(capsys, "archive", tree, tmp_path / "dst")[0] == 0


@pytest.mark.parametrize(
    "words", [["SRC", "-v", "DST"], ["-v", "SRC", "DST"], ["SRC", "DST", "-v"], ["SRC", "--nice", "1", "DST"]]
)
def test_options_stand_anywhere(tree, tmp_path, capsys, words):
    places = {"SRC": tree, "DST": tmp_path / "dst"}
    code, _, err = run(capsys, "archive", *(places.get(word, word) for word in words))
    assert code == 0 and "3 files stored" in err


def test_an_archive_of_which_only_the_bags_are_left(tree, tmp_path, capsys):
    """Each command says what makes it whole, and what it says does."""
    dst = tmp_path / "dst"
    assert run(capsys, "archive", tree, dst)[0] == 0
    shutil.rmtree(dst / "mrcz-archive")
    for words in (
        ["archive", "--check", dst],
        ["archive", "--status", dst],
        ["archive", tree, dst],
        ["restore", dst, dst],
    ):
        code, _, err = run(capsys, *words)
        assert code == 3 and "in this folder, mkdir" in err, words
    assert not (dst / "mrcz-archive").exists()
    command = err.split("in this folder, ")[1].strip()
    subprocess.run(command, shell=True, cwd=dst, check=True)
    assert run(capsys, "archive", "--check", dst)[0] == 0
    assert run(capsys, "restore", dst, tmp_path / "out")[0] == 0
    assert names(tmp_path / "out") == names(tree)


def test_an_estimate_tells_movies_of_counts_from_those_of_floats(tmp_path, rng, capsys):
    """They have one suffix, and are compressed as differently as can be."""
    gain = rng.normal(1, 0.05, (128, 128)).astype("f4")
    for session in ("s1", "s2"):
        (tmp_path / "tree" / session).mkdir(parents=True)
        for k in range(3):
            counts = rng.poisson(1, (24, 128, 128))
            mrcz.write(tmp_path / "tree" / session / f"a{k}.mrc", counts.astype("f4") * gain)
            mrcz.write(tmp_path / "tree" / session / f"b{k}.mrc", rng.integers(0, 60000, (60, 128, 128)).astype("u2"))
            mrcz.write(tmp_path / "tree" / session / f"c{k}.mrc", np.concatenate([counts] * 10).astype("u1"))
    told = run(capsys, "archive", "--dry-run", "--json", tmp_path / "tree", tmp_path / "dst")[1]
    guess = json.loads(told.splitlines()[-1])["stored_bytes"]
    assert run(capsys, "archive", tmp_path / "tree", tmp_path / "dst")[0] == 0
    truth = sum(path.stat().st_size for path in (tmp_path / "dst").rglob("*.mrcz"))
    assert 0.85 < guess / truth < 1.15


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no disk that is always full")
def test_a_disk_that_is_full_from_the_beginning_is_named(tree, tmp_path, capsys, monkeypatch):
    from mrcz.archive import description

    def full(path, **options):
        return open("/dev/full", "wb", buffering=0)

    monkeypatch.setattr(description, "whole_file", full)
    code, _, err = run(capsys, "archive", tree, tmp_path / "dst")
    assert code == 1 and str(tmp_path / "dst") in err and "No space left on device" in err
