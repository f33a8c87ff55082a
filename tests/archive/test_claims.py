"""A journal that was forged: whatever of a record the archive can show is shown, and told where it is not so."""

import json
from dataclasses import replace

import numpy as np
import pytest
from made_archive import Made, mixed, movie

from mrcz.archive.bag import write_bag
from mrcz.archive.checking import check
from mrcz.archive.claims import contradiction, line_fault
from mrcz.archive.journal import Journal
from mrcz.archive.place import Folder
from mrcz.archive.record import Record
from mrcz.archive.restoring import restore

OTHER = "0123456789abcdef" * 4


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """One of each form, with all that a record says of it."""
    top, rng = tmp_path_factory.mktemp("claims"), np.random.default_rng(17)
    made = mixed(top, rng)
    made.pieces("s3/stack.npy", movie(rng, (30, 64, 80), np.uint16))
    made.copy("s3/kept.npy", made.file("s3/one.npy", (made.source / "s3/stack.npy").read_bytes()).read_bytes())
    made.close()
    records = [json.loads(line) for line in made.lines.read_text().splitlines()]
    more = {
        "mrcz": {"shape": [4, 24, 32], "frames": 4},
        "integers": {"shape": [6, 24, 32], "dtype": "float32"},
        "pixels": {"shape": [3, 8, 8], "frames": 3, "dtype": "uint16"},
        "pieces": {"shape": [30, 64, 80], "frames": 30, "dtype": "uint16"},
        "same": {"shape": [4, 24, 32], "frames": 4},
    }
    for record in records:
        record.update(more.get(record.get("form"), {}))
        if record["source"] == "s3/kept.npy":
            record.update(more["pieces"], format="npy")
    return made, records


def found_in(archive, source, change, **how):
    """What a check says of a file whose record was changed; the bag is not asked."""
    made, records = archive
    forged = [{**one, **change} if one["source"] == source else dict(one) for one in records]
    for one in forged:
        if "ratio" not in change:  # a forger can divide
            one.pop("ratio", None)
    lines = [json.dumps(one) for one in forged]
    made.lines.write_text("\n".join(lines) + "\n")
    with Journal(made.root) as journal:
        assert not journal.damaged
        return [one for one in check(Folder(made.root), journal, pattern=source, workers=1, **how)]


SOURCES = {
    "mrcz": "s1/grid/movie.mrc",
    "integers": "s1/counted.mrc",
    "pixels": "s2/stack.npy",
    "pieces": "s3/stack.npy",
    "copy": "s3/kept.npy",
    "same": "s1/again.mrc",
    "text": "s2/notes.txt",
}


@pytest.mark.parametrize("what", SOURCES)
def test_nothing_is_told_of_what_is_so(archive, what):
    (one,) = found_in(archive, SOURCES[what], {})
    assert one.ok and (one.decoded or what == "same"), one


@pytest.mark.parametrize(
    "what, change, words",
    [
        ("mrcz", {"sha256_pixels": OTHER}, "other pixels"),
        ("integers", {"sha256_pixels": OTHER}, "other pixels"),
        ("pieces", {"sha256_pixels": OTHER}, "other pixels"),
        ("mrcz", {"source_bytes": 10**6}, "source had 1000000 bytes"),
        ("integers", {"source_bytes": 10**6}, "source had 1000000 bytes"),
        ("pieces", {"source_bytes": 10**9}, "source had 1000000000 bytes"),
        ("text", {"source_bytes": 7}, "copy of 6 bytes"),
        ("mrcz", {"shape": [4, 32, 24]}, "shape"),
        ("pixels", {"shape": [3, 8, 9]}, "shape"),
        ("copy", {"shape": [31, 64, 80]}, "shape"),
        ("pieces", {"frames": 31}, "frames is 31, and it is 30"),
        ("copy", {"frames": 31}, "frames is 31, and it is 30"),
        ("integers", {"dtype": "uint8"}, "dtype"),
        ("copy", {"dtype": "uint8"}, "dtype"),
        ("copy", {"format": "eer"}, "format"),
        ("mrcz", {"format": "tiff"}, "of MRC files"),
        ("mrcz", {"form": "integers"}, "no counts of floats"),
        ("integers", {"form": "mrcz", "parts": []}, "holds counts of floats"),
        ("integers", {"parts": []}, "needs [], and it needs"),
        ("pieces", {"form": "pixels", "restores": "pixels"}, "gives back a file"),
        ("mrcz", {"restores": "pixels"}, "gives back the file"),
        ("text", {"restores": "pixels"}, "gives back the file"),
        ("pixels", {"restores": "file"}, "gives back the pixels"),
        ("text", {"form": "pixels", "restores": "pixels"}, "no checksum of its pixels"),
        ("text", {"form": "unheard"}, "does not know"),
        ("mrcz", {"session": "s2"}, "not below s2/data/"),
        ("text", {"path": "mrcz-archive/archive.json"}, "not below s2/data/"),
        ("same", {"source_bytes": 1}, "source_bytes"),
        ("same", {"sha256_pixels": OTHER}, "sha256_pixels"),
        ("same", {"path": "s1/data/grid/movie.mrcz"}, "file of its own"),
        ("text", {"ratio": 12.5}, "ratio is 12.5"),
        ("copy", {"sha256_pixels": OTHER}, "checksum of its pixels"),
        ("text", {"sha256_pixels": OTHER}, "checksum of its pixels"),
        ("text", {"shape": [4, 24, 32]}, "no format"),
        ("text", {"shape": [4, 24, 32], "format": "mrc"}, "says that it is mrc, and it is not"),
        ("text", {"format": "mrcz"}, "says that it is mrcz, and it is not"),
    ],
)
def test_a_forged_field_is_told(archive, what, change, words):
    (one,) = found_in(archive, SOURCES[what], change)
    assert one.finding in ("journal", "changed") and one.damaged and words in one.error, one


@pytest.mark.parametrize("what", ["mrcz", "integers", "pieces", "text"])
def test_an_original_with_another_checksum(archive, what):
    (one,) = found_in(archive, SOURCES[what], {"sha256_source": OTHER})
    assert one.finding == ("journal" if what == "text" else "damaged")


def test_without_decoding_contradictions_are_told_and_nothing_else(archive):
    assert found_in(archive, "s1/grid/movie.mrc", {"sha256_pixels": OTHER}, fast=True)[0].ok
    assert found_in(archive, "s1/grid/movie.mrc", {"session": "s2"}, fast=True)[0].finding == "journal"
    assert found_in(archive, "s2/notes.txt", {"source_bytes": 7}, fast=True)[0].finding == "journal"


def test_a_line_that_says_two_things():
    """DuckDB and pandas read `source`, we its bytes in base64; of what stands there twice some take the first."""
    line = b'{"event":"folder","source":"a","source_base64":"Yg=="}'
    assert "source is 'a'" in line_fault(line, Record.from_line(line))
    line = b'{"event":"folder","source":"a","source":"b"}'
    assert "twice" in line_fault(line, Record.from_line(line))
    line = b'{"event":"stored","source":"a","ratio":3.0}'
    assert "ratio" in line_fault(line, Record.from_line(line))
    for fine in (
        b'{"event":"folder","source":"a","later":[1,2],"ratio":0}',
        Record("link", "s/\udcff", target="\udcfe").to_line(),
        Record("stored", "a", source_bytes=7, stored_bytes=3, seconds=0.1).to_line(),
    ):
        assert line_fault(fine, Record.from_line(fine)) is None


def test_links_with_two_targets_are_told(tmp_path):
    made = Made(tmp_path)
    made.link("s/link", "a")
    made.close()
    record = json.loads(made.lines.read_text())
    made.lines.write_text(json.dumps({**record, "target_base64": "Yg=="}) + "\n")
    with Journal(made.root) as journal:
        (one,) = check(Folder(made.root), journal)
    assert (one.source, one.finding) == ("s/link", "journal") and "target" in one.error


def test_no_file_is_given_back_as_pixels_of_nothing(archive, tmp_path):
    """A copy that is said to be pixels, with the checksum of none."""
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    found_in(archive, "s2/notes.txt", {"restores": "pixels", "sha256_pixels": empty})
    made, _ = archive
    with Journal(made.root) as journal:
        (one,) = restore(Folder(made.root), journal, tmp_path / "out", "s2/notes.txt")
    assert one.status == "failed" and one.damaged and not list((tmp_path / "out/s2").iterdir())


def test_records_as_they_are_written_do_not_contradict_themselves(archive):
    _, records = archive
    for one in records:
        record = Record.from_line(json.dumps(one).encode())
        if record.event == "stored":
            assert contradiction(record) is None
            assert contradiction(replace(record, form="")) is not None


@pytest.mark.parametrize("event", ["folder", "link"])
def test_a_file_that_became_a_link_or_a_folder_by_one_word(archive, event):
    (one,) = found_in(archive, "s2/notes.txt", {"event": event})
    assert one.finding == "journal" and "has a file" in one.error


def test_a_record_that_another_was_put_in_the_place_of(tmp_path):
    """As many files as the bag has, and one of them is another."""
    made = mixed(tmp_path, np.random.default_rng(1))
    write_bag(Folder(made.root), made.journal, "s2")
    made.close()
    forged = made.lines.read_text().replace('"source":"s2/void"', '"source":"s2/other"')
    made.lines.write_text(forged)
    with Journal(made.root) as journal:
        found = [one for one in check(Folder(made.root), journal, fast=True) if one.finding == "journal"]
    assert len(found) == 1 and found[0].path == "s2/mrcz-records.jsonl" and "has lost 1 of the files" in found[0].error
