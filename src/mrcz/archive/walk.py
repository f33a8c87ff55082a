"""Names, patterns and folders become files: what is taken from a folder, and what is left out and why."""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

from mrcz.container.names import original_name, unfinished_name
from mrcz.errors import system_error
from mrcz.file.foreign import is_folder_of_frames
from mrcz.filetypes import MRC_SUFFIXES, plain_name
from mrcz.formats.registry import formats
from mrcz.storage.remote import is_url

__all__ = ["DIRECTORY", "SET_ASIDE", "UNFINISHED", "LeftOut", "expand", "foreign_suffixes", "walk"]

#: Why a temporary file of ours, or an original that was set aside, is left out of a walk (`LeftOut.reason`).
UNFINISHED = "unfinished"
SET_ASIDE = "original set aside"

#: What is wrong with a directory among the inputs, unless ``recursive=True`` takes the files in it.
DIRECTORY = "is a directory"


@dataclass(frozen=True)
class LeftOut:
    """Something in a directory that was searched and is no input.

    ``reason`` is one of few: ``"link to a folder"``, ``"hidden"``, ``"of another kind"``, ``"FIFO, device or socket"``,
    `UNFINISHED`, `SET_ASIDE`, and what a command adds.
    """

    path: str
    reason: str


def expand(
    inputs: Iterable[str | os.PathLike[str]],
    *,
    recursive: bool = False,
    suffixes: tuple[str, ...] = MRC_SUFFIXES,
    left_out: list[LeftOut] | None = None,
) -> Iterator[tuple[str, str, str | None]]:
    """Resolve names, patterns and directories to files.

    Parameters
    ----------
    inputs : iterable of path
        Files, patterns (``*``, ``?``, ``[]``, ``**``; a file really called so comes first) and directories. A folder
        that is one file to a format (Zarr) is a file where it is named itself.
    recursive : bool
        Descend into directories, taking files with one of `suffixes` (also followed by ``.gz`` and the like). Links to
        files are taken, links to folders are not followed, and names that begin with a dot are left out.
    left_out : list, optional
        What was left out of directories is appended to it.

    Yields
    ------
    path : str
    relative : str
        Where the file belongs below an output directory: its name, or its path below the directory searched.
    problem : str or None
        Why this name gives nothing: `DIRECTORY`, say. A folder that cannot be entered is one.
    """
    for item in inputs:
        name = os.fspath(item)
        try:
            mode = _mode(name)
        except FileNotFoundError:
            if glob.has_magic(name):
                yield from _matches(name)
            else:
                url = "is a URL: fetch it first; Python's mrcz.open reads it where it is"
                yield name, os.path.basename(name), url if is_url(name) else "no such file"
        except OSError as error:
            yield name, os.path.basename(name), system_error(error, name)
        else:
            if not stat.S_ISDIR(mode):
                yield name, os.path.basename(name), _special(mode)
            elif is_folder_of_frames(name):
                name = name.rstrip("/" + os.sep)
                yield name, os.path.basename(name), None
            elif not recursive:
                yield name, os.path.basename(name), DIRECTORY
            else:
                empty = True
                for path, problem in walk(name, partial(_taken, suffixes, [] if left_out is None else left_out)):
                    yield path, os.path.relpath(path, name), problem
                    empty = False
                if empty:
                    wanted = ", ".join("*" + suffix for suffix in suffixes)
                    yield name, os.path.basename(name), f"holds no file called {wanted}"


def foreign_suffixes() -> tuple[str, ...]:
    """Suffixes of the files of other formats that are read; not of folders, which have to be named."""
    known = (each for each in formats() if each.reads and not each.directory)
    return tuple(suffix for each in known for suffix in each.suffixes if suffix not in (*MRC_SUFFIXES, ".mrcz"))


def _mode(path: str) -> int:
    """Kind and permissions of what a name leads to; of the link itself where it leads nowhere."""
    try:
        return os.stat(path).st_mode
    except OSError:
        if os.path.islink(path):
            return stat.S_IFREG  # whoever opens it will say what is wrong with it
        raise


def _special(mode: int) -> str | None:
    """Why something that is no file is no input: reading it would wait for ever, or never end."""
    if stat.S_ISREG(mode):
        return None
    kinds = {stat.S_IFIFO: "a FIFO", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device", stat.S_IFSOCK: "a socket"}
    return f"is {kinds.get(stat.S_IFMT(mode), 'something else')}, not a file"


def _matches(pattern: str) -> Iterator[tuple[str, str, str | None]]:
    """`expand` for a pattern. `glob` passes over folders that it may not enter without a word."""
    parts = pattern.split("/")
    folders = {"/".join(parts[:i]) or "/" * (i > 0) for i, part in enumerate(parts) if glob.has_magic(part)}
    closed = set()
    for folder in sorted(folders):
        for name in glob.glob(folder, recursive=True) if folder else ["."]:
            if os.path.isdir(name) and name not in closed:
                try:
                    os.scandir(name).close()
                except OSError as error:
                    closed.add(name)
                    yield name, os.path.basename(name), system_error(error, name)
    found = sorted(path for path in glob.glob(pattern, recursive=True) if not os.path.isdir(path))
    if not (found or closed):
        yield pattern, pattern, "no file matches"
    for path in found:
        try:
            problem = _special(_mode(path))
        except OSError as error:  # gone already
            problem = system_error(error, path)
        yield path, os.path.basename(path), problem


def walk(
    top: str, wanted: Callable[[os.DirEntry[str], bool], bool], *, recursive: bool = True
) -> Iterator[tuple[str, str | None]]:
    """(path, problem) of the files below a folder, those of a folder before those of the folders in it.

    Parameters
    ----------
    top : str
    wanted : callable
        ``wanted(entry, is_folder)``: is this file one of those, may this folder be entered? Links are no folders.
    recursive : bool
        Enter the folders below.

    Yields
    ------
    path : str
    problem : str or None
        Why a folder, or what is in it, cannot be looked at.
    """
    pending = [top]
    while pending:
        folder = pending.pop()
        below: list[str] = []
        try:
            with os.scandir(folder) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            yield folder, system_error(error, folder)
            continue
        for entry in found:
            try:
                is_folder = entry.is_dir(follow_symlinks=False)
                take = wanted(entry, is_folder)
            except OSError as error:
                yield entry.path, system_error(error, entry.path)
                continue
            if take and is_folder:
                below.append(entry.path)
            elif take:
                yield entry.path, None
        if recursive:
            pending += reversed(below)


def _taken(suffixes: tuple[str, ...], left_out: list[LeftOut], entry: os.DirEntry[str], is_folder: bool) -> bool:
    """Whether `expand` takes a file or enters a folder; what it does not is noted."""
    reason = _reason(entry, is_folder, suffixes)
    if reason is not None:
        left_out.append(LeftOut(entry.path, reason))
    return reason is None


def _reason(entry: os.DirEntry[str], is_folder: bool, suffixes: tuple[str, ...]) -> str | None:
    """Why a walk leaves something out; None if it is wanted."""
    if entry.name.startswith("."):
        if not is_folder and original_name(entry.name):
            return SET_ASIDE
        return UNFINISHED if unfinished_name(entry.name) and not is_folder else "hidden"
    if is_folder:
        return None
    if entry.is_symlink() and os.path.isdir(entry.path):
        return "link to a folder"
    if not plain_name(entry.name).lower().endswith(suffixes):
        return "of another kind"
    return "FIFO, device or socket" if _special(_mode(entry.path)) else None
