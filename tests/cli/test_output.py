"""What reaches the terminal: no control character of anybody else's, and what becomes of output nobody can take."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import mrcz
from mrcz import cli
from mrcz.cli import _output
from mrcz.container.footer import encode_footer, load_footer
from mrcz.errors import ChunkError, FormatError, FormatWarning, printable

# A title that types, colours, a C1 sequence, a newline that forges a line, text from right to left, and an invisible.
EVIL = "\x1b]0;pwn\x07\x1b[31m\x9b2J\r\nmrcz: ok\u202egnp\u2066\u200b\x7f"
FORBIDDEN = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069]")


def run(capsys, *args):
    code = cli.main([str(arg) for arg in args])
    out, err = capsys.readouterr()
    return code, out, err


# --- printable ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("movie 1.mrc", "movie 1.mrc"),
        ("Å γ 電子 é", "Å γ 電子 é"),
        ("a\nb\tc\r", "a\\nb\\tc\\r"),
        ("\x1b[31m\x00\x7f", "\\x1b[31m\\x00\\x7f"),
        ("\x9b2J\x85", "\\x9b2J\\x85"),
        ("\u202egnp.exe\u2069", "\\u202egnp.exe\\u2069"),
        ("\u2028\ufeff\U000e0041", "\\u2028\\ufeff\\U000e0041"),
        (os.fsdecode(b"caf\xe9.mrc"), "caf\\xe9.mrc"),
        (17, "17"),
    ],
)
def test_printable(text, shown):
    assert printable(text) == shown and not FORBIDDEN.search(printable(text))


def test_no_character_below_the_last_gets_through():
    for code in range(0x3000):
        shown = printable(chr(code))
        assert shown.isprintable() and (shown == chr(code) or shown.isascii())


@pytest.mark.parametrize("kind", [FormatError, ChunkError])
def test_errors_show_names_and_messages_escaped(kind):
    error = kind(f"type is {EVIL}", path=f"/data/{EVIL}.mrc")
    assert not FORBIDDEN.search(str(error)) and "\\x1b" in str(error) and error.path == f"/data/{EVIL}.mrc"
    assert not FORBIDDEN.search(str(FormatWarning(EVIL)))


# --- by construction ----------------------------------------------------------------------------------------------


def test_nothing_is_printed_past_the_one_way_out():
    """A ``print`` or a ``sys.stdout.write`` in a command would show what it is given as it is."""
    folder = Path(_output.__file__).parent
    for path in folder.glob("*.py"):
        if path.name in ("_output.py", "_build.py"):
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called != "print" and not re.fullmatch(r"sys\.(stdout|stderr)\.write(lines)?", called), path.name


def test_the_stream_itself_is_guarded(capsys):
    with _output.streams():
        print(EVIL, file=sys.stderr)
        print("one\ntwo")
    out, err = capsys.readouterr()
    assert out == "one\ntwo\n" and not FORBIDDEN.search(err)


# --- every command ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """Files whose names, labels, types, metadata, source and writer are made to be obeyed by a terminal."""
    folder = tmp_path_factory.mktemp("hostile")
    counts = np.random.default_rng(3).poisson(1, (3, 16, 16)).astype("i2")
    mrcz.write(folder / "lab.mrc", counts)
    label = EVIL.encode("latin-1", "replace")[:40]
    raw = bytearray((folder / "lab.mrc").read_bytes())
    raw[224:264] = label.ljust(40)
    raw[220:224] = (1).to_bytes(4, "little")
    (folder / "lab.mrc").write_bytes(raw)
    (folder / f"{EVIL}.mrc").write_bytes(raw)
    os.mkdir(folder / f"d{EVIL}")
    (folder / f"d{EVIL}" / f"{EVIL}.gz.mrc").write_bytes(raw)
    (folder / f"{EVIL}bad.mrcz").write_bytes(b"junk" * 300)
    (folder / f".{EVIL}.mrcz.0123abcd.part").write_bytes(raw)
    os.utime(folder / f".{EVIL}.mrcz.0123abcd.part", (1e9, 1e9))
    os.symlink(folder / f"d{EVIL}", folder / f"l{EVIL}")
    os.symlink("nowhere" + EVIL, folder / f"dangling{EVIL}.mrc")
    for name, place in (("map.mrc", 208), ("type.mrc", 104)):
        odd = bytearray(raw)
        odd[place : place + 4] = b"\x1b[2J"
        odd[92:96] = (0 if name == "map.mrc" else 64).to_bytes(4, "little")
        (folder / name).write_bytes(odd[:1024] + (b"" if name == "map.mrc" else label.ljust(64)) + odd[1024:])
    odd = bytearray(raw)
    odd[92:96], odd[104:108] = (128).to_bytes(4, "little"), b"json"
    (folder / "json.mrc").write_bytes(odd[:1024] + json.dumps({EVIL: EVIL}).encode()[:128].ljust(128) + odd[1024:])
    mrcz.write(folder / "meta.mrcz", counts, metadata={EVIL: EVIL, "correction": {"steps": EVIL}})
    mrcz.compress(folder / "lab.mrc", folder / "source.mrcz")
    with mrcz.open(folder / "source.mrcz") as reader:
        fields = {"extra": {"source_name": EVIL + ".mrc"}, "writer": EVIL}
        data = (folder / "source.mrcz").read_bytes()
        end = reader.index.end
        footer = encode_footer(
            reader.index,
            header_bytes=data[:1024],
            extended_header_bytes=data[1024 : reader.header.data_offset],
            start=end,
            **fields,
        )
    (folder / "source.mrcz").write_bytes(data[:end] + footer)
    assert load_footer(lambda at, n: (data[:end] + footer)[at : at + n], end + len(footer)) is not None
    return folder


COMMANDS = [
    "header {all}",
    "header --json -v -r {}",
    "validate {all}",
    "validate --json -r {}",
    "header --set {ev}=1 {bad}",
    "header --dry-run --label {ev} {evil}",
    "header --set pixel-size=2 --dry-run -r {}",
    "info {all}",
    "info -v -r {}",
    "info --json -v -r {}",
    "info --strict {all}",
    "verify -r {}",
    "verify -v -r {}",
    "verify --json {all}",
    "verify {}/lab.mrc {}/json.mrc",
    "compress --dry-run {all}",
    "compress -v -r {} -o {tmp}/",
    "compress --json -r {} -o {tmp}/",
    "compress -c " + EVIL + " {}/lab.mrc",
    "compress --" + EVIL,
    EVIL,
    "--" + EVIL,
    "decompress -r {} -o {tmp}/",
    "decompress {}/source.mrcz -o {tmp}/" + EVIL,
    "recover --dry-run {bad}",
    "recover {evil} -o {tmp}/x.mrc",
    "recover --json {bad}",
    "mount {}/" + EVIL + " {tmp}",
    "correct -r {} -o {tmp}",
    "correct --json -v -r {} -o {tmp}",
    "correct --gain {bad} {}/lab.mrc",
    "koma -r {} -o {tmp} -a 1",
    "gain convert {bad} -o {tmp}/g.mrc",
    "gain orient {evil} {evil}",
    "clean {}",
    "clean --dry-run --json -r {}",
    "clean {}/" + EVIL,
    "clean --older-than " + EVIL,
    "demo --keep {evil}",
    "completion " + EVIL,
    "-i {evil} -o {tmp}/" + EVIL + ".mrcz",
    "-i {bad} -o {tmp}/x",
]


@pytest.mark.parametrize("line", COMMANDS, ids=str)
def test_nothing_in_a_file_or_its_name_reaches_the_terminal(capsys, hostile, tmp_path, line):
    words: list[str] = []
    for word in line.replace(EVIL, "{ev}").split(" "):
        if word == "{all}":
            words += sorted(str(path) for path in hostile.iterdir() if path.is_file() or path.is_symlink())
        else:
            word = word.replace("{evil}", "{}/{ev}.mrc").replace("{bad}", "{}/{ev}bad.mrcz").replace("{ev}", EVIL)
            words.append(word.replace("{tmp}", str(tmp_path)).replace("{}", str(hostile)))
    code, out, err = run(capsys, *words)
    assert code in (0, 1, 2, 3)
    assert not FORBIDDEN.search(out) and not FORBIDDEN.search(err), (out, err)
    assert "Traceback" not in err and "fault of mrcz" not in err, err
    assert not re.search("^mrcz: ok", out + err, re.MULTILINE)  # no line of ours that a name forged
    assert out + err  # or the test shows nothing
    if "--json" in words:
        for record in map(json.loads, out.splitlines()):
            assert isinstance(record, dict)


def test_json_gives_every_character_back(capsys, hostile):
    code, out, _ = run(capsys, "info", "--json", hostile / "meta.mrcz", hostile / f"{EVIL}.mrc")
    meta, name, _ = map(json.loads, out.splitlines())
    assert code == 0 and out.isprintable() is False and EVIL in meta["metadata"]
    assert name["path"] == str(hostile / f"{EVIL}.mrc")


@pytest.mark.skipif(sys.platform != "linux", reason="file names of any bytes")
def test_names_that_are_no_utf8(capsys, tmp_path):
    name = os.fsdecode(bytes(tmp_path) + b"/caf\xe9.mrc")
    mrcz.write(name, np.zeros((1, 8, 8), "i1"))
    code, out, _ = run(capsys, "info", name)
    assert code == 0 and "caf\\xe9.mrc" in out
    code, out, _ = run(capsys, "compress", "--json", name)
    first, _ = map(json.loads, out.splitlines())
    assert code == 0 and first["path"] == name and os.path.exists(first["destination"])
    done = subprocess.run([sys.executable, "-m", "mrcz", "verify", os.fsencode(name)], capture_output=True)
    assert done.returncode == 0 and b"caf\\xe9.mrc: ok" in done.stdout


def test_an_error_nobody_expected_is_no_traceback(capsys, tmp_path, monkeypatch):
    def fail(*args, **options):
        raise RuntimeError(f"no {EVIL}")

    monkeypatch.setattr("mrcz.check.describe.describe", fail)
    mrcz.write(tmp_path / "a.mrc", np.zeros((1, 8, 8), "i1"))
    code, _, err = run(capsys, "info", tmp_path / "a.mrc")
    assert code == 1 and err.count("\n") == 1 and "RuntimeError: no \\x1b" in err and "test_output.py, line" in err
    monkeypatch.setenv("MRCZ_TRACEBACK", "1")
    code, _, err = run(capsys, "info", tmp_path / "a.mrc")
    assert "Traceback" in err and not FORBIDDEN.search(err)


# --- output nobody takes ------------------------------------------------------------------------------------------


@pytest.fixture
def many(tmp_path):
    """So many files that what is said of them fills a pipe."""
    mrcz.write(tmp_path / "0.mrc", np.zeros((2, 8, 8), "i1"))
    raw = (tmp_path / "0.mrc").read_bytes()
    for i in range(1, 30):
        (tmp_path / f"{i}.mrc").write_bytes(raw)
    return tmp_path


def program(*args, **more):
    return [sys.executable, "-m", "mrcz", *map(str, args)]


def closed_after_a_line(*args):
    process = subprocess.Popen(program(*args), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.readline()
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    return process.wait(60), err


def test_listings_end_quietly_when_nobody_reads_on(many):
    for command in (["info", "-r", many], ["--help"], ["man"], ["completion", "fish"]):
        assert closed_after_a_line(*command) == (0, b"")


def test_work_goes_on_when_nobody_reads_on_and_the_exit_code_is_true(many):
    code, err = closed_after_a_line("compress", "-q", "-r", many)
    assert (code, err) == (0, b"") and len(list(many.glob("*.mrcz"))) == 30
    (many / "7.mrcz").write_bytes(b"junk" * 300)  # not the first, whose line is read
    code, err = closed_after_a_line("verify", "-q", "-r", many)
    assert code == 3


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a disk that is full needs /dev/full")
@pytest.mark.parametrize("as_json", [False, True])
def test_results_on_a_full_disk(many, as_json):
    for command in (["info", "-r", many], ["compress", "-q", "-r", many], ["verify", "-q", many / "1.mrc"], ["--help"]):
        with open("/dev/full", "w") as full:
            words = [*command, *(["--json"] if as_json and command != ["--help"] else [])]
            done = subprocess.run(program(*words), stdout=full, stderr=subprocess.PIPE, text=True)
        assert done.returncode == 1
        assert done.stderr == "mrcz: standard output: No space left on device; not everything was shown\n"
    assert len(list(many.glob("*.mrcz"))) == 30  # the work was done
    with open("/dev/full", "w") as full:
        done = subprocess.run(program("decompress", many / "1.mrcz", "-o", "-"), stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 1 and done.stderr.startswith(b"mrcz: standard output: No space left on device")


def test_a_full_disk_is_named(capsys, many, monkeypatch):
    """Errors of writing do not say what they wrote; which folder is full is said all the same."""
    from mrcz.storage.disk import Disk

    def full(self, fd, data, offset):
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patched:
        patched.setattr(Disk, "pwrite", full)
        for words in (
            ["compress", many / "1.mrc"],
            ["compress", many / "1.mrc", "-o", many / "sub/x.mrcz"],
            ["correct", "--method", "none", many / "1.mrc"],
        ):
            code, _, err = run(capsys, *words)
            folder = many / "sub" if "-o" in words else many
            assert code == 1 and err == f"mrcz: {many / '1.mrc'}: {folder} is full (No space left on device)\n"
    import gzip
    import tempfile

    (many / "z.mrc.gz").write_bytes(gzip.compress((many / "1.mrc").read_bytes()))

    class Full:
        def __init__(self, file):
            self.file = file

        def __getattr__(self, name):
            return getattr(self.file, name)

        def write(self, data):
            raise OSError(28, os.strerror(28))

    real = tempfile.TemporaryFile
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda *a, **k: Full(real(*a, **k)))
    for command in ("info", "compress", "verify"):
        code, _, err = run(capsys, command, many / "z.mrc.gz")
        assert code == 1 and f"z.mrc.gz: {tempfile.gettempdir()} is full (" in err and "No space left on device" in err


# --- JSON ---------------------------------------------------------------------------------------------------------


COMMON = {"record", "command", "path", "status", "ok", "error", "damaged", "seconds", "time"}


@pytest.mark.parametrize(
    "words",
    [
        "header {m} {no}",
        "header --set pixel-size=2 {m} {no}",
        "validate {m} {no} {bad}",
        "info {m} {no}",
        "verify {m} {no} {bad}",
        "verify {m} {m}",
        "compress -o {t}/o/ {m} {no} {bad}",
        "compress --dry-run {m}",
        "decompress -o {t}/d/ {z} {no}",
        "recover --dry-run {z}",
        "recover {no}",
        "correct -o {t}/c {m} {no}",
        "koma -a 1 -o {t}/k {m} {no}",
        "gain make {m} -o {t}/g.mrc",
        "gain orient {m} {no}",
        "gain orient {m} {z}",
        "gain gamma {m} {no}",
        "gain convert {no} -o {t}/h.mrc",
        "clean {t}",
        "clean {no}",
        "demo --frames 2 --size 32",
    ],
)
def test_every_object_has_the_same_keys(capsys, tmp_path, words):
    counts = np.random.default_rng(1).poisson(5, (4, 32, 32)).astype("i2")
    mrcz.write(tmp_path / "m.mrc", counts)
    mrcz.write(tmp_path / "z.mrcz", counts)
    (tmp_path / "bad.mrc").write_bytes(b"junk" * 300)
    (tmp_path / ".x.mrcz.0123abcd.part").write_bytes(b"x")
    places = {"m": tmp_path / "m.mrc", "z": tmp_path / "z.mrcz", "no": tmp_path / "no.mrc", "bad": tmp_path / "bad.mrc"}
    code, out, _ = run(capsys, *words.format(t=tmp_path, **places).split(" "), "--json")
    *records, summary = map(json.loads, out.splitlines())
    assert records
    for record in (*records, summary):
        assert record.keys() >= COMMON, record
        assert record["command"] == words.split()[0] and isinstance(record["ok"], bool)
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", record["time"])
        assert (record["error"] is None) or not record["ok"] or record["status"] in ("skipped", "done")
    files = [record for record in records if record["record"] == "file"]
    assert all(isinstance(record["path"], str) for record in files)
    assert summary["record"] == "summary" and summary["files"] == len(files) and summary["exit_code"] == code
    assert summary["ok"] == (code == 0)
    assert summary["failed"] == sum(record["status"] == "failed" for record in files)
