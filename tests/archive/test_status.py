import os
import tracemalloc

import pytest
from made_archive import Made

from mrcz.archive.journal import Journal
from mrcz.archive.record import Record
from mrcz.archive.status import GROUPS, OTHERS, status


def test_sums_are_those_of_the_disk(made):
    found = status(made.journal)
    files = [path for path in (made.root).rglob("*") if path.is_file() and "mrcz-archive" not in path.parts]
    assert found.total.stored_bytes == sum(path.stat().st_size for path in files)
    sources = [path for path in made.source.rglob("*") if path.is_file() and not path.is_symlink()]
    assert (found.total.files, found.total.source_bytes) == (len(sources), sum(os.path.getsize(one) for one in sources))
    assert (found.links, found.folders, found.pixels_only) == (1, 1, 1) and found.shared_bytes > 0
    for group in GROUPS:
        assert sum(one.files for one in found.groups[group].values()) == found.total.files
        assert (
            sum(one.stored_bytes for one in found.groups[group].values()) + found.shared_bytes
            == found.total.stored_bytes
        )


def test_by_what_they_are_added_up(made):
    groups = status(made.journal).groups
    assert {form: one.files for form, one in groups["form"].items()} == {
        "copy": 3,
        "integers": 1,
        "mrcz": 2,
        "pixels": 1,
        "same": 1,
    }
    assert set(groups["session"]) == {"s1", "s2", "_loose"} and groups["session"]["_loose"].source_bytes == 6
    assert groups["camera"]["K3"].files == 3 and groups["day"]["2025-11-24"].files == 7
    assert groups["form"]["mrcz"].ratio == pytest.approx(
        groups["form"]["mrcz"].source_bytes / groups["form"]["mrcz"].stored_bytes
    )


def test_only_the_last_word_of_a_file_counts(made):
    made.copy("s2/notes.txt", b"longer notes\n")
    made.problem("s2/empty", "refused", "special", "is no file any more")
    found = status(made.journal)
    assert found.groups["session"]["s2"].files == 3  # what is stored is still there
    assert [(one.event, one.reason, one.files) for one in found.troubles] == [
        ("failed", "permission", 1),
        ("refused", "special", 1),
    ]
    assert found.troubles[1].examples == [("s2/empty", "is no file any more")] and not found.ok
    made.copy("s2/empty", b"")
    made.copy("s2/locked.mrc", b"x")
    assert status(made.journal).ok


def test_memory_is_bounded_whatever_a_journal_says(tmp_path, monkeypatch):
    monkeypatch.setattr("mrcz.archive.status._MOST", 100)
    made = Made(tmp_path)
    made.close()
    with open(made.lines, "wb") as file:
        for k in range(2000):
            record = Record("stored", f"s{k}/f", f"s{k}", f"s{k}/data/f", "copy", "file", f"format {k}" * 5000, 5, 5)
            file.write(record.to_line())
            file.write(Record("failed", f"x{k}", error="e" * 3000, reason=f"reason {k}" * 5000, time="t").to_line())
    with Journal(made.root) as journal:
        tracemalloc.start()
        found = status(journal)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert found.total.files == 2000 and found.groups["format"][OTHERS].files == 1900
    assert found.troubles[0].files == 1900 and found.troubles[0].reason == OTHERS
    assert peak < 4 << 20


def test_times_that_no_calendar_has(tmp_path):
    made = Made(tmp_path)
    made.close()
    made.lines.write_bytes(Record("stored", "a/b", "a", "a/data/b", "copy", mtime_ns=2**62).to_line() * 2)
    with Journal(made.root) as journal:
        assert sum(one.files for one in status(journal).groups["day"].values()) == 1
