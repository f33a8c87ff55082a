"""Arguments of archives beyond one machine, and what is made of them."""

import argparse
import os
import pickle
from pathlib import Path

import pytest

pytest.importorskip("fsspec")

from mrcz.archive.local import Threads
from mrcz.archive.task import Options
from mrcz.cli._archive_places import add_arguments, executor_from, place_from
from mrcz.cli._shared import UsageError
from mrcz.errors import MissingDependencyError, MrczError


def parsed(*words):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(words)


def test_a_folder(tmp_path):
    where = place_from(parsed(), str(tmp_path / "archive"))
    assert (where.root, where.place, where.journal, where.mirror) == (str(tmp_path / "archive"), None, None, None)
    assert not (tmp_path / "archive").exists()
    for option in ("--journal", "--staging", "--storage-options"):
        with pytest.raises(UsageError, match=f"{option} is for archives at a URL"):
            place_from(parsed(option, "x"), str(tmp_path))


def test_a_url(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    where = place_from(parsed(), "memory://bucket/archive/")
    assert where.place.url == "memory://bucket/archive"
    assert Path(where.root).is_relative_to(tmp_path / "state") and Path(where.root).is_dir()
    assert where.journal.is_relative_to(tmp_path / "state")
    assert where.mirror.journal == where.journal
    chosen = parsed("--journal", str(tmp_path / "j"), "--staging", str(tmp_path / "fast"))
    where = place_from(chosen, "memory://bucket/archive/")
    assert where.journal == tmp_path / "j" and Path(where.root).parent == tmp_path / "fast"
    with pytest.raises(MrczError, match="no URL"):
        place_from(parsed(), "nonsense://a")


def test_storage_options(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    options = {"skip_instance_cache": True}
    (tmp_path / "options").write_text('{"skip_instance_cache": true}')
    for words in (
        ["--storage-options", '{"skip_instance_cache": true}'],
        ["--storage-options", f"@{tmp_path}/options"],
    ):
        assert place_from(parsed(*words), "memory://a/b").place._options == options
    monkeypatch.setenv("MRCZ_STORAGE_OPTIONS", '{"skip_instance_cache": true}')
    assert place_from(parsed(), "memory://a/b").place._options == options
    for text in ("{", "[1]", "3"):
        with pytest.raises(UsageError, match="no JSON"):
            place_from(parsed("--storage-options", text), "memory://a/b")


def flow_of(options):
    return f"flow of {os.getpid()} {options.read_rate}"


def test_who_does_the_work(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    args = parsed()
    executor = executor_from(args, Options(), str(tmp_path), place_from(args, str(tmp_path / "a")), workers=3)
    assert isinstance(executor, Threads) and executor.slots == 6
    executor.close()
    executor = executor_from(args, Options(), str(tmp_path), place_from(args, "memory://a/b"), workers=1, flow=flow_of)
    try:
        assert executor._work.place.url == "memory://a/b"
        assert pickle.loads(pickle.dumps(executor._work)).place.url == "memory://a/b"
        assert executor._flow.endswith("0.0")
    finally:
        executor.close()


def test_a_cluster_that_is_not_there(tmp_path):
    pytest.importorskip("distributed")
    for address, wrong, said in (
        ("nonsense", UsageError, "write local, or where a scheduler is"),
        ("tcp://host", UsageError, "write local"),
        ("nosuch://127.0.0.1:1", MrczError, "no dask scheduler"),
    ):
        args = parsed("--dask", address)
        with pytest.raises(wrong, match=said):
            executor_from(args, Options(), str(tmp_path), place_from(args, str(tmp_path / "a")), workers=1)


def test_a_local_cluster_starts_with_the_first_file(tmp_path, capsys, monkeypatch):
    pytest.importorskip("distributed")
    from mrcz import cli

    (tmp_path / "src/s").mkdir(parents=True)
    (tmp_path / "src/s/file").write_text("x")
    begun = []

    def cluster(where, **keywords):  # what it does is tested elsewhere; here, when it is made
        begun.append((where, keywords["workers"]))
        return Threads(1)

    monkeypatch.setattr("mrcz.archive.dask.DaskExecutor", cluster)
    command = ["archive", "--dask", "local", "--cores", "1", str(tmp_path / "src"), str(tmp_path / "dst")]
    assert cli.main(command) == 0 and begun == [("local", 1)]
    assert cli.main(command) == 0 and begun == [("local", 1)] and "1 in the archive already" in capsys.readouterr().err
    # A watch has it ready: a movie that comes is not to wait for it.
    assert cli.main([*command[:1], "--watch", "--idle", "0.1", *command[1:]]) == 0 and len(begun) == 2


def test_a_local_cluster_that_cannot_be_is_told_before_anything_is_done(tmp_path, monkeypatch):
    monkeypatch.setattr("mrcz.cli._archive_places.find_spec", lambda name: None)
    args = parsed("--dask", "local")
    with pytest.raises(MissingDependencyError, match="mrcz\\[cluster\\]"):
        executor_from(args, Options(), str(tmp_path), place_from(args, str(tmp_path / "a")), workers=1)
