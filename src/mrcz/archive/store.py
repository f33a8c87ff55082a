"""One file into the archive: stored in its smallest form, read back from the disk, proven, and described by a record.

Nothing here raises because of a file or a disk: a record says what went wrong, and the next file is another matter. A
task may be run twice, here or on another machine, and gives the same: a file grows under a temporary name and takes its
own when it is whole.
"""

from __future__ import annotations

import hashlib
import os
import platform
import socket
import stat
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from mrcz.archive.begun import GAINS
from mrcz.archive.forms import Choice, choose
from mrcz.archive.giving import sum_of_pixels
from mrcz.archive.jobs import error_text
from mrcz.archive.place import LinkError, refuse_links
from mrcz.archive.record import Record
from mrcz.archive.task import Task
from mrcz.convert.copy import compress
from mrcz.convert.result import Copy, DifferentCopyError
from mrcz.errors import FormatError, MrczError
from mrcz.file.calls import open as open_any
from mrcz.storage.disk import NONBLOCK, copy_permissions, told_of, write_all
from mrcz.storage.whole import NewFile, forget_unfinished, make_folders, note_unfinished, temporary_name

__all__ = ["Flow", "Tell", "failed", "store"]

_BLOCK = 4 << 20

#: ``tell(done, total)`` in bytes of the source; what it raises ends the work, and leaves nothing.
Tell = Callable[[int, int], None]


class Flow(Protocol):
    """Who is told of bytes before they are read or after they were written, and may make us wait (`limits.Rate`)."""

    def read(self, nbytes: int) -> None:
        """So many bytes are read."""
        ...

    def write(self, nbytes: int) -> None:
        """So many bytes were written."""
        ...


class _Free:
    """No limit."""

    def read(self, nbytes: int) -> None:
        pass

    def write(self, nbytes: int) -> None:
        pass


class ChangingError(MrczError):
    """The source changed while it was read: it is being written, and a later look may find it whole."""


def store(task: Task, progress: Tell | None = None, flow: Flow | None = None) -> Record:
    """Store one file.

    Parameters
    ----------
    task : Task
    progress : callable, optional
        Called as ``progress(done, total)`` in bytes of the source.
    flow : Flow, optional
        Slows down what is read and written.

    Returns
    -------
    Record
        ``"stored"``, ``"refused"`` (no file that can be stored) or ``"failed"`` with the reason: ``"changing"``,
        ``"gone"``, ``"permission"``, ``"full"``, ``"memory"``, ``"disk"``, ``"link"`` (one lies in the archive, where
        the file is to be), ``"file"``. With a path, if a file that failed may have its name: it is not known to be on
        the disk, and is to be taken away if nothing is stored there.
    """
    started = time.perf_counter()
    base = Record("failed", task.source, task.session, run=task.run, changed=task.changed)
    work = _Storing(task, progress, flow or _Free(), base)
    try:
        record = work.run()
    except (OSError, MrczError, MemoryError, ValueError, TypeError, OverflowError) as error:
        record = failed(
            replace(base, path=work.named),
            error,
            os.path.join(task.top, task.source),
            os.path.join(task.root, task.path),
        )
    return replace(
        record,
        seconds=round(time.perf_counter() - started, 6),
        time=datetime.now(UTC).isoformat(timespec="milliseconds"),
        worker=worker_name(),
        versions=versions(),
    )


def failed(base: Record, error: BaseException, path: str, place: str) -> Record:
    """The record of a file that could not be stored, and why: in words, and in one."""
    reason = _why(error)
    if reason == "gone" and os.path.lexists(path):  # it is the archive's folder that went away
        reason = "disk"
    return replace(base, event="failed", error=error_text(error, path, place), reason=reason)


def _why(error: BaseException) -> str:
    """Why a file could not be stored, in a word."""
    import errno

    if isinstance(error, ChangingError):
        return "changing"
    if isinstance(error, DifferentCopyError):  # from what was written a moment ago
        return "disk"
    if isinstance(error, MemoryError):
        return "memory"
    if isinstance(error, LinkError):
        return "link"
    if isinstance(error, OSError):
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return "gone"
        if error.errno in (errno.EACCES, errno.EPERM):
            return "permission"
        if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
            return "full"
        return "disk"
    return "file"


@cache
def versions() -> dict[str, str]:
    """Of what makes the files."""
    from mrcz._version import __version__

    return {"mrcz": __version__, "python": platform.python_version(), "numpy": np.__version__}


@cache
def _host() -> str:
    return socket.gethostname()


def worker_name() -> str:
    """Machine and process."""
    return f"{_host()}:{os.getpid()}"


@dataclass(frozen=True)
class _Sums:
    """Checksums of a source, and how much was read."""

    sha256: str
    pixels: str
    nbytes: int


class _Storing:
    """The work on one file, of which several steps know the same things."""

    def __init__(self, task: Task, progress: Tell | None, flow: Flow, base: Record) -> None:
        self.task, self.progress, self.flow = task, progress, flow
        self.path = os.path.join(task.top, task.source)
        self.base = base
        self.named = ""  # where it lies, or may
        self.status: os.stat_result

    def run(self) -> Record:
        # A FIFO that took the place of the file would wait for ever, a link lead elsewhere.
        fd = os.open(self.path, os.O_RDONLY | NONBLOCK | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0))
        try:
            self.status = os.fstat(fd)
            if not stat.S_ISREG(self.status.st_mode):
                return replace(self.base, event="refused", error="is no file any more", reason="special")
            self.base = replace(
                self.base,
                source_bytes=self.status.st_size,
                mtime_ns=self.status.st_mtime_ns,
                mode=stat.S_IMODE(self.status.st_mode),
            )
            return self._stored(fd)
        except MrczError:  # of whatever kind: what changes under our hands may look like anything
            self._check_unchanged(fd)
            raise
        finally:
            os.close(fd)

    def _stored(self, fd: int) -> Record:
        choice = choose(self.path, self.task.options, bool(self.task.packed_path))
        notes: tuple[str, ...] = ()
        if choice.packs:
            try:
                made = self._packed(fd, choice)
                if made is not None:
                    return made
            except FormatError as error:  # what is damaged is kept as it is: nothing is lost by that
                notes = (f"kept as it is: {error_text(error, self.path)}",)
        copied = self._copied(fd, choice)
        return replace(copied, notes=(*choice.notes, *notes, *copied.notes))

    # --- byte by byte

    def _copied(self, fd: int, choice: Choice) -> Record:
        task, place = self.task, Path(self.task.root) / self.task.path
        refuse_links(task.root, task.path)
        make_folders(place.parent)
        new = NewFile(place, overwrite=True, alone=False)
        try:
            digest = self._copy_bytes(fd, new)
            with told_of(place):
                new.disk.fsync(new.fd)
                if hasattr(os, "posix_fadvise"):  # what the disk has is compared, not what memory still holds
                    os.posix_fadvise(new.fd, 0, 0, os.POSIX_FADV_DONTNEED)
                found = self._sum(new.fd, lambda n: None)
            if found.sha256 != digest or found.nbytes != self.status.st_size:
                raise OSError(5, "the disk gave back other bytes than were written", str(place))
            self._check_unchanged(fd)
            new.mode = copy_permissions(self.status, new.fd)
            self.named = task.path
            new.publish()
        finally:
            new.abort()
        return replace(
            self.base,
            event="stored",
            path=task.path,
            form="copy",
            restores="file",
            format=choice.format,
            stored_bytes=self.status.st_size,
            sha256_source=digest,
            sha256_stored=digest,
            **choice.described,
        )

    def _copy_bytes(self, fd: int, new: NewFile) -> str:
        """Copy all bytes, holes as holes; their SHA-256."""
        digest, offset, size = hashlib.sha256(), 0, self.status.st_size
        sparse = getattr(self.status, "st_blocks", size) * 512 < size
        os.lseek(fd, 0, os.SEEK_SET)
        while offset <= size:  # and no further, of one that grows as fast as it is read
            data = os.read(fd, _BLOCK)
            if not data:
                break
            self.flow.read(len(data))
            digest.update(data)
            # Python's any() takes four times as long over a hole as its SHA-256.
            if not (sparse and not np.frombuffer(data, np.uint8).any()):
                with told_of(new.path):
                    write_all(new.disk, new.fd, data, offset)
                self.flow.write(len(data))
            offset += len(data)
            self._tell(offset)
        if sparse:
            with told_of(new.path):
                new.disk.truncate(new.fd, offset)
        if offset != size:
            raise ChangingError("it changed while it was read", path=self.path)
        return digest.hexdigest()

    # --- compressed

    def _packed(self, fd: int, choice: Choice) -> Record | None:
        """Compressed and proven; None where that is not smaller, and the file is better kept as it is."""
        task, options = self.task, self.task.options
        place = Path(task.root) / task.packed_path
        refuse_links(task.root, task.packed_path)
        make_folders(place.parent)
        # What stands there may be in the journal, from an earlier version or from a worker that was thought dead, and
        # its original gone: it is replaced by what is proven, and never taken away.
        private = temporary_name(place)
        note_unfinished(private)
        try:
            with ThreadPoolExecutor(1) as pool:
                sums = pool.submit(self._sum, fd, lambda n: None, choice.pixels)
                try:
                    with told_of(place, private):
                        made = compress(
                            self.path,
                            private,
                            overwrite="any",
                            check=True,
                            pack="auto" if options.pack else False,
                            profile=options.profile,
                            n_threads=options.n_threads,
                            progress=self._paced(),
                            **self._counts(choice, place),
                        )
                finally:
                    found = sums.result()
            if found.nbytes != self.status.st_size:
                raise ChangingError("it changed while it was read", path=self.path)
            size = os.stat(private).st_size
            self.flow.write(size)
            restores = made.restores
            if (size >= self.status.st_size and restores == "file") or (restores != "file" and options.to != "mrcz"):
                self._check_unchanged(fd)
                return None
            record = self._record(made, found, choice, private, restores)
            self._check_unchanged(fd)
            self.named = task.packed_path
            with told_of(place, private):
                NewFile.disk.replace(private, place)
                NewFile.disk.sync_folder(place.parent)
            return record
        finally:
            forget_unfinished(private)
            with suppress(OSError):
                os.unlink(private)

    def _record(self, made: Copy, sums: _Sums, choice: Choice, place: Path, restores: str) -> Record:
        with open(place, "rb") as file:
            stored = hashlib.file_digest(file, "sha256").hexdigest()
        with open_any(place, n_threads=self.task.options.n_threads) as reader:
            pixels = sums.pixels or sum_of_pixels(reader)
            shape, dtype = reader.shape, reader.dtype.name
        parts: tuple[tuple[str, str, int], ...] = ()
        form = "mrcz" if choice.format == "mrc" else "pieces" if restores == "file" else "pixels"
        if made.integers is not None and form == "mrcz":
            form = "integers"
            gain = made.integers.get("gain")
            if gain and gain.get("path"):
                parts = (self._part(place, gain["path"]),)
        return replace(
            self.base,
            event="stored",
            path=self.task.packed_path,
            form=form,
            restores=restores,
            format=choice.format,
            stored_bytes=os.stat(place).st_size,
            sha256_source=sums.sha256,
            sha256_stored=stored,
            sha256_pixels=pixels,
            frames=shape[0],
            shape=tuple(int(n) for n in shape),
            dtype=dtype,
            camera=choice.camera,
            parts=parts,
            notes=made.notes,
        )

    def _part(self, place: Path, relative: str) -> tuple[str, str, int]:
        path = os.path.normpath(os.path.join(place.parent, relative))
        digest, size = _sum_of_part(path, os.stat(path).st_mtime_ns)
        return Path(os.path.relpath(path, self.task.root)).as_posix(), digest, size

    def _counts(self, choice: Choice, place: Path) -> dict[str, Any]:
        if not (choice.floats and self.task.options.integers):
            return {}
        # The gain references of a session lie in it, each once: its bag is whole by itself.
        below = f"{self.task.session}/data/{GAINS}"
        refuse_links(self.task.root, below)
        store = Path(self.task.root) / below
        make_folders(store)
        return {"recover_integers": True, "gain_store": store}

    def _paced(self) -> Tell:
        """Progress of a copy that is read, written and read back: half of it are bytes of the source."""
        before = 0

        def tell(done: int, total: int) -> None:
            nonlocal before
            half = max(1, total // 2)
            if before < half:
                self.flow.read(min(done, half) - min(before, half))
            before = max(before, done)
            self._tell(int(self.status.st_size * min(1.0, done / max(1, total))))

        return tell

    # --- both

    def _tell(self, done: int) -> None:
        if self.progress is not None:
            self.progress(done, self.status.st_size)

    def _sum(self, fd: int, told: Callable[[int], None], pixels: tuple[int, int] | None = None) -> _Sums:
        """SHA-256 of an open file, and of the bytes of its pixels where these stand in it as they are read."""
        digest, of_pixels, offset = hashlib.sha256(), hashlib.sha256(), 0
        start, stop = pixels or (0, 0)
        buffer = memoryview(bytearray(_BLOCK))
        while offset <= self.status.st_size:
            n = os.preadv(fd, [buffer], offset) if hasattr(os, "preadv") else _read_at(fd, buffer, offset)
            if not n:
                break
            digest.update(buffer[:n])
            a, b = max(start - offset, 0), min(stop - offset, n)
            if a < b:
                of_pixels.update(buffer[a:b])
            offset += n
            told(n)
        whole = pixels is not None and offset >= stop
        return _Sums(digest.hexdigest(), of_pixels.hexdigest() if whole else "", offset)

    def _check_unchanged(self, fd: int) -> None:
        """The file is the one that was found, and as it was then, also under its name."""
        try:
            now, there = os.fstat(fd), os.stat(self.path, follow_symlinks=False)
        except FileNotFoundError:
            raise ChangingError("it went away while it was read", path=self.path) from None
        for one in (now, there):
            if (one.st_size, one.st_mtime_ns, one.st_ino) != (
                self.status.st_size,
                self.status.st_mtime_ns,
                self.status.st_ino,
            ):
                raise ChangingError("it changed while it was read", path=self.path)


def _read_at(fd: int, buffer: memoryview, offset: int) -> int:
    """`os.preadv` where there is none (Windows)."""
    os.lseek(fd, offset, os.SEEK_SET)
    data = os.read(fd, len(buffer))
    buffer[: len(data)] = data
    return len(data)


@cache
def _sum_of_part(path: str, mtime_ns: int) -> tuple[str, int]:
    """SHA-256 and size of a file that many share; it is summed once."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest(), os.stat(path).st_size
