"""The command of the user's: real shells, real programs, a real server on loopback."""

import json
import os
import shutil
import stat
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from mrcz.archive.hook import EVENTS, _read, run_hook

pytestmark = pytest.mark.skipif(os.name == "nt", reason="shell commands")

SUMMARY = {"stored": 300, "failed": 2, "refused": 0, "failures": [{"source": "a'; touch pwned; '$(touch pwned)`x`"}]}


def test_it_gets_the_summary_and_the_words(tmp_path):
    out = tmp_path / "out"
    command = f'cat > {out}; env | grep ^MRCZ_ | grep -v TEST_DATA | sort >> {out}; echo "noise"'
    assert run_hook(command, "incomplete", "/data/archive", SUMMARY, subject="two failed") is None
    first, *rest = out.read_text().splitlines()
    assert json.loads(first) == {"event": "incomplete", "archive": "/data/archive", **SUMMARY}
    assert rest == [
        "MRCZ_ARCHIVE=/data/archive",
        "MRCZ_EVENT=incomplete",
        "MRCZ_FAILED=2",
        "MRCZ_REFUSED=0",
        "MRCZ_STORED=300",
        "MRCZ_SUBJECT=two failed",
    ]


def test_hostile_names_run_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    archive = "/d'; touch pwned; $(touch pwned) `touch pwned`\n\x1b[2J" + os.fsdecode(b"\xff")
    command = 'echo $MRCZ_ARCHIVE "$MRCZ_ARCHIVE" $MRCZ_SUBJECT > out; printf %s "$MRCZ_SUBJECT" > subject; cat > json'
    assert run_hook(command, "failed", archive, SUMMARY) is None
    assert sorted(os.listdir(tmp_path)) == ["json", "out", "subject"]
    subject = (tmp_path / "subject").read_bytes()
    assert b"\n" not in subject and b"\x1b" not in subject and b"\\xff: failed" in subject
    assert json.loads((tmp_path / "json").read_bytes().decode("ascii"))["event"] == "failed"
    assert b"\xff" in (tmp_path / "out").read_bytes()


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("echo first; echo the server said no >&2; exit 7", "the hook ended with 7: the server said no"),
        ("/no/such/program-of-that-name", "the hook ended with 127: "),
        ("kill -9 $$", "the hook was ended by signal 9"),
        ("printf '\\033[2J\\377bad'; false", "the hook ended with 1: \\x1b[2J\\xffbad"),
    ],
)
def test_its_failure_is_told_in_one_line(command, problem):
    told = run_hook(command, "finished", "/a", {})
    assert told.startswith(problem) and "\n" not in told


def test_it_need_not_read_and_may_print_without_end():
    big = {"failures": ["x" * 1000] * 2000}
    assert run_hook("true", "finished", "/a", big) is None
    assert run_hook("head -c 30000000 /dev/zero", "finished", "/a", big) is None


def test_one_that_hangs_is_ended_with_all_it_started(tmp_path):
    mark = tmp_path / "alive"
    command = f"(trap '' TERM; while :; do date > {mark}; sleep 0.1; done) & sleep 100"
    started = time.monotonic()
    assert run_hook(command, "finished", "/a", {}, timeout=0.5).startswith("the hook was ended after 0.5 s")
    assert time.monotonic() - started < 6
    time.sleep(0.3)
    before = os.stat(mark).st_mtime_ns
    time.sleep(0.4)
    assert os.stat(mark).st_mtime_ns == before


def test_what_it_leaves_in_the_background_is_not_waited_for():
    started = time.monotonic()
    assert run_hook("sleep 5 & exit 0", "finished", "/a", {}) is None
    assert time.monotonic() - started < 3


def test_without_a_place_for_temporary_files_it_is_told(monkeypatch):
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", "/no/such/folder")
    assert run_hook("true", "finished", "/a", {}).startswith("the hook could not be run: ")


def test_a_command_that_is_none_is_told():
    assert run_hook("true\0", "finished", "/a", {}) == "the hook could not be run: embedded null byte"


def test_of_what_it_prints_the_last_is_kept_and_no_more():
    ours, theirs = os.pipe()
    said = bytearray()
    reader = threading.Thread(target=_read, args=(os.fdopen(ours, "rb"), said))
    reader.start()
    for _ in range(100):
        os.write(theirs, b"x" * 50_000)
    os.write(theirs, b"the end")
    os.close(theirs)
    reader.join()
    assert len(said) == 2000 and said.endswith(b"xthe end")


def test_events():
    assert {"finished", "incomplete", "failed", "interrupted"} == set(EVENTS)
    with pytest.raises(ValueError, match="expected one of"):
        run_hook("true", "done", "/a", {})


# --- the examples of the documentation


@pytest.fixture
def server():
    """Takes POST requests on loopback; answers /no with 500."""
    got = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            got.append((self.path, self.headers["Content-Type"], body))
            self.send_response(500 if self.path == "/no" else 200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", got
    server.shutdown()
    thread.join()
    server.server_close()


curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


@curl
def test_a_webhook_by_curl(server, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    url, got = server
    command = "curl -fsS -m 30 -H 'Content-Type: application/json' --data-binary @- "
    assert run_hook(command + url + "/hook", "finished", "/a", SUMMARY) is None
    ((path, kind, body),) = got
    assert (path, kind) == ("/hook", "application/json")
    assert json.loads(body)["failures"] == SUMMARY["failures"]
    assert "500" in run_hook(command + url + "/no", "finished", "/a", SUMMARY)


@curl
def test_a_line_for_a_chat_by_curl(server, monkeypatch):
    monkeypatch.delenv("http_proxy", raising=False)
    url, got = server
    # Only what is not in order, as the field "text" that chat servers take.
    command = (
        """[ "$MRCZ_EVENT" = finished ] || curl -fsS -m 30 -H 'Content-Type: application/json' """
        """-d "{\\"text\\": \\"$MRCZ_EVENT: $MRCZ_FAILED files failed\\"}" """ + url + "/chat"
    )
    assert run_hook(command, "finished", "/a", SUMMARY) is None
    assert got == []
    assert run_hook(command, "incomplete", "/a", SUMMARY) is None
    assert json.loads(got[0][2]) == {"text": "incomplete: 2 files failed"}


def program(folder, name, body):
    """A program of that name in the path, which writes down how it was called."""
    path = folder / name
    path.write_text(f"#!{sys.executable}\nimport sys, pathlib\nhere = pathlib.Path({str(folder)!r})\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_a_mail_by_mail(tmp_path, monkeypatch):
    program(
        tmp_path, "mail", "(here / 'args').write_text(repr(sys.argv[1:])); (here / 'in').write_text(sys.stdin.read())"
    )
    monkeypatch.setenv("PATH", str(tmp_path) + os.pathsep + os.environ["PATH"])
    assert run_hook('mail -s "$MRCZ_SUBJECT" em@example.org', "finished", "/a b/$(x)", SUMMARY) is None
    assert (tmp_path / "args").read_text() == repr(["-s", "mrcz archive /a b/$(x): finished", "em@example.org"])
    assert json.loads((tmp_path / "in").read_text())["stored"] == 300


def test_a_mail_by_sendmail(tmp_path, monkeypatch):
    program(tmp_path, "sendmail", "(here / 'in').write_text(sys.stdin.read())")
    monkeypatch.setenv("PATH", str(tmp_path) + os.pathsep + os.environ["PATH"])
    command = '(printf "To: em@example.org\\nSubject: %s\\n\\n" "$MRCZ_SUBJECT"; cat) | sendmail -t'
    assert run_hook(command, "failed", "/a\nBcc: everybody@example.org", SUMMARY) is None
    head, _, body = (tmp_path / "in").read_text().partition("\n\n")
    assert head.splitlines() == [
        "To: em@example.org",
        "Subject: mrcz archive /a\\nBcc: everybody@example.org: failed",
    ]
    assert json.loads(body)["event"] == "failed"
