"""The journal of an archive as a table for other programs: CSV, or Parquet with pyarrow. A row a line, streamed."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mrcz.archive.journal import FOLDER, JOURNAL, Journal
from mrcz.archive.record import Record, encode_name
from mrcz.errors import MissingDependencyError, MrczError
from mrcz.storage.disk import CLOEXEC, NONBLOCK
from mrcz.storage.whole import whole_file

__all__ = ["COLUMNS", "export"]

#: Columns and what they hold; ``current``: the record is the one that counts, not an older one of the same file.
#: ``*_base64`` are the bytes of names that are no UTF-8, empty for all others; ``shape``, ``notes``, ``parts`` and
#: ``versions`` are JSON, so that both kinds of file hold the same.
COLUMNS: dict[str, type] = {
    "event": str,
    "current": bool,
    "source": str,
    "source_base64": str,
    "session": str,
    "path": str,
    "path_base64": str,
    "form": str,
    "restores": str,
    "format": str,
    "source_bytes": int,
    "stored_bytes": int,
    "ratio": float,
    "mtime_ns": int,
    "mode": int,
    "sha256_source": str,
    "sha256_stored": str,
    "sha256_pixels": str,
    "frames": int,
    "shape": str,
    "dtype": str,
    "camera": str,
    "seconds": float,
    "time": str,
    "run": str,
    "worker": str,
    "versions": str,
    "target": str,
    "parts": str,
    "changed": bool,
    "error": str,
    "reason": str,
    "notes": str,
}

_NAMES = ("source", "path", "session", "target")
_JSON = ("shape", "notes", "parts", "versions")
_TEXTS = tuple(
    name
    for name, kind in COLUMNS.items()
    if kind is str and name not in (*_NAMES, *_JSON) and not name.endswith("_base64")
)
_NUMBERS = tuple(name for name, kind in COLUMNS.items() if kind is not str and name not in ("current", "ratio"))
_ROWS = 20_000  # of a group of Parquet: some 20 MB


def export(journal: Journal, path: str | os.PathLike[str], *, overwrite: bool = False) -> int:
    """Write every record of a journal to a table, in their order.

    Parameters
    ----------
    journal : Journal
    path : path
        ``.csv`` (UTF-8, a header line) or ``.parquet``.
    overwrite : bool
        Replace a file that is there.

    Returns
    -------
    int
        Rows.

    Raises
    ------
    ValueError
        The name ends in neither.
    MissingDependencyError
        pyarrow is not installed.
    FileExistsError, OSError
    MrczError
        It would lie in a bag, in an archive (but for its folder ``mrcz-archive``), or over a journal.
    """
    suffix = os.path.splitext(os.fspath(path))[1].lower()
    if suffix not in (".csv", ".parquet"):
        raise ValueError(f"{os.fspath(path)}: a table is .csv or .parquet")
    _check_place(path, journal)
    return _write_csv(journal, path, overwrite) if suffix == ".csv" else _write_parquet(journal, path, overwrite)


def _check_place(path: str | os.PathLike[str], journal: Journal) -> None:
    """Refuse to lay a table into a bag, which would not be valid with it, into an archive beside its bags, or over a
    journal, of whatever archive."""
    place = Path(os.path.realpath(path))
    if place == Path(os.path.realpath(journal.path)):
        raise MrczError("is the journal itself", path=os.fspath(path))
    for folder in place.parents:
        if (folder / "bagit.txt").exists():
            raise MrczError(f"lies in the bag {folder}, which would not be valid with it", path=os.fspath(path))
        if (folder / FOLDER / JOURNAL).exists() and place.parent != folder / FOLDER:
            raise MrczError(
                f"lies in the archive {folder}, of which it is none: choose a folder elsewhere, or {FOLDER} in it",
                path=os.fspath(path),
            )
    with contextlib.suppress(OSError), open(os.open(place, os.O_RDONLY | NONBLOCK | CLOEXEC), "rb") as file:
        if file.read(10) == b'{"event":"':
            raise MrczError("is a journal, and no table", path=os.fspath(path))


def _rows(journal: Journal) -> Iterator[dict[str, Any]]:
    for offset, record in journal.history():
        yield _row(record, journal.state.counts(record.source, offset))


def _row(record: Record, current: bool) -> dict[str, Any]:
    row: dict[str, Any] = {"current": current, "ratio": record.ratio}
    for name in _NAMES:  # as the journal has them
        row[name], raw = encode_name(getattr(record, name))
        row[f"{name}_base64"] = raw or ""
    for name in _TEXTS:
        value = getattr(record, name)
        row[name] = value if value.isascii() else value.encode("utf-8", "replace").decode("utf-8")
    for name in _JSON:
        value = getattr(record, name)
        row[name] = json.dumps(value, separators=(",", ":")) if value else ""
    for name in _NUMBERS:
        row[name] = getattr(record, name)
    return {name: row[name] for name in COLUMNS}


def _write_csv(journal: Journal, path: str | os.PathLike[str], overwrite: bool) -> int:
    count = 0
    with whole_file(path, overwrite=overwrite) as file:
        text = io.TextIOWrapper(file, "utf-8", newline="", write_through=False)
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in _rows(journal):
            # NUL ends a text for half of the programs there are.
            writer.writerow([one.replace("\0", "\ufffd") if type(one) is str else one for one in row.values()])
            count += 1
        text.flush()
        text.detach()
    return count


def _write_parquet(journal: Journal, path: str | os.PathLike[str], overwrite: bool) -> int:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise MissingDependencyError("Parquet needs pyarrow: pip install 'mrcz[parquet]'; .csv needs nothing") from None

    types = {str: pyarrow.string(), int: pyarrow.int64(), float: pyarrow.float64(), bool: pyarrow.bool_()}
    schema = pyarrow.schema([(name, types[kind]) for name, kind in COLUMNS.items()])
    count = 0
    with (
        whole_file(path, overwrite=overwrite) as file,
        pyarrow.parquet.ParquetWriter(file, schema, compression="zstd") as writer,
    ):
        rows: list[dict[str, Any]] = []
        for row in _rows(journal):
            rows.append(row)
            count += 1
            if len(rows) >= _ROWS:
                writer.write_table(pyarrow.Table.from_pylist(rows, schema))
                rows.clear()
        if rows or not count:
            writer.write_table(pyarrow.Table.from_pylist(rows, schema))
    return count
