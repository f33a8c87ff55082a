"""Temporary files that killed runs left behind: found, judged and removed.

A new file grows under `.NAME.XXXXXXXX.part` beside its place and takes its name when it is whole
(`mrcz.storage.whole`). Only ``kill -9`` and a loss of power can leave such a file. It may hold the only copy of what a
camera saw, and a live writer may be at it: neither is removed.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mrcz.archive.clean_folders import judge_folder
from mrcz.archive.walk import walk
from mrcz.check.result import Result
from mrcz.container.names import original_name, unfinished_name
from mrcz.errors import FormatError, system_error
from mrcz.file.reader import Reader
from mrcz.storage.whole import put_back

__all__ = ["DAY", "Leftover", "clean", "put_back_original"]

DAY = 86400.0


@dataclass(frozen=True)
class Leftover(Result):
    """A temporary file or folder, and what became of it.

    Attributes
    ----------
    path, destination : str
        The file, and what it was to be called.
    status : str
        ``"removed"``, ``"planned"`` (a dry run), ``"kept"`` or ``"failed"``; ``"put back"`` for an original that was
        set aside to be removed, ``.NAME.XXXXXXXX.orig``, and has its name again.
    reason : str or None
        Why it was kept.
    nbytes : int
        Bytes it takes on the disk.
    age : float
        Seconds since something was written to it.
    n_frames : int or None
        Whole frames in it that its destination does not hold; None for a second name of that.
    error : str or None
    """

    path: str
    destination: str
    status: str
    reason: str | None = None
    nbytes: int = 0
    age: float = 0.0
    n_frames: int | None = None
    error: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether it could be looked at, and done with as asked."""
        return self.error is None


# Longer than 60 lines: half of it are its words.
def clean(
    folder: str | os.PathLike[str],
    *,
    recursive: bool = False,
    older_than: float = DAY,
    unsaved: bool = False,
    dry_run: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
) -> Iterator[Leftover]:
    """Remove the temporary files of killed runs, and yield what became of each that is there.

    Removed are regular files whose name is one of ours, to which nothing was written for `older_than` seconds, that
    nobody has locked (every writer does, as long as it lives), and that hold no frame which may be the only copy: with
    whole frames they are kept unless the file that has their name by now holds the same. Links are not followed.
    Folders that were to be one file of a format (Zarr) are removed likewise, with what such a folder holds.

    Parameters
    ----------
    folder : path
    recursive : bool
        Look into the folders below, too.
    older_than : float
        Seconds.
    unsaved : bool
        Remove files with whole frames, too. `mrcz.check.recover.recover` saves these.
    dry_run : bool
        Remove nothing.
    progress : callable, optional
        ``progress(path, done, total)`` in bytes, while a file is searched for frames.

    Yields
    ------
    Leftover
        A folder that cannot be read is one, too, with an ``error``.
    """
    folders: list[str] = []

    def wanted(entry: os.DirEntry[str], is_folder: bool) -> bool:
        ours = unfinished_name(entry.name) is not None or original_name(entry.name) is not None
        if is_folder and ours:
            folders.append(entry.path)
        return not ours if is_folder else ours and entry.is_file(follow_symlinks=False)

    def of_file(path: str, destination: str, is_original: bool) -> Leftover | None:
        if is_original:
            return put_back_original(path, dry_run)
        return _judge_and_remove(path, destination, older_than, unsaved, dry_run, progress)

    def of_folder(path: str, destination: str, is_original: bool) -> Leftover:
        found = judge_folder(path, destination, older_than, dry_run, _lock, aside=is_original)
        return Leftover(path, destination, found.status, found.reason, found.nbytes, found.age)

    for path, problem in walk(os.fspath(folder), wanted, recursive=recursive):
        if problem is not None:
            yield Leftover(path, path, "failed", error=problem)
            continue
        if (one := _looked_at(path, of_file)) is not None:
            yield one
    for path in folders:
        if (one := _looked_at(path, of_folder)) is not None:
            yield one


def _looked_at(path: str, judge: Callable[[str, str, bool], Leftover | None]) -> Leftover | None:
    """What ``judge(path, destination, is_original)`` says of something temporary; what the system says, where it raises
    an OSError; None where it is gone."""
    where, name = os.path.split(path)
    original = original_name(name)
    destination = os.path.join(where, original or unfinished_name(name) or name)
    try:
        return judge(path, destination, original is not None)
    except FileNotFoundError:
        return None  # published or removed meanwhile
    except OSError as error:
        return Leftover(path, destination, "failed", error=system_error(error, path))


def _judge_and_remove(
    path: str,
    destination: str,
    older_than: float,
    unsaved: bool,
    dry_run: bool,
    progress: Callable[[str, int, int], None] | None,
) -> Leftover | None:
    # A FIFO that took the place of the file just looked at must not be waited for, nor a link be followed.
    flags = os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
    fd = os.open(path, flags | getattr(os, "O_BINARY", 0))
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            return None
        age = max(0.0, time.time() - status.st_mtime)
        nbytes = getattr(status, "st_blocks", 0) * 512 or status.st_size

        def result(state: str, reason: str | None = None, frames: int | None = None) -> Leftover:
            return Leftover(path, destination, state, reason, nbytes, age, frames)

        if age < older_than:
            return result("kept", "is younger")
        if (reason := _lock(fd)) is not None:
            return result("kept", reason)
        frames = None
        if not _is_at(destination, status):  # a second name of a finished file
            frames = _whole_frames(path, progress)
            if frames:
                frames = max(0, frames - _held(path, destination))
            if frames and not unsaved:
                return result("kept", "holds frames that may be nowhere else", frames)
        # Nobody can have begun to write: we hold the lock. But the name may belong to another file by now.
        now = os.lstat(path)
        if not os.path.samestat(now, status) or now.st_mtime != status.st_mtime:
            return result("kept", "has changed meanwhile")
        if dry_run:
            return result("planned", None, frames)
        if os.name == "nt":  # where a file that is open stays
            os.close(fd)
            fd = -1
        os.unlink(path)
        return result("removed", None, frames)
    finally:
        if fd >= 0:
            os.close(fd)


def put_back_original(path: str, dry_run: bool = False) -> Leftover:
    """An original that was set aside when its remover was killed. Its archive is there and proven, but nobody has
    looked whether the original was still the same: so it gets its name back.

    Raises
    ------
    OSError
    """
    folder, name = os.path.split(path)
    destination = os.path.join(folder, original_name(name) or name)
    fd = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    try:
        status = os.fstat(fd)
        reason = _lock(fd)
        if reason is None and os.path.lexists(destination):
            reason = f"is an original that was set aside, and {os.path.basename(destination)} exists"
        if reason is None and not dry_run and not put_back(Path(path), Path(destination)):
            reason = "its name cannot be taken on this file system without replacing"
        state = "kept" if reason is not None else "planned" if dry_run else "put back"
        return Leftover(path, destination, state, reason, status.st_size, max(0.0, time.time() - status.st_mtime))
    finally:
        os.close(fd)


def _lock(fd: int) -> str | None:
    """Lock an open file; the reason where that cannot be had. Windows removes no file that is in use, so needs none."""
    try:
        import fcntl
    except ImportError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return "is being written"
    except OSError as error:
        return f"may be in use: this file system has no locks ({error.strerror})"
    return None


def _is_at(path: str, status: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.stat(path), status)
    except OSError:
        return False


def _held(path: str, destination: str) -> int:
    """How many frames of a temporary file the file that has its name holds: by the checksums of their chunks, or, of
    plain files, by the bytes themselves, frame by frame from the first one on. 0 where that cannot be told."""
    import warnings

    from mrcz.container.chunks import xxh64
    from mrcz.container.header.header import Header, claimed_nbytes
    from mrcz.container.walk import walk_chunks
    from mrcz.errors import FormatWarning, MrczError
    from mrcz.storage.source import open_source

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FormatWarning)
        try:
            with Reader(destination) as there:
                source = open_source(path, claimed=claimed_nbytes)
                try:
                    header = Header.parse(source.read(0, 1024), path=path, permissive=True)
                    if header.compressed != there.is_compressed:
                        return 0
                    if not header.compressed:
                        return _same_frames(source, header, there)
                    hashes = there.hash_frames() if there.index.hashes is None else there.index.hashes
                    known = set(hashes.tolist())
                    chunks = walk_chunks(source.read, header.data_offset, source.size, nbytes=header.frame_nbytes).index
                    places = zip(chunks.offsets.tolist(), chunks.sizes.tolist(), strict=True)
                    return sum(xxh64(source.read(offset, size)) in known for offset, size in places)
                finally:
                    source.close()
        except (OSError, MrczError, ValueError):
            return 0


def _same_frames(source: Any, header: Any, there: Any) -> int:
    if (header.ny, header.nx, header.mode) != (there.header.ny, there.header.nx, there.header.mode):
        return 0
    size = header.frame_nbytes
    for k in range(len(there)):
        mine = source.read(header.data_offset + k * size, size)
        if len(mine) < size or mine != there.stored(k):
            return k
    return len(there)


def _whole_frames(path: str, progress: Callable[[str, int, int], None] | None) -> int:
    """How many frames `recover` would save; 0 for what is no MRC file or holds none."""
    from mrcz.check.recover import recover

    try:
        found = recover(path, None, progress=None if progress is None else lambda a, b: progress(path, a, b))
    except (FormatError, ValueError):
        return 0
    return found.n_frames
