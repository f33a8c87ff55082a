"""A journal added up: numbers that are known, forged ones, and memory that does not grow."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime

import pytest

import mrcz.archive.status as status
from mrcz.archive.journal import FOLDER, Journal
from mrcz.archive.record import Record
from mrcz.archive.report import summarize
from mrcz.archive.status import OTHERS

DAY = 1_795_737_600  # 2026-11-27 00:00 UTC


def stored(source, before, after, *, day=DAY, at="2026-11-27T10:00:00+00:00", **more):
    session = source.split("/")[0]
    values = {"form": "mrcz", "restores": "file", "format": "mrc", **more}
    return Record(
        "stored",
        source,
        session,
        path=f"{session}/data/{source}",
        source_bytes=before,
        stored_bytes=after,
        mtime_ns=day * 10**9,
        time=at,
        **values,
    )


@pytest.fixture
def journal(tmp_path):
    """Makes a journal of records."""
    opened = []

    def make(records, extra=b""):
        (tmp_path / FOLDER).mkdir(exist_ok=True)
        data = b"".join(record.to_line() for record in records) + extra
        (tmp_path / FOLDER / "journal.jsonl").write_bytes(data)
        opened.append(Journal(tmp_path))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


def test_sums_by_format_form_day_and_session(journal):
    summary = summarize(
        journal(
            [
                stored("s/a.mrc", 400, 100),
                stored("s/b.mrc", 600, 100, day=DAY + 86399),
                stored("t/c.eer", 50, 50, day=DAY + 86400, format="eer", form="copy", at="2026-11-28T01:00:00+01:00"),
                stored("t/d.tif", 30, 10, format="tiff", form="pixels", restores="pixels"),
                Record("link", "s/link", "s", target="a.mrc"),
                Record("folder", "s/empty", "s"),
            ]
        ),
        "/archive",
    )
    holds, total = summary.holds, summary.holds.total
    assert (total.files, total.source_bytes, total.stored_bytes) == (4, 1080, 260)
    assert summary.ok and (holds.links, holds.folders, holds.pixels_only) == (1, 1, 1)
    assert {name: (one.files, one.ratio) for name, one in holds.groups["format"].items()} == {
        "eer": (1, 1.0),
        "mrc": (2, 5.0),
        "tiff": (1, 3.0),
    }
    assert list(holds.groups["form"]) == ["copy", "mrcz", "pixels"]
    assert {name: one.files for name, one in summary.holds.groups["day"].items()} == {"2026-11-27": 3, "2026-11-28": 1}
    t = summary.sessions["t"]
    assert (t.files, t.first, t.last, t.troubles) == (2, "2026-11-27", "2026-11-28", 0)
    # One hour east of Greenwich: all is said in UTC.
    assert t.archived == "2026-11-28 00:00:00" and summary.last == "2026-11-28 00:00:00"
    assert [(one.start, one.files) for one in summary.spans] == [(DAY + 36000, 3), (DAY + 86400, 1)]
    assert summary.counts() == {"stored": 4, "refused": 0, "failed": 0}


def test_only_the_last_record_of_a_file_counts(journal):
    summary = summarize(
        journal(
            [
                stored("s/a", 400, 100),
                stored("s/a", 800, 100, changed=True),
                Record("failed", "s/b", "s", error="no", reason="disk"),
                stored("s/b", 10, 10),
                stored("s/c", 10, 10),
                Record("removed", "s/c", "s"),
                stored("s/d", 10, 10),
                Record("failed", "s/d", "s", error="Permission denied", reason="unreadable"),
                Record("refused", "s/e", "s", error="is a FIFO", reason="special"),
            ]
        )
    )
    assert (summary.holds.total.files, summary.holds.total.source_bytes) == (4, 830)
    assert [(one.event, one.reason, one.files, one.examples) for one in summary.holds.troubles] == [
        ("failed", "unreadable", 1, [("s/d", "Permission denied")]),
        ("refused", "special", 1, [("s/e", "is a FIFO")]),
    ]
    assert not summary.ok and summary.sessions["s"].troubles == 2
    assert summary.counts() == {"stored": 4, "refused": 1, "failed": 1}


def test_what_files_share_counts_once(journal):
    part = (("s/data/gain.mrcz", "0" * 64, 500),)
    summary = summarize(journal([stored("s/a", 4000, 100, parts=part), stored("s/b", 4000, 100, parts=part)]))
    assert summary.holds.total.stored_bytes == 700


def test_an_empty_journal(journal):
    summary = summarize(journal([]))
    assert summary.ok and summary.holds.total.files == 0 and summary.spans == ()
    assert json.loads(summary.to_json())["ok"] is True


def test_times_that_are_none_say_nothing(journal):
    records = [
        stored("s/a", 1, 1, day=-5, at="yesterday"),
        stored("s/b", 1, 1, day=9_000_000_000, at="9999-12-31T23:59:59+00:00"),
        stored("s/c", 1, 1, day=0, at=""),
        stored("s/d", 1, 1, at="2026-11-27T10:00:00"),
        stored("s/e", 1, 1, at="0001-01-01T00:00:00+14:00"),
    ]
    summary = summarize(journal(records))
    session = summary.sessions["s"]
    assert (session.first, session.last, session.archived) == ("2026-11-27", "2026-11-27", "2026-11-27 10:00:00")
    assert sum(one.files for one in summary.spans) == 1
    assert (summary.first, summary.last) == ("2026-11-27 10:00:00",) * 2


def test_forged_numbers_and_lines(journal):
    records = [stored("s/a", -5, 1), stored("s/b", (1 << 63) - 1, 1, format="x" * 10_000)]
    summary = summarize(journal(records, b'{"event":"stored"}\nnot json\n'))
    assert len(summary.holds.damaged_lines) == 3 and not summary.ok
    json.loads(summary.to_json())


def test_names_that_are_no_text(journal):
    name = os.fsdecode(b"\xff\x1b[2J\n")
    summary = summarize(journal([Record("failed", f"{name}/a", name, error="no\x1b", reason="r\n")]), f"/x/{name}")
    made = json.loads(summary.to_json().decode("ascii"))
    assert list(made["sessions"]) == ["\\xff\\x1b[2J\\n"]


def test_long_times_become_longer_spans(journal):
    def at(number):
        return datetime.fromtimestamp(DAY + number * 7200, UTC).isoformat()

    summary = summarize(journal(stored(f"s/{number}", 2, 1, at=at(number)) for number in range(9000)))
    assert len(summary.spans) <= 4096 and summary.seconds > 600
    assert sum(one.files for one in summary.spans) == 9000
    assert [one.start for one in summary.spans] == sorted({one.start for one in summary.spans})


def test_groups_that_are_too_many_are_others(journal, monkeypatch):
    import mrcz.archive.report as report

    monkeypatch.setattr(report, "_MOST", 10)
    monkeypatch.setattr(status, "_MOST", 10)
    records = [stored(f"s{number}/a", 2, 1, format=f"f{number}") for number in range(50)]
    records += [Record("failed", f"t{number}/a", f"t{number}", reason=f"r{number}") for number in range(50)]
    summary = summarize(journal(records))
    assert len(summary.holds.groups["format"]) == len(summary.sessions) == 11
    assert summary.holds.groups["format"][OTHERS].files == summary.sessions[OTHERS].files == 40
    assert summary.sessions[OTHERS].troubles == 50
    assert len(summary.holds.troubles) == 11 and sum(one.files for one in summary.holds.troubles) == 50


MEMORY = """
import resource, sys
from mrcz.archive.journal import Journal
from mrcz.archive.report import summarize
from mrcz.archive.page import page
with Journal(sys.argv[1]) as journal:
    page(summarize(journal))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is told in kB on Linux alone")
def test_memory_does_not_grow_with_the_journal(tmp_path):
    used = []
    for count in (100, 20_000):
        root = tmp_path / str(count)
        (root / FOLDER).mkdir(parents=True)
        with open(root / FOLDER / "journal.jsonl", "wb") as file:
            line = stored("s/@", 400, 100, sha256_source="0" * 64).to_line()
            for number in range(count):
                file.write(line.replace(b"@", b"%07d" % number))
        made = subprocess.run([sys.executable, "-c", MEMORY, str(root)], capture_output=True, check=True)
        used.append(int(made.stdout))
    assert used[1] - used[0] < 20_000  # kB, of which 16 MB are the table's cache; the journal has 8 MB
