"""What killed runs have begun is told from what others put into an archive."""

import json

import pytest

from mrcz.archive.begun import GAINS, Begun
from mrcz.archive.journal import FOLDER, Journal
from mrcz.archive.place import Folder
from mrcz.archive.record import Record


@pytest.fixture
def archive(tmp_path):
    """A journal with one file, of which a gain reference is a part."""
    (tmp_path / FOLDER).mkdir()
    (tmp_path / "s/data" / GAINS).mkdir(parents=True)
    for name in (
        "known.mrcz",
        "new.mrcz",
        "somebody's.mrcz",
        "odd\n\udcff",
        f"{GAINS}/used.mrcz",
        f"{GAINS}/lost.mrcz",
    ):
        (tmp_path / "s/data" / name).write_bytes(b"x")
    parts = ((f"s/data/{GAINS}/used.mrcz", "0" * 64, 1),)
    with Journal(tmp_path, write=True) as journal:
        journal.append(Record("stored", "s/known.mrc", "s", "s/data/known.mrcz", parts=parts))
        yield tmp_path, journal


def there(top):
    return sorted(path.name for path in (top / "s/data").rglob("*") if path.is_file())


def test_what_has_no_record_goes(archive):
    top, journal = archive
    begun = Begun(journal.path)
    begun.add("s/data/known.mrc", "s/data/known.mrcz", "s/data/new.mrcz", "", "s/data/odd\n\udcff", "s/data/never.mrc")
    Begun(journal.path).take_away(Folder(top), journal)
    assert there(top) == ["known.mrcz", "somebody's.mrcz", "used.mrcz"]
    assert not begun.path.exists()
    Begun(journal.path).take_away(Folder(top), journal)  # and when there is no list


def test_what_is_in_hand_is_kept(archive):
    top, journal = archive
    begun = Begun(journal.path)
    begun.add("s/data/somebody's.mrcz")
    assert not begun.full
    begun.add(*["s/data/known.mrcz"] * 4096)
    assert begun.full
    begun.keep(["s/data/new.mrcz"])
    assert not begun.full and begun.path.read_text() == '"s/data/new.mrcz"\n'
    Begun(journal.path).take_away(Folder(top), journal)
    assert "somebody's.mrcz" in there(top) and "new.mrcz" not in there(top)
    begun.keep()
    assert not begun.path.exists()


def test_a_forged_list_leads_nowhere_else(archive):
    top, journal = archive
    (top / "outside").write_text("mine")
    (top / FOLDER / "archive.json").write_text("{}")
    lines = [
        json.dumps(path) for path in ("../outside", "/etc/passwd", "outside", "s/data/../../outside", "x\0/data/y")
    ]
    lines += ["{", "[" * 5000, "5", "null", '"' + "x" * 70000 + '"', "\xff", json.dumps("s/data/" + GAINS)]
    lines += [json.dumps(f"{FOLDER}/journal.jsonl"), json.dumps("s/data/new.mrcz")]
    begun = Begun(journal.path)
    begun.path.write_bytes("\n".join(lines).encode("latin-1"))
    Begun(journal.path).take_away(Folder(top), journal)
    assert (top / "outside").exists() and (top / FOLDER / "archive.json").exists() and journal.path.exists()
    assert "new.mrcz" not in there(top)


def test_a_forged_list_takes_no_gain_reference_away(archive):
    top, journal = archive
    Begun(journal.path).add(f"s/data/{GAINS}/used.mrcz")
    Begun(journal.path).take_away(Folder(top), journal)
    assert "used.mrcz" in there(top)
