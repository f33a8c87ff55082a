"""The journal as a table, read by the programs that it is for."""

import csv
import json
import os
import subprocess
import sys
import tracemalloc

import pytest
from made_archive import Made

from mrcz.archive.journal import Journal
from mrcz.archive.record import Record
from mrcz.archive.table import COLUMNS, export
from mrcz.errors import MissingDependencyError, MrczError


@pytest.fixture
def made(made):
    """With an odd name, and a file that was changed."""
    made.copy('s2/a "quoted", name\nof two lines \udcff.txt', b"1")
    made.copy("s2/notes.txt", b"new\n", changed=True)
    return made


def rows(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_csv_has_every_record(made, tmp_path):
    assert export(made.journal, tmp_path / "t.csv") == 13
    found = rows(tmp_path / "t.csv")
    assert len(found) == 13 and list(found[0]) == list(COLUMNS)
    records = [record for _, record in made.journal.history()]
    for row, record in zip(found, records, strict=True):
        assert (row["event"], row["form"], int(row["source_bytes"])) == (record.event, record.form, record.source_bytes)
        assert row["sha256_stored"] == record.sha256_stored
    notes = [row for row in found if row["source"] == "s2/notes.txt"]
    assert [row["current"] for row in notes] == ["False", "True"]
    odd = next(row for row in found if "quoted" in row["source"])
    assert "\n" in odd["source"] and "\ufffd" in odd["source"] and odd["source_base64"]
    assert json.loads(next(row for row in found if row["form"] == "integers")["parts"])[0][0].startswith("s1/data/")


def test_parquet_holds_the_same(made, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    assert export(made.journal, tmp_path / "t.parquet") == export(made.journal, tmp_path / "t.csv") == 13
    table = parquet.read_table(tmp_path / "t.parquet")
    assert table.column_names == list(COLUMNS) and str(table.schema.field("source_bytes").type) == "int64"
    for mine, row in zip(table.to_pylist(), rows(tmp_path / "t.csv"), strict=True):
        assert {name: str(value) for name, value in mine.items()} == row


def test_pandas_reads_them_and_the_journal_itself(made, tmp_path):
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    export(made.journal, tmp_path / "t.csv")
    total = sum(record.source_bytes for _, record in made.journal.history())
    assert pandas.read_csv(tmp_path / "t.csv")["source_bytes"].sum() == total
    assert int(pandas.read_json(made.lines, lines=True)["source_bytes"].sum()) == total


def test_duckdb_reads_them_and_the_journal_itself(made, tmp_path):
    duckdb = pytest.importorskip("duckdb", reason="duckdb is not installed")
    export(made.journal, tmp_path / "t.csv")
    total = sum(record.source_bytes for _, record in made.journal.history())
    sources = [f"read_json_auto('{made.lines}')", f"read_csv('{tmp_path / 't.csv'}')"]
    try:
        export(made.journal, tmp_path / "t.parquet")
        sources.append(f"read_parquet('{tmp_path / 't.parquet'}')")
    except MissingDependencyError:
        pass
    for source in sources:
        ask = f"SELECT sum(source_bytes), count(*) FROM {source} WHERE event = 'stored'"
        assert duckdb.sql(ask).fetchall() == [(total, 10)], source


def test_without_pyarrow_it_says_what_to_install(made, tmp_path):
    code = (
        "import sys; sys.modules['pyarrow'] = None\n"
        "from mrcz.archive.journal import Journal; from mrcz.archive.table import export\n"
        "from mrcz.errors import MissingDependencyError\n"
        f"j = Journal({str(made.root)!r})\n"
        "try: export(j, sys.argv[1])\n"
        "except MissingDependencyError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "t.parquet"], capture_output=True, text=True)
    assert "mrcz[parquet]" in done.stdout, done.stderr
    assert not (tmp_path / "t.parquet").exists()


def test_what_it_refuses(made, tmp_path):
    with pytest.raises(ValueError, match=r"\.csv or \.parquet"):
        export(made.journal, tmp_path / "t.xlsx")
    (tmp_path / "t.csv").write_text("mine")
    with pytest.raises(FileExistsError):
        export(made.journal, tmp_path / "t.csv")
    assert (tmp_path / "t.csv").read_text() == "mine"
    assert export(made.journal, tmp_path / "t.csv", overwrite=True) == 13
    (tmp_path / "link.csv").symlink_to(made.lines)
    with pytest.raises(MrczError, match="journal itself"):
        export(made.journal, tmp_path / "link.csv", overwrite=True)


@pytest.mark.parametrize("place", ["t.csv", "s1/t.csv", "s1/data/t.csv", "s1/new/t.csv", "s9/t.csv"])
def test_no_table_is_laid_into_an_archive_or_a_bag(made, tmp_path, place):
    (made.root / "s1/data").mkdir(parents=True, exist_ok=True)
    (tmp_path / "link").symlink_to(made.root)
    for top in (made.root, tmp_path / "link"):
        with pytest.raises(MrczError, match="lies in the archive"):
            export(made.journal, top / place, overwrite=True)
    (made.root / "s1/bagit.txt").write_text("")
    os.rename(made.root / "s1", tmp_path / "carried away")
    with pytest.raises(MrczError, match="lies in the bag"):
        export(made.journal, tmp_path / "carried away/data/t.csv")
    assert not list(tmp_path.rglob("t.csv"))
    assert export(made.journal, made.lines.parent / "t.csv") == 13


def test_no_journal_is_replaced_whatever_it_is_called(made, tmp_path):
    before = made.lines.read_bytes()
    os.link(made.lines, tmp_path / "hard.csv")
    (tmp_path / "copy.csv").write_bytes(before)
    for name in ("hard.csv", "copy.csv"):
        with pytest.raises(MrczError, match="is a journal"):
            export(made.journal, tmp_path / name, overwrite=True)
        assert (tmp_path / name).read_bytes() == before


def test_an_empty_journal_is_an_empty_table(tmp_path):
    made = Made(tmp_path)
    assert export(made.journal, tmp_path / "t.csv") == 0
    if pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed"):
        assert export(made.journal, tmp_path / "t.parquet") == 0
    made.close()


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_memory_does_not_grow_with_the_rows(tmp_path, suffix):
    if suffix == "parquet":
        pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    made = Made(tmp_path)
    made.close()
    peaks = []
    for count in (1500, 4500):
        with open(made.lines, "wb") as file:
            for k in range(count):
                file.write(Record("failed", f"s/f{k}", "s", error="e" * 200).to_line())
        with Journal(made.root) as journal, pytest.MonkeyPatch.context() as patch:
            patch.setattr("mrcz.archive.table._ROWS", 400)
            tracemalloc.start()
            assert export(journal, tmp_path / f"t.{suffix}", overwrite=True) == count
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]
