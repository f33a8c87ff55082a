"""What the libraries say of a damaged file, in our words; and metadata that we wrote ourselves, read again."""

from __future__ import annotations

import lzma
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mrcz.errors import FormatError, MrczError
from mrcz.formats.metadata import ORIGINAL, TABLE, checked

__all__ = ["THEIRS", "as_written", "frames_as_written", "in_our_words"]

#: What h5py and zarr raise for what they find in a damaged file.
THEIRS: tuple[type[Exception], ...] = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    RuntimeError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    MemoryError,
    SystemError,
    EOFError,
    ImportError,
    struct.error,
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
    Warning,  # where warnings are errors
)


@contextmanager
def in_our_words(what: str, path: str) -> Iterator[None]:
    """Whatever a library has to say within is a FormatError that begins with `what`."""
    try:
        yield
    except MrczError:
        raise
    except THEIRS as error:
        said = str(error.args[0] if isinstance(error, KeyError) and error.args else error).split("\n")[0]
        raise FormatError(f"{what}: {said[:300] or type(error).__name__}", path=path) from error


def as_written(metadata: dict[str, Any]) -> dict[str, Any]:
    """Documented names as such, what else there is as it was said."""
    names = {entry.name for entry in TABLE}
    known = {}
    for name, value in metadata.items():
        if name in names:
            try:
                known.update(checked({name: value}))
            except (TypeError, ValueError, OverflowError):
                continue
    rest = {name: value for name, value in metadata.items() if name not in names and name != ORIGINAL}
    original = metadata.get(ORIGINAL)
    kept = dict(original) if isinstance(original, dict) else {}
    if rest:
        kept["mrcz"] = rest
    return {**known, **({ORIGINAL: kept} if kept else {})}


def frames_as_written(said: Any, count: int) -> list[dict[str, Any]]:
    """The metadata of each of so many frames; empty where what is there is no such list."""
    if not isinstance(said, list) or len(said) != count or not all(isinstance(one, dict) for one in said):
        return []
    return [as_written(one) for one in said]
