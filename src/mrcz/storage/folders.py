"""Folders that are one file to a format (Zarr): whole or absent, as `mrcz.storage.whole` makes files."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from mrcz.errors import MrczError
from mrcz.storage.disk import UNKNOWN_CALL, Disk, lock
from mrcz.storage.whole import NewFile, forget_unfinished, note_unfinished, temporary_name

__all__ = ["whole_folder"]


@contextlib.contextmanager
def whole_folder(
    path: str | os.PathLike[str], *, overwrite: bool = False, may_go: Callable[[Path], bool] = lambda path: False
) -> Iterator[Path]:
    """A folder that appears under its name when the block ends without an exception, and not at all otherwise.

    Parameters
    ----------
    path : path
    overwrite : bool
        Replace a folder that stands there, if ``may_go(path)`` is true: nobody wants a name that was mistyped to cost
        him a folder of something else. Between the two renames of that a kill leaves the old one as
        ``.NAME.XXXXXXXX.orig`` beside it.
    may_go : callable

    Yields
    ------
    Path
        The empty folder to fill, beside its place.

    Raises
    ------
    FileExistsError
        Something stands there and is not to be replaced.
    MrczError
        It is no folder that `may_go`.
    """
    disk, place = NewFile.disk, Path(os.path.realpath(path))
    _check(place, overwrite, may_go)
    temporary = temporary_name(place)
    note_unfinished(temporary)
    held = None
    try:
        try:
            os.mkdir(temporary)
        except OSError as error:
            error.filename = str(place)  # a temporary name tells the caller nothing
            raise
        held = _hold(temporary)
        yield temporary
        _sync(disk, temporary)
        _check(place, overwrite, may_go)
        if os.path.lexists(place):
            _replace(temporary, place)
        else:
            _rename_new(disk, temporary, place)
        disk.sync_folder(place.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)  # where it has its name by now there is none
        forget_unfinished(temporary)
        if held is not None:
            os.close(held)


def _hold(folder: Path) -> int | None:
    """Lock it as long as it is being filled, for who cleans up (`mrcz clean`); None where folders have no locks."""
    if os.name == "nt":
        return None
    try:
        fd = os.open(folder, os.O_RDONLY)
    except OSError:
        return None
    with contextlib.suppress(OSError, MrczError):
        lock(fd, folder)
    return fd


def _check(place: Path, overwrite: bool, may_go: Callable[[Path], bool]) -> None:
    if not os.path.lexists(place):
        return
    if not overwrite:
        raise FileExistsError(f"{place} exists; pass overwrite=True to replace it")
    if not (place.is_dir() and may_go(place)):
        raise MrczError("is no folder of this format, and is not replaced by one", path=place)


def _rename_new(disk: Disk, temporary: Path, place: Path) -> None:
    try:
        disk.rename_new(temporary, place)
    except FileExistsError:
        raise FileExistsError(f"{place} exists; pass overwrite=True to replace it") from None
    except OSError as error:
        if error.errno not in UNKNOWN_CALL:
            raise
        try:
            os.rename(temporary, place)  # an empty folder would be replaced by it, a full one not
        except OSError as again:
            if again.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise FileExistsError(f"{place} exists; pass overwrite=True to replace it") from None
            raise


def _replace(temporary: Path, place: Path) -> None:
    aside = temporary_name(place, "orig")
    os.rename(place, aside)
    try:
        os.rename(temporary, place)
    except BaseException:
        os.rename(aside, place)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _sync(disk: Disk, top: Path) -> None:
    """Every file in it, and every name, is on the disk."""
    for folder, _, names in os.walk(top, topdown=False):
        for name in names:
            fd = os.open(os.path.join(folder, name), os.O_RDWR)
            try:
                disk.fsync(fd)
            finally:
                os.close(fd)
        disk.sync_folder(Path(folder))
