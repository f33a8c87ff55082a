"""docs/formats.md says what the registry and the table of metadata say."""

import re
from pathlib import Path

from mrcz.formats.metadata import TABLE
from mrcz.formats.registry import formats

PAGE = Path(__file__).resolve().parents[2] / "docs" / "formats.md"


def metadata_table():
    """As the page has it; printed by ``python tests/formats/test_page.py`` after a change of the table."""
    rows = ["| name | unit | type | what | from |", "|---|---|---|---|---|"]
    for entry in TABLE:
        kind = "list of float" if entry.kind is list else entry.kind.__name__
        rows.append(f"| `{entry.name}` | {entry.unit} | {kind} | {entry.meaning} | {entry.sources} |")
    return "\n".join(rows)


def table_below(mark):
    return re.search(rf"<!-- {mark} -->\n\n((?:\|.*\n)+)", PAGE.read_text(encoding="utf-8"))[1].rstrip("\n")


def test_metadata():
    assert table_below("metadata") == metadata_table()


def test_formats():
    rows = {row.split("|")[1].strip(" `"): [cell.strip() for cell in row.split("|")[2:-1]] for row in
            table_below("formats").splitlines()[2:]}  # fmt: skip
    yes = {True: "yes", False: "–"}
    for known in formats():
        title, reads, writes, *_, needs, licence = rows[known.name]
        assert title.startswith(known.title) and (reads, writes) == (yes[known.reads], yes[known.writes]), known.name
        wanted = f"`mrcz[{known.extra}]`: {', '.join(known.needs)}" if known.extra else "–"
        assert (needs, licence) == (wanted, known.licence or "–"), known.name
    assert list(rows) == sorted(rows)


if __name__ == "__main__":
    print(metadata_table())
