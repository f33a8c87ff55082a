"""The tree that was archived, or a part of it, given back: files, second names, links, empty folders.

Nothing is made outside of the folder that is asked for, and nothing is written through a link: the folders of a path
are looked at each time, and links come when all files are there. A file has its name when it is whole, its checksum is
the original's and the disk has given it back; what cannot be given back as it was is not given back at all.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import sqlite3
import stat
import tempfile
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mrcz.archive.claims import contradiction
from mrcz.archive.giving import pieces, pixel_sum
from mrcz.archive.jobs import error_text
from mrcz.archive.journal import FOLDER, JOURNAL, Journal, folded
from mrcz.archive.patterns import Patterns
from mrcz.archive.place import Folder, LinkError, Place
from mrcz.archive.record import Record
from mrcz.check.result import Result
from mrcz.errors import FormatError, MrczError, system_error
from mrcz.storage.disk import NO_LINKS, NONBLOCK
from mrcz.storage.whole import NewFile

__all__ = ["Restored", "restore"]

#: ``progress(source, done, total)`` in bytes of the file.
Progress = Callable[[str, int, int], None]

_PERMISSIONS = 0o777  # set-user-ID and the like are not given to whoever restores


@dataclass(frozen=True)
class Restored(Result):
    """What became of one file.

    Attributes
    ----------
    source : str
        Its path before it was archived.
    destination : str
        Where it is now.
    status : str
        ``"done"``, ``"planned"`` (a dry run), ``"skipped"`` (it is there already), ``"refused"`` (something else is in
        its place, or would be) or ``"failed"``.
    kind : str
        ``"file"``, ``"link"`` or ``"folder"``.
    identical : bool or None
        Of a file: SHA-256 of what was written, or stood there, is that of the original, bit for bit. False where only
        pixels are given back, as MRC; None where nothing was written.
    error : str or None
    damaged : bool
        What is stored is not what it was, or does not give back the original.
    nbytes : int
    seconds : float
    notes : tuple of str
    """

    source: str
    destination: str
    status: str
    kind: str = "file"
    identical: bool | None = None
    error: str | None = None
    damaged: bool = False
    nbytes: int = 0
    seconds: float = 0.0
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether it is there, or would be."""
        return self.status in ("done", "planned", "skipped")


# Longer than 60 lines: half of it are its words.
def restore(
    place: Place,
    journal: Journal,
    out: str | os.PathLike[str],
    patterns: str | Sequence[str] | Patterns | None = None,
    *,
    overwrite: bool = False,
    dry_run: bool = False,
    progress: Progress | None = None,
    n_threads: int | None = None,
    tells_case: bool | None = None,
) -> Iterator[Restored]:
    """Give back the tree of an archive.

    Parameters
    ----------
    place, journal
        The archive.
    out : path
        The folder to make it in, which need not exist. What is there and identical is left alone, so that a run that
        was interrupted goes on.
    patterns : str, sequence of str, or Patterns, optional
        Only the files, links and folders these mean (`Patterns`).
    overwrite : bool
        Replace files that are there and differ; never a folder.
    dry_run : bool
        Make nothing; what is there is not read.
    progress : callable, optional
    n_threads : int, optional
    tells_case : bool, optional
        Whether the disk takes ``a`` and ``A`` for two names; looked at if not given.

    Yields
    ------
    Restored
        Files first, then second names, links and folders.

    Raises
    ------
    MrczError
        `out` is a file, or lies in the archive.
    OSError
        It cannot be made.
    """
    top = Path(os.path.abspath(out))
    _check_top(place, journal, top)
    if not dry_run:
        top.mkdir(parents=True, exist_ok=True)
    if tells_case is None:
        tells_case = dry_run or _tells_case(top)
    work = _Restoring(place, journal, top, overwrite, dry_run, progress, n_threads)
    names = None if tells_case else _Names()
    wanted = patterns if isinstance(patterns, Patterns) else Patterns(patterns)
    changed = None if wanted.patterns else _Changed(journal)  # of what is asked for by name, all that there is room for
    later = array("q"), array("q"), array("q")  # offsets of second names, links, folders
    try:
        for offset in journal.state.offsets():
            record = journal.record_at(offset)
            if not wanted.match(record.source):
                continue
            error = None if changed is None else changed.why(record.source, offset, record.event)
            clash = None if names is None or error is not None else names.clash(record.source)
            if clash is not None:
                error = f"is the same name as {clash} on this disk; restore it elsewhere"
            if error is not None:
                yield Restored(record.source, str(top / record.source), "refused", _kind(record), error=error)
            elif record.event == "stored" and record.form != "same":
                yield work.timed(record)
            else:
                later[("stored", "link", "folder").index(record.event)].append(offset)
        for offsets in later:
            for offset in offsets:
                yield work.timed(journal.record_at(offset))
    finally:
        if names is not None:
            names.close()


def _check_top(place: Place, journal: Journal, top: Path) -> None:
    if os.path.lexists(top) and not top.is_dir():
        raise MrczError("is no folder", path=str(top))
    if isinstance(place, Folder):
        archive, real = os.path.realpath(place.root), os.path.realpath(top)
        if os.path.commonpath([archive, real]) == archive:
            raise MrczError(f"lies in the archive {place.name}: choose a folder elsewhere", path=str(top))
        # Unless an archive is what was archived.
        if (top / FOLDER / JOURNAL).is_file() and journal.stored(f"{FOLDER}/{JOURNAL}") is None:
            raise MrczError("is an archive itself: choose a folder elsewhere", path=str(top))


def _kind(record: Record) -> str:
    return "file" if record.event == "stored" else record.event


class _Restoring:
    """Makes one thing after the other below a folder."""

    def __init__(
        self,
        place: Place,
        journal: Journal,
        top: Path,
        overwrite: bool,
        dry_run: bool,
        progress: Progress | None,
        n_threads: int | None,
    ) -> None:
        self.place, self.journal, self.top = place, journal, top
        self.overwrite, self.dry_run, self.progress, self.n_threads = overwrite, dry_run, progress, n_threads

    def timed(self, record: Record) -> Restored:
        """Make what a record is of; errors of the archive or the disk are in what is returned."""
        started = time.perf_counter()
        name = record.source
        if record.restores == "pixels" and record.form != "same":
            name = self._pixels_name(name)
        base = Restored(record.source, str(self.top / name), "failed", _kind(record))
        try:
            made = self._made(record, name, base)
        except FormatError as error:
            made = replace(base, error=error_text(error, base.destination), damaged=True)
        except _Missing as error:
            made = replace(base, error=str(error), damaged=True)
        except Exception as error:  # of the disk, or of packages that speak to stores: the next file is another matter
            made = replace(base, error=error_text(error, base.destination, base.destination))
        return replace(made, seconds=time.perf_counter() - started)

    def _made(self, record: Record, name: str, base: Restored) -> Restored:
        path = self.top / name
        problem = self._folders(path)
        if problem is not None:
            return replace(base, status="refused", error=problem)
        if record.event == "link":
            return self._link(record, path, base)
        if record.event == "folder":
            return self._folder(record, path, base)
        if record.form == "same":
            return self._second(record, path, base)
        return self._file(record, path, base)

    def _pixels_name(self, source: str) -> str:
        """What an MRC file is called that is made of another: it is no TIFF any more, and other programs go by the
        name. A file of the archive that is called so itself keeps its own."""
        name = f"{source}.mrc"
        while self.journal.state.stored(name) is not None:
            name += ".mrc"
        return name

    def _folders(self, path: Path) -> str | None:
        """Make the folders of a path, one after the other, none of them a link; why not, if that cannot be."""
        here = self.top
        for part in path.relative_to(self.top).parts[:-1]:
            here = here / part
            try:
                mode = os.lstat(here).st_mode
            except FileNotFoundError:
                if self.dry_run:
                    return None
                with contextlib.suppress(FileExistsError):
                    os.mkdir(here)
                mode = os.lstat(here).st_mode
            if stat.S_ISLNK(mode):
                return f"{here} is a link, and nothing is written through one"
            if isinstance(self.place, Folder) and os.path.samefile(here, self.place.root):
                return f"{here} is the archive, and nothing is written into it"
            if not stat.S_ISDIR(mode):
                return f"{here} is no folder"
        return None

    # --- files

    def _file(self, record: Record, path: Path, base: Restored) -> Restored:
        there = _standing(path)
        base = replace(base, nbytes=record.source_bytes)
        if (record.form == "pixels") != (record.restores == "pixels"):
            raise FormatError(contradiction(record) or "its form and what it gives back are at odds")
        if self.dry_run:
            return self._planned(there, base)
        if there is not None:
            same = stat.S_ISREG(there.st_mode) and self._is_same(record, path, there)
            if same:
                self._permit(record, path)
                identical = record.restores == "file"
                return replace(base, status="skipped", identical=identical, error="it is there already")
            if (refused := self._in_the_way(there)) is not None:
                return replace(base, status="refused", error=refused)
            if stat.S_ISLNK(there.st_mode):
                os.unlink(path)  # the link goes, not what it leads to
        return self._written(record, path, base)

    def _planned(self, there: os.stat_result | None, base: Restored) -> Restored:
        notes = () if there is None else ("something is there; it is kept if it is identical",)
        return replace(base, status="planned", notes=notes)

    def _in_the_way(self, there: os.stat_result) -> str | None:
        """Why what stands there stays."""
        if stat.S_ISDIR(there.st_mode):
            return "a folder is in its place"
        if not (stat.S_ISREG(there.st_mode) or stat.S_ISLNK(there.st_mode)):
            return "something that is no file is in its place"
        return None if self.overwrite else "another file is in its place; --overwrite replaces it"

    def _is_same(self, record: Record, path: Path, there: os.stat_result) -> bool:
        if record.restores == "pixels":
            try:
                return pixel_sum(str(path), self.n_threads) == record.sha256_pixels
            except (OSError, MrczError, ValueError):
                return False
        return there.st_size == record.source_bytes and self._sum(record, path) == record.sha256_source

    def _sum(self, record: Record, path: Path) -> str:
        digest, done = hashlib.sha256(), 0
        fd = os.open(path, os.O_RDONLY | NONBLOCK | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0))
        with os.fdopen(fd, "rb") as file:
            while data := file.read(1 << 20):
                digest.update(data)
                done += len(data)
                if self.progress is not None:
                    self.progress(record.source, done, record.source_bytes)
        return digest.hexdigest()

    def _written(self, record: Record, path: Path, base: Restored) -> Restored:
        digest, pixels, nbytes = hashlib.sha256(), hashlib.sha256(), 0
        if self.place_of(record) is None:
            raise _Missing(f"{record.path} is not in the archive")
        new = NewFile(path, overwrite=self.overwrite)
        try:
            seen = pixels if record.restores == "pixels" else None
            given = pieces(self.place, record, n_threads=self.n_threads, pixels=seen)
            with contextlib.closing(given), os.fdopen(os.dup(new.fd), "wb") as file:  # type: ignore[type-var]
                for piece in given:
                    digest.update(piece)
                    nbytes += memoryview(piece).nbytes
                    if record.form == "copy" and _is_empty(piece):
                        file.seek(nbytes)  # a hole: log files of simulations, disk images
                    else:
                        file.write(piece)
                    if self.progress is not None:
                        self.progress(record.source, nbytes, record.source_bytes)
                file.truncate(nbytes)  # what ends with a hole
            if record.restores == "pixels":
                right = pixels.hexdigest() == record.sha256_pixels
            else:
                right = digest.hexdigest() == record.sha256_source
            if not right:
                raise FormatError("what is stored does not give back the original, and nothing was written")
            self._read_back(record, new, digest.digest(), nbytes)
            new.mode = record.mode & _PERMISSIONS if record.mode else None
            _set_times(new.fd, record.mtime_ns)
            new.publish()
        finally:
            new.abort()
        identical = digest.hexdigest() == record.sha256_source
        notes = () if identical else ("its pixels, as MRC: the file as it was cannot be given back",)
        return replace(base, status="done", identical=identical, nbytes=nbytes, notes=notes)

    def _read_back(self, record: Record, new: NewFile, written: bytes, nbytes: int) -> None:
        """The file as the disk has it is what was written, past the cache where the system allows."""
        new.disk.fsync(new.fd)
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(new.fd, 0, 0, os.POSIX_FADV_DONTNEED)
        digest = hashlib.sha256()
        os.lseek(new.fd, 0, os.SEEK_SET)
        while data := os.read(new.fd, 4 << 20):
            digest.update(data)
            if self.progress is not None:  # it may want to end this
                self.progress(record.source, nbytes, record.source_bytes)
        if digest.digest() != written:
            raise OSError(errno.EIO, "the disk gave back other bytes than were written")

    def place_of(self, record: Record) -> int | None:
        """Bytes of what is stored; None where it is not there."""
        try:
            return self.place.size(record.path) if record.path else None
        except LinkError as error:
            raise _Missing(f"{record.path} is not in the archive: {system_error(error)}") from None
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _permit(self, record: Record, path: Path) -> None:
        """Times and permissions of a file that was there, for instance of a run that was killed before it set them."""
        with contextlib.suppress(OSError, OverflowError, ValueError):
            if record.restores == "file":
                os.utime(path, ns=(record.mtime_ns, record.mtime_ns), follow_symlinks=False)
            if record.mode:
                os.chmod(path, record.mode & _PERMISSIONS)

    # --- what is no file of its own

    def _second(self, record: Record, path: Path, base: Restored) -> Restored:
        """A second name: a hard link where the first one is there, else the file once more."""
        first = self.journal.stored(record.target)
        if first is None or first.form == "same" or first.sha256_source != record.sha256_source:
            raise _Missing(f"is a second name of {record.target}, which is not stored as it was then")
        record = replace(first, source=record.source, mtime_ns=record.mtime_ns, mode=record.mode)
        if record.restores == "pixels":
            path = self.top / self._pixels_name(record.source)
            base = replace(base, destination=str(path))
        there, other = _standing(path), self.top / first.source
        if self.dry_run or there is not None or record.restores == "pixels":
            if there is not None and _is_one(path, other):
                return replace(base, status="skipped", identical=True, error="it is there already")
            return self._file(record, path, base)
        with contextlib.suppress(OSError):
            status = os.lstat(other)
            if stat.S_ISREG(status.st_mode) and self._folders(other) is None and self._is_same(first, other, status):
                try:
                    os.link(other, path)
                    return replace(base, status="done", identical=True, nbytes=record.source_bytes)
                except OSError as error:
                    if error.errno not in NO_LINKS:
                        raise
        return self._file(record, path, base)

    def _link(self, record: Record, path: Path, base: Restored) -> Restored:
        there = _standing(path)
        if self.dry_run:
            return self._planned(there, base)
        if there is not None:
            if stat.S_ISLNK(there.st_mode) and os.readlink(path) == record.target:
                return replace(base, status="skipped", error="it is there already")
            if (refused := self._in_the_way(there)) is not None:
                return replace(base, status="refused", error=refused)
            os.unlink(path)
        os.symlink(record.target, path)
        with contextlib.suppress(OSError, NotImplementedError, OverflowError):
            os.utime(path, ns=(record.mtime_ns, record.mtime_ns), follow_symlinks=False)
        away = record.target.startswith("/") or _leads_out(record.source, record.target)
        notes = (f"leads to {record.target}, outside of what is restored",) if away else ()
        return replace(base, status="done", notes=notes)

    def _folder(self, record: Record, path: Path, base: Restored) -> Restored:
        there = _standing(path)
        if self.dry_run:
            return self._planned(there, base)
        if there is not None and not stat.S_ISDIR(there.st_mode):
            return replace(base, status="refused", error="something that is no folder is in its place")
        if there is None:
            os.mkdir(path)
            with contextlib.suppress(OSError, OverflowError):
                os.utime(path, ns=(record.mtime_ns, record.mtime_ns))
                if record.mode:
                    os.chmod(path, record.mode & _PERMISSIONS)
            return replace(base, status="done")
        return replace(base, status="skipped", error="it is there already")


class _Missing(Exception):
    """The archive lacks what is to be given back."""


def _standing(path: Path) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except FileNotFoundError:
        return None


def _is_empty(piece: bytes | memoryview) -> bool:
    """Whether there are zeros alone."""
    return isinstance(piece, bytes) and piece[:1] == b"\0" and piece.count(0) == len(piece)


def _is_one(a: Path, b: Path) -> bool:
    try:
        return os.path.samestat(os.lstat(a), os.lstat(b))
    except OSError:
        return False


def _set_times(fd: int, mtime_ns: int) -> None:
    with contextlib.suppress(OSError, OverflowError, ValueError, TypeError, NotImplementedError):
        os.utime(fd, ns=(mtime_ns, mtime_ns))


def _leads_out(source: str, target: str) -> bool:
    """Whether a link's target lies above the folder that is restored."""
    return os.path.normpath(os.path.join(os.path.dirname(source), target)).split(os.sep)[0] == ".."


def _tells_case(folder: Path) -> bool:
    """Whether a disk takes ``a`` and ``A`` for two names."""
    fd, name = tempfile.mkstemp(prefix=".mrcz-case-a", dir=folder)
    try:
        os.close(fd)
        return not os.path.lexists(os.path.join(folder, os.path.basename(name).replace("case-a", "CASE-A")))
    finally:
        os.unlink(name)


class _Changed:
    """Names that were a file's at one time and a folder's at another: of both what came later is the tree's."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self._folder, self._file = "", ""

    def why(self, source: str, offset: int, event: str) -> str | None:
        """Why this is not given back with the rest of the tree."""
        last = None if event == "folder" else self.journal.state.last_below(source)
        if last is not None and last > offset:
            return "a folder took its name later, with files in it; restore it by its name, elsewhere"
        folder = os.path.dirname(source)
        if folder != self._folder:
            self._folder, self._file = folder, self._file_among(folder)
        if self._file:
            return f"{self._file} was a folder, and became a file later; restore it by its name, elsewhere"
        return None

    def _file_among(self, folder: str) -> str:
        """The folder, or one that it is in, that is a file by now."""
        while folder:
            found = self.journal.state.stored(folder)
            if found is not None and self.journal.record_at(found[0]).event != "folder":
                last = self.journal.state.last_below(folder)
                if last is not None and found[0] > last:
                    return folder
            folder = os.path.dirname(folder)
        return ""


class _Names:
    """The names of one run as a disk sees them that does not tell a from A; on the disk, for there may be millions."""

    def __init__(self) -> None:
        self._db = sqlite3.connect("", check_same_thread=False, isolation_level=None)
        self._db.execute("CREATE TABLE names (folded BLOB PRIMARY KEY, source BLOB) WITHOUT ROWID")
        self._db.execute("BEGIN")

    def clash(self, source: str) -> str | None:
        """The other name that is the same one there."""
        key = folded(source)
        row = self._db.execute("SELECT source FROM names WHERE folded = ?", (key,)).fetchone()
        if row is None:
            self._db.execute("INSERT INTO names VALUES (?,?)", (key, os.fsencode(source)))
            return None
        other = os.fsdecode(row[0])
        return None if other == source else other

    def close(self) -> None:
        self._db.close()
