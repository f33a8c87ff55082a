"""Running a command as a user does, and a movie to run it on."""

import json

import pytest

import mrcz
from mrcz import cli


@pytest.fixture
def movie(tmp_path, rng):
    """A small counted movie, and its bytes."""
    path = tmp_path / "movie.mrc"
    mrcz.write(path, rng.poisson(0.8, (7, 50, 61)).astype("u1"), pixel_size=1.05, kind="stack")
    return path


def run(capsys, *args):
    code = cli.main([str(arg) for arg in args])
    out, err = capsys.readouterr()
    return code, out, err


def records(out):
    """What --json printed, without the summary at its end."""
    *found, last = [json.loads(line) for line in out.splitlines()]
    assert last["record"] == "summary" and last["exit_code"] in (0, 1, 3)
    return found


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
