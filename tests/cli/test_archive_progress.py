"""The display of an archive, as a terminal shows it: the tests have a small one that obeys what it is sent."""

import io
import os
import re
import shutil
import subprocess
import sys
import textwrap

import pytest

import mrcz.cli._archive_progress as module
from mrcz.cli._archive_progress import Display, _cut, _width


class Terminal(io.StringIO):
    """Rows and columns, and the few control sequences that are used; any other is an error."""

    def __init__(self, columns=80):
        super().__init__()
        self.columns, self.rows, self.row, self.column, self.writes = columns, [""], 0, 0, 0

    def isatty(self):
        return True

    def write(self, text):
        self.writes += 1
        for token in re.findall(r"\x1b\[\d*[A-Za-z]|.", text, re.DOTALL):
            if token == "\r":
                self.column = 0
            elif token == "\n":
                self.row, self.column = self.row + 1, 0
                if self.row == len(self.rows):
                    self.rows.append("")
            elif match := re.fullmatch(r"\x1b\[(\d+)A", token):
                self.row -= int(match[1])
                assert self.row >= 0, "above the first line"
            elif token == "\x1b[K":
                self.rows[self.row] = self.rows[self.row][: self.column]
            elif token == "\x1b[J":
                self.rows[self.row] = self.rows[self.row][: self.column]
                del self.rows[self.row + 1 :]
            else:
                assert token.isprintable() and not token.startswith("\x1b"), token
                line = self.rows[self.row].ljust(self.column)
                self.rows[self.row] = line[: self.column] + token + line[self.column + 1 :]
                self.column += 1
        assert all(_width(row) < self.columns for row in self.rows), "a line that wraps"
        return len(text)


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes when it is told."""
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def sized(monkeypatch):
    def use(columns, rows=24):
        monkeypatch.setattr(shutil, "get_terminal_size", lambda *_: os.terminal_size((columns, rows)))
        return Terminal(columns)

    monkeypatch.setenv("TERM", "xterm")
    return use


DOING = [("thread 1", "s/Images/movie_0001.mrc", 300, 1000), ("host-a:4711", "s/gain.mrc", 0, 0)]


def test_files_bytes_ratio_rate_time_left_and_workers(clock, sized):
    terminal = sized(120)
    display = Display(300, 120_000_000_000, stream=terminal)
    display.update(10, 1_000_000_000, 400_000_000, 0)
    for _ in range(20):
        clock[0] += 1
        display.update(10, 1_000_000_000, 400_000_000, 0)
    clock[0] += 5
    display.update(112, 41_000_000_000, 13_000_000_000, 2, DOING)
    assert terminal.rows == [
        "[#######.............]  34.2 %  112/300 files  2 failed  41.0 GB of 120 GB  47 s left  1.67 GB/s  3.15x",
        "  thread 1 [###.......]  30 %  s/Images/movie_0001.mrc",
        "  host-a:4711 [..........]   0 %  s/gain.mrc",
    ]


def test_what_is_under_way_counts(clock, sized):
    display = Display(2, 1000, stream=(terminal := sized(80)))
    clock[0] += 1
    display.update(0, 0, 0, 0, [("w", "a", 500, 500), ("w", "b", 900, 250)])
    assert terminal.rows[0].startswith("[###############.....]  75.0 %  0/2 files  750 B of 1000 B")


def test_a_hundred_is_said_when_it_is_done(clock, sized):
    display = Display(10, 10_000_000, stream=(terminal := sized(80)))
    clock[0] += 1
    display.update(9, 9_999_999, 1, 0)
    assert " 99.9 %" in terminal.rows[0]
    clock[0] += 1
    display.update(10, 10_000_000, 1, 0)
    assert "100.0 %" in terminal.rows[0]


def test_it_is_drawn_ten_times_a_second_at_most(clock, sized):
    display = Display(10, 1000, stream=(terminal := sized(80)))
    for _ in range(1000):
        clock[0] += 0.001
        display.update(1, 1, 1, 0)
    assert 8 <= terminal.writes <= 10


def test_lines_come_and_go_and_are_taken_away(clock, sized):
    display = Display(10, 1000, stream=(terminal := sized(80)))
    for count in (1, 4, 0, 2, 7):
        clock[0] += 1
        display.update(1, 100, 50, 0, [(f"w{i}", f"file{i}", 1, 2) for i in range(count)])
        assert len(terminal.rows) == 1 + count
    display.clear()
    assert terminal.rows == [""]
    display.clear()
    terminal.write("mrcz: a message\n")
    display.update(1, 100, 50, 0)  # at once, so that it does not flicker
    assert terminal.rows[0] == "mrcz: a message" and "1/10 files" in terminal.rows[1]


@pytest.mark.parametrize("columns", [1, 2, 5, 10, 20, 30, 40, 60, 79, 80, 200])
def test_narrow_terminals(clock, sized, columns):
    display = Display(300, 10**12, stream=(terminal := sized(columns)))
    for step in range(3):
        clock[0] += 1
        display.update(step, step * 10**9, step * 10**8, step, [*DOING, ("名前" * 20, "映画/ü̈" * 30, 1, 2)])
    if columns >= 20:
        assert "2/300 files" in terminal.rows[0]
        assert "映" in terminal.rows[3]


def test_more_workers_than_rows(clock, sized):
    display = Display(300, 10**12, stream=(terminal := sized(80, 10)))
    clock[0] += 1
    display.update(0, 0, 0, 0, [(f"w{i}", f"file{i}", 1, 2) for i in range(50)])
    assert len(terminal.rows) == 8 and terminal.rows[-1] == "  and 44 more workers"


def test_a_terminal_that_becomes_narrower(clock, sized, monkeypatch):
    display = Display(300, 10**12, stream=(terminal := sized(80)))
    clock[0] += 1
    display.update(1, 10**9, 10**8, 0, DOING)
    # Its lines, broken in two where they are longer than 40.
    broken = [row[i : i + 40] for row in terminal.rows for i in range(0, len(row), 40)]
    terminal.rows, terminal.row, terminal.columns = broken, len(broken) - 1, 41
    monkeypatch.setattr(shutil, "get_terminal_size", lambda *_: os.terminal_size((40, 24)))
    clock[0] += 1
    display.update(1, 10**9, 10**8, 0, DOING)
    assert len(terminal.rows) == 3 and terminal.rows[0].count("files") == 1


def test_hostile_names_do_nothing_to_a_terminal(clock, sized):
    display = Display(3, 1000, stream=(terminal := sized(100)))
    clock[0] += 1
    display.update(0, 0, 0, 0, [("w\x1b[2J", "a\x1b]0;x\x07\r\n\u202e" + os.fsdecode(b"\xff"), 1, 2)])
    assert len(terminal.rows) == 2 and "\\x1b]0;x\\x07\\r\\n\\u202e\\xff" in terminal.rows[1]


def test_without_totals_there_is_no_bar(clock, sized):
    display = Display(stream=(terminal := sized(80)))
    clock[0] += 1
    display.update(1, 1_000_000, 500_000, 0)
    assert terminal.rows == ["1 file  1.00 MB  2.00x  waiting for files"]
    clock[0] += 1
    display.update(1, 1_000_000, 500_000, 0, [("w", "a.mrc", 0, 10)])
    assert terminal.rows[0] == "1 file  1.00 MB  2.00x"
    display.total_files, display.total_bytes = 5, 2_000_000
    clock[0] += 1
    display.update(1, 1_000_000, 500_000, 0)
    assert "1/5 files" in terminal.rows[0] and "50.0 %" in terminal.rows[0]


def test_odd_numbers(clock, sized):
    display = Display(1, 10, stream=(terminal := sized(80)))
    for done in (20, -5, 0):
        clock[0] += 2
        display.update(done, done, 0, 0, [("w", "x", -3, 2), ("w", "y", 5, -2), ("w", "z", 9, 3)])
    assert len(terminal.rows) == 4


def test_elsewhere_a_plain_line_now_and_then(clock):
    stream = io.StringIO()
    display = Display(300, 10**12, stream=stream, every=60)
    for _ in range(1250):
        clock[0] += 0.1
        display.update(112, 45 * 10**10, 15 * 10**10, 1, DOING)
    display.clear()
    lines = stream.getvalue().splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("archive: 112/300 files, 1 failed, 450 GB of 1.00 TB")
    assert lines[0].endswith("3.00x") and lines[0].isprintable()


def test_a_dumb_terminal_is_none(clock, sized, monkeypatch):
    terminal = sized(80)
    monkeypatch.setenv("TERM", "dumb")
    display = Display(3, 10, stream=terminal)
    clock[0] += 1
    display.update(1, 1, 1, 0)
    assert terminal.rows == [""]


def test_quiet(clock, sized):
    for stream in (sized(80), io.StringIO()):
        display = Display(3, 10, stream=stream, quiet=True, every=0)
        clock[0] += 100
        display.update(1, 1, 1, 0)
        display.clear()
        assert stream.getvalue() == "" and getattr(stream, "writes", 0) == 0


def test_a_terminal_that_is_gone_is_no_reason_to_stop(clock, sized):
    class Gone(Terminal):
        def write(self, text):
            raise OSError(5, "Input/output error")

    sized(80)
    display = Display(3, 10, stream=Gone())
    for _ in range(3):
        clock[0] += 1
        display.update(1, 1, 1, 0)
    display.clear()


def test_cutting():
    assert _cut("abcdef", 4) == "abc…" and _cut("abcdef", 4, keep_end=True) == "…def"
    assert _cut("映画映画", 5) == "映画…" and _width("映画…") == 5
    assert _cut("abc", 3) == "abc" and _cut("abc", 1) == ""


@pytest.mark.skipif(os.name == "nt", reason="needs a pseudo terminal")
def test_on_a_real_terminal(tmp_path):
    import pty

    code = textwrap.dedent(
        """
        import time
        from mrcz.cli._archive_progress import Display
        display = Display(3, 300)
        for done in range(4):
            time.sleep(0.12)
            display.update(done, done * 100, done * 50, 0, [("w", f"file {done}", 1, 2)])
        display.clear()
        """
    )
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", code], stderr=theirs, env={**os.environ, "TERM": "xterm", "COLUMNS": "70"}
    ) as process:
        os.close(theirs)
        seen = b""
        while True:
            try:
                data = os.read(ours, 65536)
            except OSError:
                break
            if not data:
                break
            seen += data
        assert process.wait(20) == 0
    os.close(ours)
    terminal = Terminal(70)
    terminal.write(seen.decode().replace("\r\n", "\n"))
    assert b"2/3 files" in seen and terminal.rows == [""]


@pytest.mark.parametrize("total", [0, 12])
def test_a_time_that_is_waited_for_is_told(clock, sized, total):
    terminal = sized(80)
    display = Display(total, 1000 * total, stream=terminal)
    clock[0] += 1
    display.update(0, 0, 0, 0, waiting="nothing begins before 20:00")
    assert "nothing begins before 20:00" in terminal.rows[0] and "waiting for files" not in terminal.rows[0]
    clock[0] += 1
    display.update(0, 0, 0, 0)
    assert "nothing begins" not in terminal.rows[0] and ("waiting for files" in terminal.rows[0]) == (not total)
    plain = io.StringIO()
    display = Display(total, 1000 * total, stream=plain, every=5)
    clock[0] += 6
    display.update(0, 0, 0, 0, waiting="nothing begins before 20:00")
    assert "nothing begins before 20:00" in plain.getvalue()
