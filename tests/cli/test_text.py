"""Numbers as a person reads them, and the progress bar."""

import io

import pytest

from mrcz.cli import _text
from mrcz.cli._progress import Progress


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 B"),
        (1024, "1024 B"),
        (9999, "9999 B"),
        (10_000, "10.0 kB"),
        (999_499, "999 kB"),
        (999_500, "1.00 MB"),
        (1_234_567, "1.23 MB"),
        (9_994_999, "9.99 MB"),
        (9_996_000, "10.0 MB"),
        (854_321_000, "854 MB"),
        (1.02e9, "1.02 GB"),
        (3e18, "3000 PB"),
    ],
)
def test_size(value, text):
    assert _text.size(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.004, "0.00 s"),
        (0.42, "0.42 s"),
        (0.996, "1.0 s"),
        (9.96, "10 s"),
        (119, "119 s"),
        (187, "3:07 min"),
        (7500, "2:05 h"),
    ],
)
def test_duration(value, text):
    assert _text.duration(value) == text


def test_ratio_and_plural():
    assert _text.ratio(10, 4) == "2.50x" and _text.ratio(10, 0) == "-"
    assert _text.plural(1, "file") == "1 file" and _text.plural(0, "frame") == "0 frames"


def test_table():
    assert _text.table([["codec", "MB"], ["zstd", "12"], ["lz4hc", "7.5"]]) == "codec   MB\nzstd    12\nlz4hc  7.5"


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_bar_on_a_terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr("mrcz.cli._progress._INTERVAL", 0)
    stream = Terminal()
    bar = Progress(2, stream=stream)
    bar.update("x" * 100 + "movie.mrc", 25, 100)
    bar.update("x" * 100 + "movie.mrc", 100, 100)
    bar.clear()
    drawn = stream.getvalue().split("\r")
    assert drawn[1].startswith("1/2 …") and "movie.mrc [#####...............]  25 %" in drawn[1]
    assert "100 %" in drawn[2]
    assert all(len(line) < 60 for line in drawn)
    assert drawn[-2].strip() == drawn[-1] == ""


def test_no_bar_elsewhere(monkeypatch):
    stream = io.StringIO()
    Progress(stream=stream).update("a", 1, 2)
    monkeypatch.setenv("TERM", "dumb")
    terminal = Terminal()
    Progress(stream=terminal).update("a", 1, 2)
    Progress(stream=terminal, quiet=True).update("a", 1, 2)
    assert stream.getvalue() == terminal.getvalue() == ""
