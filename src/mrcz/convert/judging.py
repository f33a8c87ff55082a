"""What of what stands in the way of a copy may be replaced by it."""

from __future__ import annotations

import os
import warnings
from typing import Any

from mrcz.check.origin import OtherSourceError, opened, origin, other_source, was_compressed
from mrcz.errors import FormatError, FormatWarning
from mrcz.file.reader import Reader
from mrcz.storage.whole import NewFile

__all__ = ["judge"]


def judge(there: int, new: NewFile, *, compressing: bool) -> None:
    """Refuse to replace an archive that is not known to be of the same source as the new file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FormatWarning)
        _judge_quietly(there, new, compressing)


def _judge_quietly(there: int, new: NewFile, compressing: bool) -> None:
    if os.fstat(there).st_size == 0:
        return  # a name that was reserved by a process that died
    reason: str | None = None
    try:
        with opened(there, new.path) as old:
            if not old.is_compressed:
                return
            if not compressing:
                raise OtherSourceError("is a compressed file, and may be the only copy of what is in it", path=new.path)
            with opened(new.fd, new.path) as mine:
                reason = other_source(old, origin(mine), mine)
                if reason is None and (more := _added(old, mine)):
                    reason = f"has metadata that were added to it: {', '.join(more)}"
                if reason is None and old.has_unknown_footer:
                    reason = "has a footer of a later version of mrcz, which may hold metadata that were added to it"
    except FormatError as error:
        if not was_compressed(there):
            return
        reason = f"is damaged, so that nobody knows what it was made from ({error.message})"
    if reason is not None:
        raise OtherSourceError(reason, path=new.path)


def _added(old: Reader, mine: Reader) -> list[str]:
    """Names of metadata of an archive that its source knows nothing of."""
    theirs, ours = old.metadata, mine.metadata
    return [str(name) for name, value in theirs.items() if name not in ours or not _equal(ours[name], value)]


def _equal(a: Any, b: Any) -> bool:
    from mrcz.container.metadata import pack

    return bool(pack({"value": a}) == pack({"value": b}))
