"""A line of the journal: what goes in comes out, and what was forged does not come in."""

import dataclasses
import json
import os
import subprocess
import sys

import pytest

from mrcz.archive.record import Record, check_relative
from mrcz.errors import FormatError

FULL = Record(
    "stored", "s/a b.mrc", "s", "s/data/a b.mrcz", "integers", "file", "mrc", 100, 25, 12, 0o644, "a" * 64, "b" * 64,
    "c" * 64, 3, (3, 4, 5), "float32", "K3", 0.5, "2026-11-27T00:00:00.000+00:00", "run", "host:1", {"mrcz": "1"}, "",
    (("s/data/g.mrcz", "d" * 64, 9),), True, "e", "r", ("n",),
)  # fmt: skip


@pytest.mark.parametrize(
    "record",
    [
        FULL,
        Record("link", "l", target="a\nb"),
        Record("stored", "no utf-8 \udcff\udc80", "\udcff", "\udcff/data/x"),
        Record("refused", "emoji \U0001f52c 100%\n.mrc", error="é"),
    ],
)
def test_comes_back(record):
    line = record.to_line()
    assert line.isascii() and line.count(b"\n") == 1 and line.endswith(b"\n")
    assert Record.from_line(line) == record


def test_other_programs_can_read_it():
    said = json.loads(Record("stored", "x\udcff", "s", "s/data/x\udcff", source_bytes=10, stored_bytes=4).to_line())
    said_text = json.dumps(said, ensure_ascii=False)
    said_text.encode("utf-8")  # no lone surrogates
    assert said["source"] == "x\ufffd" and said["source_base64"] == "eP8=" and said["ratio"] == 2.5


def test_a_million_fields_are_absent():
    assert json.loads(Record("folder", "a").to_line()) == {"event": "folder", "source": "a"}


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Record)])
@pytest.mark.parametrize("value", [None, [], {}, 1.5, "x", True, 1 << 70, [[1]], [["a", "b"]], {"a": 1}, -1, "../x"])
def test_every_field_forged(field, value):
    """A value of another type, or a path that leads elsewhere, is an error; one of the same type comes in."""
    said = json.loads(FULL.to_line())
    said[field] = value
    try:
        made = Record.from_line(json.dumps(said).encode())
    except FormatError:
        return
    kept = getattr(made, field)
    assert type(kept) is type(getattr(FULL, field)) or (field == "seconds" and type(kept) is float)
    assert field not in ("source", "path", "session") or ".." not in kept


@pytest.mark.parametrize(
    "line", [b"", b"{", b"[]", b"1", b"null", b'{"event":"stored"}', b'{"source":"a"}', b'{"event":"x","source":"a"}',
             b'{"event":"stored","source":"a","source_base64":"%"}',
             b'{"event":"stored","source":"a","source_base64":1}',
             b"[" * 100000, b'{"event":"stored","source":""}',
             b'{"event":"folder","source":"a","seconds":NaN}', b'{"event":"folder","source":"a","seconds":1e999}',
             b'{"event":"folder","source":"a","seconds":1' + b"0" * 400 + b"}",
             b'{"event":"stored","source":"a","shape":[1' + b"0" * 30 + b"]}",
             b'{"event":"stored","source":"a","parts":[["x","' + b"0" * 64 + b'",1' + b"0" * 30 + b"]]}",
             b'{"event":"folder","source":"\\ud800"}', b'{"event":"folder","source":"a","session":"\\ud800"}',
             b'{"event":"link","source":"a","target":"\\ud800"}', b'{"event":"folder","source":"\\udcc3\\udca9"}',
             b'{"event":"stored","source":"a","parts":[["\\ud800","' + b"0" * 64 + b'",1]]}',
             '{"event":"folder","source":"a"}'.encode("utf-16-be")]
)  # fmt: skip
def test_what_is_no_record(line):
    with pytest.raises(FormatError):
        Record.from_line(line)


@pytest.mark.parametrize("path", ["/a", "a/../b", "..", ".", "", "a//b", "a/", "a/./b", "a\0b"])
def test_paths_that_lead_elsewhere(path):
    with pytest.raises(FormatError, match="not below"):
        check_relative(path)
    with pytest.raises(FormatError):
        Record.from_line(json.dumps({"event": "stored", "source": "a", "parts": [[path, "s", 1]]}).encode())
    check_relative("a/..b/c..")


@pytest.mark.parametrize("name", ["source", "path", "session", "target"])
def test_a_surrogate_that_is_no_byte_is_no_name(name):
    said = json.loads(FULL.to_line())
    said[name] = "x\ud800"
    with pytest.raises(FormatError, match="no name of a file"):
        Record.from_line(json.dumps(said).encode())


@pytest.mark.parametrize(("name", "value"), [("camera", "\ud800"), ("error", "\udcff"), ("notes", ["\ud800"])])
def test_other_text_can_always_be_written_on(name, value):
    said = {**json.loads(FULL.to_line()), name: value}
    json.dumps(Record.from_line(json.dumps(said).encode()).asdict(), ensure_ascii=False).encode("utf-8")


@pytest.mark.skipif(os.name != "posix", reason="names are bytes on POSIX alone")
def test_names_are_the_same_bytes_whatever_the_locale():
    """An archive that was begun in UTF-8 and goes on in a job without a locale."""
    line = Record("stored", "Übung/m", "Übung", "Übung/data/m").to_line()
    program = (
        "import os, sys; from mrcz.archive.record import Record; made = Record.from_line(sys.stdin.buffer.read());"
        "print(sys.getfilesystemencoding(), os.fsencode(made.path).hex(), Record.from_line(made.to_line()) == made)"
    )
    bare = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", program], input=line, capture_output=True, env={**os.environ, **bare}, check=True
    )
    encoding, path, again = done.stdout.decode().split()
    assert encoding == "ascii" and bytes.fromhex(path) == "Übung/data/m".encode() and again == "True"
