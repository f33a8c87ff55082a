"""Files that lie beside a file and tell more of it: found by name, small, and never needed."""

from __future__ import annotations

import os
from collections.abc import Iterable

from mrcz.formats.base import Bytes
from mrcz.storage.source import FileSource
from mrcz.storage.wrapped import open_regular

__all__ = ["find_beside", "read_beside", "text_beside"]

_MOST = 4 << 20  # bytes of a text that are taken


def find_beside(source: Bytes, names: Iterable[str]) -> str | None:
    """The path of the first of these names that is a file in the folder of `source`; of a local file only."""
    if not isinstance(source, FileSource):
        return None
    folder = os.path.dirname(source.name)
    for name in names:
        path = os.path.join(folder, name)
        if os.path.isfile(path):
            return path
    return None


def read_beside(source: Bytes, names: Iterable[str]) -> bytes | None:
    """The bytes of the first that is there, no more than 4 MiB; None if none is, or it cannot be read."""
    path = find_beside(source, names)
    if path is None:
        return None
    try:
        with open_regular(path) as file:
            return file.read(_MOST)
    except OSError:
        return None


def text_beside(source: Bytes, names: Iterable[str]) -> str | None:
    """The same as text: UTF-8, or Latin-1 where it is not."""
    raw = read_beside(source, names)
    if raw is None:
        return None
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return raw.decode("latin-1")
